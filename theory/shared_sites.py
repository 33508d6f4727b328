"""What two copies of one site share, in every reading: the law that Σ is averaged over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sympy import Add, Expr, I, S, Symbol

from quenched.theory.average import Functional
from quenched.theory.closure import argument_transfers
from quenched.theory.closure_print import average_print
from quenched.theory.copy_stability import CopyStability, SharedSite
from quenched.theory.errors import NotCovered
from quenched.theory.fluctuations import Mode
from quenched.theory.gauss import GaussAvg
from quenched.theory.laws import law_of
from quenched.theory.linear import LinearUnits
from quenched.theory.linearise import Occurrence, Pencil
from quenched.theory.lower import CopiedAction, Role, SiteField, Use
from quenched.theory.problem import C12, DS, DT, M1, M2, V1, V2, SiteFunction, StationaryGaussian
from quenched.theory.problem_dyson import ZBAR, Z
from quenched.theory.problem_layers import LayeredGaussian
from quenched.theory.problem_replicas import L, site_average
from quenched.theory.problem_scalars import LabelMean
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.replica_ansatz import orbit_of
from quenched.theory.replica_forms import Orbit, RSAction
from quenched.theory.replica_limit import label_part
from quenched.theory.resolvent import ScalarEquations, in_the_limit
from quenched.theory.spaces import Population
from quenched.theory.terms import Factor

if TYPE_CHECKING:
    from quenched.theory.derivation import Derivation
    from quenched.theory.replicas import ReplicaDerivation
    from quenched.theory.spectral import SpectralDerivation


# -- times and layers ----------------------------------------------------------------------------------------------
def _hat(fields: dict[str, SiteField], name: str) -> bool:
    return fields[name].role == "hat"


@dataclass(frozen=True)
class _Causal:
    """Copies in time: the same noise in both, so that only the responses of each are left."""

    fields: dict[str, SiteField]

    def overlap(self, factor: Factor) -> Expr:
        raise NotCovered("a product of more than two averages in time: its stability is not built")

    def apart(self, mode: Mode) -> str:
        hats = [_hat(self.fields, n) for n in (mode.first, mode.second)]
        if all(hats):
            return "the adjoint of the same growth"
        return "no copy responds to the other: largest time" if any(hats) else ""


@dataclass(frozen=True)
class GaussianSite(_Causal):
    """Two copies of a Gaussian unit: K = i f'(u)·T(D), and ⟨f'(u) g'(u′)⟩ over the path that both share.

    Attributes
    ----------
    outputs : output → (function, name of its argument, transfer function of every local field in `DT`)
    step : layers instead of times: growth in one layer
    """

    outputs: dict[str, tuple[SiteFunction, str, dict[str, Expr]]]
    step: bool = False

    @property
    def assumption(self) -> str:
        return "same noise and path in both copies; differences of two layers" if self.step else "same noise and path"

    @property
    def condition(self) -> str:
        if self.step:
            return "edge of chaos; at covariance C the growth χ of a difference in one layer, depth −1/ln χ"
        return "acting on exp(λ(t+s)) ψ(t−s): D_t → λ + D, D_s → λ − D; λ is the Lyapunov exponent"

    def propagator(self, a: str, c: str, copy: int) -> Expr:
        if _hat(self.fields, a) == _hat(self.fields, c):
            return S.Zero  # nothing scatters once noise and path are given; ⟨ĥĥ⟩ = 0
        out, hat = (c, a) if _hat(self.fields, a) else (a, c)
        if out not in self.outputs:
            raise NotCovered(f"couplings read {out}, which has no transfer function")
        transfer = self.outputs[out][2].get(hat.removeprefix("hat_"), S.Zero)
        return I * Symbol(f"{out}__{copy}") * (transfer if copy == 1 else transfer.subs(DT, DS))

    def shared(self, product: Expr) -> Expr:
        for f in self.outputs:
            for g in self.outputs:
                pair = Symbol(f"{f}__1") * Symbol(f"{g}__2")
                if product.has(Symbol(f"{f}__1")) and product.has(Symbol(f"{g}__2")):
                    return (product / pair) * self.average(f, g)
        return product

    def average(self, f: str, g: str) -> Symbol:
        """The symbol of ⟨f' g'⟩."""
        return Symbol(f"chi_{f}{'' if f == g else g}")

    def value(self, f: str, g: str) -> Expr:
        """⟨f'(u) g'(u′)⟩: the response of ⟨f g⟩ to a shift of each copy."""
        pair = [(self.outputs[f][0], 0, 0), (self.outputs[g][0], 0, 1)]
        return GaussAvg(pair, (M1, M2), ((V1, C12), (C12, V2))).diff(M1).diff(M2)

    def definitions(self, used: set[Symbol]) -> list[Line]:
        out = []
        for f in self.outputs:
            for g in self.outputs:
                node = self.value(f, g)
                if isinstance(node, GaussAvg) and self.average(f, g) in used:
                    slopes = [h for h, _ in node.functions]
                    plain, tex = average_print(slopes[0], self.outputs[f][1], slopes[-1], self.outputs[g][1] + "′")
                    name = self.average(f, g)
                    out.append(Line(f"{text(name)} = {plain}", f"{latex(name)} = {tex}"))
        return out


def gaussian_site(action: CopiedAction, units: LinearUnits, problem: StationaryGaussian) -> GaussianSite:
    """The shared site of Gaussian units in a stationary state."""
    transfers = argument_transfers(units)
    outputs = {}
    for out in action.of_role("output"):
        for s in problem.two_points:
            for f, a in ((s.f, s.a), (s.g, s.b)):
                if f.name == out.name:
                    outputs[out.name] = (f, problem.arguments[a].name, transfers[a])
    return GaussianSite(action.fields, outputs)


def layered_site(action: CopiedAction, p: LayeredGaussian) -> GaussianSite:
    """The shared site of Gaussian units at equal layers.

    Raises
    ------
    NotCovered
        If units carry their state from layer to layer, or read products of Gaussian quantities.
    """
    if p.remembers:
        raise NotCovered("units carry their state from layer to layer: differences of unequal layers take part")
    feed = {x: dict(zip(p.inputs, row, strict=True)) for x, row in zip(p.states, p.feed, strict=True)}
    outputs = {}
    for out in p.outputs:
        if out.factor:
            raise NotCovered(f"{out.name} is a product of Gaussian quantities: its stability is not built")
        if out.given is not None:
            continue
        gains: dict[str, Expr] = {}
        for name, weight in out.argument:
            for h, gain in feed.get(name, {name: S.One}).items():
                gains[h] = gains.get(h, S.Zero) + weight * gain
        label = " + ".join(n if w == 1 else f"{text(w)}·{n}" for n, w in out.argument)
        outputs[out.name] = (out.f, label, gains)
    return GaussianSite(action.fields, outputs, step=True)


@dataclass(frozen=True)
class SampledSite(_Causal):
    """Two copies of a unit that is not Gaussian: K = i ∂a/∂h along the sampled path that both share."""

    assumption: ClassVar[str] = "same noise and path; responses along sampled paths, memory included"
    condition: ClassVar[str] = "a difference of two copies neither grows nor decays"

    def propagator(self, a: str, c: str, copy: int) -> Expr:
        if _hat(self.fields, a) == _hat(self.fields, c):
            return S.Zero
        out, hat = (c, a) if _hat(self.fields, a) else (a, c)
        if self.fields[out].population != self.fields[hat].population:
            return S.Zero
        return I * self.response(out, hat.removeprefix("hat_"), copy)

    def shared(self, product: Expr) -> Expr:
        return product

    def definitions(self, used: set[Symbol]) -> list[Line]:
        plain = "χ_a;h(1) χ_b;h′(2) = ⟨δa(t)/δh(t′) · δb(s)/δh′(s′)⟩ over paths"
        tex = r"\chi_{a;h}(1)\,\chi_{b;h'}(2) = \left\langle \frac{\delta a(t)}{\delta h(t')}"
        return [Line(plain, tex + r"\, \frac{\delta b(s)}{\delta h'(s')} \right\rangle")]

    def response(self, out: str, local: str, copy: int) -> Symbol:
        """∂(output)/∂(local field) along the path of one copy."""
        return Symbol(f"chi_{out};{local}({copy})")


# -- replicas ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ReplicaSite:
    """Two replicas in the same field: K = L₂ times labels (û = i x), and the average over field and labels."""

    action: RSAction
    assumption: ClassVar[str] = "both replicas feel the same field of the rest; n → 0"
    condition: ClassVar[str] = "replicas break their symmetry above it"

    def overlap(self, factor: Factor) -> Expr:
        fields = self.action.problem.action.fields
        hats = sum(fields[a].role == "hat" for a, _ in factor.atoms)
        return I**hats * self.action.values[orbit_of(factor.population, factor.atoms)]

    def apart(self, mode: Mode) -> str:
        return ""

    def propagator(self, a: str, c: str, copy: int) -> Expr:
        fields = self.action.problem.action.fields
        hats = sum(fields[n].role == "hat" for n in (a, c))
        site = Symbol(f"site {fields[a].population.name}")
        return I**hats * label_part(self.action, a) * label_part(self.action, c) * L[2] * site

    def shared(self, product: Expr) -> Expr:
        for s in self.action.sites:
            mark = Symbol(f"site {s.variable.population}")
            if product.has(mark):
                v = s.variable
                return site_average(v.population, (product / mark**2).expand(), s.b, s.k, s.v, v.weight.labels)
        return product

    def definitions(self, used: set[Symbol]) -> list[Line]:
        return []

    def on_orbits(self, form: CopyStability, pairs: tuple[Orbit, ...]) -> list[list[Expr]]:
        """P''Σ between unordered pairs of replicas, conjugate fields û = i x as x."""
        places: dict[Orbit, list[int]] = {orbit: [] for orbit in pairs}
        for k, m in enumerate(form.modes):
            places[orbit_of(m.population, ((m.first, 0), (m.second, 1)))].append(k)

        def entry(a: Orbit, b: Orbit) -> Expr:
            if not places[a]:
                return S.Zero
            turned = I ** (self._hats(a) - self._hats(b))
            return (Add(*(form.matrix[places[a][0], k] for k in places[b])) * turned).expand()

        return [[entry(a, b) for b in pairs] for a in pairs]

    def _hats(self, orbit: Orbit) -> int:
        fields = self.action.problem.action.fields
        return sum(fields[a].role == "hat" for a, _ in orbit.atoms)


# -- the resolvent -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ResolventSite:
    """The resolvent of one matrix at z and at its complex conjugate: K = i 𝒢, averaged over labels.

    Attributes
    ----------
    scalars : 𝒢 outside the support
    ends : field → (block, factor in labels)
    """

    fields: dict[str, SiteField]
    scalars: ScalarEquations
    ends: dict[str, tuple[int, Expr]]
    assumption: ClassVar[str] = "copies at z and its complex conjugate, same matrix; resolvent outside the support"
    condition: ClassVar[str] = "boundary of the support, smaller outside"

    def overlap(self, factor: Factor) -> Expr:
        raise NotCovered("a product of more than two averages in a spectrum: its stability is not built")

    def apart(self, mode: Mode) -> str:
        hats = [_hat(self.fields, n) for n in (mode.first, mode.second)]
        if all(hats):
            return "the adjoint of the same condition"
        return "no copy responds to the other" if any(hats) else ""

    def propagator(self, a: str, c: str, copy: int) -> Expr:
        if _hat(self.fields, a) == _hat(self.fields, c):
            return S.Zero
        out, hat = (c, a) if _hat(self.fields, a) else (a, c)
        (col, right), (row, left) = self.ends[out], self.ends[hat]
        entry = right * self.scalars.entries.get((col, row), S.Zero) * left
        return I * (entry if copy == 1 else conjugate_entry(entry, self.scalars))

    def shared(self, product: Expr) -> Expr:
        return in_the_limit(LabelMean(product))

    def definitions(self, used: set[Symbol]) -> list[Line]:
        return []


def conjugate_entry(entry: Expr, scalars: ScalarEquations) -> Expr:
    """Complex conjugate: parameters and labels are real, z and the scalars are not."""
    bars = {s: Symbol(rf"\bar{{{s.name[0]}}}{s.name[1:]}") for s, _ in scalars.equations}
    return entry.xreplace({Z: ZBAR, ZBAR: Z, I: -I} | bars)


def pencil_action(pencil: Pencil) -> tuple[CopiedAction, dict[str, tuple[int, Expr]]]:
    """The exponent i ŷᵀ L y of a pencil as uses of its atoms, and what each end is: block and factor.

    Raises
    ------
    NotCovered
        For atoms without edge diagrams.
    """
    fields: dict[str, SiteField] = {}
    ends: dict[str, tuple[int, Expr]] = {}
    for b, population in enumerate(pencil.blocks):
        _end(fields, ends, b, S.One, population, hat=False)
        _end(fields, ends, b, S.One, population, hat=True)
    uses = []
    for o in pencil.occurrences:
        row = _end(fields, ends, o.row, o.coefficient * o.left, pencil.blocks[o.row], hat=True)
        col = _end(fields, ends, o.col, o.right, pencil.blocks[o.col], hat=False)
        uses.append(_pencil_use(o, row, col))
    laws = tuple(law_of(a) for a in dict.fromkeys(o.atom for o in pencil.occurrences))
    return CopiedAction("none", fields, (), tuple(uses), laws, pencil.parameters), ends


def _pencil_use(o: Occurrence, row: str, col: str) -> Use:
    first, second = (((col, 0),), ((row, 0),)) if o.transposed else (((row, 0),), ((col, 0),))
    return Use(o.atom.name, I, first, second)


def _end(
    fields: dict[str, SiteField],
    ends: dict[str, tuple[int, Expr]],
    block: int,
    factor: Expr,
    population: Population,
    hat: bool,
) -> str:
    """The field factor·y_b or factor·ŷ_b, made once."""
    for name, known in ends.items():
        if known == (block, factor) and _hat(fields, name) == hat:
            return name
    count = sum(b == block and _hat(fields, n) == hat for n, (b, _) in ends.items())
    tag = f"{block}{'abcdefghijklmnopqrstuvwxyz'[count - 1]}" if count else str(block)
    letter = r"\hat{y}" if hat else "y"
    name = f"{'hat_' if hat else ''}y_{tag}"
    role: Role = "hat" if hat else "output" if count else "state"
    definition = factor * Symbol(f"{letter}_{block}") if count else None
    index = f"{{{tag}}}" if hat and count else tag
    fields[name] = SiteField(name, role, population, Symbol(f"{letter}_{index}"), definition)
    ends[name] = (block, factor)
    return name


@dataclass(frozen=True)
class LowerPencil(Rule):
    """The pencil as the exponent i ŷᵀ L y of any number of copies, linear in its atoms."""

    title: ClassVar[str] = "The resolvent as an average over vectors"
    assumption: ClassVar[str] = (
        "y and its conjugate have the average i/L; finite-rank parts move single eigenvalues only"
    )
    source: ClassVar[str] = "ahmadian2015"

    def __call__(self, before: Form) -> CopiedAction:
        assert isinstance(before, Pencil)
        return pencil_action(before)[0]


# -- paths through the steps ---------------------------------------------------------------------------------------
def path_site(derivation: Derivation) -> SharedSite:
    """What two copies in time, or at equal layers, share in the state that a derivation reached.

    Raises
    ------
    NotCovered
        The derivation stopped before its effective process.
    """
    functional, units = derivation.find(Functional), derivation.find(LinearUnits)
    process = derivation.find(EffectiveProcess)
    if functional is None or process is None:
        raise NotCovered(f"no state whose stability could be asked for: {derivation.refusal}")
    if derivation.layered is not None:
        return layered_site(functional.action, derivation.layered)
    if units is not None and derivation.problem is not None:
        return gaussian_site(functional.action, units, derivation.problem)
    return SampledSite(functional.action.fields)


def replica_site(derivation: ReplicaDerivation) -> ReplicaSite:
    """What two replicas share.

    Raises
    ------
    NotCovered
        The derivation stopped before the symmetry of replicas was imposed.
    """
    action = derivation.find(RSAction)
    if action is None:
        raise NotCovered(f"no saddle whose stability could be asked for: {derivation.refusal}")
    return ReplicaSite(action)


def resolvent_site(derivation: SpectralDerivation) -> tuple[Pencil, ResolventSite]:
    """The pencil, and what the resolvents at z and at its conjugate share.

    Raises
    ------
    NotCovered
        Real eigenvalues (no boundary), or a resolvent that is not written out.
    """
    pencil = next(s.after for s in derivation.steps if isinstance(s.after, Pencil))
    scalars = derivation.find(ScalarEquations)
    if derivation.model.hermitian:
        raise NotCovered("eigenvalues are real: their support has edges on the axis, where the resolvent branches")
    if scalars is None:
        raise NotCovered("the resolvent is not written out: its stability is not either")
    action, ends = pencil_action(pencil)
    return pencil, ResolventSite(action.fields, scalars, ends)
