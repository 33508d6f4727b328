"""Print a table of ratios: hand-written baselines against the project, in one run on one machine.

Run as ``make bench`` or ``python benchmarks/run.py [name ...]``; one BLAS thread unless the environment says otherwise.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import functools
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import baselines
import numpy as np

G = 1.5
EXACT = {"Δ0": 0.7476863806, "λ": 0.04674622}


@dataclass
class Row:
    """One line of the table: what, ours, theirs (seconds), and the errors of both where there is a reference."""

    what: str
    ours: float
    theirs: float | None = None
    note: str = ""

    def __str__(self) -> str:
        ratio = "" if self.theirs is None else f"{self.theirs / self.ours:8.2f}"
        theirs = "" if self.theirs is None else f"{self.theirs:11.4f}"
        return f"{self.what:<44}{self.ours:11.4f}{theirs:>11}{ratio:>8}  {self.note}"


def timed(work: Callable[[], Any], repeat: int = 3) -> tuple[float, Any]:
    """Shortest wall time of a few calls, and the last result."""
    times, result = [], None
    for _ in range(repeat):
        begin = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - begin)
    return min(times), result


def _fresh(code: str, cache: str | None = None) -> float:
    """Wall time of a new interpreter that runs `code`; with `cache`, of one that finds only what is compiled there."""
    own = {"QUENCHED_CACHE": cache, "NUMBA_CACHE_DIR": cache} if cache else {}
    work = functools.partial(subprocess.run, [sys.executable, "-c", code], check=True, env={**os.environ, **own})
    return timed(work, 1 if cache else 3)[0]


def spectra() -> list[Row]:
    """Densities and counts of two spectra against eigenvalues of sampled matrices, and a map of 200 × 200 points."""
    from quenched import catalogue, derive
    from quenched.validate.simulate_spectrum import prepare

    rows = []
    for name, size, points in (("anticommutator", 1000, 1000), ("rate-jacobian", 1000, 0)):
        net = catalogue[name]()
        task = prepare(net, size, 0, {}).task
        matrix = task.matrix()
        theirs, _ = timed(lambda m=matrix, h=net.hermitian: np.linalg.eigvalsh(m) if h else np.linalg.eigvals(m), 1)
        theory = derive(net)
        derive(net).solve().edges()  # compiles
        if points:
            x = np.linspace(-3, 3, points)
            ours, _ = timed(lambda t=theory, x=x: t.solve().density(x))
            rows.append(Row(f"{name}: density at {points} points", ours, theirs, f"numpy eigvalsh of one, N = {size}"))
        else:
            ours, _ = timed(lambda t=theory: t.solve().quantity("box"))
            rows.append(Row(f"{name}: count in a box", ours, theirs, f"numpy eigvals of one, N = {size}"))
    axis = np.linspace(-1.5, 1.5, 200)
    grid = -1 + axis + 1j * axis[:, None]
    ours, _ = timed(lambda: derive(catalogue["rate-jacobian"]()).solve().density(grid), 1)
    rows.append(Row("rate-jacobian: density at 200 × 200 points", ours, None, "388 label nodes"))
    ours, _ = timed(lambda: derive(catalogue["non-normal"]()).solve().density(grid), 1)
    rows.append(Row("non-normal: density at 200 × 200 points", ours, None, "2 label nodes"))
    return rows


def importing() -> list[Row]:
    """`import quenched` against an empty interpreter, and against sympy."""
    empty = _fresh("pass")
    return [
        Row(
            "import quenched",
            max(_fresh("import quenched") - empty, 1e-4),
            _fresh("import sympy") - empty,
            "vs import sympy",
        ),
    ]


def deriving() -> list[Row]:
    """The whole derivation, first in its process and again."""
    from quenched import catalogue, derive

    begin = time.perf_counter()
    derive(catalogue["scs"]())
    first = time.perf_counter() - begin
    again, _ = timed(lambda: derive(catalogue["scs"]()))
    return [Row("derive, first in a process", first), Row("derive, again", again)]


def cold() -> list[Row]:
    """A new process that derives and solves: with an empty cache (compiles), then with a full one."""
    code = "from quenched import catalogue, derive; derive(catalogue['scs']()).solve(g=1.5)['C_x0']"
    with tempfile.TemporaryDirectory() as cache:
        compiling = _fresh(code, cache)
        loading = _fresh(code, cache)
    return [Row("new process: derive, compile, solve", compiling), Row("new process: derive, load, solve", loading)]


def solving() -> list[Row]:
    """Warm solves of Δ0, Δ(τ) and λ against hand-written code."""
    from quenched import catalogue, derive

    theory = derive(catalogue["scs"]())
    theory.solve(g=G)
    ours, solution = timed(lambda: theory.solve(g=G))
    value, growth = float(solution["C_x0"]), float(solution["lyapunov"])
    brent, v = timed(lambda: baselines.variance(G))
    shooting, (_, curve) = timed(lambda: baselines.autocorrelation(G), 1)
    matrix, rate = timed(lambda: baselines.lyapunov(G), 1)
    fourier, (other, sweeps) = timed(lambda: baselines.fourier_iteration(G), 1)
    error = f"errors {abs(value - EXACT['Δ0']):.0e}, {abs(growth - EXACT['λ']):.0e}"
    return [
        Row("solve: Δ0, Δ(τ), λ, all branches", ours, brent + shooting + matrix, f"{error}; theirs is the sum below"),
        Row("  by hand: Δ0, Gauss–Hermite and Brent", ours, brent, f"error {abs(v - EXACT['Δ0']):.0e}"),
        Row("  by hand: Δ(τ), shooting", ours, shooting, f"Δ0 {abs(curve[0] - EXACT['Δ0']):.0e}"),
        Row("  by hand: λ, finite differences", ours, matrix, f"error {abs(rate - EXACT['λ']):.0e}"),
        Row("  by hand: Fourier iteration", ours, fourier, f"{sweeps} sweeps, error {abs(other - EXACT['Δ0']):.0e}"),
        *_parts(theory),
    ]


def _parts(theory: Any) -> list[Row]:
    """Δ0 alone, and Δ0 with Δ(τ) and λ of the fluctuating branch."""
    from quenched.numerics.averages import Averages
    from quenched.numerics.orbit import growth, orbit
    from quenched.numerics.potential import Particle, states

    values = theory.values(g=G)

    def roots() -> tuple[Any, list[Any]]:
        particle = Particle(Averages(theory.problem, theory.potential, values))
        return particle, states(particle)

    def everything() -> float:
        particle, found = roots()
        path, energy = orbit(particle, found[0])
        return float(growth(particle, path, energy).value)

    root, _ = timed(roots)
    whole, _ = timed(everything)
    by_hand = [timed(lambda f=f: f(G), 1)[0] for f in (baselines.variance, baselines.lyapunov)]
    return [
        Row("solve: Δ0 alone", root, by_hand[0], "vs Gauss–Hermite and Brent (error 1e-11)"),
        Row("solve: Δ0, Δ(τ), λ of one branch", whole, by_hand[1], "vs shooting and finite differences (error 3e-6)"),
    ]


def sweeping() -> list[Row]:
    """100 gains: Δ0 and λ."""
    from quenched import catalogue, derive

    theory = derive(catalogue["scs"]())
    gains = np.linspace(1.1, 3, 100)
    theory.solve(g=2)
    ours, _ = timed(lambda: theory.sweep(g=gains), 1)
    by_hand, _ = timed(lambda: [baselines.lyapunov(g) for g in gains[::20]], 1)
    return [Row("sweep of 100 gains", ours, 20 * by_hand, "theirs: 5 gains × 20")]


def simulating() -> list[Row]:
    """N = 2000, 10 units of time, Heun 0.05, against numpy in both precisions."""
    from quenched import catalogue, simulate

    net = catalogue["scs"]()
    duration, dt, rows = 10.0, 0.05, []
    for trajectories, dtype in itertools.product((1, 16), (np.float64, np.float32)):
        by_hand = functools.partial(baselines.simulate, 2.0, 2000, trajectories, dtype, duration, dt)
        theirs, _ = timed(by_hand, 1)
        ours = _run(simulate, net, trajectories, dtype.__name__, duration, dt)
        what = f"simulate N=2000, {trajectories} trajectories, {dtype.__name__}"
        rows.append(Row(what, ours, theirs, "vs numpy, same type"))
    return rows


def _run(simulate: Callable[..., Any], net: Any, trajectories: int, dtype: str, duration: float, dt: float) -> float:
    """Wall time of one realisation without its set-up: the difference between two durations."""

    def work(length: float) -> float:
        settings = {"N": 2000, "trials": 1, "dt": dt, "burn": dt, "store": False, "workers": 1, "lyapunov": False}
        return timed(lambda: simulate(net, duration=length, trajectories=trajectories, dtype=dtype, **settings), 2)[0]

    short = work(4 * dt)
    return max(work(duration) - short, 1e-4)


def marching() -> list[Row]:
    """Two-time covariances at 1000² points, and the exponent of a driven balanced network at 20 frequencies."""
    from quenched import catalogue, derive

    theory, points, short = derive(catalogue["scs"](), s2=0), 1000, 120
    times = 0.05 * np.arange(points)
    theory.solve(g=G, times=times[:3], dt=0.05, scheme="euler")  # compiles
    ours, state = timed(lambda: theory.solve(g=G, times=times, dt=0.05, scheme="euler"), 2)
    loops, by_hand = timed(lambda: baselines.two_time(G, short, 0.05), 1)
    gap = float(np.max(np.abs(state.two_time("x").values[:short, :short] - by_hand)))
    note = f"vs loops at {short}², scaled; largest difference {gap:.0e}"
    return [Row("two-time C(t, s), 1000² points", ours, loops * (points / short) ** 2, note), *_driven_curve()]


_CURVE = """
from math import ceil
from quenched import catalogue, derive
driven = derive(catalogue["balanced-chaos-suppression"]())
settings = {"N": 500, "g": 2, "I_1": 20, "scheme": "euler", "lags": [0.0]}
curve = [float(driven.solve(f=f, dt=1 / (f * ceil(10 / f)), **settings)["lyapunov"]) for f in frequencies]
"""


def _driven_curve() -> list[Row]:
    """λ of the balanced network against 20 frequencies: in a new process with nothing compiled, then warm."""
    frequencies = [float(f) for f in np.geomspace(0.05, 1, 20)]
    with tempfile.TemporaryDirectory() as cache:
        cold, loaded = (_fresh(f"frequencies = {frequencies}\n{_CURVE}", cache) for _ in range(2))
    names: dict[str, Any] = {"frequencies": frequencies}
    exec(_CURVE, names)
    warm, _ = timed(lambda: exec(_CURVE, names), 1)
    march = functools.partial(baselines.balanced_exponent, 2, 20, N=500)
    theirs, by_hand = timed(lambda: [march(f, dt=1 / (f * np.ceil(10 / f))) for f in frequencies], 1)
    gap = float(np.max(np.abs(np.array(names["curve"]) - by_hand)))
    note = f"vs rows in numpy; largest difference {gap:.0e}"
    return [
        Row("balanced network, λ at 20 frequencies", warm, theirs, note),
        Row("  in a new process", loaded, theirs, "with its derivation and imports"),
        Row("  in a new process, nothing compiled", cold, theirs, "compiles once an installation"),
    ]


def sampling() -> list[Row]:
    """One sweep of a thousand sampled trajectories with memory: plastic synapses, 2 laps of 2048 steps."""
    from quenched import catalogue, derive
    from quenched.numerics import Sampling
    from quenched.numerics.trajectories import ProcessSampler

    theory = derive(catalogue["neuronal-synaptic"]())
    process = theory.derivation.process
    assert process is not None
    paths, steps, dt = 1000, 2048, 0.1
    given = {"g": 2.5, "k": -1.0, "p": 2.5}
    how = Sampling(dt=dt, steps=steps, paths=paths, reach=6 * given["p"])
    sampler = ProcessSampler(theory.sampled(process), theory.values(given), how)
    guess = sampler.guess(0.5, 3.0)
    sampler.sweep(guess, np.random.default_rng(0))  # compiles
    ours, found = timed(lambda: sampler.sweep(guess, np.random.default_rng(1)))
    theirs, curve = timed(lambda: baselines.plastic_sweep(**given, paths=paths, steps=steps, dt=dt), 1)
    (square,) = (c[0] for (a, b), c in found.covariance.items() if a == b and a not in ("x",))
    note = f"vs numpy over paths; ⟨φ²⟩ {square:.3f} and {curve[0]:.3f}"
    return [Row("one sweep of 1000 paths with memory", ours, theirs, note)]


def kernels() -> list[Row]:
    """Kernels of 500 inputs at depth 10: closed form (erf) against numpy by hand; a function without closed form."""
    from sympy import erf, pi, sqrt, tanh

    from quenched import Field, Gaussian, Layers, Normal, Overlap, Population, Quenched, derive, units

    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((500, 600))
    X = inputs @ inputs.T / 600
    samples, pixel = Population("sample", size=500), Population("pixel", size=600)
    x, b = Quenched("x", Overlap(X), over=pixel, each=samples), Quenched("b", Normal(0, 0.2), redraw="layer")
    start = Gaussian("W_in", variance=1 / 600, over=(units, pixel)) @ x + b
    h = Field("h", each=samples, initial=start)
    W = Gaussian("W", variance=1.6, redraw="layer")
    theory = derive(Layers({h: W @ erf(sqrt(pi) * h / 2) + b}, depth=10))
    ours, kernel = timed(lambda: theory.solve().kernel(10))
    by_hand, plain = timed(lambda: baselines.erf_kernel(X + 0.2, 10, 1.6, 0.2))
    note = f"vs numpy by hand; largest difference {float(np.abs(kernel - plain).max()):.0e}"
    quadrature, _ = timed(lambda: derive(Layers({h: W @ tanh(h) + b}, depth=2)).solve().kernel(2), 1)
    return [
        Row("kernels, 500 inputs, depth 10", ours, by_hand, note),
        Row("  tanh, depth 2, by quadrature", quadrature),
    ]


def evolving() -> list[Row]:
    """State evolution of the binary perceptron against a ten-line loop, and the quadrature of either."""
    from quenched import catalogue, derive
    from quenched.numerics.replica import iterate, newton, starts
    from quenched.numerics.replica_evaluator import Evaluator

    theory = derive(catalogue["binary-perceptron"]()).instance()
    exact = {"q": 0.3223853632, "growth": 0.2335518227}
    solution = theory.solve(alpha=0.5, kappa=0)
    values = theory.values(alpha=0.5, kappa=0)

    def one() -> float:
        ev = Evaluator(theory.problem, values)
        x, *_ = newton(ev, iterate(ev, list(starts(theory.problem))[1])[0])
        return ev.observe(x)["q"]

    branch, q = timed(one)
    whole, _ = timed(lambda: theory.solve(alpha=0.5, kappa=0))
    loop, (other, growth) = timed(lambda: baselines.perceptron_evolution(0.5))
    errors = f"errors {abs(float(solution['q']) - exact['q']):.0e}, {abs(q - exact['q']):.0e}"
    theirs = f"{abs(other - exact['q']):.0e}, {abs(growth - exact['growth']):.0e}"
    return [
        Row("state evolution: one fixed point", branch, loop, f"{errors}; by hand {theirs}"),
        Row("state evolution: all starts, all observables", whole, loop, "errors of all numbers included"),
    ]


def passing() -> list[Row]:
    """Fifty sweeps of message passing at N = 1000 and 2000 against matrix products."""
    from quenched import catalogue, derive
    from quenched.validate.message_passing import experiment

    theory = derive(catalogue["binary-perceptron"]()).instance()
    rows = []
    for N in (1000, 2000):
        task = experiment(theory.model, theory.messages, N, 0, {"alpha": 0.5, "kappa": 0})
        instance = task.instance()
        (x,) = instance.matrices.values()
        start = instance.start(task.stream("messages"))
        instance.run(start, sweeps=2, tol=0.0)
        ours, run = timed(lambda i=instance, s=start: i.run(s, sweeps=50, tol=0.0))
        theirs, (m, _) = timed(lambda x=x: baselines.perceptron_messages(x, 50))
        gap = float(np.max(np.abs(run.state.m["units"] - m)))
        rows.append(Row(f"message passing: 50 sweeps, N = {N}", ours, theirs, f"means agree to {gap:.0e}"))
    return rows


def dimensions() -> list[Row]:
    """Participation ratio at 20 gains against numpy by hand on a plain grid."""
    from sympy import tanh

    from quenched import catalogue, derive

    gains = [float(g) for g in np.linspace(1.5, 3, 20)]
    theory = derive(catalogue["two-site-cavity"](phi=tanh))
    ours, found = timed(lambda: [theory.fluctuations().participation("phi", g=g, s2=0).value for g in gains], 1)
    by_hand, plain = timed(lambda: [baselines.dimension(g) for g in gains], 1)
    worst = max(abs(a / b - 1) for a, b in zip(found, plain, strict=True))
    return [Row("dimension at 20 gains", ours, by_hand, f"vs numpy by hand; largest relative difference {worst:.0e}")]


SECTIONS = {
    "import": importing,
    "derive": deriving,
    "cold": cold,
    "solve": solving,
    "sweep": sweeping,
    "spectra": spectra,
    "simulate": simulating,
    "march": marching,
    "paths": sampling,
    "kernels": kernels,
    "evolution": evolving,
    "messages": passing,
    "dimensions": dimensions,
}


def main(chosen: list[str]) -> None:
    """Print the table."""
    print(f"{'':<44}{'ours / s':>11}{'theirs / s':>11}{'ratio':>8}")
    for name in chosen or SECTIONS:
        for row in SECTIONS[name]():
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
