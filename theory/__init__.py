"""What is true of a declared model as N → ∞: declaration, derivation, self-consistency problem.

Names are loaded at first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "spaces": "N Population t tau units",
    "fields": "At Field Quenched WhiteNoise",
    "distributions": "Bernoulli Discrete Empirical Exponential HalfNormal Ising Laplace Law Normal SpikeSlab Uniform",
    "circulant": "Circulant",
    "couplings": "Apply Gaussian Iid Matrix Transpose diag eye outer",
    "observables": (
        "Capacity Complexity Critical Entropy Evidence Fisher Fluctuation FreeEntropy Functional Growth IPR Kernel "
        "Law_of Lyapunov Margin Mean Participation Peak PeakTime Posterior Probability RateFunction Replicon Shift "
        "cov mean total"
    ),
    "eigenvalue_observables": "Count Density Edge Moment Outlier Radius",
    "model": "Dynamics Map Model",
    "gibbs": "Gibbs",
    "landscape": "Landscape",
    "priors": "Box Flat Positive Spherical",
    "spectrum": "Spectrum",
    "jacobian": "jacobian",
    "layers": "Layers Overlap",
    "tangent": "tangent",
    "indices": "indexed indexed_latex",
    "transforms": "copies discretise zero_temperature",
    "unbuilt": ("Data Entrywise FixedPoints Sparse Spikes Stable backward freeze grad"),
    "errors": "AmbiguousExpression ConvergenceError NotCovered QuenchedError",
}
_HOME = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *(n for n in globals() if n.startswith("__"))]
