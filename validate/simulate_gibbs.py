"""Simulation of a Gibbs measure at finite N, from the declaration alone.

Five routes, chosen by what the declaration is and what is observed of it:

- *enumerate*: all states by a Gray code, for units with finitely many values and small N; gives ln Z exactly,
- *gaussian*: linear algebra, for a quadratic exponent,
- *programme*: convex programmes, for the largest margin and the number of constraints that can be met,
- *messages*: message passing on the instance, where fixed points of messages or the growth of their perturbations are
  asked for (see `messages_route`),
- *monte carlo*: heat bath (finite sets), Metropolis (densities), rotations of pairs (spheres), replicas of one disorder
  from different starts, on request with parallel tempering.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sympy import lambdify

from quenched.theory.couplings import Gaussian, Iid, Row
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import Quenched
from quenched.theory.spaces import N as SIZE
from quenched.validate.departures import DEPARTURE
from quenched.validate.estimators import Estimator
from quenched.validate.experiment import Prepared, check_counts
from quenched.validate.generate import label
from quenched.validate.gibbs_estimators import (
    EMPTY,
    EQUILIBRIUM,
    SIDE,
    controlled,
    empty_estimator,
    energy_power,
    estimator_of,
    smallest_size,
    watched,
)
from quenched.validate.gibbs_observables import Measured, Node, measured
from quenched.validate.gibbs_program import GibbsProgram, ProgramWriter
from quenched.validate.gibbs_routes import (
    MOST_STATES,
    NoState,
    Schedule,
    enumerated,
    gaussian,
    sampled,
)
from quenched.validate.gibbs_system import System
from quenched.validate.message_threshold import SIZES, thresholds
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.random_functions import FunctionSpec, function_spec
from quenched.validate.sampling import MatrixSpec, VectorSpec

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs

Arrays = dict[str, NDArray[np.float64]]

ROUTES = ("enumerate", "gaussian", "monte carlo", "programme", "messages")
#: States that are summed where samples would do as well.
FEW_STATES = 2**16
MOST_EMPTY = 20
#: Distance of redrawn realisations.
REDRAW = 10**6


@dataclass(frozen=True)
class GibbsExperiment:
    """One realisation of a measure as plain data."""

    program: GibbsProgram
    nodes: tuple[Node, ...]
    formulas: dict[str, str]
    parameters: tuple[float, ...]
    sizes: dict[str, int]
    matrices: tuple[MatrixSpec, ...]
    vectors: tuple[VectorSpec, ...]
    laws: tuple[Any, ...]
    row_spaces: tuple[str, ...]
    label_spaces: tuple[str, ...]
    route: str
    schedule: Schedule
    copies: int
    seed: int
    N: int
    realisation: int = 0
    functions: tuple[FunctionSpec, ...] = ()
    draws: int = 1
    controls: tuple[int, ...] = ()

    def number(self, realisation: int) -> GibbsExperiment:
        """The same for another realisation."""
        return replace(self, realisation=realisation)

    def system(self, redraw: int = 0) -> System:
        """The drawn instance (a fresh one of the same realisation for every `redraw`)."""
        place = (self.seed, self.N, self.realisation + REDRAW * redraw)
        return System(self.program, self.parameters, self.sizes, self.matrices, self.vectors, place, self.functions)

    def realise(self) -> Arrays:
        """Observables of this realisation."""
        begin = time.perf_counter()
        system = self.system()
        out: Arrays = {}
        if self.route == "enumerate":
            out = self._counted()
            return out | {"elapsed": np.array([time.perf_counter() - begin])}
        if self.route == "gaussian":
            values = gaussian(system, self.nodes, np.isinf(self.schedule.scale))
        elif self.route == "programme":
            from quenched.validate.gibbs_programme import solved_programmes

            values = solved_programmes(system, self)
        else:
            run = sampled(system, self.nodes, self.laws, self.schedule, self.copies)
            values = run.values
            out |= {EQUILIBRIUM: run.gap, DEPARTURE: np.array([run.departure]), SIDE: np.array([run.side])}
        for name, function in self.formulas.items():
            out[name] = np.atleast_1d(system.functions[function](system, values))
        out["elapsed"] = np.array([time.perf_counter() - begin])
        return out

    def _counted(self) -> Arrays:
        """Means over the draws of the disorder, with the control beside each, and the number of empty draws."""
        rows: dict[str, list[Any]] = {name: [] for name in (*self.formulas, EMPTY)}
        for k in range(self.draws):
            one = self.number(self.realisation * self.draws + k)
            system, values, empty = one._first_with_states()
            rows[EMPTY].append([empty])
            control = [system.alignment(self.controls)] if self.controls else []
            for name, function in self.formulas.items():
                rows[name].append([float(system.functions[function](system, values)), *control])
        return {name: np.mean(found, axis=0) for name, found in rows.items()}

    def _first_with_states(self) -> tuple[System, NDArray[np.float64], float]:
        """The first draw that has a state of positive weight, and how many had none."""
        for empty in range(MOST_EMPTY):
            system = self.system(empty)
            with suppress(NoState):
                return system, enumerated(system, self.nodes), float(empty)
        raise QuenchedError(
            f"no state has positive weight in {MOST_EMPTY} draws at N = {self.N}: use fewer constraints or a larger N"
        )

    def memory(self) -> float:
        """Bytes of the disorder and of the linear maps of one realisation."""
        units = sum(self.sizes[f.population] for f in self.program.fields)
        entries = sum(m.rows * m.cols for m in self.matrices) + sum(f.entries for f in self.functions)
        rows = sum(self.sizes[b.population] * len(b.recipes) for b in self.program.blocks)
        states = 2**15 * units * 4 if self.route == "enumerate" else 0
        return 8.0 * (3 * entries + units * rows + (2 * units**2 if self.program.pairs else 0) + states)

    def work(self) -> float:
        """Rough number of elementary operations of one realisation."""
        units = sum(self.sizes[f.population] for f in self.program.fields)
        rows = sum(self.sizes[b.population] * len(b.recipes) for b in self.program.blocks)
        each = units * (20.0 + rows) + (units**2 if self.program.pairs else 0) + sum(f.entries for f in self.functions)
        if self.route == "enumerate":
            states = float(np.prod([float(len(f.atoms)) ** self.sizes[f.population] for f in self.program.fields]))
            return self.draws * states * (units + rows) * 2
        if self.route == "monte carlo":
            schedule = self.schedule
            return self.copies * schedule.temperatures * (schedule.sweeps + schedule.burn) * each
        return float(units) ** 3 + float(units) ** 2 * rows


def prepare(
    model: Gibbs,
    N: int,
    seed: int,
    values: Mapping[Any, Any],
    *,
    route: str | None = None,
    sweeps: int = 400,
    burn: int = 200,
    replicas: int = 2,
    temperatures: int = 1,
    draws: int = 1,
    only: tuple[str, ...] = (),
) -> Prepared:
    """Put numbers into the generated program.

    Parameters
    ----------
    model, N, seed, values : as for `quenched.simulate`
    route : "enumerate", "gaussian", "programme", "messages" or "monte carlo", optional
        How averages are obtained; default: what suits the declaration, its observables and N.
    sweeps, burn : int
        Monte Carlo sweeps (one proposal a unit) that are measured, and that are left out, per replica.
    replicas : int
        Runs with the same disorder; odd ones start from a descent, even ones from the prior.
    temperatures : int
        Chains of a parallel tempering (1: none).
    draws : int
        Draws of the disorder that one realisation averages over, where all states are enumerated.
    only : tuple of str
        Declared observables to measure (default: all that the route gives).

    Raises
    ------
    NotCovered
        A term of the declaration, or an observable, that no route covers.
    """
    numbers = Numbers(model.values(values), N)
    program, what = _written(model)
    cold = model.cold
    sizes = {p.name: numbers.size(p) for p in model.populations}
    used = {name: n for name, (_, n) in sizes.items()}
    chosen = _route(program, what, used, route)
    if chosen == "messages":
        from quenched.validate.messages_route import prepare_messages

        return prepare_messages(model, N, seed, values, {"only": only})
    missing = {n: _reason(chosen, what, n) for n in what.formulas if _reason(chosen, what, n)}
    wanted = set(only or what.formulas)
    kept = {name: function for name, function in what.formulas.items() if name in wanted - set(missing)}
    if not kept:
        reasons = "; ".join(f"{n}: {r}" for n, r in {**missing, **what.unmeasured}.items())
        raise NotCovered(f"nothing to measure of this measure at N = {N}: {reasons}")
    check_counts(draws=draws)
    if draws > 1 and chosen != "enumerate":
        raise QuenchedError(f"draws= is a setting of the route 'enumerate', not of {chosen!r}: use more trials")
    copies = max(replicas, 2)
    needed = {k for name in kept for k in what.used[name]}
    controls = _centred(model) if chosen == "enumerate" and only else ()
    experiment = GibbsExperiment(
        program=program,
        nodes=tuple(node if k in needed else Node() for k, node in enumerate(what.nodes)),
        formulas=kept,
        parameters=(*(numbers(p) for p in model.parameters), float(N)),
        sizes=used,
        matrices=tuple(matrix_spec(m, numbers) for m in model.matrices),
        vectors=tuple(_vector(q, used[q.population.name], numbers, N) for q in (*model.quenched, *model.rows)),
        laws=tuple(numbers.law(law) for law in model.priors.values()),
        row_spaces=tuple(m.rows.name for m in model.matrices),
        label_spaces=tuple(q.population.name for q in (*model.quenched, *model.rows)),
        route=chosen,
        schedule=Schedule(sweeps, burn, temperatures, np.inf if cold else 1.0),
        copies=copies,
        seed=seed,
        N=N,
        functions=tuple(function_spec(v, population, numbers) for v, population in model.landscapes.items()),
        draws=draws,
        controls=controls,
    )
    energy = energy_power(model, numbers.values)
    estimators: dict[str, tuple[Estimator, Any]] = {
        n: (estimator_of(n, model.observables.get(n, n), chosen, smallest_size(program, chosen), energy), None)
        for n in kept
    }
    if controls:
        estimators = {n: (controlled(e), None) for n, (e, _) in estimators.items()}
    if chosen == "monte carlo":
        estimators |= watched(program, experiment.nodes)
    if chosen == "enumerate":
        estimators[EMPTY] = (empty_estimator(), None)
    return Prepared(
        task=experiment,
        identity={"model": model.key(), "version": _version(), "task": replace(experiment, realisation=0)},
        observables=estimators,
        parameters={p.name: numbers(p) for p in model.parameters},
        sizes=sizes,
        settings={"route": chosen, **_settings(chosen, experiment)},
        unmeasured={**what.unmeasured, **missing},
    )


@lru_cache(maxsize=64)
def _written(model: Gibbs) -> tuple[GibbsProgram, Measured]:
    """The program of a declaration and what is measured of it."""
    writer = ProgramWriter(model)
    program = writer.read()
    what = measured(model, writer)
    return replace(program, arrays="\n\n\n".join(writer.sources.values())), what


def _vector(q: Quenched | Row, size: int, numbers: Numbers, N: int) -> VectorSpec:
    """Unit disorder as workers draw it; a row of a matrix without the factor 1/√N of its entries."""
    row = (label(q.matrix), q.index, float(np.sqrt(N))) if isinstance(q, Row) else None
    return VectorSpec(label(q), size, numbers.law(q.law), row=row)


def _route(program: GibbsProgram, what: Measured, sizes: Mapping[str, int], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in ROUTES:
            raise QuenchedError(f"unknown route {wanted!r}: {nearest(str(wanted), ROUTES)}")
        return wanted
    functionals = {node.functional for node in what.nodes}
    if functionals & {"Margin", "Capacity"}:
        return "programme"
    if functionals & {"Growth", "Threshold"} and not _reads_couplings(program, what):
        return "messages"
    if program.quadratic:
        return "gaussian"
    if all(f.kind == "atoms" for f in program.fields):
        states = sum(np.log(len(f.atoms)) * sizes[f.population] for f in program.fields)
        most = MOST_STATES if functionals & {"Entropy", "FreeEntropy"} else FEW_STATES
        if states <= np.log(most) + 1e-9:
            return "enumerate"
    return "monte carlo"


def _reads_couplings(program: GibbsProgram, what: Measured) -> bool:
    """Whether an observable is a function of couplings applied to the state, which messages do not give."""
    bodies = program.arrays.split("def ")
    wanted = {f for node in what.nodes for product in node.products for f in product.factors}
    return any("env.apply(" in body for body in bodies if body.split("(")[0] in wanted)


#: Functionals that a route measures.
_GIVES = {
    "enumerate": {"Entropy", "FreeEntropy", "SpinGlassSusceptibility"},
    "gaussian": {"FreeEntropy", "SpinGlassSusceptibility"},
    "programme": {"Margin", "Capacity"},
    "monte carlo": {"SpinGlassSusceptibility"},
}


def _reason(route: str, what: Measured, name: str) -> str:
    """Why a route does not measure an observable, empty where it does."""
    for position in what.used[name]:
        node = what.nodes[position]
        if node.functional and node.functional not in _GIVES[route]:
            return f"{node.functional} is not measured by the route {route!r}"
        if node.products and route == "programme":
            return "thermal averages are not what a convex programme gives"
    return ""


def _centred(model: Gibbs) -> tuple[int, ...]:
    """Positions of the matrices between two populations whose entries are independent with mean zero."""

    def centred(m: Any) -> bool:
        plain = isinstance(m, Gaussian) and m.mean == 0 and not m.correlation
        return m.rows != m.cols and (plain or (isinstance(m, Iid) and m.law.mean_() == 0))

    return tuple(k for k, m in enumerate(model.matrices) if centred(m))


def _settings(route: str, experiment: GibbsExperiment) -> dict[str, Any]:
    if route != "monte carlo":
        return {}
    schedule = experiment.schedule
    return {
        "sweeps": schedule.sweeps,
        "burn": schedule.burn,
        "replicas": experiment.copies,
        "temperatures": schedule.temperatures,
    }


@lru_cache(maxsize=1)
def _version() -> str:
    """Version of the package and digest of the code that realisations run."""
    import hashlib
    import inspect
    from importlib.metadata import PackageNotFoundError, version

    from quenched.validate import exact_counts, gibbs_routes, gibbs_starts, gibbs_stretch, gibbs_system

    code = hashlib.sha256()
    from quenched.validate import random_functions, sampling

    for module in (sampling, random_functions, exact_counts, gibbs_routes, gibbs_starts, gibbs_stretch, gibbs_system):
        code.update(inspect.getsource(module).encode())
    try:
        return f"{version('quenched')}+{code.hexdigest()[:16]}"
    except PackageNotFoundError:
        return code.hexdigest()[:16]


#: Members of a population that a theory of many describes.
MANY = 12
#: Sweeps of many short runs: the scatter between realisations, not within one, limits what a verdict resolves.
SHORT = {"sweeps": 60, "burn": 30}
#: The same where early and late states of a run have to be independent.
LONG = {"sweeps": 140, "burn": 40}
#: The same of states between rows, which settle within a few sweeps.
SETTLED = {"sweeps": 16, "burn": 24}
#: Units a row where rows are finitely many, rows where they are many, and units at least, for states between rows: at
#: smaller sizes some realisations leave such a state.
UNITS_A_ROW, ROWS, FEWEST_ROW_UNITS = 4000, 90, 20000
#: Sizes (quick, full) of measures with couplings of more than two units, by how many: sweeps cost N to that power.
FEW_UNITS = {3: ((24, 32, 48), (32, 48, 64)), 4: ((12, 16, 24), (16, 20, 28))}
FEWEST_UNITS = ((8, 10, 12), (10, 12, 16))


def tier(
    model: Gibbs, values: Mapping[Any, float], quick: bool, route: str | None = None, near: int = 1
) -> dict[str, Any]:
    """Sizes, trials and settings of `validate` for one measure at one point, whose state is `near` so many rows."""
    program, what = _written(model)
    small = _route(program, what, dict.fromkeys((p.name for p in model.populations), 12), route)
    if small == "messages":
        sizes = _sizes(model, values, (250, 500, 1000))
        searched, also = thresholds(model), _counts(model, values, quick)
        trials = (230 if searched else 320) if quick else 1200  # a search takes longer than a fixed point
        if searched:
            search = {"sizes": SIZES, "route": "messages", "only": searched}
            if len(searched) == len(model.observables):
                return search | {"trials": trials}
            also = (*also, search | {"called": "{}"})
        return {"sizes": sizes, "trials": trials, "route": "messages", "also": also}
    if small == "enumerate" and _needs_counts(what):
        return {"sizes": _sizes(model, values, (12, 15, 20)), "trials": 160 if quick else 400}
    if small == "gaussian":
        return {"sizes": _sizes(model, values, (50, 100, 200)), "trials": 600 if quick else 3000}
    if small == "programme":
        return {"sizes": _sizes(model, values, (25, 50, 100)), "trials": 900 if quick else 4000}
    degree = max((h.degree for h in program.heights), default=0)
    if degree > 2:
        sizes = FEW_UNITS.get(degree, FEWEST_UNITS)[not quick]
        return {"sizes": sizes, "trials": 240 if quick else 2000, "route": "monte carlo", "sweeps": 240, "burn": 80}
    if any(node.functional == "SpinGlassSusceptibility" for node in what.nodes):
        # pairs of units: corrections in 1/N are large, and chains need many samples
        sizes = _sizes(model, values, (125, 250, 500))
        return {"sizes": sizes, "trials": 100 if quick else 400, "sweeps": 600, "burn": 60}
    if _spread(model, program, near):
        # a state between patterns is soft along their sequence, and the rows on its way are no noise: few in all
        wanted = _of_rows(model, values)
        return {"sizes": _sizes(model, values, wanted), "trials": 32 if quick else 96, **SETTLED}
    if any(f.starts for f in program.fields):
        # a state of its own for every start: realisations cost little, and few rows are far from many
        wanted = tuple(round(n * _enlarged(model, values, 250)) for n in (250, 500, 1000))
        return {"sizes": _sizes(model, values, wanted), "trials": 72 if quick else 150, **SHORT}
    if all(f.kind == "atoms" for f in program.fields):
        return {"sizes": _sizes(model, values, (32, 64, 128)), "trials": 1800 if quick else 11000, **LONG}
    return {"sizes": _sizes(model, values, (50, 100, 200)), "trials": 60 if quick else 240}


def _spread(model: Gibbs, program: GibbsProgram, near: int) -> bool:
    """Whether states of a declared start may overlap with several rows, and sweeps of large systems are cheap."""
    rows = {r.matrix.rows for r in model.rows}
    quick = all(b.smooth for b in program.blocks) and all(f.kind == "atoms" for f in program.fields)
    return bool(rows) and quick and (near > 1 or all(not p.extensive for p in rows))


def _of_rows(model: Gibbs, values: Mapping[Any, float]) -> tuple[int, ...]:
    """Sizes at which finitely many rows are a small load, and others many more than those that a state is near."""
    populations = {r.matrix.rows for r in model.rows}
    few = [UNITS_A_ROW * int(p.size) for p in populations if p.size is not None]
    many = [ROWS / float(p.fraction.subs(values)) for p in populations if p.fraction is not None]
    smallest = max(FEWEST_ROW_UNITS, *few, *many)
    return tuple(round(smallest * f) for f in ((1, 2, 4) if not many else (1, 1.5, 2.25)))


#: Small systems that are counted, by the most constraints a unit: sizes, draws a realisation (quick, full). Odd sizes,
#: so that sums of signs never vanish. Close to capacity many a draw has no state at all, and scatter hides much.
COUNTED = ((0.35, (9, 11, 15), (2, 4)), (0.42, (15, 19, 23), (6, 16)))


def _counts(model: Gibbs, values: Mapping[Any, float], quick: bool) -> tuple[dict[str, Any], ...]:
    """Small systems beside the large ones: entropies that messages give, counted state by state."""
    program, what = _written(model)
    found = tuple(n for n, used in what.used.items() if any(what.nodes[k].functional == "Entropy" for k in used))
    share = {p.name: float(p.fraction.subs(values)) for p in model.populations if p.fraction is not None}
    loads = [share.get(b.population, 0.0) for b in program.blocks]
    if not found or any(f.kind != "atoms" for f in program.fields):
        return ()
    load = sum(loads) / sum(share.get(f.population, 0.0) for f in program.fields)
    pairs = max(len(f.atoms) for f in program.fields) == 2
    for most, sizes, draws in COUNTED if pairs else ((COUNTED[0][0], (7, 8, 10), COUNTED[0][2]),):
        if load <= most + 1e-9:
            how = {"route": "enumerate", "draws": draws[not quick], "only": found}
            return ({"sizes": sizes, "called": "{} (counted)", **how},)
    return ()


def _needs_counts(what: Measured) -> bool:
    return any(node.functional in ("Entropy", "FreeEntropy") for node in what.nodes)


def _enlarged(model: Gibbs, values: Mapping[Any, float], smallest: int) -> float:
    """By how much sizes grow, up to fourfold, for the smallest population that grows with N to have `MANY` members."""
    fractions = [float(p.fraction.subs(values)) for p in model.populations if p.fraction is not None]
    return float(np.clip(MANY / (smallest * min(fractions, default=1.0)), 1.0, 4.0))


def _sizes(model: Gibbs, values: Mapping[Any, float], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes near the wanted ones at which populations have whole numbers of units, as nearly as possible."""
    counts = [lambdify(SIZE, p.count.subs(dict(values)), "numpy") for p in model.populations]
    chosen: list[int] = []
    for target in wanted:
        near = np.arange(max(4, target - target // 8 - 1), target + target // 8 + 2)
        near = near[~np.isin(near, chosen)]
        exact = [np.asarray(count(near), float) + 0.0 * near for count in counts]
        off = np.max([np.abs(c - np.rint(c)) for c in exact], axis=0, initial=0)
        chosen.append(int(near[np.lexsort((np.abs(near - target), np.round(off, 6)))[0]]))
    return tuple(chosen)
