"""Steps 6: classify the site problem; solve it where it is affine.

A unit whose equations are affine in its states, its local fields and its noise, and that has no memory, is Gaussian:
x = T(D)·(local fields and inputs), with rational transfer functions T in the time derivative (or shift) D.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from sympy import Expr, Matrix, Rational, S, Symbol, cancel, eye

from quenched.theory.delays import delay_of, delay_operator, explicit_time, longer
from quenched.theory.distributions import Normal
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import At, Field, Quenched, WhiteNoise
from quenched.theory.lower import CopiedAction
from quenched.theory.naming import unit_name
from quenched.theory.problem import DT
from quenched.theory.problem_delays import Delay
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text


class NeedsTrajectories(NotCovered):
    """A site problem that is not Gaussian: only sampled trajectories of the unit would do."""


@dataclass(frozen=True)
class LinearUnit:
    """The Gaussian unit of one population: transfer functions from each input to each field.

    Attributes
    ----------
    population : its name
    fields : names of its states, then of its local fields (whose transfer is the identity)
    transfer : (field, local field) → T(D) in `DT`
    noise : (field, noise name) → T(D) of the unit white noise
    drive : field → constant or quenched input already passed through T at zero frequency
    characteristic : det(D − A), whose roots are the unit's own modes
    own_response : state → transfer from a kick in its own equation
    """

    population: str
    fields: tuple[str, ...]
    transfer: dict[tuple[str, str], Expr] = field(hash=False)
    noise: dict[tuple[str, str], Expr] = field(hash=False)
    drive: dict[str, Expr] = field(hash=False)
    characteristic: Expr = S.One
    own_response: dict[str, Expr] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class LinearUnits(Form):
    """Every population's unit as a linear filter of its local fields."""

    name: ClassVar[str] = "linear units"
    process: EffectiveProcess
    units: tuple[LinearUnit, ...]

    def lines(self) -> list[Line]:
        out = []
        fields = self.process.action.fields
        for unit in self.units:
            for name in unit.fields:
                if fields[name].role == "state":
                    out.append(self._unit_line(unit, name))
        return out

    def _unit_line(self, unit: LinearUnit, name: str) -> Line:
        fields = self.process.action.fields
        d = Symbol("D")
        parts, tex = [], []
        for (f, h), gain in unit.transfer.items():
            if f == name and gain != 0:
                parts.append(f"[{text(gain.subs(DT, d))}] {text(fields[h].symbol)}")
                tex.append(rf"\left[{latex(gain.subs(DT, d))}\right] {latex(fields[h].symbol)}")
        for (f, xi), gain in unit.noise.items():
            if f == name and gain != 0:
                parts.append(f"[{text(gain.subs(DT, d))}] {text(Symbol(xi))}")
                tex.append(rf"\left[{latex(gain.subs(DT, d))}\right] {latex(Symbol(xi))}")
        if unit.drive.get(name, S.Zero) != 0:
            parts.append(text(unit.drive[name]))
            tex.append(latex(unit.drive[name]))
        sym = Symbol(name)
        return Line(f"{text(sym)} = {' + '.join(parts) or '0'}", f"{latex(sym)} = {' + '.join(tex) or '0'}")

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, unit in enumerate(self.units):
            for kind in ("transfer", "noise", "drive"):
                table = getattr(unit, kind)
                for key, value in table.items():
                    if value == 0 or (kind == "transfer" and key[0] == key[1]):
                        continue
                    changes = [("dropped", S.Zero), ("× 1.1", value * Rational(11, 10))]
                    for label, new in changes + ([("later", longer(value))] if value.has(Delay) else []):
                        changed = replace(unit, **{kind: table | {key: new}})
                        units = (*self.units[:k], changed, *self.units[k + 1 :])
                        yield f"{kind} of {key} {label}", replace(self, units=units)
            own = {s: r * Rational(11, 10) for s, r in unit.own_response.items()}
            for name, changed in (
                ("modes", replace(unit, characteristic=unit.characteristic + 1)),
                ("responses", replace(unit, own_response=own)),
            ):
                units = (*self.units[:k], changed, *self.units[k + 1 :])
                yield f"{name} of {unit.population} changed", replace(self, units=units)


@dataclass(frozen=True)
class SolveUnits(Rule):
    """Solve affine units for their transfer functions."""

    title: ClassVar[str] = "Gaussian units as linear filters"
    assumption: ClassVar[str] = (
        "site equations affine in states, local fields and noise; no memory; past initial state forgotten"
    )

    def __call__(self, before: Form) -> LinearUnits:
        assert isinstance(before, EffectiveProcess)
        return LinearUnits(before, tuple(solve_unit(before, p.name) for p in before.action.populations))


def why_not_gaussian(process: EffectiveProcess) -> str:
    """The reason why units are not Gaussian (memory, nonlinear site equation), or an empty string."""
    try:
        for pop in process.action.populations:
            solve_unit(process, pop.name)
    except NeedsTrajectories as stop:
        return str(stop)
    return ""


