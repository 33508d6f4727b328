"""Runs of a simulation, or the user's own, as what a verdict takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError

if TYPE_CHECKING:
    from quenched.design import Design, StaticDesign
    from quenched.validate.estimators import Run

#: What is as small in every realisation is zero but for rounding.
VANISHING = 1e-9


@dataclass(frozen=True)
class Samples:
    """Realisations at several sizes.

    Attributes
    ----------
    values : {N: {observable: array (R,) or (R, k)}}
    lags : array (k,) or None
        Lags of all curves.
    curves : observables that are curves
    estimators : {observable: Estimator}
    dt, elapsed : float
        Time step (nan if unknown), computing time in seconds.
    meaning : {name in the report: name of the observable}
        Of observables that are measured in several ways.
    left : {N: (departed, all)}
        Numbers of realisations that left the state of their start (see `staying`).
    """

    values: dict[int, dict[str, NDArray[np.float64]]]
    lags: NDArray[np.float64] | None
    curves: frozenset[str]
    estimators: dict[str, Any] = field(default_factory=dict)
    dt: float = float("nan")
    elapsed: float = 0.0
    meaning: dict[str, str] = field(default_factory=dict)
    left: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Observables that enough sizes have."""
        from quenched.validate.cases import FEWEST_SIZES

        diagnostics = {name for name, e in self.estimators.items() if getattr(e, "diagnostic", False)}
        found = dict.fromkeys(name for row in self.values.values() for name in row if name not in diagnostics)
        enough = min(FEWEST_SIZES, len(self.values))
        return [name for name in found if sum(name in row for row in self.values.values()) >= enough]

    def of(self, names: set[str]) -> Samples:
        """Only some observables."""
        return replace(self, values={N: {n: x for n, x in row.items() if n in names} for N, row in self.values.items()})

    def beside(self, other: Samples, called: str) -> Samples:
        """These, and the same observables measured in another way."""
        values = {N: dict(row) for N, row in self.values.items()}
        for N, row in other.values.items():
            values.setdefault(N, {}).update({called.format(name): x for name, x in row.items()})
        estimators = {called.format(name): e for name, e in other.estimators.items()}
        meaning = {called.format(name): name for name in other.estimators}
        return replace(self, values=values, estimators=self.estimators | estimators, meaning=self.meaning | meaning)

    def symmetric(self, predicted: Mapping[str, Any]) -> tuple[str, ...]:
        """Observables that a symmetry of small systems makes vanish, while the state of the theory has broken it."""
        told = "{} vanishes in every realisation by a symmetry, which the theory's state has broken: declare a start"
        runs = {name: [np.abs(row[name]).max() for row in self.values.values() if name in row] for name in predicted}
        return tuple(
            told.format(name)
            for name, largest in runs.items()
            if max(largest, default=1.0) < VANISHING < VANISHING**0.5 < np.abs(predicted[name]).max()
        )

    def staying(self) -> Samples:
        """Only realisations that stay in the state of their start, equally many at every size."""
        from quenched.validate.departures import departed

        rules = [name for name, e in self.estimators.items() if getattr(e, "conditions", "")]
        gone = {N: departed(row[n]) for N, row in self.values.items() for n in rules if n in row}
        left = {N: (int(g.sum()), len(g)) for N, g in gone.items() if np.any(g)}
        if not left:
            return self
        kept = {N: {n: x[~gone[N]] if N in left else x for n, x in row.items()} for N, row in self.values.items()}
        fewest = min(len(x) for row in kept.values() for x in row.values())
        return replace(self, values={N: {n: x[:fewest] for n, x in row.items()} for N, row in kept.items()}, left=left)

    def doubts(self) -> tuple[str, ...]:
        """Diagnostics that should vanish and do not, with the size at which they are worst; departures."""
        from quenched.validate.departures import too_many
        from quenched.validate.estimators import doubt

        found = list(too_many(self.left))
        for name, estimator in self.estimators.items():
            if getattr(estimator, "vanishes", ""):
                told = [doubt(estimator, row[name], N) for N, row in self.values.items() if name in row]
                found += [text for worst, text in sorted(told, reverse=True)[:1] if text]
        return tuple(found)


def simulated_samples(model: Any, point: Mapping[str, Any], design: Design | StaticDesign, **settings: Any) -> Samples:
    """Simulate all sizes of a design."""
    from quenched.validate.simulate import simulate

    samples = _joined({N: simulate(model, N, params=point, **design.simulation(N), **settings) for N in design.sizes})
    for further in getattr(design, "also", ()):
        samples = samples.beside(simulated_samples(model, point, further, **settings), further.called)
    return samples


def given_samples(data: Any) -> Samples:
    """The user's own runs.

    Raises
    ------
    QuenchedError
        Something that is neither runs nor ``{N: {name: values}}``.
    """
    if isinstance(data, Mapping) and data:
        if all(hasattr(run, "observables") for run in data.values()):
            return _joined({int(N): run for N, run in data.items()})
        if all(isinstance(row, Mapping) for row in data.values()):
            return _from_mapping(data)
    runs = [data] if hasattr(data, "observables") else list(data) if isinstance(data, (list, tuple)) else []
    if runs and all(hasattr(run, "observables") for run in runs):
        return _joined({run.N: run for run in runs})
    kind = type(data).__name__
    raise QuenchedError(f"data: expected runs of simulate, or {{N: {{observable: values}}}}, got {kind}")


def made_elsewhere(data: Any, point: Mapping[str, Any]) -> str:
    """At which other parameters the user's own runs were made; empty where at those compared, or unknown."""
    runs = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, (list, tuple)) else [data]
    other: dict[str, Any] = {}
    for run in runs:
        for name, value in getattr(run, "parameters", {}).items():
            known = isinstance(value, (int, float)) and isinstance(point.get(name), (int, float))
            if known and not np.isclose(value, point[name], rtol=1e-12, atol=0.0):
                other[name] = value
    told = ", ".join(f"{name} = {value:g}, not {point[name]:g}" for name, value in other.items())
    return f"the runs were made at {told}" if told else ""


def _joined(runs: dict[int, Run]) -> Samples:
    first = next(iter(runs.values()))
    curves = {name: s.lags for name, s in first.observables.items() if s.lags is not None}
    values = {
        N: {name: s.values if name in curves else s.values[:, 0] for name, s in run.observables.items()}
        for N, run in runs.items()
    }
    return Samples(
        values,
        next(iter(curves.values()), None),
        frozenset(curves),
        {name: s.estimator for name, s in first.observables.items()},
        first.dt,
        sum(run.elapsed for run in runs.values()),
    )


def _from_mapping(data: Mapping[Any, Mapping[str, Any]]) -> Samples:
    """``{N: {name: values}}``, a curve with its lags as a DataArray over ``tau`` or under the name ``tau``."""
    lags, curves = None, set()
    values: dict[int, dict[str, NDArray[np.float64]]] = {}
    for N, row in data.items():
        values[int(N)] = {}
        if "tau" in row:
            lags = np.asarray(row["tau"], float)
        for name, given in row.items():
            if name == "tau":
                continue
            array = np.asarray(given, float)
            if array.ndim not in (1, 2):
                raise QuenchedError(f"data: {name} at N = {N} has {array.ndim} axes, expected (realisation[, tau])")
            if array.ndim == 2:
                curves.add(name)
                lags = np.asarray(given.coords["tau"], float) if hasattr(given, "coords") else lags
            values[int(N)][name] = array
    if curves and lags is None:
        raise QuenchedError(f"data: {sorted(curves)[0]} is a curve, its lags are missing (give 'tau')")
    return Samples(values, lags, frozenset(curves))
