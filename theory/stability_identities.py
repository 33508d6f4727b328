"""The two-copy Hessian against the condition that each reading derives by its own route.

Paths: the linearised covariance equations of two copies. Layers: the derivative of the recursion of kernels. Replicas:
the projected Hessian of n replicas. Spectra: the loss of stability of the analytic resolvent in the doubled equation.
Units that are not Gaussian: how the covariance of the local fields was read off.
"""

from __future__ import annotations

import random
from typing import Any

from sympy import Abs, Expr, Matrix, S, Symbol, cancel, expand, eye

from quenched.theory.copy_stability import CopyStability
from quenched.theory.doubled import TwoCopies, shifted
from quenched.theory.errors import NotCovered
from quenched.theory.fluctuations import SAME, Mode
from quenched.theory.gauss import GaussAvg
from quenched.theory.instance_identities import Identity, tidy
from quenched.theory.problem import C12, M1, M2, V1, V2, SiteFunction
from quenched.theory.problem_dyson import ZBAR, Z
from quenched.theory.problem_layers import LayeredGaussian
from quenched.theory.problem_scalars import LabelMean
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.replica_limit import RepliconForm
from quenched.theory.resolvent import Boundary, ScalarEquations
from quenched.theory.shared_sites import GaussianSite, ReplicaSite, SampledSite, conjugate_entry

#: Differences of numbers that count as zero.
ROUNDING = 1e-10
HESSIAN = "two-copy Hessian"


def stability_identities(derivation: Any) -> list[Identity]:
    """P''Σ of a derivation that took `stability()` against what it found by its own route.

    Raises
    ------
    NotCovered
        It has no other route to the same condition.
    """
    form = derivation.find(CopyStability)
    if form is None:
        raise NotCovered("nothing to compare: stability() is not derived")
    replicon, boundary, copies = (derivation.find(k) for k in (RepliconForm, Boundary, TwoCopies))
    if replicon is not None:
        return replicas_agree(form, replicon)
    if boundary is not None:
        return boundaries_agree(form, boundary)
    if getattr(derivation, "layered", None) is not None:
        return layers_agree(form, derivation.layered)
    if copies is not None:
        return copies_agree(form, copies)
    process = derivation.find(EffectiveProcess)
    if process is None or not isinstance(form.site, SampledSite):
        raise NotCovered("this reading has no other route to the stability of two copies")
    return processes_agree(form, process)


def _identity(title: str, left: Expr, other: str, right: Expr, difference: Expr) -> Identity:
    return Identity(title, (HESSIAN, left), (other, right), difference)


# -- times ---------------------------------------------------------------------------------------------------------
def copies_agree(form: CopyStability, copies: TwoCopies) -> list[Identity]:
    """Against [filter] ψ = Σ coefficient ⟨f'g'⟩ ψ, entry by entry."""
    site, p = form.site, copies.problem
    assert isinstance(site, GaussianSite)
    arguments = {f.name: a for s in p.two_points for f, a in ((s.f, s.a), (s.g, s.b))}
    rule = shifted(p)
    out = []
    for j, target in enumerate(form.modes):
        pair = arguments[target.first], arguments[target.second]
        if pair not in p.pairs[: p.closure]:
            continue  # the mirror image (b, a) of a pair
        k = p.pairs.index(pair)
        own_average = _mixed(site.outputs[target.first][0], site.outputs[target.second][0])
        for i, source in enumerate(form.modes):
            chi = site.average(target.first, target.second)
            left = (form.matrix[i, j] / chi).xreplace(rule)
            right = total_of(
                coef / copies.filters[k]
                for coef, s, _ in copies.kernels[k]
                if (s.f.name, s.g.name) == (f"{source.first}'", f"{source.second}'")
                and (s.a, s.b) == (arguments[source.first], arguments[source.second])
            )
            same = site.value(target.first, target.second) == own_average
            difference = cancel(left - right) if same else left * chi - right * own_average
            out.append(_identity("Hessian = growth of a difference", left * chi, "two copies", right * chi, difference))
    return out