def solve_unit(process: EffectiveProcess, population: str) -> LinearUnit:
    """Transfer functions of one population's unit.

    Raises
    ------
    NeedsTrajectories
        If the unit is nonlinear in its states or fields, or has memory.
    NotCovered
        If it has an explicit time dependence (no stationary state).
    """
    act = process.action
    remember = next(
        (h for h, parts in process.memory.items() if parts and act.fields[h].population.name == population), ""
    )
    if remember:
        raise NeedsTrajectories(
            f"the local field {remember} remembers its own past (memory term), so units are not Gaussian"
        )
    states = [f.name for f in act.of_role("state") if f.population.name == population]
    locals_ = [f.name for f in act.of_role("local") if f.population.name == population]
    rhs = dict(act.equations)
    given = overlaps(process, population)
    fed_by = [h for h in locals_ if h not in given]
    symbols = [act.fields[s].symbol for s in states] + [act.fields[h].symbol for h in fed_by]
    noises = sorted({n for s in states for n in rhs[s].atoms(WhiteNoise)}, key=unit_name)
    rows = [_affine(rhs[s], s, [*symbols, *noises], act) for s in states]
    n = len(states)
    inner = Matrix([[row[0][j] for j in range(n)] for row in rows]) if n else Matrix(0, 0, [])
    inverse = (DT * eye(n) - inner).inv() if n else inner
    fed = Matrix([[row[0][j] for j in range(n, len(symbols) + len(noises))] for row in rows])
    rest = Matrix([row[1] for row in rows])
    gains = (inverse * fed).applyfunc(cancel) if n else fed
    unit = _assemble(act, population, states, fed_by, [unit_name(x) for x in noises], gains, inverse, rest)
    if given:
        own_fields = {(h, h): S.One for h in given}
        silent = {(s, h): S.Zero for s in states for h in given}
        unit = replace(unit, fields=(*unit.fields, *given), transfer=unit.transfer | silent | own_fields)
    own = {s: cancel(inverse[i, i]) for i, s in enumerate(states)}
    return replace(unit, characteristic=(DT * eye(n) - inner).det() if n else S.One, own_response=own)


def overlaps(process: EffectiveProcess, population: str) -> list[str]:
    """Local fields without fluctuations that labels multiply: numbers, the same for all units but for their labels."""
    act = process.action
    noisy = {h for pair, parts in process.covariance.items() if parts for h in pair}
    noisy |= {h for h, parts in process.memory.items() if parts}
    mine = {f.name for f in act.of_role("state") if f.population.name == population}
    slopes = [(h, rhs.diff(h.symbol)) for h in act.of_role("local") for name, rhs in act.equations if name in mine]
    return list(
        dict.fromkeys(
            h.name
            for h, slope in slopes
            if h.population.name == population and h.name not in noisy and slope.atoms(Quenched)
        )
    )


def _assemble(
    act: CopiedAction,
    population: str,
    states: list[str],
    locals_: list[str],
    noises: list[str],
    gains: Matrix,
    inverse: Matrix,
    rest: Matrix,
) -> LinearUnit:
    still = S.Zero if act.clock == "flow" else S.One
    transfer = {(s, h): gains[i, j] for i, s in enumerate(states) for j, h in enumerate(locals_)}
    transfer |= {(h, k): S.One if h == k else S.Zero for h in locals_ for k in locals_}
    noise = {(s, x): gains[i, len(locals_) + j] for i, s in enumerate(states) for j, x in enumerate(noises)}
    drive: dict[str, Expr] = dict.fromkeys(locals_, S.Zero)
    if states and any(e != 0 for e in rest):
        at_rest = inverse.subs(DT, still)
        drive |= {s: (at_rest * rest)[i].expand() for i, s in enumerate(states)}
    else:
        drive |= dict.fromkeys(states, S.Zero)
    return LinearUnit(population, (*states, *locals_), transfer, noise, drive)


def _affine(rhs: Expr, owner: str, variables: list[Symbol], act: CopiedAction) -> tuple[list[Expr], Expr]:
    """Coefficients of an affine right-hand side, functions of `DT` where fields are delayed, and what is left."""
    if explicit_time(rhs):
        raise NotCovered(
            f"the equation of {owner} depends on t explicitly: no stationary state (a driven solution is not built yet)"
        )
    earlier = sorted(rhs.atoms(At), key=str)
    coefs = [rhs.diff(v) for v in (*variables, *earlier)]
    unit = {*variables, *earlier} | rhs.atoms(Field, WhiteNoise, Quenched)
    for v, c in zip((*variables, *earlier), coefs, strict=True):
        bad = [s for s in sorted(unit, key=str) if c.has(s)]
        if bad:
            raise NeedsTrajectories(
                f"the equation of {owner} is not affine: the coefficient of {v} depends on {bad[0]}, "
                "so units are not Gaussian"
            )
    rest = rhs - sum((c * v for c, v in zip(coefs, (*variables, *earlier), strict=True)), S.Zero)
    rest = rest.expand()
    left = [s for s in sorted({*variables, *earlier}, key=str) if rest.has(s)]
    if left:
        raise QuenchedError(f"the equation of {owner} could not be separated in {left[0]}")
    passed = dict(zip(variables, coefs, strict=False))
    for part, c in zip(earlier, coefs[len(variables) :], strict=True):
        passed[part.field] += c * delay_operator(delay_of(part), act.clock, act.advance)
    return [passed[v] for v in variables], rest


def static_law(quenched: Quenched) -> tuple[Expr, Expr] | None:
    """(mean, variance) of a Gaussian quenched number, or None for another law."""
    return (quenched.law.mean_(), quenched.law.variance_()) if isinstance(quenched.law, Normal) else None
