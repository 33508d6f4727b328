"""Generated numba code for units whose trajectories are sampled.

The module of one unit holds its right-hand side, its outputs and its kicks as scalar code, and the loop over paths and
steps that integrates them: Heun with additive noise for a flow, plain iteration for a map, memory as a convolution
with the unit's own past outputs. Inner functions allocate nothing and count no references (`_nrt`): counting them would
take longer than what they compute.
"""

from __future__ import annotations

from types import ModuleType

from sympy import Derivative, DiracDelta, Expr, Symbol
from sympy.printing.pycode import PythonCodePrinter

from quenched.theory.errors import NotCovered
from quenched.theory.problem import SampledUnit

from .cache import digest, load
from .path_responses import jumps

VERSION = "8"
#: How large a kick of a field is, in generated code.
_SIZE = Symbol("kick_size")

_LOOP = '''
@njit(cache=True, fastmath=True, _nrt=False)
def tail(psi, past, at, reach, mem):
    """Memory of every field from outputs before step `at`, without the entry at zero lag; `past` is the kernel from
    its longest lag on. Slices: their indices are known to lie inside, so that the sum runs over vectors.
    """
    kept = min(reach, at)
    for u in range(past.shape[0]):
        total = 0.0
        for b in range(past.shape[1]):
            weight, output = past[u, b, reach - kept : reach], psi[b, at - kept : at]
            for j in range(kept):
                total += weight[j] * output[j]
        mem[u] = total


@njit(cache=True, fastmath=True, _nrt=False)
def look_back(history, kicked, first, at, late, source, z):
    """Earlier states as seen at step `at`: of the kicked path from step `first` on, constant before the start."""
    for i in range(late.shape[0]):
        step = max(at - late[i], 0)
        z[i] = kicked[source[i], step] if step >= first else history[source[i], step]


@njit(cache=True, fastmath=True, _nrt=False)
def advance(x, z0, z1, h, path, at, after, mem, kernel, noise, q, p, dt, new, work, f0, f1, hh, xi, guess, psi):
    """One step of a unit; `mem` holds the memory of the present step, `work` the tail for the next one."""
    n, m, nb = x.shape[0], h.shape[2], kernel.shape[1]
    for k in range(noise.shape[2]):
        xi[k] = noise[path, at, k]
    for u in range(m):
        hh[u] = h[path, at, u] + mem[u]
    rhs(x, z0, hh, xi, q, p, dt, f0)
    if not FLOW:
        for i in range(n):
            new[i] = f0[i]
        return
    for i in range(n):
        guess[i] = x[i] + dt * f0[i]
    outputs(guess, z1, q, p, psi)
    for u in range(m):
        hh[u] = h[path, after, u] + work[u]
        for b in range(nb):
            hh[u] += kernel[u, b, 0] * psi[b]
    rhs(guess, z1, hh, xi, q, p, dt, f1)
    for i in range(n):
        new[i] = x[i] + 0.5 * dt * (f0[i] + f1[i])


@njit(cache=True, fastmath=True, _nrt=False)
def follow(
    path, h, noise, q, start, kernel, past, p, dt, burn, kicked, size, reach, late, source,
    states, outs, answer, psi, psi2, x, y, new, mem, work, out, jump, hh, f0, f1, guess, xi, z0, z1, history, moved,
):
    """Integrate one path and its kicked copies; `size` of the kicks, the rest as in `run` or scratch."""
    steps, m = h.shape[1:]
    n, nb, total = start.shape[1], kernel.shape[1], burn + h.shape[1]
    for i in range(n):
        x[i] = start[path, i]
        history[i, 0] = x[i]
    look_back(history, moved, total + 1, 0, late, source, z0)
    outputs(x, z0, q, p, out)
    for b in range(nb):
        psi[b, 0] = out[b]
    work[:] = 0.0
    for step in range(total):
        at = step % steps
        after = (step + 1) % steps
        if step >= burn:
            for i in range(n):
                states[path, step - burn, i] = x[i]
            for b in range(nb):
                outs[path, step - burn, b] = psi[b, step]
        for u in range(m):
            mem[u] = work[u]
            for b in range(nb):
                mem[u] += kernel[u, b, 0] * psi[b, step]
        tail(psi, past, step + 1, reach, work)
        look_back(history, moved, total + 1, step, late, source, z0)
        look_back(history, moved, total + 1, step + 1, late, source, z1)
        advance(
            x, z0, z1, h, path, at, after, mem, kernel, noise, q, p, dt, new, work, f0, f1, hh, xi, guess, out
        )
        for i in range(n):
            x[i] = new[i]
            history[i, step + 1] = x[i]
        look_back(history, moved, total + 1, step + 1, late, source, z1)
        outputs(x, z1, q, p, out)
        for b in range(nb):
            psi[b, step + 1] = out[b]
    windows = steps // (reach + 1)
    for k in range(kicked.shape[0]):
        for window in range(windows):
            first = burn + window * (reach + 1)
            lo = max(0, first - reach)
            for b in range(nb):
                for step in range(lo, first + 1):
                    psi2[b, step] = psi[b, step]
            for i in range(n):
                y[i] = states[path, first - burn, i]
                moved[i, first] = y[i]
            look_back(history, moved, first, first, late, source, z0)
            at = first % steps
            for u in range(m):
                hh[u] = h[path, at, u]
            tail(psi, past, first, reach, mem)
            for u in range(m):
                hh[u] += mem[u]
                for b in range(nb):
                    hh[u] += kernel[u, b, 0] * psi[b, first]
            eps = size[k] * (-1.0) ** (window + path) if JUMPS else size[k]
            kick(y, z0, hh, noise[path, at], q, p, dt, kicked[k], eps, jump)
            for lag in range(reach + 1):
                step = first + lag
                at = step % steps
                after = (step + 1) % steps
                if lag == 0 and FLOW:
                    for i in range(n):
                        y[i] += eps * jump[i]
                        moved[i, first] += 0.5 * eps * jump[i]  # half: the jump, seen by quadratures over time
                    look_back(history, moved, first, step, late, source, z0)
                    outputs(y, z0, q, p, out)
                    for b in range(nb):
                        psi2[b, step] = 0.5 * (psi[b, step] + out[b])
                for b in range(nb):
                    seen = out[b] if lag == 0 and FLOW else psi2[b, step]
                    answer[path, k, b, lag] += (seen - psi[b, step]) / eps / windows
                if lag == reach:
                    break
                if lag == 0:
                    tail(psi2, past, step, reach, work)
                for u in range(m):
                    mem[u] = work[u]
                    for b in range(nb):  # of the jump itself nothing is past yet
                        mem[u] += kernel[u, b, 0] * (psi[b, step] if lag == 0 else psi2[b, step])
                tail(psi2, past, step + 1, reach, work)
                look_back(history, moved, first, step, late, source, z0)
                look_back(history, moved, first, step + 1, late, source, z1)
                advance(
                    y, z0, z1, h, path, at, after, mem, kernel, noise, q, p, dt, new, work, f0, f1, hh, xi, guess,
                    out,
                )
                for i in range(n):
                    y[i] = new[i]
                    if lag == 0 and not FLOW:
                        y[i] += eps * jump[i]
                    moved[i, step + 1] = y[i]
                look_back(history, moved, first, step + 1, late, source, z1)
                outputs(y, z1, q, p, out)
                for b in range(nb):
                    psi2[b, step + 1] = out[b]


@njit(cache=True, fastmath=True)
def run(h, noise, label, start, kernel, p, dt, burn, kicked, reach, late, source):
    """Integrate all paths over `burn` + T steps of the periodic fields h.

    h (P, T, m) without memory, noise (P, T, k), label (P, l), start (P, n), kernel (m, nb, reach + 1) with its
    quadrature weights; `late` and `source`: steps and state of every field at an earlier time. Returns states
    (P, T, n), outputs (P, T, nb) of the last T steps, and responses (P, len(kicked), nb, reach + 1) to unit kicks of
    fields, averaged over windows.
    """
    paths, steps, m = h.shape
    n, nb = start.shape[1], kernel.shape[1]
    states, outs = np.empty((paths, steps, n)), np.empty((paths, steps, nb))
    answer = np.zeros((paths, kicked.shape[0], nb, reach + 1))
    total = burn + steps
    psi, psi2 = np.empty((nb, total + 1)), np.empty((nb, total + 1))
    x, y, new, mem, work = np.empty(n), np.empty(n), np.empty(n), np.empty(m), np.empty(m)
    past = np.ascontiguousarray(kernel[:, :, ::-1])
    out, jump, hh, size = np.empty(nb), np.empty(n), np.empty(m), np.empty(kicked.shape[0])
    f0, f1, guess, xi = np.empty(n), np.empty(n), np.empty(n), np.empty(noise.shape[2])
    z0, z1 = np.empty(late.shape[0]), np.empty(late.shape[0])
    history, moved = np.empty((n, total + 1)), np.empty((n, total + 1))
    for path in range(paths):
        for k in range(kicked.shape[0]):
            # over a jump, kicks have to be large, to either side in turn
            size[k] = 0.1 * np.std(h[path, :, kicked[k]]) if JUMPS else 1e-4
            size[k] = 1e-4 if size[k] == 0.0 else size[k]
        follow(
            path, h, noise, label[path], start, kernel, past, p, dt, burn, kicked, size, reach, late, source,
            states, outs, answer, psi, psi2, x, y, new, mem, work,
            out, jump, hh, f0, f1, guess, xi, z0, z1, history, moved,
        )
    return states, outs, answer
'''


