"""Generated message passing: one readable module a problem, compiled by numba and cached by its content.

A site function turns the fields (b, V) of a population into (L, L₁, L₂); `sweep` updates the populations in order. The
module needs numpy, numba and the compiled kernels of `site_kernels`, no sympy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

from sympy import Expr, Heaviside, Mul, Poly, Symbol, exp, expand_log, log

from quenched.theory.errors import NotCovered
from quenched.theory.problem_messages import MessageBlock, MessageProblem, MessageSite
from quenched.theory.problem_replicas import Piece, X

from .cache import digest, load
from .codegen import _Printer
from .kinks import branches, kink_expressions
from .process_code import _Scalar

VERSION = "1"

_HEAD = '''"""Generated from a derivation: message passing on one instance. Edits are lost."""

import math

import numpy as np
from numba import njit

from quenched.numerics.site_kernels import (
    NODES,
    WEIGHTS,
    density_piece,
    gaussian_piece,
    merge,
)

#: order of the entries of p
NAMES = {names}


@njit(cache=True)
def sgn(a):
    return 1.0 if a > 0 else (-1.0 if a < 0 else 0.0)
'''

_ATOMS = '''
@njit(cache=True, error_model="numpy")
def {name}(b, V, q, p, L, m, v):
    """Units with the values and weights below: (L, mean, variance) in the fields b and V."""
    value, weight = np.empty({count}), np.empty({count})
    for i in range(b.size):
{labels}{rows}
        top = -np.inf
        for k in range({count}):
            weight[k] += b[i] * value[k] + 0.5 * V[i] * value[k] ** 2
            top = max(top, weight[k])
        total, mean = 0.0, 0.0
        for k in range({count}):
            weight[k] = math.exp(weight[k] - top)
            total += weight[k]
            mean += weight[k] * value[k]
        mean /= total
        spread = 0.0
        for k in range({count}):
            spread += weight[k] * (value[k] - mean) ** 2
        L[i], m[i], v[i] = top + math.log(total), mean, spread / total
'''

_WEIGHT = '''
@njit(cache=True, error_model="numpy")
def {name}(u, q, i, p):
    """{doc}"""
{labels}    return {body}
'''

_PIECES = '''
@njit(cache=True, error_model="numpy")
def {name}(b, V, q, p, L, m, v):
    """{doc}"""
    edges = np.empty({count} + 2)
    for i in range(b.size):
        out = (-np.inf, 0.0, 0.0)
{atoms}{bodies}
        L[i], m[i], v[i] = {result}
'''

_INTERVALS = """        edges[:] = np.inf
        edges[0] = -np.inf
{labels}{kinks}        edges[1:{last}].sort()
        for k in range({last}):
            lo, hi = edges[k], edges[k + 1]
            if not hi > lo:
                continue
            at, step = (lo + 0.25 * (hi - lo), 0.25 * (hi - lo)) if hi - lo < np.inf else (
                (lo + 1.0, 1.0) if lo > -np.inf else (hi - 1.0, -1.0) if hi < np.inf else (0.0, 1.0)
            )
            y0 = {weight}(at, q, i, p)
            if y0 == -np.inf:
                continue
{piece}"""

_EXACT = """            y1, y2 = {weight}(at + step, q, i, p), {weight}(at + 2.0 * step, q, i, p)
            c2 = (y2 - 2.0 * y1 + y0) / step**2
            c1 = (y1 - y0) / step - c2 * (at + 0.5 * step)
            c0 = y0 - c1 * at - 0.5 * c2 * at * at
            out = merge(out, {kernel})
"""

_SMOOTH = """            lo, hi = max(lo, {centre} - 9.5 * {width}), min(hi, {centre} + 9.5 * {width})
            if not hi > lo:
                continue
            half = 0.5 * (hi - lo)
            top = -np.inf
            for n in range(NODES.size):
                s = lo + half * (1.0 + NODES[n])
                top = max(top, {weight}(s, q, i, p) + {tilt})
            total, mean, square = 0.0, 0.0, 0.0
            for n in range(NODES.size):
                s = lo + half * (1.0 + NODES[n])
                w = WEIGHTS[n] * math.exp({weight}(s, q, i, p) + {tilt} - top)
                y = (s - {centre}) / {width}
                total += w
                mean += w * y
                square += w * y * y
            mean /= total
            out = merge(out, (top + math.log(total * half), mean, square / total - mean * mean{less}))
