"""From one declaration of a disordered model to its theory, its solver, its simulation and a verdict.

Every public name is lazy (PEP 562): nothing heavy is imported before its first use.

>>> from sympy import symbols, tanh
>>> from quenched import Dynamics, Field, Gaussian, derive
>>> g = symbols("g", nonnegative=True)
>>> x, J = Field("x"), Gaussian("J", variance=g**2)
>>> theory = derive(Dynamics({x: -x + J @ tanh(x)}))  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name → module that defines it.
_HOME: dict[str, str] = {
    **dict.fromkeys(("Population", "units", "N", "t", "tau"), "quenched.theory.spaces"),
    **dict.fromkeys(("Field", "Quenched", "WhiteNoise"), "quenched.theory.fields"),
    **dict.fromkeys(("Gaussian", "Iid", "diag", "outer", "eye"), "quenched.theory.couplings"),
    "Circulant": "quenched.theory.circulant",
    **dict.fromkeys(
        (
            *("Normal", "Uniform", "Ising", "Bernoulli", "Discrete", "Laplace", "HalfNormal", "Exponential"),
            *("SpikeSlab", "Empirical"),
        ),
        "quenched.theory.distributions",
    ),
    **dict.fromkeys(
        (
            *("mean", "total", "cov", "Lyapunov", "Critical", "Participation"),
            *("Complexity", "Fluctuation", "Shift", "Posterior"),
            *("Peak", "PeakTime"),
            *("Replicon", "Entropy", "FreeEntropy", "Capacity", "Margin", "Growth", "SpinGlassSusceptibility"),
        ),
        "quenched.theory.observables",
    ),
    **dict.fromkeys(
        ("Density", "Count", "Edge", "Radius", "Outlier", "Moment"), "quenched.theory.eigenvalue_observables"
    ),
    **dict.fromkeys(("Dynamics", "Map"), "quenched.theory.model"),
    **dict.fromkeys(("Layers", "Overlap"), "quenched.theory.layers"),
    "Spectrum": "quenched.theory.spectrum",
    "jacobian": "quenched.theory.jacobian",
    "Gibbs": "quenched.theory.gibbs",
    "Landscape": "quenched.theory.landscape",
    **dict.fromkeys(("Spherical", "Flat", "Positive", "Box"), "quenched.theory.priors"),
    **dict.fromkeys(("copies", "discretise", "freeze", "zero_temperature"), "quenched.theory.transforms"),
    "tangent": "quenched.theory.tangent",
    **dict.fromkeys(("predict", "prediction"), "quenched.gaussian_process"),
    **dict.fromkeys(
        ("QuenchedError", "AmbiguousExpression", "NotCovered", "ConvergenceError"), "quenched.theory.errors"
    ),
    **dict.fromkeys(("derive", "start"), "quenched.deriving"),
    "Theory": "quenched.theory_object",
    **dict.fromkeys(("Solution", "load"), "quenched.solution"),
    "simulate": "quenched.validate.simulate",
    "validate": "quenched.validation",
    "catalogue": "quenched.systems",
}

#: Names that are fixed but not built yet, with what they will be.
_PLANNED: dict[str, str] = {
    **dict.fromkeys(("Sparse", "Stable", "Data"), "a law of couplings"),
    "Entrywise": "a function of the entries of a matrix",
    "Spikes": "an event train",
    **dict.fromkeys(("StableLaw",), "a law of one number"),
    "FixedPoints": "a head",
    **dict.fromkeys(("backward", "grad"), "a transformation"),
    **dict.fromkeys(
        (*("Kernel", "Probability"),),
        "an observable",
    ),
}

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from quenched.deriving import derive as derive
    from quenched.deriving import start as start
    from quenched.solution import Solution as Solution
    from quenched.solution import load as load
    from quenched.systems import catalogue as catalogue
    from quenched.theory_object import Theory as Theory
    from quenched.validate.simulate import simulate as simulate


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name in _HOME:
        # `validate` is the package of that name, which can be called (see validate/__init__.py).
        value = import_module("quenched.validate") if name == "validate" else _member(_HOME[name], name)
        globals()[name] = value
        return value
    if name in _PLANNED:
        from quenched.theory.errors import QuenchedError

        raise QuenchedError(f"{name} ({_PLANNED[name]}) is a fixed public name that is not built yet")
    raise AttributeError(f"module 'quenched' has no attribute {name!r}")


def _member(module: str, name: str) -> Any:
    """`name` of `module`, imported now."""
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return __all__