def total_of(terms: Any) -> Expr:
    """The sum of some expressions."""
    total: Expr = S.Zero
    for term in terms:
        total = total + term
    return total


def _mixed(f: SiteFunction, g: SiteFunction) -> Expr:
    """∂⟨f g⟩/∂c."""
    return GaussAvg([(f, 0, 0), (g, 0, 1)], (M1, M2), ((V1, C12), (C12, V2))).diff(C12)


def processes_agree(form: CopyStability, process: EffectiveProcess) -> list[Identity]:
    """Against how the covariance of the local fields depends on that of the outputs."""
    out = []
    fields, site = form.quadratic.action.fields, form.site
    assert isinstance(site, SampledSite)
    for j, target in enumerate(form.modes):
        for i, source in enumerate(form.modes):
            right: Expr = S.Zero
            for (u, v), parts in process.covariance.items():
                for one, two in dict.fromkeys([(u, v), (v, u)]):
                    if fields[one].population != fields[target.first].population:
                        continue
                    gain = site.response(target.first, one, 1) * site.response(target.second, two, 2)
                    right += gain * _read(parts, source, one != u)
            left = form.matrix[i, j]
            out.append(_identity("Hessian = covariance of fields", left, "fields", right, expand(left - right)))
    return out


def _read(parts: Any, source: Mode, turned: bool) -> Expr:
    """The coefficient of ⟨first¹ second²⟩ in a covariance of local fields, its times exchanged if `turned`."""
    total: Expr = S.Zero
    for c in parts:
        (one, s1), (two, _) = c.op.atoms
        ends = (one, two) if (c.at[s1] == 0) != turned else (two, one)
        if ends == (source.first, source.second):
            total += c.coef * (SAME if c.kernels else S.One)
    return total


# -- layers --------------------------------------------------------------------------------------------------------
def layers_agree(form: CopyStability, p: LayeredGaussian) -> list[Identity]:
    """Against the derivative of the recursion in the covariance, closed forms included."""
    site = form.site
    assert isinstance(site, GaussianSite)
    out = []
    for j, target in enumerate(form.modes):
        for i, source in enumerate(form.modes):
            gain: Expr = S.Zero
            for c in p.covariance:
                for u, v, one, two in dict.fromkeys([(c.u, c.v, c.first, c.second), (c.v, c.u, c.second, c.first)]):
                    if (one, two) == (source.first, source.second):
                        first, second = site.outputs[target.first][2], site.outputs[target.second][2]
                        gain += first.get(u, S.Zero) * second.get(v, S.Zero) * c.coef
            chi = site.average(target.first, target.second)
            left, right = form.matrix[i, j].xreplace({SAME: S.One}), gain * chi
            out.append(_identity("Hessian = slope of the recursion", left, "layers", right, cancel(left - right)))
        out += _closed_slope(site, p, target)
    return out


def _closed_slope(site: GaussianSite, p: LayeredGaussian, target: Mode) -> list[Identity]:
    """∂/∂c of a closed average against the closed form of ⟨f'g'⟩, at random variances."""
    from quenched.theory.gauss import two_point

    closed = p.closed.get((target.first, target.second))
    value = site.value(target.first, target.second)
    if closed is None or not isinstance(value, GaussAvg):
        return []
    slopes = [f for f, _ in value.functions]
    other = two_point(slopes[0], slopes[-1], (S.Zero, S.Zero) if p.centred else (M1, M2))
    if other is None:
        return []
    left, right = other, closed.diff(C12)
    rng = random.Random(2)
    values = {s: S(rng.uniform(0.3, 0.9)) for s in sorted(left.free_symbols | right.free_symbols, key=str)}
    values |= {V1: S(1.1), V2: S(0.9), C12: S(0.37)}
    return [_identity("⟨f'g'⟩ = ∂⟨f g⟩/∂c, closed forms", left, "layers", right, _number(left - right, values))]