"""


@dataclass(frozen=True)
class SiteProgram:
    """One population: names, kind, norm (on a sphere), ln of the number of states (where counted), labels."""

    name: str
    symbol: str
    kind: str
    norm: float | None
    weight: float | None
    labels: tuple[str, ...]


@dataclass(frozen=True)
class MessageProgram:
    """A problem as source and plain data: no sympy is needed to run it.

    Attributes
    ----------
    source : of the generated module
    sites : in the order of a sweep
    blocks : (matrix or None, rows, columns) of every coupling, in the order of the functions `block_k`
    reading : (population, label) that some coupling reads
    taught : (population, label, ((matrix, label at its rows, far population), …)) of labels that teachers give
    spread, entropy : as in `MessageProblem`
    parameters : names, in the order of p
    """

    source: str
    sites: tuple[SiteProgram, ...]
    blocks: tuple[tuple[str | None, str, str], ...]
    reading: tuple[tuple[str, str], ...]
    taught: tuple[tuple[str, str, tuple[tuple[str, bool, str], ...]], ...]
    spread: float
    entropy: tuple[float, float]
    parameters: tuple[str, ...]

    @cached_property
    def module(self) -> ModuleType:
        """The compiled module (from the cache if an earlier run generated it)."""
        return load(digest(f"messages {VERSION} {self.source}"), lambda: self.source)

    def pairs(self) -> list[tuple[str, str]]:
        """Pairs (rows, columns) of populations that are coupled, each once, in the order of a sweep."""
        order = [s.name for s in self.sites]
        return _pairs(order, [(rows, cols) for _, rows, cols in self.blocks])


def message_program(problem: MessageProblem) -> MessageProgram:
    """Generate the program of a problem."""
    sites = tuple(
        SiteProgram(
            s.name,
            s.symbol,
            s.measure.kind,
            None if s.norm is None else float(s.norm),
            None if s.weight is None else float(s.weight),
            tuple(q.name for q, _, _ in s.measure.labels),
        )
        for s in problem.sites
    )
    reading = [(b.rows, q.name) for b in problem.blocks for q in sorted(b.row.free_symbols, key=str)]
    reading += [(b.cols, q.name) for b in problem.blocks for q in sorted(b.col.free_symbols, key=str)]
    labels = {s.name: s.labels for s in sites}
    return MessageProgram(
        message_source(problem),
        sites,
        tuple((b.matrix, b.rows, b.cols) for b in problem.blocks),
        tuple(dict.fromkeys(r for r in reading if r[1] in labels[r[0]])),
        tuple(
            (s.name, s.taught.symbol.name, tuple((m, at_row, far) for m, at_row, _, far in s.taught.uses))
            for s in problem.sites
            if s.taught
        ),
        problem.spread,
        problem.entropy,
        tuple(s.name for s in problem.parameters),
    )


def message_source(problem: MessageProblem) -> str:
    """Source text of the module of a problem."""
    return _Writer(problem).text()


def identifier(name: str) -> str:
    """A population's name as part of a Python name."""
    return "".join(c if c.isalnum() else "_" for c in name)


