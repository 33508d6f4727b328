"""A theory solved along parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quenched.parameters import points
from quenched.readout import Quantity
from quenched.solution import Solution
from quenched.theory.errors import QuenchedError

if TYPE_CHECKING:
    import xarray as xr

    from quenched.theory_object import Theory


class Sweep:
    """Solutions at a list of parameter points.

    Attributes
    ----------
    points : list of dict
        Parameter values of each point.
    solutions : list of Solution
    axes : list of str
        Names of the parameters that vary, in the order given.
    """

    def __init__(self, at: list[dict[str, Any]], solutions: list[Solution], axes: list[str]) -> None:
        self.points, self.solutions, self.axes = at, solutions, axes

    @property
    def names(self) -> list[str]:
        """The observables that are numbers at every point and differ from point to point."""
        main = self.solutions[0].main
        return [n for n, q in main.quantities(skip=main.shared).items() if q.axis is None]

    def numbers(self, name: str) -> tuple[list[float], list[float]]:
        """Values and errors of a scalar observable along the sweep."""
        found: list[Quantity] = [s.quantity(name) for s in self.solutions]
        if any(q.axis is not None for q in found):
            raise QuenchedError(f"{name} is a curve: take it from sweep.solutions[k][{name!r}]")
        return [float(q.value) for q in found], [float(q.error) for q in found]

    def __getitem__(self, name: str) -> xr.DataArray:
        return self.dataset[name] if name in self.names else self._one(name)

    def _one(self, name: str) -> xr.DataArray:
        import xarray as xr

        coords = {axis: ("point", [p[axis] for p in self.points]) for axis in self.axes}
        return xr.DataArray(self.numbers(name)[0], dims=("point",), coords=coords, name=name)

    @property
    def dataset(self) -> xr.Dataset:
        """``NAME`` and ``NAME_error`` over the points, with the varying parameters as coordinates."""
        import xarray as xr

        single = self.axes[0] if len(self.axes) == 1 else "point"
        coords = {axis: (single, [p[axis] for p in self.points]) for axis in self.axes}
        data: dict[str, Any] = {}
        for name in self.names:
            values, errors = self.numbers(name)
            data[name], data[f"{name}_error"] = (single, values), (single, errors)
        return xr.Dataset(data, coords=coords, attrs=self.solutions[0].provenance)

    def plot(self, names: list[str] | None = None) -> Any:
        """Plot the numbers along the sweep; returns the matplotlib figure."""
        from quenched.plots import plot_sweep

        return plot_sweep(self, names)

    def __repr__(self) -> str:
        return f"sweep over {', '.join(self.axes)}: {len(self.points)} points of {', '.join(self.names)}"


def sweep(theory: Theory, values: Mapping[str, Any]) -> Sweep:
    """Solve `theory` at all combinations of the values that are lists."""
    listed = {k: _as_list(v) for k, v in values.items()}
    axes = [k for k, v in listed.items() if isinstance(v, list)]
    if not axes:
        raise QuenchedError("sweep needs a list of values for at least one parameter, as in sweep(g=[1.5, 2, 3])")
    at = points(listed)
    return Sweep(at, [theory.solve(point) for point in at], axes)


def _as_list(given: Any) -> Any:
    """Arrays, ranges and tuples as lists; an empty one is a slip."""
    if isinstance(given, str) or not hasattr(given, "__len__"):
        return given
    listed = [float(v) for v in given]
    if not listed:
        raise QuenchedError("sweep got an empty list of values")
    return listed