def _number(expr: Expr, values: dict[Any, Expr]) -> Expr:
    """A number, 0 up to rounding."""
    found = complex(expr.xreplace(values).evalf())
    return S.Zero if abs(found) < ROUNDING else S(abs(found))


# -- replicas ------------------------------------------------------------------------------------------------------
def replicas_agree(form: CopyStability, replicon: RepliconForm) -> list[Identity]:
    """Against the projected Hessian of n replicas, entry by entry."""
    site = form.site
    assert isinstance(site, ReplicaSite)
    own, found = replicon.matrix, site.on_orbits(form, replicon.pairs)
    out = []
    for i in range(len(own)):
        for j in range(len(own)):
            difference = tidy((found[i][j] - own[i][j]).expand())
            out.append(_identity("Hessian = replicon", found[i][j], "replicas", own[i][j], difference))
    return out


# -- spectra -------------------------------------------------------------------------------------------------------
def boundaries_agree(form: CopyStability, boundary: Boundary) -> list[Identity]:
    """Against the linearised doubled equation: the polynomial det(1 − x·P''Σ) of both."""
    size = len(boundary.table)
    own = Matrix(size, size, lambda i, j: boundary.table[i][j])
    left, right = Matrix(form.matrix), own
    shown = [m[0, 0] if m.shape == (1, 1) else 1 - (eye(m.rows) - m).det(method="berkowitz") for m in (left, right)]
    difference = _written_out(left, right, boundary.scalars)
    if difference != 0:
        difference = _polynomials(left, right, boundary.scalars)
    return [_identity("Hessian = boundary of the support", shown[0], "doubled equation", shown[1], difference)]


def _written_out(left: Matrix, right: Matrix, scalars: ScalarEquations) -> Expr:
    """The difference of single entries, |G|² as a product; one where that does not decide."""
    if left.shape != (1, 1) or right.shape != (1, 1):
        return S.One
    squares = {a**2: a.args[0] * conjugate_entry(a.args[0], scalars) for a in right.atoms(Abs)}
    difference = left[0, 0] - right[0, 0].xreplace(squares)
    return S.One if difference.atoms(LabelMean, Abs) else cancel(difference)


def _polynomials(left: Matrix, right: Matrix, scalars: ScalarEquations) -> Expr:
    """Largest difference of the two polynomials at random numbers, 0 up to rounding."""
    rng = random.Random(7)
    symbols = sorted({s for m in (left, right) for e in m for s in e.free_symbols} - {Z, ZBAR}, key=str)
    values: dict[Any, Expr] = {s: S(rng.uniform(0.3, 0.9)) for s in symbols}
    for s, _ in scalars.equations:
        values[s] = S(complex(rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.5)))
        values[Symbol(rf"\bar{{{s.name[0]}}}{s.name[1:]}")] = S(complex(values[s]).conjugate())
    values[Z], values[ZBAR] = S(1.3 + 0.7j), S(1.3 - 0.7j)
    numbers = [m.applyfunc(lambda e: S(complex(_averaged(e, values)))) for m in (left, right)]
    worst = 0.0
    for x in (0.4, 1.0, -0.7):
        a, b = (complex((eye(m.rows) - x * m).det(method="berkowitz").expand()) for m in numbers)
        worst = max(worst, abs(a - b))
    return S.Zero if worst < ROUNDING else S(worst)


def _averaged(expr: Expr, values: dict[Any, Expr]) -> Expr:
    """An expression at random numbers, averages over labels taken over a few of them."""
    from quenched.theory.fields import open_leaves

    table = {}
    for node in expr.atoms(LabelMean):
        labels = sorted({leaf for leaf, _ in open_leaves(node.body)}, key=str)
        rng = random.Random(11)
        draws = [{label: S(rng.uniform(0.4, 1.2)) for label in labels} for _ in range(3)]
        table[node] = total_of(node.body.xreplace({**values, **d}).evalf() for d in draws) / 3
    return expr.xreplace(table).xreplace(values).evalf()


__all__ = ["Identity", "stability_identities"]
