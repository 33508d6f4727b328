"""The transformation `tangent`: a network together with its derivative in a random direction of its weights.

Every matrix and every bias W gets an independent direction V of the same law, and every field x its derivative
δx = d/dε x(W + εV). The covariance of δx between inputs, over directions, is the neural tangent kernel of layer a; as
δx obeys equations of its own, the kernel comes from the same derivation as everything else, and so does its simulation.
"""

from __future__ import annotations

from typing import Any

from sympy import Add, Basic, Expr, S, Symbol

from quenched.theory.couplings import Apply, Gaussian, Iid, RandomMatrix, Transpose
from quenched.theory.distributions import Law
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import At, Field, Quenched, UnitSymbol, unbind
from quenched.theory.layers import Layers
from quenched.theory.model import Map
from quenched.theory.observables import Mean


def tangent(model: Map) -> Layers:
    """A layered network with its derivative in a random direction of all weights and biases.

    Parameters
    ----------
    model : Layers

    Returns
    -------
    Layers
        With fields ``d_x`` beside every ``x``, directions ``d_W`` of matrices and ``d_b`` of biases; observables of the
        model are kept. ``mean(d_h[1](a)*d_h[2](a))`` is the neural tangent kernel of layer a for inputs 1 and 2.

    Raises
    ------
    QuenchedError
        A map without a declared number of steps.
    NotCovered
        Averages inside equations, or fields at other layers.

    Notes
    -----
    Jacot, Gabriel, Hongler, arXiv:1806.07572; entries are varied relative to their standard deviation.
    """
    if model.steps is None:
        raise QuenchedError("tangent takes a map with a declared number of steps: Layers or Map(..., steps=)")
    return _Tangent(model).run()


class _Tangent:
    """Differentiates right-hand sides and starts."""

    def __init__(self, model: Map) -> None:
        self.model = model
        taken = {u.name for u in (*model.fields, *model.quenched, *model.matrices, *model.parameters)}
        self.prefix = "d_" if not any(name.startswith("d_") for name in taken) else "delta_"
        self.fields: dict[Field, Field] = {}
        for x in model.eqs:
            details = (self._start(x), *x._details[1:])
            self.fields[x] = Field._make(f"{self.prefix}{x.name}", x.population, None, False, details)

    def run(self) -> Layers:
        eqs: dict[Field, Expr] = dict(self.model.eqs)
        eqs |= {self.fields[x]: self.differential(rhs) for x, rhs in self.model.eqs.items()}
        name = f"tangent of {self.model.name or 'a network'}"
        found = Layers(eqs, self.model.steps, name, self.model.defaults)
        found.observe(**self.model.observables)
        return found

    def _start(self, x: Field) -> Expr:
        initial = x.initial
        if initial is None or isinstance(initial, Law):
            return S.Zero  # a random start does not depend on weights
        return self.differential(initial)

    def differential(self, expr: Expr) -> Expr:
        """d expr in the direction of all weights, biases and states."""
        if expr.atoms(At, Mean):
            raise NotCovered(f"the derivative of {expr}: averages and other layers are not built yet")
        nodes = sorted(expr.atoms(Apply), key=str)
        outer = [n for n in nodes if not any(n in m.body.atoms(Apply) for m in nodes)]
        marks = {n: Symbol(f"mark_{k}", real=True) for k, n in enumerate(outer)}
        flat = expr.xreplace(marks)
        total: list[Expr] = [flat.diff(mark).xreplace(_back(marks)) * self._sum(n) for n, mark in marks.items()]
        for unit in sorted(flat.atoms(UnitSymbol), key=str):
            slope = flat.diff(unit).xreplace(_back(marks))
            if slope != 0:
                total.append(slope * self._unit(unit))
        return Add(*total)

    def _sum(self, node: Apply) -> Expr:
        """d(W ψ) = V ψ + W dψ."""
        body = unbind(node.body)
        flipped = isinstance(node.matrix, Transpose)
        direction = self._direction(node.matrix.matrix if flipped else node.matrix)
        turned = Transpose(direction) if flipped else direction
        change = self.differential(body)
        return Apply(turned, body) + (Apply(node.matrix, change) if change != 0 else S.Zero)

    def _unit(self, unit: Any) -> Expr:
        if isinstance(unit, Field):
            return self.fields[unit]
        if isinstance(unit, Quenched) and unit.law.has_moments:
            centred = unit.law.func(0, *unit.law.args[1:]) if type(unit.law).__name__ == "Normal" else None
            if centred is None:
                raise NotCovered(f"a direction of {unit} with the law {unit.law}: expected a Normal law")
            return Quenched(f"{self.prefix}{unit.name}", centred, unit.population, unit.redraw, unit.each)
        return S.Zero  # noise and inputs are not varied

    def _direction(self, matrix: RandomMatrix) -> RandomMatrix:
        name, over = f"{self.prefix}{matrix.name}", (matrix.rows, matrix.cols)
        if isinstance(matrix, Gaussian):
            return Gaussian(name, matrix.variance, 0, 0, over, None, matrix.redraw)
        if isinstance(matrix, Iid):
            return Gaussian(name, matrix.law.variance_(), 0, 0, over, None, matrix.redraw)
        raise NotCovered(f"a direction of {matrix}: expected Gaussian or Iid couplings")


def _back(marks: dict[Apply, Symbol]) -> dict[Basic, Basic]:
    return {mark: node for node, mark in marks.items()}


__all__ = ["tangent"]
