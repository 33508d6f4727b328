"""How observables are measured in a finite network, with the properties that a verdict must know.

Sympy-free, so that worker processes and reports can load it cheaply.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Independence = Literal["nothing", "declaration", "theory"]
Statistic = Literal[
    "mean", "function of means", "slope", "ratio of means", "controlled mean", "half-point", "log of mean"
]

_POWER_ONE = "corrections to a self-averaging mean start at order 1/N (fluctuations of the order parameters)"


@dataclass(frozen=True)
class Estimator:
    """What is measured, and with which properties.

    Attributes
    ----------
    name : str
        Name of the observable.
    expression : str
        What is averaged, in the notation of the declaration.
    statistic : "mean", "function of means", "slope", "ratio of means", "controlled mean", "half-point" or "log of
        mean"
        Kind of the statistic that one realisation yields. A ratio of means takes the means over realisations; a
        controlled mean subtracts what varies with a quantity of known mean zero (regression over realisations), a
        half-point is where half of the realisations lie on either side (smoothed), a log of mean is (1/N) ln of it.
        The realisations of all enter a verdict as jackknife pseudo-values.
    bias : str
        Known sources of bias other than finite N.
    assumes : "nothing", "declaration" or "theory"
        Independence class: what the estimator itself takes for granted.
    min_N, max_N : int
        Range of N where the stated properties hold.
    power : float
        Power p of the leading finite-size correction b/N^p.
    second : float
        Power of a further correction that is fitted too (0: none).
    reason : str
        Why that power.
    noise : float
        The variance of one realisation goes as N^noise.
    vanishes : str
        Of a diagnostic that is no observable: what it means that it does not vanish.
    conditions : str
        Of a diagnostic of single realisations: what those did that it excludes (see `departures`).
    """

    name: str
    expression: str
    statistic: Statistic = "mean"
    bias: str = "none from sampling; time step O(dt^2) for Heun, none for a map; finite burn-in"
    assumes: Independence = "nothing"
    min_N: int = 100
    max_N: int = 10**6
    power: float = 1.0
    reason: str = _POWER_ONE
    noise: float = -1.0
    vanishes: str = ""
    second: float = 0.0
    conditions: str = ""

    @property
    def diagnostic(self) -> bool:
        """Whether it is of the simulation itself, and no observable."""
        return bool(self.vanishes or self.conditions)


def mean_estimator(name: str, expression: str, order: int | None) -> Estimator:
    """Average over units, time and trajectories of one network; `order` is that of the time step (None: a map)."""
    return Estimator(name, expression, bias=_step_bias(order))


def function_estimator(name: str, expression: str, each_time: bool, order: int | None) -> Estimator:
    """A function of averages. Its nonlinearity turns their scatter into a bias of order (variance of the averages)."""
    where = "at each time, then averaged over time" if each_time else "after averaging over time"
    extra = f"; nonlinear in averages (combined {where}): O(1/(N T)) bias"
    return Estimator(name, expression, "function of means", _step_bias(order) + extra)


def lyapunov_estimator(name: str, order: int | None) -> Estimator:
    """Largest exponent: growth of one tangent vector of the whole declared system, same noise as its trajectory."""
    return Estimator(
        name,
        "lim (1/T) ln |tangent(T)|" + ("" if order else " per step"),
        "slope",
        _step_bias(order) + "; finite T: O(ln N / T), reduced by aligning the tangent vector during the burn-in",
        "declaration",
        min_N=250,
        reason="measured deficit .049, .024, .021, .010 at N = 250, 500, 1000, 2000 (tanh, g = 3): order 1/N",
    )


#: The 1/N law held from here on where the dimension is half of N (measured at N = 80 to 400, erf, g = 1.5, s2 = 1, to
#: one percent); where the dimension is a small part of N the test of the law decides.
_FEWEST = 80
_BLOCKS = (
    "; unbiased by estimation noise: only products of different trajectories (or blocks of time), less means from "
    "further ones"
)


def participation_estimator(name: str, expression: str, order: int | None) -> Estimator:
    """(Tr C)²/(n Tr C²) of the covariances between n units."""
    return Estimator(
        name,
        f"(Tr C)²/(n Tr C²), C_ij = cov of {expression} of units i and j",
        "ratio of means",
        _step_bias(order) + _BLOCKS,
        min_N=_FEWEST,
        reason="Tr C and Tr C² are sums over units; their averages over networks have an expansion in 1/N",
    )


def variance_estimator(name: str, expression: str, order: int | None) -> Estimator:
    """n·mean over i ≠ j of C_ij² of the covariances between n units."""
    return Estimator(
        name,
        f"n·mean over i ≠ j of C_ij², C_ij = cov of {expression} of units i and j",
        "mean",
        _step_bias(order) + _BLOCKS,
        min_N=_FEWEST,
        reason="the mean of C_ij² over pairs and networks has an expansion in 1/N that starts with ψ/N",
    )


def _step_bias(order: int | None) -> str:
    if order is None:
        return "none (the map is iterated exactly); finite burn-in"
    return f"time step O(dt^{order}), to be separated by halving dt; finite burn-in"


@dataclass(frozen=True)
class Sample:
    """Values of one observable, one row a realisation.

    Attributes
    ----------
    values : array (R, k)
        k = number of lags, or 1. For a ratio of means these are jackknife pseudo-values: their mean is the ratio of
        means less its bias of order 1/R, their scatter its error.
    lags : array (k,) or None
        Lags τ, in the time unit of the declaration (steps for a map).
    estimator : Estimator
    parts : array (R, k, 2) or None
        Numerator and denominator of each realisation, for a ratio of means; value and control, for a controlled mean;
        number and N, for a log of mean.
    """

    values: NDArray[np.float64]
    lags: NDArray[np.float64] | None
    estimator: Estimator
    parts: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, rows: NDArray[np.float64], lags: NDArray[np.float64] | None, estimator: Estimator) -> Sample:
        """The sample of raw realisations, (R, k), or (R, 2) where a statistic takes two numbers."""
        from quenched.validate.statistics import controlled_mean, half_point, log_of_mean, pseudo_values, ratio_of_means

        forms = {"ratio of means": ratio_of_means, "controlled mean": controlled_mean, "log of mean": log_of_mean}
        reduced = forms.get(estimator.statistic)
        if estimator.statistic == "half-point" and len(rows) > 1:
            return cls(pseudo_values(half_point, rows), lags, estimator, rows[:, :, None])
        if reduced is None:
            return cls(rows, lags, estimator)
        parts = rows[:, None, :]
        values = pseudo_values(reduced, parts) if len(rows) > 1 else reduced(parts)[None]
        return cls(values, lags, estimator, parts)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Average over realisations, shape (k,)."""
        mean: NDArray[np.float64] = self.values.mean(axis=0)
        return mean

    @property
    def error(self) -> NDArray[np.float64]:
        """Standard error of `mean`, shape (k,); infinite for a single realisation."""
        import numpy as np

        rows = len(self.values)
        if rows < 2:
            return np.full(self.values.shape[1], np.inf)
        error: NDArray[np.float64] = self.values.std(axis=0, ddof=1) / np.sqrt(rows)
        return error


