"""Figures of solutions and sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from quenched.solution import Solution
    from quenched.spectral import SpectralSolution
    from quenched.sweeping import Sweep

_LABEL = {"tau": r"lag $\tau$", "omega": r"frequency $\omega$", "x": r"eigenvalue $\lambda$"}


def _panels(count: int) -> tuple[Figure, list[Any]]:
    """A row of panels on a figure of its own (no global state)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * count, 2.8), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def plot_solution(solution: Solution, names: list[str] | None = None) -> Figure:
    """The curves of a solution, one panel each."""
    import numpy as np

    chosen = names or [n for n, q in solution.main.quantities().items() if q.axis is not None]
    figure, axes = _panels(len(chosen))
    for axis, name in zip(axes, chosen, strict=True):
        q = solution.quantity(name)
        order = np.argsort(q.at)
        value, error = np.asarray(q.value)[order], np.broadcast_to(q.error, np.shape(q.at))[order]
        axis.plot(np.asarray(q.at)[order], value, color="C0")
        axis.fill_between(np.asarray(q.at)[order], value - error, value + error, color="C0", alpha=0.3, lw=0)
        axis.set(xlabel=_LABEL[q.axis or "tau"], ylabel=name)
    given = ", ".join(f"{k} = {v:g}" for k, v in solution.parameters.items())
    figure.suptitle(f"{solution.provenance['model']}: {given}", fontsize="medium")
    return figure


def plot_sweep(sweep: Sweep, names: list[str] | None = None) -> Figure:
    """The numbers of a sweep against its first varying parameter, one panel each."""
    chosen = names or sweep.names
    figure, axes = _panels(len(chosen))
    at = [point[sweep.axes[0]] for point in sweep.points]
    for axis, name in zip(axes, chosen, strict=True):
        values, errors = sweep.numbers(name)
        axis.errorbar(at, values, errors, marker=".", color="C0")
        axis.set(xlabel=sweep.axes[0], ylabel=name)
    return figure


def plot_plane(solution: SpectralSolution, points: int = 100) -> Figure:
    """Density of complex eigenvalues in the plane, with the real edges marked."""
    import numpy as np

    figure, (axis,) = _panels(1)
    radius = 1.1 * solution.reader.reach
    x = np.linspace(-radius, radius, points)
    density = solution.density(x + 1j * x[:, None])
    image = axis.imshow(density, origin="lower", extent=(-radius, radius, -radius, radius), cmap="viridis")
    figure.colorbar(image, ax=axis, label="density")
    axis.plot([e.value for e in solution.edges()], [0] * len(solution.edges()), "w|")
    axis.set(xlabel=r"Re $\lambda$", ylabel=r"Im $\lambda$")
    figure.suptitle(str(solution.provenance["model"]), fontsize="medium")
    return figure
