"""Two readings of one measure have to agree: replicas, messages, and the paths of an iteration.

Every identity below is a difference of two expressions that were derived apart from each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sympy import Add, Dummy, Expr, Mul, S, Symbol, fraction, tanh, together

from quenched.theory.couplings import Apply
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import Field
from quenched.theory.instance_evolution import EvolutionForm, GrowthForm, Key
from quenched.theory.instance_messages import OLD, VJ, A
from quenched.theory.model import Map
from quenched.theory.problem_replicas import SiteAverage
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.record import Line
from quenched.theory.render import latex, text
from quenched.theory.replica_forms import Orbit, RSAction
from quenched.theory.replica_limit import (
    FreeEntropyForm,
    RepliconForm,
    SaddleEquations,
    average_of,
    label_part,
    remainder,
    second_moments,
    site_of,
)

if TYPE_CHECKING:
    from quenched.theory.instance import InstanceDerivation
    from quenched.theory.replicas import ReplicaDerivation


@dataclass(frozen=True)
class Identity:
    """Two expressions that should be equal, from two derivations.

    Attributes
    ----------
    title : what is compared
    left, right : (quantity, expression) of either side, as derived
    difference : left − right in common symbols, at the fixed point; 0 where the readings agree
    """

    title: str
    left: tuple[str, Expr]
    right: tuple[str, Expr]
    difference: Expr

    @property
    def holds(self) -> bool:
        """Whether the difference is the number 0."""
        return bool(self.difference == 0)

    def line(self) -> Line:
        """Both sides and their difference."""
        (name, a), (other, b) = self.left, self.right
        return Line(
            f"{name}: {text(a)}   |   {other}: {text(b)}   |   difference {text(self.difference)}",
            rf"{latex(a)} - \left({latex(b)}\right) = {latex(self.difference)}",
            self.title,
        )


def identities(replica: ReplicaDerivation, instance: InstanceDerivation) -> list[Identity]:
    """All identities between the readings of one measure.

    Raises
    ------
    NotCovered
        One of the readings stopped before its saddle or its fixed point.
    """
    saddle, growth = replica.find(SaddleEquations), instance.find(GrowthForm)
    if saddle is None or growth is None:
        stopped = replica.refusal if saddle is None else instance.refusal
        blocks = "the messages are compared with equivalent replicas, not with blocks of them"
        raise NotCovered(f"nothing to compare: {stopped or blocks}")
    return [
        *fields_agree(saddle, growth.evolution),
        *moments_agree(saddle, growth.evolution),
        entropies_agree(saddle, growth.evolution),
        *stabilities_agree(replica, growth),
        *reactions_agree(instance, growth.evolution),
    ]


def tidy(difference: Expr) -> Expr:
    """The difference over a common denominator: its numerator multiplied out."""
    if difference == 0:
        return difference
    nodes = sorted(difference.atoms(SiteAverage), key=str)
    slots = [Dummy(real=True) for _ in nodes]
    top, bottom = fraction(together(difference.xreplace(dict(zip(nodes, slots, strict=True)))))
    back: dict[Expr, Expr] = dict(zip(slots, nodes, strict=True))
    return (top.expand() / bottom).xreplace(back)


# -- replicas ------------------------------------------------------------------------------------------------------
def common_symbols(action: RSAction, evolution: EvolutionForm) -> dict[Expr, Expr]:
    """The symbols of state evolution in terms of the order parameters of replicas.

    E[L₁²] is the overlap of two replicas, E[L₂] the overlap of a replica with itself less that.
    """
    table = {_kind(action, o): v for o, v in action.values.items()}

    def value(key: Key, copies: int, atoms: int, conjugate: bool = False) -> Expr:
        found = table.get((key[0], copies, atoms, conjugate, key[1]))
        if found is None:
            raise NotCovered(f"the replica reading has no order parameter for {key[0]} with factor {text(key[1])}")
        return found

    out: dict[Expr, Expr] = {s: value(key, 1, 1) for key, s in evolution.means.items()}
    out |= {s: value(key, 2, 2) for key, s in evolution.overlaps.items()}
    out |= {s: value(key, 1, 2) - value(key, 2, 2) for key, s in evolution.widths.items()}
    out |= {s: value((name, S.One), 1, 1, True) for name, s in evolution.responses.items()}
    multipliers = [n for n in (f.site.name for f in evolution.laws) if n in action.multipliers]
    return out | {lam: action.multipliers[n] for lam, n in zip(evolution.constraints, multipliers, strict=True)}


def _kind(action: RSAction, orbit: Orbit) -> tuple[str, int, int, bool, Expr]:
    """(population, number of different replicas, of their atoms, next to a conjugate of the disorder, factor)."""
    fields = action.problem.action.fields
    moving = [(a, c) for a, c in orbit.atoms if not fields[a].single]
    held = [a for a, _ in orbit.atoms if fields[a].single and fields[a].role == "hat"]
    of_labels = Mul(*(label_part(action, a) for a, _ in orbit.atoms if a not in held)).expand()
    return orbit.population, len({c for _, c in moving}), len(moving), bool(held), of_labels


def averages_of(saddle: SaddleEquations) -> dict[Expr, Expr]:
    """Every order parameter as its site average (also those that dropped out of the free entropy)."""
    action = saddle.free.action
    return {v: average_of(action, o) for o, v in action.values.items() if isinstance(v, Symbol)}


def fields_agree(saddle: SaddleEquations, evolution: EvolutionForm) -> list[Identity]:
    """Mean, variance and width of the fields of every population."""
    action = saddle.free.action
    common = common_symbols(action, evolution)
    out = []
    for f in evolution.laws:
        site = site_of(action, f.site.name)
        pairs = (
            ("mean of the field", f.site.bias + f.mean, site.b),
            ("variance of the field", f.k, site.k),
            ("width", f.inside, site.v),
        )
        for what, ours, theirs in pairs:
            difference = tidy((ours.xreplace(common) - theirs).expand())
            title = f"State evolution = replica symmetry: {what} of {f.site.name}"
            out.append(Identity(title, ("messages", ours), ("replicas", theirs), difference))
    return out


def moments_agree(saddle: SaddleEquations, evolution: EvolutionForm) -> list[Identity]:
    """The equation of every moment against the stationarity of replicas."""
    action = saddle.free.action
    common, known = common_symbols(action, evolution), second_moments(action)
    at_saddle = averages_of(saddle)
    out = []
    for symbol, rhs in evolution.equations.items():
        theirs = common[symbol].xreplace(at_saddle)
        ours = rhs.xreplace(common)
        difference = tidy((ours - theirs).expand().xreplace(known).expand())
        title = f"State evolution = stationarity of replicas: {text(symbol)}"
        out.append(Identity(title, ("messages", rhs), ("replicas", theirs), difference))
    return out


def entropies_agree(saddle: SaddleEquations, evolution: EvolutionForm) -> Identity:
    """Bethe free entropy of a typical instance against the replica free entropy, at the saddle."""
    free: FreeEntropyForm = saddle.free
    ours = evolution.free_entropy.xreplace(common_symbols(free.action, evolution))
    unused = {v: e for v, e in averages_of(saddle).items() if v not in saddle.equations}
    difference = tidy(remainder(saddle, (ours - free.value).xreplace(unused)))
    title = "Bethe free entropy of a typical instance = replica free entropy"
    return Identity(title, ("messages", evolution.free_entropy), ("replicas", free.value), difference)


def stabilities_agree(replica: ReplicaDerivation, growth: GrowthForm) -> list[Identity]:
    """Linear instability of the messages against the replicon."""
    replicon = replica.find(RepliconForm)
    if replicon is None:
        return []
    common = common_symbols(replicon.state.free.action, growth.evolution)
    difference = tidy((growth.eigenvalue.xreplace(common) - replicon.eigenvalue).expand())
    title = "Growth of perturbed messages = replicon eigenvalue"
    return [Identity(title, ("messages", growth.eigenvalue), ("replicas", replicon.eigenvalue), difference)]


# -- paths ---------------------------------------------------------------------------------------------------------
def reactions_agree(instance: InstanceDerivation, evolution: EvolutionForm) -> list[Identity]:
    """The Onsager term against the memory of the iteration without it, b ← B + A·φ(b), in the paths reading.

    Empty where couplings read labels: what the two call a response then differs by label averages.
    """
    graph = evolution.graph
    if any(h.own != 1 or h.other.factor != 1 for s in graph.sites for h in graph.half_edges(s.name) if _drawn(h)):
        return []
    reaction = evolution.nodes.reaction.coeff(A, 2).coeff(VJ, 1).coeff(OLD, 1)
    try:
        memory = memory_of(instance)
    except QuenchedError:
        return []
    out = []
    for f in evolution.laws:
        for key, width in evolution.widths.items():
            ours = reaction * f.v.coeff(width, 1)
            theirs = memory.get((f.site.name, key[0]), S.Zero)
            if ours != 0 or theirs != 0:
                title = f"Onsager term = −memory of the plain iteration: {f.site.name} through {key[0]}"
                left, right = Symbol("m'") * width * ours, Symbol("psi") * Symbol("R") * theirs
                out.append(Identity(title, ("reaction", left), ("memory", right), (ours + theirs).expand()))
    return out


def _drawn(half: object) -> bool:
    return not half.matrix.startswith("mean_")  # type: ignore[attr-defined]


def memory_of(instance: InstanceDerivation) -> dict[tuple[str, str], Expr]:
    """(population, far population) → coefficient of R(t,s)·ψ(s) in the local fields of the plain iteration."""
    from quenched.theory.derivation import start

    evolution = instance.find(EvolutionForm)
    assert evolution is not None
    graph = evolution.graph
    matrices = {m.name: m for m in instance.model.matrices}
    populations = {p.name: p for m in matrices.values() for p in (m.rows, m.cols)}
    fields = {s.name: Field(f"b_{k}", population=populations[s.name]) for k, s in enumerate(graph.sites)}
    equations = {}
    for s in graph.sites:
        parts = []
        for h in graph.half_edges(s.name):
            if _drawn(h):
                matrix = matrices[h.matrix] if h.at_row else matrices[h.matrix].T
                parts.append(h.coef * Apply(matrix, tanh(fields[h.other.site])))
        equations[fields[s.name]] = Add(*parts)
    d = start(Map(equations)).average().order_parameters().saddle().largest_time().read_off()
    process = d.find(EffectiveProcess)
    assert process is not None
    return _memory(process)


def _memory(process: EffectiveProcess) -> dict[tuple[str, str], Expr]:
    action = process.action
    weight: dict[str, Expr] = {}
    for _, rhs in action.equations:
        for h in action.of_role("local"):
            if rhs.has(h.symbol):
                weight[h.name] = rhs.diff(h.symbol)
    out: dict[tuple[str, str], Expr] = {}
    for name, parts in process.memory.items():
        for c in parts:
            assert c.op is not None
            kicked = next(a.removeprefix("hat_") for a, _ in c.op.atoms if a.startswith("hat_"))
            key = (action.fields[name].population.name, c.op.population)
            out[key] = out.get(key, S.Zero) + weight[name] * c.coef * weight[kicked]
    return out