class _Scalar(PythonCodePrinter):
    """Scalar code that numba compiles."""

    def _print_Heaviside(self, expr: Expr) -> str:
        a = self._print(expr.args[0])
        return f"(0.5 * (1.0 + sgn({a})))"

    def _print_sign(self, expr: Expr) -> str:
        return f"sgn({self._print(expr.args[0])})"

    def _print_sech(self, expr: Expr) -> str:
        return f"(1.0 / math.cosh({self._print(expr.args[0])}))"

    def _print_Max(self, expr: Expr) -> str:
        return self._nested("max", expr)

    def _print_Min(self, expr: Expr) -> str:
        return self._nested("min", expr)

    def _nested(self, name: str, expr: Expr) -> str:
        code = f"float({self._print(expr.args[0])})"
        for arg in expr.args[1:]:
            code = f"{name}({code}, float({self._print(arg)}))"
        return code


def unit_module(unit: SampledUnit, parameters: tuple[Symbol, ...], clock: str) -> ModuleType:
    """The compiled module of one unit (from the cache if an earlier run generated it)."""
    source = unit_source(unit, parameters, clock)
    return load(digest(VERSION + source), lambda: source)


def unit_source(unit: SampledUnit, parameters: tuple[Symbol, ...], clock: str) -> str:
    """Source text of the module: scalar functions of the unit, then the loop."""
    names: dict[Symbol, str] = {s: f"p[{i}]" for i, s in enumerate(parameters)}
    names |= {s: f"x[{i}]" for i, s in enumerate(unit.states)}
    names |= {s: f"h[{i}]" for i, s in enumerate(unit.fields)}
    names |= {s: f"xi[{i}]" for i, s in enumerate(unit.noises)}
    names |= {s: f"z[{i}]" for i, (s, _, _) in enumerate(unit.earlier)}
    names |= {label.symbol: f"q[{i}]" for i, label in enumerate(unit.labels)}
    by_name = {s.name: code for s, code in names.items()}
    scale = {s: s / Symbol("sqrt_dt") for s in unit.noises} if clock == "flow" else {}

    def code(e: Expr) -> str:
        try:
            free = {s: Symbol(by_name[s.name]) for s in e.free_symbols if s.name in by_name}
            return str(_Scalar({"fully_qualified_modules": True}).doprint(e.xreplace(free)))
        except Exception as error:
            raise NotCovered(f"no compiled code for {e}: {error}") from error

    rhs = [e.xreplace(scale) for e in unit.rhs]
    head = (
        '"""Generated from a site process: the unit of one population, and its trajectories. Edits are lost."""\n\n'
        "import math\n\nimport numpy as np\nfrom numba import njit\n\n"
        f"FLOW = {clock == 'flow'}\nJUMPS = {jumps(unit)}\n\n\n"
        "@njit(cache=True)\ndef sgn(a):\n    return 1.0 if a > 0 else (-1.0 if a < 0 else 0.0)\n"
    )
    parts = [head, _function("rhs", "x, z, h, xi, q, p, dt, out", [code(e) for e in rhs])]
    parts.append(_function("outputs", "x, z, q, p, out", [code(body) for _, body in unit.outputs]))
    parts.append(_kick(unit, code, scale, clock))
    return "\n\n".join(parts) + "\n" + _LOOP


