"""Site functions as numbers: values, derivatives, and where they have kinks and jumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from .steps import Steps
from .types import Array

Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Site:
    """A site function at fixed parameters and labels.

    `raw` is `value` without the check that it is finite; `slope` is None where the derivative is a distribution;
    `steps` are the jumps of a function that is constant but for them.
    """

    name: str
    value: Function
    raw: Function
    slope: Function | None
    kinks: Array
    steps: Steps | None = None


def jump_at(f: Function, kink: float) -> float:
    ends = f(np.array([kink - 1e-9, kink + 1e-9]))
    return float(ends[1] - ends[0])


def find_kinks(switches: Callable[[Array], list[Array]]) -> Array:
    """Zeros of the switching expressions of a site function, found on a scan and polished."""
    scan = np.concatenate([-np.geomspace(1e3, 12, 60), np.linspace(-12, 12, 1201) + 1e-7, np.geomspace(12, 1e3, 60)])
    found: list[float] = []
    with np.errstate(all="ignore"):
        for j, values in enumerate(switches(scan)):
            values = np.broadcast_to(values, scan.shape)
            for i in np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) < 0):
                found.append(
                    brentq(
                        lambda u, j=j: float(np.ravel(switches(np.array([u]))[j])[0]),
                        scan[i],
                        scan[i + 1],
                        xtol=1e-15,
                        rtol=1e-15,
                    )
                )
            found += [float(u) for u in scan[values == 0][:1] if np.count_nonzero(values == 0) < 10]
    kinks = np.array(sorted(found))
    kinks[np.abs(kinks) < 1e-14] = 0.0
    return kinks[np.concatenate([[True], np.diff(kinks) > 1e-12])] if len(kinks) else kinks
