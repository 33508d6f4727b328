"""A solver that needs nothing of this project: one file of numpy and scipy to read, run and change."""

from __future__ import annotations

from importlib.resources import files

from sympy import Expr, fraction, sstr, together

from quenched.theory.errors import NotCovered
from quenched.theory.problem import PotentialProblem, StationaryGaussian, TwoPoint
from quenched.theory.problem_delays import Delay

from .assemble import pair_index
from .averages import Averages
from .codegen import Generated

_PARTICLE_IMPORTS = """from scipy.integrate import cumulative_simpson
from scipy.interpolate import CubicSpline
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq
"""
_SPECTRAL_IMPORTS = """from scipy.optimize import brentq, newton_krylov
from scipy.sparse.linalg import LinearOperator, eigs
"""


def export(problem: StationaryGaussian, potential: PotentialProblem | None = None) -> str:
    """Source text of a standalone solver with the parameters as command-line options.

    The accuracy is that of a Hermite series of the site functions (printed at run time): about 1e-10 for smooth ones,
    1e-4 for kinked ones. It finds the time-dependent state; branches and their stability need `solve`.

    Raises
    ------
    NotCovered
        The problem averages over quenched labels, or units feed their own past back.
    """
    if problem.labels:
        raise NotCovered("export of a problem with quenched labels: replace each label by a number first")
    if any(fraction(together(e))[1].has(Delay) for row in (*problem.gain, problem.noise) for e in row):
        raise NotCovered("export of units with delayed feedback is not built yet: solve(...) takes them")
    generated = Generated(problem, potential)
    body = generated.source().split("NAMES = ", 1)[1].split("\n", 1)[1].strip()
    name = "particle" if potential is not None else "spectral"
    fill = _particle_fill(generated) if potential is not None else _spectral_fill(generated)
    fill |= {
        "TITLE": "Stationary theory of a disordered model in the limit of many units.",
        "EQUATIONS": _equations(problem, potential),
        "USAGE": " ".join(f"--{s.name} VALUE" for s in generated.parameters),
        "IMPORTS": _PARTICLE_IMPORTS if potential is not None else _SPECTRAL_IMPORTS,
        "NAMES": repr(tuple(s.name for s in generated.parameters)),
    }
    parts = [_template("head"), "# Terms of the equations\n\n\n" + body, _template("common"), _template(name)]
    text = "\n\n".join(part.strip() + "\n" for part in parts)
    for key, value in fill.items():
        text = text.replace(f"@{key}@", value)
    return text


def _template(name: str) -> str:
    return (files(__package__) / "templates" / f"{name}.py.txt").read_text(encoding="utf-8")


def _source(two: TwoPoint) -> str:
    return f"<{two.f.name}(u_{two.a}(t)) {two.g.name}(u_{two.b}(s))>"


def _equations(problem: StationaryGaussian, potential: PotentialProblem | None) -> str:
    """The self-consistency in words that survive without sympy."""
    lines = []
    for a, argument in enumerate(problem.arguments):
        lines.append(
            f"u_{a} = {argument.name} ({argument.population}), constant part of its mean {sstr(argument.constant)}"
        )
    operators = "time derivatives" if problem.clock == "flow" else "time shifts"
    lines.append(f"Covariances, D_t and D_s being {operators} acting on the first and second time:")
    for p, (a, b) in enumerate(problem.pairs):
        terms = [
            f"[{sstr(e)}] {_source(s)}" for e, s in zip(problem.gain[p], problem.two_points, strict=True) if e != 0
        ]
        terms += [f"[{sstr(problem.noise[p])}] delta(t - s)"] if problem.noise[p] != 0 else []
        terms += [sstr(problem.static[p])] if problem.static[p] != 0 else []
        lines.append(f"  cov(u_{a}(t), u_{b}(s)) = " + (" + ".join(terms) or "0"))
    if potential is not None:
        lines.append(
            f"Equivalent to a particle of inertia {sstr(potential.inertia)}, stiffness {sstr(potential.stiffness)}"
        )
        lines.append(f"and kick {sstr(potential.kick)} in a potential.")
    for f in Generated(problem).sites:
        lines.append(f"  {f.name}(u) = {_short(f.expr)}")
    return "\n".join(lines)


def _short(expr: Expr) -> str:
    text = sstr(expr)
    return text if len(text) < 90 else text[:87] + "..."


def _particle_fill(generated: Generated) -> dict[str, str]:
    potential = generated.potential
    assert potential is not None
    sources = [
        f"({i}, site_{generated.site(s.f)}, site_{generated.site(s.g)})" for i, s in enumerate(potential.sources)
    ]
    means = [
        f"({k}, site_{generated.site(o.f)})"
        for k, o in enumerate(generated.problem.one_points)
        if generated.problem.mean_gain[0][k] != 0
    ]
    return {"SOURCES": _tuple(sources), "MEANS": _tuple(means)}


def _spectral_fill(generated: Generated) -> dict[str, str]:
    problem = generated.problem
    sources = []
    for t in problem.two_points:
        pair, transposed = pair_index(_Shape(problem), t.a, t.b)
        names = f"site_{generated.site(t.f)}", f"site_{generated.site(t.g)}"
        sources.append(f"({names[0]}, {t.a}, {names[1]}, {t.b}, {pair}, {transposed})")
    means = [f"(site_{generated.site(o.f)}, {o.a})" for o in problem.one_points]
    return {
        "FLOW": repr(problem.clock == "flow"),
        "PAIRS": repr(tuple(problem.pairs[: problem.closure])),
        "SOURCES": _tuple(sources),
        "MEANS": _tuple(means),
    }


class _Shape(Averages):
    """The shape of a problem, without values."""

    def __init__(self, problem: StationaryGaussian) -> None:
        self.problem = problem


def _tuple(items: list[str]) -> str:
    return "(" + ", ".join(items) + ("," if len(items) == 1 else "") + ")"