#: Standard errors beyond which a diagnostic does not vanish.
SUSPICIOUS = 4.5
#: The same as a chance, which few realisations do not fall below.
UNLIKELY = 1e-4


def doubt(estimator: Estimator, values: NDArray[np.float64], N: int) -> tuple[float, str]:
    """How many standard errors a diagnostic is off zero at a size, and in words what that means; else an empty text.

    What is no number is off by an infinite number of errors.
    """
    import numpy as np
    from scipy.special import stdtr

    rows = values.reshape(len(values), -1)
    if not np.all(np.isfinite(rows)):
        return np.inf, f"{estimator.vanishes} ({estimator.name} is not finite at N = {N})"
    if len(rows) < 2:
        return 0.0, ""
    error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    off = np.abs(rows.mean(axis=0)) / np.maximum(error, 1e-300)
    worst = float(np.max(off, initial=0.0, where=error > 0))
    told = f"{estimator.vanishes} ({estimator.name} off zero by {worst:.1f} s.e. at N = {N})"
    chance = 2 * float(stdtr(len(rows) - 1, -worst))  # errors that few rows tell scatter themselves
    return worst, told if worst > SUSPICIOUS and chance < UNLIKELY else ""


@dataclass
class Run:
    """Finished realisations of one network size.

    Attributes
    ----------
    observables : dict name → Sample
    N : int
    dt : float
        Time step (1 for a map).
    duration, burn : float
        Length of the measurement window and of the transient before it, in units of time (steps for a map).
    seed : int
    realisations : tuple of int
        Index k of each row of the samples; realisation k depends only on (seed, N, k).
    parameters : dict name → value
    sizes : dict population → (declared size f·N, units used); they differ where f·N is not an integer.
    settings : dict
        Scheme, precision, trajectories per network, and so on.
    unmeasured : dict name → reason
        Declared observables that a simulation of this model does not yield.
    elapsed : float
        Summed computing time of the realisations in seconds (of those computed now or before).
    """

    observables: dict[str, Sample]
    N: int
    dt: float
    duration: float
    burn: float
    seed: int
    realisations: tuple[int, ...]
    parameters: dict[str, float]
    sizes: dict[str, tuple[float, int]]
    settings: dict[str, Any] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    elapsed: float = 0.0

    @property
    def seeds(self) -> tuple[tuple[int, int, int], ...]:
        """(seed, N, k) of every realisation: all that its random numbers depend on."""
        return tuple((self.seed, self.N, k) for k in self.realisations)

    def __getitem__(self, name: str) -> Sample:
        """The sample of one observable; an unknown name is a `QuenchedError` naming the nearest."""
        from quenched.theory.errors import QuenchedError, nearest

        if name in self.observables:
            return self.observables[name]
        if name in self.unmeasured:
            raise QuenchedError(f"{name} was not measured: {self.unmeasured[name]}")
        raise QuenchedError(f"no observable {name!r} in this run; {nearest(name, self.observables)}")

    def dataset(self) -> Any:
        """All observables as an `xarray.Dataset` with dimensions ``realisation`` and ``tau``."""
        import xarray as xr

        data: dict[str, Any] = {}
        coords: dict[str, Any] = {"realisation": list(self.realisations)}
        for name, sample in self.observables.items():
            note = {"estimator": sample.estimator.expression, "assumes": sample.estimator.assumes}
            if sample.lags is None:
                data[name] = ("realisation", sample.values[:, 0], note)
            else:
                coords["tau"] = sample.lags
                data[name] = (("realisation", "tau"), sample.values, note)
        attrs = {"N": self.N, "dt": self.dt, "duration": self.duration, "burn": self.burn, "seed": self.seed}
        return xr.Dataset(data, coords, attrs | {f"parameter_{k}": v for k, v in self.parameters.items()})

    def __repr__(self) -> str:
        import numpy as np

        time = "" if np.isnan(self.dt) else f", dt={self.dt:g}, duration={self.duration:g}"
        rows = [f"Run: N={self.N}, {len(self.realisations)} realisations{time}"]
        for name, sample in self.observables.items():
            if sample.estimator.diagnostic:
                continue
            mean, error = sample.mean, sample.error
            at = "" if sample.lags is None else f"  at tau={sample.lags[0]:g} (… {sample.lags[-1]:g})"
            rows.append(f"  {name:<12} {mean[0]: .6g} ± {error[0]:.2g}{at}")
        return "\n".join([*rows, *(f"  {text}" for text in (*self.doubts(), *self.departures()))])

    def doubts(self) -> tuple[str, ...]:
        """Diagnostics of the simulation that should vanish and do not, in words."""
        checks = [s for s in self.observables.values() if s.estimator.vanishes]
        return tuple(text for s in checks if (text := doubt(s.estimator, s.values, self.N)[1]))

    def departures(self) -> tuple[str, ...]:
        """Realisations that did what they should not, in words."""
        from quenched.validate.departures import departed

        checks = [s for s in self.observables.values() if s.estimator.conditions]
        gone = [(s.estimator.conditions, int(departed(s.values).sum()), len(s.values)) for s in checks]
        return tuple(f"{count} of {all_} realisations {what}" for what, count, all_ in gone if count)