class _Writer:
    """Writes the module of one problem."""

    def __init__(self, problem: MessageProblem) -> None:
        self.problem = problem
        order = [s.name for s in problem.sites]
        self.pairs = _pairs(order, [(b.rows, b.cols) for b in problem.blocks])
        self.parameters = {s: Symbol(f"p[{k}]") for k, s in enumerate(problem.parameters)}

    def text(self) -> str:
        names = tuple(s.name for s in self.problem.parameters)
        parts = [_HEAD.format(names=repr(names))]
        for site in self.problem.sites:
            parts += self._site(site)
        parts += [self._given(site) for site in self.problem.sites]
        parts += [self._label(site) for site in self.problem.sites if site.taught]
        parts += [self._block(k, block) for k, block in enumerate(self.problem.blocks)]
        return "\n".join([*parts, self._sweep()])

    def _given(self, site: MessageSite) -> str:
        """Field and quadratic coefficient that the declaration gives a site."""
        name = identifier(site.name)
        out = []
        for what, expr in (("bias", site.bias), ("quadratic", site.quadratic)):
            doc = {"bias": "Field", "quadratic": "Twice the quadratic coefficient"}[what]
            out.append(f'\ndef {what}_{name}(q, p):\n    """{doc} that the declaration gives a site of {site.name}."""')
            out.append(f"    return {self._array(expr, site, 'q')} + np.zeros(len(q))\n")
        return "\n".join(out)

    def _label(self, site: MessageSite) -> str:
        """Noise of a teacher's label, and the weights that it sums over the couplings."""
        assert site.taught is not None
        name, sites = identifier(site.name), {s.name: s for s in self.problem.sites}
        noise = ", ".join(self._array(e, site, "q") for e in (site.taught.mean, site.taught.variance))
        doc = f"Mean and variance of the noise in {site.taught.symbol}."
        out = f'\ndef noise_{name}(p):\n    """{doc}"""\n    return {noise}\n'
        for k, (matrix, _, weights, far) in enumerate(site.taught.uses):
            doc = f"What {site.taught.symbol} sums over {matrix}: weights of the teacher."
            body = f"    return {self._array(weights, sites[far], 'q')} + np.zeros(len(q))"
            out += f'\n\ndef teacher_{name}_{k}(q, p):\n    """{doc}"""\n{body}\n'
        return out

    def _block(self, k: int, block: MessageBlock) -> str:
        sites = {s.name: s for s in self.problem.sites}
        row = self._array(block.row, sites[block.rows], "q_rows")
        col = self._array(block.col, sites[block.cols], "q_cols")
        coef = self._array(block.coef, sites[block.rows], "q_rows")
        doc = f"Couplings of {block.rows} (rows) to {block.cols} through {block.matrix or 'their mean'}."
        body = f"    return ({coef}) * (({row}) + np.zeros(len(q_rows)))[:, None] * M * ({col})"
        return f'\ndef block_{k}(M, q_rows, q_cols, p):\n    """{doc}"""\n{body}\n'

    def _array(self, expr: Expr, site: MessageSite, q: str) -> str:
        """numpy code of an expression in labels and parameters."""
        labels = {s: Symbol(f"{q}[:, {k}]") for k, (s, _, _) in enumerate(site.measure.labels)}
        try:
            return str(
                _Printer({"fully_qualified_modules": True}).doprint(expr.xreplace({**self.parameters, **labels}))
            )
        except Exception as error:
            raise NotCovered(f"no numerical code for {expr}: {error}") from error

    # -- site functions ------------------------------------------------------------------------------------------
    def code(self, expr: Expr, site: MessageSite) -> str:
        """Scalar code of an expression in X (as u), labels and parameters."""
        swap = {**self.parameters, X: Symbol("u"), **self._names(site)}
        try:
            return str(_Scalar({"fully_qualified_modules": True}).doprint(expr.xreplace(swap)))
        except Exception as error:
            raise NotCovered(f"no compiled code for {expr}: {error}") from error

    def _names(self, site: MessageSite) -> dict[Symbol, Symbol]:
        return {q: Symbol(f"q_{k}") for k, (q, _, _) in enumerate(site.measure.labels)}

    def _labels(self, site: MessageSite, exprs: Iterable[Expr], indent: str) -> str:
        used = set().union(*(e.free_symbols for e in exprs))
        rows = [f"{indent}q_{k} = q[i, {k}]\n" for k, (q, _, _) in enumerate(site.measure.labels) if q in used]
        return "".join(rows)

    def _site(self, site: MessageSite) -> list[str]:
        name = f"site_{identifier(site.name)}"
        pieces = site.measure.pieces
        if all(p.value is not None for p in pieces):
            return [self._atoms(site, name, pieces)]
        return self._pieces(site, name, pieces)

    def _atoms(self, site: MessageSite, name: str, pieces: tuple[Piece, ...]) -> str:
        rows = []
        for k, p in enumerate(pieces):
            assert p.value is not None
            rows.append(f"        value[{k}], weight[{k}] = {self.code(p.value, site)}, {self._log(p.weight, site)}")
        labels = self._labels(site, [e for p in pieces for e in (p.value, p.weight) if e is not None], " " * 8)
        return _ATOMS.format(name=name, count=len(pieces), labels=labels, rows="\n".join(rows))

    def _log(self, weight: Expr, site: MessageSite) -> str:
        """Code of ln weight, factor by factor."""
        parts = []
        for factor in Mul.make_args(weight):
            base, power = factor.as_base_exp()
            if isinstance(factor, exp):
                parts.append(self.code(factor.args[0], site))
            elif base.func is Heaviside and power == 1:
                parts.append(f"(0.0 if {self.code(base.args[0], site)} > 0 else -np.inf)")
            else:
                parts.append(f"math.log({self.code(factor, site)})")
        return " + ".join(parts)

    def _pieces(self, site: MessageSite, name: str, pieces: tuple[Piece, ...]) -> list[str]:
        channel = site.measure.kind == "channel"
        out, atoms, bodies, most = [], "", "", 0
        for k, p in enumerate(pieces):
            if p.value is not None:
                value, weight = self.code(p.value, site), self._log(p.weight, site)
                atoms += self._labels(site, [p.value, p.weight], " " * 8)
                atoms += f"        s = {value}\n"
                atoms += f"        out = merge(out, ({weight} + b[i] * s + 0.5 * V[i] * s * s, s, 0.0))\n"
                continue
            log_name = f"log_{name.removeprefix('site_')}" + ("" if len(pieces) == 1 else f"_{k}")
            labels = self._labels(site, [p.weight], "    ").replace("\n    ", "\n    ")
            doc = f"ln of {p.weight}".replace('"', "'")
            out.append(_WEIGHT.format(name=log_name, doc=doc, labels=labels, body=self._log(p.weight, site)))
            kinks = kink_expressions(p.weight)
            most = max(most, len(kinks))
            bodies += self._intervals(site, p, log_name, kinks, channel)
        if channel:
            doc = "Local fields u = b + √V y with the weight above: L = ln ∫Dy f(u) and its derivatives in b."
            result = "out[0], out[1] / math.sqrt(V[i]), out[2] / V[i]"
        else:
            doc, result = "Units with the density above in the fields b and V.", "out[0], out[1], out[2]"
        out.append(_PIECES.format(name=name, doc=doc, count=most, atoms=atoms, bodies=bodies, result=result))
        return out

    def _intervals(self, site: MessageSite, p: Piece, name: str, kinks: tuple[Expr, ...], channel: bool) -> str:
        if quadratic(p.weight):
            kernel = (
                "gaussian_piece(lo, hi, c0, c1, c2, b[i], math.sqrt(V[i]))"
                if channel
                else "density_piece(lo, hi, c0, c1, c2, b[i], V[i])"
            )
            piece = _EXACT.format(weight=name, kernel=kernel)
        elif channel:
            tilt = "(-0.5 * (s - b[i]) ** 2 / V[i] - 0.5 * math.log(2 * math.pi * V[i]))"
            piece = _SMOOTH.format(weight=name, centre="b[i]", width="math.sqrt(V[i])", tilt=tilt, less=" - 1.0")
        else:
            raise NotCovered(
                f"the a priori density {p.weight} of {site.name}: messages take exp(c0 + c1 x + c2 x²) between kinks"
            )
        rows = []
        for k, e in enumerate(kinks):
            rows.append(f"        edges[{k + 1}] = {self.code(e, site)}\n")
            rows.append(f"        edges[{k + 1}] = edges[{k + 1}] if abs(edges[{k + 1}]) < np.inf else np.inf\n")
        labels = self._labels(site, kinks, " " * 8)
        return _INTERVALS.format(labels=labels, kinks="".join(rows), last=len(kinks) + 1, weight=name, piece=piece)

    # -- the sweep -----------------------------------------------------------------------------------------------
    def _sweep(self) -> str:
        rows = [
            "def sweep(m, v, old, A, B, Q, q, p, multiplier):",
            '    """One update of all populations in order: dicts of means, variances, L, fields and widths."""',
            "    m, v, logs, fields_, widths = dict(m), dict(v), {}, {}, {}",
        ]
        for site in self.problem.sites:
            rows += self._update(site)
        return "\n\n" + "\n".join([*rows, "    return m, v, logs, fields_, widths"]) + "\n"

    def _update(self, site: MessageSite) -> list[str]:
        name, problem = site.name, self.problem
        rows = [f"    # {name}", f"    b, V = B[{name!r}].copy(), Q[{name!r}].copy()"]
        for pair in self.pairs:
            if name not in pair:
                continue
            far = pair[1] if pair[0] == name else pair[0]
            apply = "rows" if pair[0] == name else "columns"
            heard = f"old[{name!r}]" if far == name else f"m[{name!r}]"
            rows.append(f"    h, s = A[{pair!r}].{apply}(m[{far!r}], v[{far!r}])")
            rows.append(
                f"    b += {problem.direct!r} * h + {problem.reaction!r} * s * {heard}  # what comes back is taken away"
            )
            rows.append(f"    V += {problem.spread!r} * s")
        function = f"site_{identifier(name)}"
        if site.norm is not None:
            rows.append(f"    V = multiplier({function}, b, q[{name!r}], p, {float(site.norm)!r})")
        rows += [
            "    L, mean, spread = np.empty_like(b), np.empty_like(b), np.empty_like(b)",
            f"    {function}(b, V, q[{name!r}], p, L, mean, spread)",
            f"    m[{name!r}], v[{name!r}] = mean, spread",
            f"    logs[{name!r}], fields_[{name!r}], widths[{name!r}] = L, b, V",
        ]
        return rows


def _pairs(order: list[str], blocks: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    found = {(rows, cols) if order.index(rows) <= order.index(cols) else (cols, rows) for rows, cols in blocks}
    return sorted(found, key=lambda pair: [order.index(n) for n in pair])


def quadratic(weight: Expr) -> bool:
    """Whether the logarithm of a weight is a polynomial of degree two at most in X between its kinks."""
    for branch in branches(weight, X):
        if branch == 0:
            continue
        exponent = expand_log(log(branch), force=True).expand()
        if not exponent.is_polynomial(X) or (exponent.has(X) and Poly(exponent, X).degree() > 2):
            return False
    return True
