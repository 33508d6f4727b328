"""How large, how long and how often to simulate, for each tier.

Measured on the random rate network (g = 2): the scatter between networks, not within one, limits the variance of a
unit, so many short realisations with a few trajectories each cost least; sizes that differ by a factor of four
extrapolate best; the rounding of couplings in single precision is far below the scatter; autocorrelations at lags
beyond the relaxation time scatter several times more than at lag 0 and would need many more realisations.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sympy import sympify

from quenched.silence import only_silent
from quenched.theory.counted import counted
from quenched.theory.cross import observed_between_units
from quenched.theory.eigenvalue_observables import OfEigenvalues
from quenched.theory.errors import QuenchedError
from quenched.theory.observables import Lyapunov, Mean
from quenched.theory.transient import transient

if TYPE_CHECKING:
    from sympy import Symbol

    from quenched.solution import Solution
    from quenched.theory.model import Model
    from quenched.theory.spaces import Population

QUICK: dict[str, Any] = {"sizes": (300, 500, 1200), "trials": 112, "trajectories": 8}
#: Without tangent vectors a realisation costs half, so there are more; and what is not an exponent follows its
#: finite-size law from smaller networks on, which extrapolate better.
QUICK_STATE: dict[str, Any] = {"sizes": (200, 400, 1200), "trials": 240, "trajectories": 8}
FULL: dict[str, Any] = {"sizes": (500, 1000, 2000), "trials": 64, "trajectories": 8}
#: Where covariances between units are observed: one network scatters several times more than a mean over units (one
#: large eigenvalue is enough), so more and smaller networks pay, and at those sizes the 1/N law already holds. Many
#: trajectories of small networks cost little, and sizes that differ widely extrapolate best.
CROSSED_QUICK: dict[str, Any] = {"sizes": (80, 120, 560), "trials": 80, "trajectories": 16}
CROSSED_FULL: dict[str, Any] = {"sizes": (250, 500, 1000), "trials": 256, "trajectories": 8}
#: The way from the start: a realisation is short, and a start near a pattern scatters little.
TRANSIENT_QUICK: dict[str, Any] = {"sizes": (500, 1000, 4000), "trials": 224}
TRANSIENT_FULL: dict[str, Any] = {"sizes": (1000, 4000, 16000), "trials": 512}
#: Enumerations of all stable fixed points, whose number doubles with every unit or two.
COUNT_QUICK: dict[str, Any] = {"sizes": (5, 6, 8), "trials": 320}
COUNT_FULL: dict[str, Any] = {"sizes": (6, 8, 10), "trials": 400}
#: Dynamic couplings cost a matrix a trajectory, which is read and written at every step.
BONDS: dict[str, Any] = {"sizes": (150, 300, 600), "trials": 160, "trajectories": 1}
#: With an exponent, which follows 1/N in larger networks only.
GROWING_BONDS: dict[str, Any] = {"sizes": (250, 400, 640), "trials": 200, "trajectories": 1}
#: Where eigenvalues of the Jacobian are observed: each realisation costs all eigenvalues of one matrix, which with
#: dynamic couplings has a row for every sum that they make besides those of the units.
JACOBIAN_QUICK: dict[str, Any] = {"sizes": (100, 200, 400), "trials": 112, "trajectories": 4}
JACOBIAN_FULL: dict[str, Any] = {"sizes": (200, 400, 800), "trials": 96, "trajectories": 4}
#: Lags at which a curve enters the verdict, in relaxation times of a unit.
QUICK_LAGS, FULL_LAGS = (1.0,), (1.0, 2.0)
CROSSED_LAGS = (0.0, 2.0, 4.0)
#: Steps of a flow in its shortest relaxation time: of a smooth flow, of one driven by white noise.
QUICK_STEPS, FULL_STEPS = (5, 10), (10, 20)
#: Relative error of a variance by Heun steps of h relaxation times is this times h²: for smooth signals as slow as a
#: unit (measured with the spectra of the random rate network, 0.03 to 0.05), and for white noise (exact: 1/4 + O(h)).
SMOOTH_ERROR, NOISE_ERROR = 0.06, 0.27
#: Units of the slowest time: transient and measurement.
BURN, _WINDOW = 5.0, 8.0
#: Lags that a curve is measured at, up to this many correlation times.
LAGS, _SPAN = 12, 3.0
#: Vectors that couplings of a long run are applied to.
_LONG = 1e6
#: Realisations of a size, however costly: fewer have no variance that one could trust.
FEWEST = 16


@dataclass(frozen=True)
class Design:
    """Settings of the simulations of one parameter point.

    Attributes
    ----------
    sizes, trials, trajectories
        Network sizes, realisations of each, trajectories a network.
    burn, duration : float
        In the declaration's unit of time.
    dt : float or None
        Time step, None for a map.
    lags : array (k,)
        Lags of curves.
    relaxation : float
        Fastest relaxation time of a unit.
    tested : tuple of float
        Lags at which curves are tested, in relaxation times.
    resolution : float
        Relative error that the time step leaves in the simulation.
    lyapunov : bool
        Whether tangent vectors are carried.
    steps : {N: time step}
        Of sizes whose step is not `dt`.
    scheme : str or None
        Time stepping, the simulator's choice unless given.
    growth : Design or None
        Networks for the Lyapunov exponent alone.
    """

    sizes: tuple[int, ...]
    trials: int
    trajectories: int
    burn: float
    duration: float
    dt: float | None
    lags: NDArray[np.float64]
    relaxation: float
    tested: tuple[float, ...]
    resolution: float
    lyapunov: bool = True
    steps: Mapping[int, float] = field(default_factory=dict)
    scheme: str | None = None
    growth: Design | None = None

    def with_trials(self, trials: int) -> Design:
        """The same with another number of realisations."""
        return replace(self, trials=trials)

    def positions(self, lags: Sequence[float] | NDArray[np.float64]) -> tuple[int, ...]:
        """Positions of the tested lags."""
        at = np.asarray(lags, float)
        wanted = [k * self.relaxation for k in self.tested]
        return tuple(sorted({int(np.argmin(np.abs(at - w))) for w in wanted}))

    def simulation(self, N: int) -> dict[str, Any]:
        """Settings of `simulate` at a size, seeds apart."""
        step = self.steps.get(N, self.dt)
        how: dict[str, Any] = {"burn": self.burn, "duration": self.duration, "dt": step, "lags": self.lags}
        how |= {"trials": self.trials, "trajectories": self.trajectories, "dtype": "float32"}
        how |= {"lyapunov": self.lyapunov, "standard": False}
        return how | ({} if self.scheme is None else {"scheme": self.scheme})

    def settings(self) -> dict[str, Any]:
        """For the report."""
        return {
            "network sizes": self.sizes,
            "realisations": self.trials,
            "trajectories a network": self.trajectories,
            "transient": self.burn,
            "measured time": self.duration,
            **({} if self.growth is None else {"network sizes of the exponent": self.growth.sizes}),
            "relative error by the time step": self.resolution,
        }


@dataclass(frozen=True)
class StaticDesign:
    """Settings of the simulations of a head without time.

    Attributes
    ----------
    sizes, trials : as in `Design`
    how : dict
        Further settings of the head's simulator.
    resolution : float
        Relative error that the simulation leaves however many realisations there are.
    also : tuple of StaticDesign
        Further simulations, by other means and at other sizes, of some of the observables.
    called : str
        How the observables of a further simulation are called, with their names for {}.
    """

    sizes: tuple[int, ...]
    trials: int
    how: Mapping[str, Any]
    resolution: float = 1e-4
    also: tuple[StaticDesign, ...] = ()
    called: str = "{}"

    def with_trials(self, trials: int) -> StaticDesign:
        """The same with another number of realisations, and as many times more or fewer of further simulations."""
        also = tuple(d.with_trials(round(d.trials * trials / self.trials)) for d in self.also)
        return replace(self, trials=trials, also=also)

    def simulation(self, N: int) -> dict[str, Any]:
        """Settings of `simulate` at a size, seeds apart."""
        return {"trials": self.trials, **self.how}

    def settings(self) -> dict[str, Any]:
        """For the report."""
        return {
            "sizes": self.sizes,
            "realisations": self.trials,
            **{k.replace("_", " "): v for k, v in self.how.items()},
            **{
                f"{', '.join(map(d.called.format, d.how['only']))}": dict(d.how) | {"sizes": d.sizes} for d in self.also
            },
        }


def _either_sign(model: Model, solution: Solution) -> bool:
    """Whether trajectories of one network end in opposite states, and a function of their averages would mix them."""
    functions = any(e.atoms(Mean) and not isinstance(e, Mean) for e in model.observables.values())
    return functions and bool(solution.multistability)


def design_of(
    model: Any,
    values: Mapping[Symbol, float],
    solution: Solution,
    quick: bool,
    chosen: Mapping[str, Any],
    smallest: Solution | None = None,
) -> Design | StaticDesign:
    """The simulations of one parameter point: the tier of the head's simulator, and what is given instead.

    A simulator's module may have ``tier(model, values, quick)``, which returns sizes, trials and settings of its own
    (with further arguments ``route``, those of a chosen route, and ``near``, the number of rows of a matrix that
    the state overlaps with); else its ``QUICK`` and ``FULL`` hold for all.
    """
    from quenched.validate.heads import check_settings, module_of

    given = {name: value for name, value in chosen.items() if value is not None}
    check_settings(model, {k: v for k, v in given.items() if k not in ("sizes", "trials")})
    alone = counted(model)
    if alone or (getattr(model, "steps", None) is None and transient(model)):  # layers are no times
        tiers = (COUNT_QUICK, COUNT_FULL) if alone else (TRANSIENT_QUICK, TRANSIENT_FULL)
        tier = tiers[0 if quick else 1]
        settings = {**tier, **given}
        return StaticDesign(tuple(settings.pop("sizes")), settings.pop("trials"), settings)
    if hasattr(model, "eqs") and model.steps is None:
        fixed = sorted(set(given) - set(inspect.signature(plan).parameters))
        if fixed:
            raise QuenchedError(f"validate chooses {fixed[0]}= by itself; simulate takes it")
        return plan(model, values, solution, quick=quick, smallest=smallest, **given)
    module = module_of(model)
    if hasattr(module, "tier"):
        takes = inspect.signature(module.tier).parameters
        known = {"route": given.get("route"), "near": _near(model, solution)}
        tier = module.tier(model, values, quick, **{k: v for k, v in known.items() if k in takes and v is not None})
    else:
        tier = module.QUICK if quick else module.FULL
    settings = {**tier, **given}
    also = () if given.keys() & {"sizes", "route"} else _asked(settings.get("also", ()), given.get("only", ()))
    settings.pop("also", None)
    elsewhere = {n for d in also if d.get("called") == "{}" for n in d["only"]}
    if elsewhere and "only" in given:
        settings["only"] = tuple(n for n in given["only"] if n not in elsewhere)
        if not settings["only"]:  # nothing is left for the first simulation
            trials = {k: v for k, v in {**tier, **also[-1], **given}.items() if k == "trials"}
            settings = {**{k: v for k, v in also[-1].items() if k != "called"}, **trials}
            also = also[:-1]
    sizes, trials = tuple(settings.pop("sizes")), settings.pop("trials")
    further = [{**d, "trials": given.get("trials") or d.get("trials", trials)} for d in also]
    return StaticDesign(sizes, trials, settings, also=tuple(map(_further, further)))


#: Overlap of a state with a row that it is near.
OVERLAP = 0.05


def _near(model: Any, solution: Solution) -> int | None:
    """How many rows of the matrix of a declared start a state overlaps with; None without such a start."""
    heads = tuple(f"m_{r.matrix.name}_" for r in getattr(model, "rows", ()))
    names = [n for n in solution.names if n.startswith(heads)] if heads else []
    return sum(abs(float(solution[n])) > OVERLAP for n in names) or None


def _asked(further: Sequence[Mapping[str, Any]], only: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    """Further simulations of the observables that are asked for."""
    cut = [d if not only else {**d, "only": tuple(n for n in d["only"] if n in only)} for d in further]
    return tuple(d for d in cut if d["only"])


def _further(settings: Mapping[str, Any]) -> StaticDesign:
    how = dict(settings)
    return StaticDesign(tuple(how.pop("sizes")), how.pop("trials"), called=how.pop("called"), how=how)


def at_size(model: Any, values: Mapping[Any, float], N: int) -> dict[str, float]:
    """Parameters that are the fraction of a population, at the ratio of whole numbers that N units have."""
    from quenched.validate.quantities import Numbers

    numbers = Numbers(dict(values), N)
    found = {p.fraction: numbers.size(p) for p in model.populations if getattr(p.fraction, "is_Symbol", False)}
    return {symbol.name: used / N for symbol, (declared, used) in found.items() if declared != used}


def plan(
    model: Model,
    values: Mapping[Symbol, float],
    solution: Solution,
    *,
    quick: bool,
    dt: float | None = None,
    sizes: tuple[int, ...] | None = None,
    trials: int | None = None,
    trajectories: int | None = None,
    duration: float | None = None,
    burn: float | None = None,
    smallest: Solution | None = None,
) -> Design:
    """The design of a tier for one parameter point; what is given overrides the tier.

    `solution` is that of the largest size, `smallest` that of the smallest where a theory keeps N.
    """
    if hasattr(solution, "reader"):
        from quenched.driven_design import Driven

        driven = Driven(model, dict(values), solution, smallest or solution, quick, dt)
        return driven.design(sizes, trials, trajectories, duration, burn)
    crossed = bool(observed_between_units(model.observables))
    tier: dict[str, Any] = (CROSSED_QUICK if quick else CROSSED_FULL) if crossed else QUICK if quick else FULL
    tier = tier | ((GROWING_BONDS if grows(model) else BONDS) if model.bonds else {})
    if any(e.atoms(OfEigenvalues) for e in model.observables.values()):
        tier = JACOBIAN_QUICK if quick else JACOBIAN_FULL
    fast, slow = relaxation(model, dict(values))
    noisy = bool(model.fix(values).noises)
    tier = QUICK_STATE if tier == QUICK and not grows(model) else tier
    steps = (QUICK_STEPS if quick else FULL_STEPS)[noisy]
    step = _step(model, dict(values), fast / steps) if dt is None else dt
    correlation = correlation_time(solution)
    # A map's step is as cheap as a tenth of a flow's shortest time, so it can afford more of them.
    shortest = 100 * step if model.clock == "map" else 25 * fast
    # Covariances need no tangent vector that finds its direction, but long series: their noise falls as 1/duration.
    transient, measured = (shortest / 2, (1.6 if quick else 2.4) * shortest) if crossed else (shortest, 1.5 * shortest)
    if only_silent(model):  # eigenvalues of a network, no time
        transient = measured = step
        slow = correlation = 0.0
    tested = CROSSED_LAGS if crossed else QUICK_LAGS if quick else FULL_LAGS
    return Design(
        sizes=tuple(sizes or tier["sizes"]),
        trials=trials or max(FEWEST, round(tier["trials"] / passes(model, values))),
        trajectories=trajectories or (1 if _either_sign(model, solution) else tier["trajectories"]),
        burn=burn or rounded(max(transient, BURN * slow, BURN * correlation), step),
        duration=duration or rounded(max(measured, _WINDOW * slow, _WINDOW * correlation), step),
        dt=None if model.clock == "map" else step,
        lags=lag_grid(correlation, [k * fast for k in tested], step, 2 if crossed and quick else LAGS, nested=crossed),
        relaxation=fast,
        tested=tested,
        resolution=resolution(model, step / fast, noisy),
        lyapunov=grows(model),
    )


def tier_sizes(quick: bool, chosen: Mapping[str, Any], driven: bool) -> tuple[int, ...]:
    """The networks of a tier of states that rest, or that are driven; or the sizes that are given."""
    from quenched import driven_design

    rest, moving = (QUICK, FULL), (driven_design.QUICK, driven_design.FULL)
    return tuple(chosen.get("sizes") or (moving if driven else rest)[not quick]["sizes"])


def grows(model: Model) -> bool:
    """Whether the exponent is observed."""
    return not model.observables or any(e.atoms(Lyapunov) for e in model.observables.values())


def passes(model: Model, values: Mapping[Symbol, float]) -> float:
    """What one step costs in units of an N × N matrix, at least 1: all random matrices, those in a row composed."""
    from quenched.validate.generate import generate
    from quenched.validate.products import dimensions, entries

    program, tables, _ = generate(model, False)
    N = max(QUICK["sizes"])
    shapes = [(_units(m.rows, values, N), _units(m.cols, values, N)) for m in tables.matrices]
    inside = {k for word in program.products for k, _ in word}
    alone = sum(rows * cols for k, (rows, cols) in enumerate(shapes) if k not in inside)
    return max(1.0, (alone + sum(entries(dimensions(word, shapes), _LONG)[0] for word in program.products)) / N**2)


def _units(population: Population, values: Mapping[Symbol, float], N: int) -> int:
    """Units of a population in networks of N, none of a finite one."""
    return round(N * float(sympify(population.fraction or 0).xreplace(dict(values))))


def relaxation(model: Model, values: dict[Symbol, float]) -> tuple[float, float]:
    """Fastest and slowest relaxation time of single units."""
    from quenched.validate.generate import generate
    from quenched.validate.quantities import Numbers, time_scales

    _, tables, _ = generate(model, False)
    fast, slow = time_scales(model, tables, Numbers(values, min(QUICK["sizes"])))
    return (fast, slow) if model.clock == "flow" or model.dt is not None else (1.0, slow)


def _step(model: Model, values: dict[Symbol, float], longest: float) -> float:
    """Time step: one step of a map, of a flow the longest allowed, rounded down."""
    if model.clock == "map":
        return 1.0
    from quenched.validate.quantities import round_down

    return float(round_down(longest))


def resolution(model: Model, h: float, noisy: bool) -> float:
    """Relative error of variances by steps of h relaxation times (maps are iterated exactly)."""
    if model.clock == "map":
        return 1e-4
    return max(1e-4, (NOISE_ERROR if noisy else SMOOTH_ERROR) * h**2)


def correlation_time(solution: Solution) -> float:
    """Lag at which the slowest field's decaying autocorrelation has fallen to 1/e (0 where nothing decays)."""
    times = [0.0]
    for name in solution.names:
        if name.startswith("C_") and not name.endswith("0"):
            q = solution.quantity(name)
            if q.axis == "tau":
                times.append(_decay(np.asarray(q.at), np.asarray(q.value)))
    return max(times)


