"""A solved theory: observables by name with errors, all branches, one xarray dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sympy import Expr, Symbol

from quenched.jacobian_readout import JacobianReader, with_jacobian
from quenched.readout import Quantity, State, evaluate, names_of, rms_of_mean, tidied
from quenched.state_laws import gaussian_laws
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.observables import Critical

if TYPE_CHECKING:
    import xarray as xr

    from quenched.counted_solution import CountReader
    from quenched.numerics import Branch as RawBranch
    from quenched.numerics import RawSolution
    from quenched.silence import SilentReader
    from quenched.theory.cross import CrossCovariance
    from quenched.theory.problem import SiteFunction
    from quenched.theory_object import Theory

_LONG = {
    "C": "autocorrelation ⟨x(t)x(t+τ)⟩",
    "R": "response",
    "S": "power spectrum",
    "mean": "mean",
    "lyapunov": "largest Lyapunov exponent",
}

_LOST = (
    "the {} state is unstable: a change of the means grows, so that networks end in an oscillation or in another state"
)
#: The same where numbers that a state determines take part (they are named), and how they leave.
_ESCAPED = (
    "the {} state is unstable: a change of {} grows{}, and no other stationary state was found that networks stay in:"
    " they end in an oscillation or elsewhere"
)


class Branch:
    """One solution of the self-consistency.

    Attributes
    ----------
    label, kind : how it is called; ``trivial``, ``static``, ``dynamic`` or ``noisy``
    names : list of str
        Its observables.
    shared : frozenset of str
        Those that are the same for all branches (where a transition lies).
    rms : function
        Of a name: root mean square of what the observable is the mean of, and what that is; None for others.
    doubt : str
        Why this may not be the true state although the equations hold, empty where there is no reason.
    mirror : str
        Label of the branch that is the same with the opposite sign, empty if none is: networks end in either.
    undetermined : str
        Why the equations do not single out a state, so that no simulation can confirm or refute it; empty if they do.
    """

    def __init__(
        self,
        label: str,
        kind: str,
        stable: bool | Callable[[], bool],
        growth: Quantity | Callable[[], Quantity],
        names: list[str],
        get: Callable[[str], Quantity],
        shared: frozenset[str] = frozenset(),
        rms: Callable[[str], tuple[float, str] | None] = lambda name: None,
        doubt: str = "",
        undetermined: str = "",
        mirror: str = "",
    ) -> None:
        self.label, self.kind, self.names = label, kind, names
        self._stable, self._growth = stable, growth
        self.shared = shared
        self.rms = rms
        self.doubt, self.undetermined, self.mirror = doubt, undetermined, mirror
        self._get = get
        self._known: dict[str, Quantity] = {}
        self._reasons: dict[str, str] = {}

    def reading(self, observed: Mapping[str, Expr], reader: JacobianReader | SilentReader | CountReader) -> Branch:
        """The branch with some observables read by another reader."""
        get, rms = self._get, self.rms
        self._get = lambda name: reader.quantity(observed[name]) if name in observed else get(name)
        self.rms = lambda name: reader.scale(observed[name]) if name in observed else rms(name)
        return self

    @property
    def stable(self) -> bool:
        """Whether the network stays near it; computed when it is first asked for, where that takes long."""
        if callable(self._stable):
            self._stable = self._stable()
        return bool(self._stable)

    @property
    def growth(self) -> Quantity:
        """Growth rate of a perturbation (of a network its largest Lyapunov exponent), per unit of the model's time.

        Computed when it is first asked for, where that takes long.
        """
        if not isinstance(self._growth, Quantity):
            self._growth = self._growth()
        return self._growth

    def quantity(self, name: str) -> Quantity:
        """An observable with its error."""
        if name not in self.names:
            raise QuenchedError(f"no observable {name!r}: {nearest(name, self.names)}")
        if name not in self._known:
            self._known[name] = self._get(name)
        return self._known[name]

    def quantities(self, skip: Collection[str] = ()) -> dict[str, Quantity]:
        """All observables that the theory gives; those without a formula are left out (see `missing`)."""
        tried = {name: self._try(name) for name in self.names if name not in skip}
        return {name: found for name, found in tried.items() if isinstance(found, Quantity)}

    def missing(self) -> dict[str, str]:
        """Observables that the theory does not give here, with the reason."""
        tried = {name: self._try(name) for name in self.names}
        return {name: found for name, found in tried.items() if isinstance(found, str)}

    def _try(self, name: str) -> Quantity | str:
        """An observable, or the reason why there is none; a transition that is not found takes nothing else down."""
        if name in self._reasons:
            return self._reasons[name]
        try:
            return self.quantity(name)
        except NotCovered as error:
            self._reasons[name] = str(error)
        except QuenchedError as error:
            if name not in self.shared:
                raise
            self._reasons[name] = str(error)
        return self._reasons[name]

    def __getitem__(self, name: str) -> xr.DataArray:
        return _array(name, self.quantity(name))

    def __repr__(self) -> str:
        state = "stable" if self.stable else "unstable"
        return f"{self.label} ({self.kind}, {state}, growth {self.growth.value:.6g} ± {self.growth.error:.1g})"


class Solution:
    """The state that the dynamics reaches, and all other branches.

    Examples
    --------
    ``sol["C_x"]`` is a `xarray.DataArray` over the lag ``tau``; ``float(sol["C_x0"])`` a number, with its error in
    ``sol.error("C_x0")``.
    """

    def __init__(self, branches: list[Branch], main: int, values: dict[str, float], provenance: dict[str, str]) -> None:
        self.branches = branches
        self.parameters = values
        self.provenance = provenance
        self._main = main

    @classmethod
    def of(cls, theory: Theory, values: Mapping[Any, float], raw: RawSolution) -> Solution:
        """Join what the solver found with the declaration's names."""
        branches = [_branch(theory, values, raw, k) for k in range(len(raw.branches))]
        given = {str(k): float(v) for k, v in values.items()}
        return cls(branches, raw.main, given, cls.provenance_of(theory))

    @staticmethod
    def provenance_of(theory: Theory) -> dict[str, str]:
        """Where a solution comes from: model, its content key, version, mutant."""
        from quenched import __version__

        return {
            "model": theory.model.name or "model",
            "key": theory.model.key(),
            "version": __version__,
            "mutant": theory.mutant or "",
        }

    @property
    def main(self) -> Branch:
        """The branch that the dynamics reaches."""
        return self.branches[self._main]

    @property
    def names(self) -> list[str]:
        """Observables, standard and declared."""
        return self.main.names

    def __getitem__(self, name: str) -> xr.DataArray:
        return self.main[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def quantity(self, name: str) -> Quantity:
        """An observable of the main branch with its error."""
        return self.main.quantity(name)

    def error(self, name: str) -> Any:
        """Error estimate of an observable (a number, or an array for a curve)."""
        return self.main.quantity(name).error

    @property
    def dataset(self) -> xr.Dataset:
        """All observables of the main branch, ``NAME`` and ``NAME_error``, with parameters and provenance."""
        import xarray as xr

        data: dict[str, xr.DataArray] = {}
        for name, quantity in self.main.quantities().items():
            data[name] = _array(name, quantity)
            data[f"{name}_error"] = _array(f"{name}_error", Quantity(quantity.error, 0, quantity.axis, quantity.at))
        attributes = {
            **self.provenance,
            "branch": self.main.label,
            "branches": json.dumps([summary(b) for b in self.branches], allow_nan=False),
            "main": self._main,
            "time unit": "one unit of time of the declaration (one step of a map)",
            **{f"parameter {name}": value for name, value in self.parameters.items()},
        }
        return xr.Dataset(data, attrs=attributes)

    def save(self, path: str | Path) -> Path:
        """Write the dataset as NetCDF; `quenched.load` reads it back."""
        from quenched.files import write_atomically

        data = self.dataset
        return write_atomically(path, lambda draft: data.to_netcdf(draft, engine="h5netcdf"))

    def plot(self, names: list[str] | None = None) -> Any:
        """Plot the curves; returns the matplotlib figure."""
        from quenched.plots import plot_solution

        return plot_solution(self, names)

    def __repr__(self) -> str:
        numbers = {n: q for n, q in self.main.quantities().items() if q.axis is None}
        rows = [f"  {n} = {q.value:.10g} ± {q.error:.1g}" for n, q in numbers.items()]
        given = ", ".join(f"{k} = {v:g}" for k, v in self.parameters.items())
        others = [f"  other branch: {b!r}" for b in self.branches if b is not self.main]
        notes = [f"  note: {note}" for note in (self.main.undetermined, self.multistability) if note]
        return "\n".join([f"{self.provenance['model']} at {given}: {self.main!r}", *rows, *others, *notes])

    @property
    def multistability(self) -> str:
        """Which states of opposite sign coexist, so that the start of a network decides; empty where none do."""
        main = self.main
        if not main.mirror or not main.stable:
            return ""
        return (
            f"{main.label} and {main.mirror} coexist: the equations stay the same where the sign changes, and where a"
            " network starts decides which of the two it is in"
        )


def load(path: str | Path) -> Solution:
    """Read a solution that `Solution.save` wrote.

    Raises
    ------
    QuenchedError
        No such file, or not a solution.
    """
    import xarray as xr

    if not Path(path).is_file():
        raise QuenchedError(f"no file {str(path)!r}")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            data = opened.load()
        summaries = json.loads(data.attrs["branches"])
    except (OSError, KeyError, ValueError) as error:
        raise QuenchedError(f"{str(path)!r} is not a saved solution: {error}") from None
    stored = {str(name): _quantity(data, str(name)) for name in data if not str(name).endswith("_error")}
    main = int(data.attrs["main"])
    branches = [_loaded(row, stored if k == main else None) for k, row in enumerate(summaries)]
    prefix = "parameter "
    values = {str(k)[len(prefix) :]: float(v) for k, v in data.attrs.items() if str(k).startswith(prefix)}
    provenance = {k: str(data.attrs[k]) for k in ("model", "key", "version", "mutant")}
    return Solution(branches, main, values, provenance)


def _branch(theory: Theory, values: Mapping[Any, float], solved: RawSolution, index: int) -> Branch:
    raw = solved.branches[index]
    values = {**values, **{Symbol(name, real=True): value for name, (value, _) in raw.numbers.items()}}

    def at_lags(lags: Any) -> RawBranch:
        again = theory.solved(dict(values), lags=lags).branches
        same = [b for b in again if b.label == raw.label] or [b for b in again if b.kind == raw.kind]
        return tidied(min(same, key=lambda b: abs(float(b.variance[0] - raw.variance[0]))))

    def between(what: CrossCovariance, sites: list[tuple[SiteFunction, int]], lags: Any) -> Quantity:
        return theory.fluctuations().observed(what, sites, dict(values), lags)

    main = index == solved.main
    state = State(
        *(theory.written, theory.problem, theory.potential, values, tidied(raw), at_lags),
        between=between if main else None,
    )
    growth = Quantity(float(raw.growth.value), float(raw.growth.error))
    names = names_of(state)
    shared = frozenset(n for n, e in theory.model.observables.items() if e.atoms(Critical))
    branch = Branch(
        *(raw.label, raw.kind, bool(raw.stable), growth, names),
        get=lambda name: evaluate(state, name),
        shared=shared,
        rms=lambda name: rms_of_mean(state, name),
        undetermined=_escape(raw) if main and not raw.stable else "",
        mirror=_mirror(solved, raw),
    )
    return with_jacobian(theory, branch, JacobianReader(theory, values, lambda: gaussian_laws(theory, raw)))


def _escape(raw: RawBranch) -> str:
    """Why an unstable state is no prediction."""
    if not raw.numbers:
        return _LOST.format(raw.label)
    turning = " while it turns" if raw.turning else ""
    return _ESCAPED.format(raw.label, ", ".join(raw.numbers), turning)


def _mirror(solved: RawSolution, raw: RawBranch) -> str:
    """The label of the branch with the opposite mean or the opposite numbers, all else the same."""
    return next((b.label for b in solved.branches if b is not raw and _opposite(raw, b)), "")


def _opposite(a: RawBranch, b: RawBranch) -> bool:
    if a.kind != b.kind or a.stable != b.stable:
        return False
    pairs = [(a.numbers[n][0], b.numbers[n][0]) for n in a.numbers] + list(zip(a.mean, b.mean, strict=True))
    kept = zip((*a.variance, a.growth.value), (*b.variance, b.growth.value), strict=True)
    scale = 1e-6 * (1 + max(abs(x) for pair in pairs for x in pair))
    sizes = all(abs(abs(x) - abs(y)) < scale for x, y in pairs)
    turned = any(abs(x + y) < scale < abs(x) for x, y in pairs)
    return sizes and turned and all(x == y or abs(x - y) < 1e-6 * (1 + abs(x)) for x, y in kept)


def summary(branch: Branch) -> dict[str, Any]:
    """What of a branch goes into JSON: its kind and its own numbers."""
    numbers = {n: q for n, q in branch.quantities(skip=branch.shared).items() if q.axis is None}
    return {
        "label": branch.label,
        "kind": branch.kind,
        "stable": branch.stable,
        "mirror": branch.mirror,
        "growth": {"value": branch.growth.value, "error": branch.growth.error},
        "observables": {n: {"value": q.value, "error": q.error} for n, q in numbers.items()},
    }


def _loaded(row: dict[str, Any], stored: dict[str, Quantity] | None) -> Branch:
    numbers = {n: Quantity(q["value"], q["error"]) for n, q in row["observables"].items()}
    known = stored if stored is not None else numbers
    growth = Quantity(row["growth"]["value"], row["growth"]["error"])
    parts = row["label"], row["kind"], row["stable"], growth, list(known), known.__getitem__
    return Branch(*parts, mirror=row.get("mirror", ""))


def _array(name: str, quantity: Quantity) -> xr.DataArray:
    import numpy as np
    import xarray as xr

    attributes = {"error": float(np.max(quantity.error)), "long_name": _LONG.get(name.split("_")[0], name)}
    if quantity.axis is None:
        return xr.DataArray(float(quantity.value), name=name, attrs=attributes)
    values = np.broadcast_to(np.asarray(quantity.value, float), np.shape(quantity.at))
    units = {"tau": "model time", "omega": "1 / model time"}
    at = xr.Variable(quantity.axis, np.asarray(quantity.at, float), {"units": units.get(quantity.axis, "1")})
    return xr.DataArray(values, coords={quantity.axis: at}, dims=(quantity.axis,), name=name, attrs=attributes)


def _quantity(data: xr.Dataset, name: str) -> Quantity:
    value, error = data[name], data[f"{name}_error"]
    if not value.dims:
        return Quantity(float(value), float(error))
    axis = str(value.dims[0])
    return Quantity(value.values, error.values, axis, data[axis].values)
