"""Names that theory, simulation and reports share: coupling outputs, local fields, standard observables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sympy import Expr, default_sort_key

from quenched.theory.bonds import bond_equations, endpoints
from quenched.theory.couplings import Apply
from quenched.theory.fields import Field, Quenched, UnitSymbol, WhiteNoise
from quenched.theory.spaces import Population

if TYPE_CHECKING:
    from quenched.theory.model import Model


@dataclass(frozen=True)
class Output:
    """What a coupling reads from the units of a population: ψ = body (with free, unbound fields)."""

    name: str
    body: Expr
    population: Population


def unbind(expr: Expr) -> Expr:
    """The expression with its bound unit quantities free again (the content of an `Apply` or `Mean` body)."""
    bound = [a for a in expr.atoms(Field, Quenched, WhiteNoise) if a.bound]
    return expr.xreplace({a: a.free() for a in bound})


def applications(model: Model) -> list[Apply]:
    """Every distinct `J @ ψ` of the declaration, inner ones first, in a reproducible order."""
    found: dict[Apply, None] = {}
    for rhs in (*model.eqs.values(), *model.starts.values()):
        for node in sorted(rhs.atoms(Apply), key=lambda a: (_depth(a), default_sort_key(a))):
            found.setdefault(node, None)
    return list(found)


def _depth(node: Apply) -> int:
    return 1 + max((_depth(inner) for inner in node.body.atoms(Apply)), default=0)


def coupling_outputs(model: Model) -> list[Output]:
    """The distinct outputs ψ that couplings (and equations of dynamic ones) read, in order of appearance.

    They are named ``phi``, or ``phi_1, phi_2, …`` where there are several.
    """
    bodies: dict[tuple[Expr, Population], None] = {}
    for node in applications(model):
        bodies.setdefault((unbind(node.body), node.cols), None)
    for equation in bond_equations(model.bonds):
        bodies |= dict.fromkeys(endpoints(equation.bond, equation.drives))
    given = {key: key[0].name for key in bodies if _is_given(key[0])}
    rest = [key for key in bodies if key not in given]
    names = given | {key: "phi" if len(rest) == 1 else f"phi_{k + 1}" for k, key in enumerate(rest)}
    return [Output(names[key], *key) for key in bodies]


def _is_given(body: Expr) -> bool:
    """Whether an output is a vector of which only the overlaps are known."""
    return isinstance(body, Quenched) and not body.law.has_moments


def field_names(model: Model) -> dict[Field, str]:
    """Unique printed names: a name used in several populations gets the population as its suffix."""
    plain = {f: unit_name(f) for f in model.eqs}
    counts = Counter(plain.values())
    return {f: name if counts[name] == 1 else f"{name}_{f.population.name}" for f, name in plain.items()}


def unit_name(symbol: UnitSymbol) -> str:
    """The name of a unit quantity; one of a copy of the system carries the copy's number, as in ``x_1``."""
    return symbol.name if symbol.copy is None else f"{symbol.name}_{symbol.copy}"


def standard_names(model: Model) -> dict[str, tuple[str, Field | Output]]:
    """Standard observables of a rate network: name → (kind, what it is measured on).

    Kinds: ``C`` (⟨x(t)x(t+τ)⟩ over lags τ), ``C0`` (⟨x²⟩), ``mean`` (⟨x⟩), ``R`` (response), ``S`` (spectrum) of
    fields, ``C_out`` and ``C_out0`` of coupling outputs.
    """
    names: dict[str, tuple[str, Field | Output]] = {}
    for fld, label in field_names(model).items():
        names |= {
            f"C_{label}": ("C", fld),
            f"C_{label}_0" if label[-1].isdigit() else f"C_{label}0": ("C0", fld),
            f"mean_{label}": ("mean", fld),
            f"R_{label}": ("R", fld),
            f"S_{label}": ("S", fld),
        }
    for out in coupling_outputs(model):
        label = "C_" + out.name
        names |= {label: ("C_out", out), label.replace("phi", "phi0"): ("C_out0", out)}
    return names