def _function(name: str, args: str, rows: list[str]) -> str:
    body = "\n".join(f"    out[{i}] = {row}" for i, row in enumerate(rows)) or "    pass"
    used = "    sqrt_dt = math.sqrt(dt)\n" if "sqrt_dt" in body else ""
    return f"@njit(cache=True, fastmath=True, _nrt=False)\ndef {name}({args}):\n{used}{body}\n"


def _answer(e: Expr, field: Symbol, clock: str) -> Expr:
    """Change of a right-hand side by a kick of a field, in its units; over a jump that of the kick's own size."""
    slope = e.diff(field)
    if not slope.has(DiracDelta, Derivative):
        return slope
    if clock == "flow":
        raise NotCovered(f"{e} jumps in the field {field}: no impulse of it has a response in continuous time")
    return (e.xreplace({field: field + _SIZE}) - e) / _SIZE


def _kick(unit: SampledUnit, code, scale, clock: str) -> str:  # type: ignore[no-untyped-def]
    rows = []
    for u, field in enumerate(unit.fields):
        rows.append(f"    {'if' if u == 0 else 'elif'} u == {u}:")
        rows += [f"        out[{i}] = {code(_answer(e, field, clock).xreplace(scale))}" for i, e in enumerate(unit.rhs)]
    body = "\n".join(rows) or "    pass"
    used = "    sqrt_dt = math.sqrt(dt)\n" if "sqrt_dt" in body else ""
    head = "@njit(cache=True, fastmath=True, _nrt=False)\ndef kick(x, z, h, xi, q, p, dt, u, kick_size, out):\n"
    return f"{head}{used}{body}\n"