def _decay(at: NDArray[np.float64], curve: NDArray[np.float64]) -> float:
    moving = curve - curve[-1]
    if abs(moving[0]) <= 1e-6 * max(abs(curve[0]), 1e-12):
        return 0.0
    fallen = np.flatnonzero(np.abs(moving) < np.abs(moving[0]) / np.e)
    return float(at[fallen[0]] - at[0]) if fallen.size else float(at[-1] - at[0])


def lag_grid(
    correlation: float, tested: list[float], step: float, count: int, nested: bool = False
) -> NDArray[np.float64]:
    """Multiples of the time step: the tested lags, and `count` in steps of some tenth of the correlation time.

    With `nested` the tested lags are multiples of the spacing of the others, so that all share a coarse grid.
    """
    stride = max(1, round(_SPAN * correlation / (LAGS - 1) / step))
    wanted = [round(lag / step) for lag in tested]
    if nested:
        common = gcd(*wanted)
        stride = min((k for k in range(1, common + 1) if common % k == 0), key=lambda k: abs(k - stride))
    counts = {k * stride for k in range(count)} | {max(int(lag > 0), n) for lag, n in zip(tested, wanted, strict=True)}
    return np.array(sorted(counts), dtype=np.float64) * step


def rounded(time: float, step: float) -> float:
    return round(time / step) * step
