"""Runs realisations on an executor: progress, Ctrl-C, resuming from a store.

Any executor with ``submit`` that returns `concurrent.futures` futures will do. The default is a pool of fresh worker
processes with one BLAS thread each; tasks are plain data and functions of this package, so workers need neither the
user's script nor sympy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from quenched.theory.errors import QuenchedError
from quenched.validate.experiment import Experiment
from quenched.validate.realise import stop_when
from quenched.validate.store import Arrays, Store

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
#: How long to wait for a Dask scheduler.
DASK_TIMEOUT = "10s"
#: Called with (finished, total) whenever a realisation has finished.
Progress = Callable[[int, int], None]


class Missing(KeyboardInterrupt):
    """Ctrl-C, with the number of realisations that are kept."""

    def __init__(self, finished: int, total: int) -> None:
        super().__init__(f"stopped: {finished} of {total} realisations are kept, a second start goes on from them")
        self.finished, self.total = finished, total


def run(
    task: Experiment,
    indices: Sequence[int],
    keys: Sequence[str],
    store: Store | None,
    executor: Executor | None,
    progress: Progress | None = None,
    fresh: bool = False,
    workers: int | None = None,
) -> list[Arrays]:
    """Results of the realisations `indices`, in this order, from the store where they are there.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, after stopping the workers; finished realisations are in the store.
    QuenchedError
        When a realisation diverges or a worker dies.
    """
    done: dict[int, Arrays] = {}
    if store is not None and not fresh:
        stored = {k: store.load(key) for k, key in zip(indices, keys, strict=True)}
        done = {k: arrays for k, arrays in stored.items() if arrays is not None}
    report = progress or (lambda finished, total: None)
    report(len(done), len(indices))
    key_of = dict(zip(indices, keys, strict=True))
    missing = [k for k in indices if k not in done]
    try:
        for k, arrays in _compute(task, missing, executor, workers):
            if store is not None:
                store.save(key_of[k], arrays)
            done[k] = arrays
            report(len(done), len(indices))
    except BrokenProcessPool:
        kept = len(done) if store is not None else 0
        raise QuenchedError(
            f"a worker process died (out of memory?): {kept} of {len(indices)} realisations are kept"
        ) from None
    except KeyboardInterrupt:
        raise Missing(len(done) if store is not None else 0, len(indices)) from None
    return [done[k] for k in indices]


def _compute(
    task: Experiment, indices: Sequence[int], executor: Executor | None, workers: int | None
) -> Iterator[tuple[int, Arrays]]:
    """Realisations as they finish: here, on the given executor, or on a pool of processes."""
    if not indices:
        return
    if executor is not None:
        yield from _on_executor(task, indices, executor)
        return
    count = min(workers or default_workers(task, len(indices)), len(indices))
    if count <= 1:
        with one_blas_thread():
            for k in indices:
                yield k, task.number(k).realise()
        return
    with process_pool(count) as pool:
        yield from _on_executor(task, indices, pool)


def _on_executor(task: Experiment, indices: Sequence[int], executor: Executor) -> Iterator[tuple[int, Arrays]]:
    # Not concurrent.futures.wait: it locks all futures one by one, and Ctrl-C in between would leave them locked.
    finished: SimpleQueue[Future[Arrays]] = SimpleQueue()
    futures = {k: executor.submit(_one, task.number(k)) for k in indices}
    numbers = {future: k for k, future in futures.items()}
    for future in numbers:
        future.add_done_callback(finished.put)
    try:
        for _ in indices:
            future = _next(finished)
            yield numbers[future], future.result()
    finally:
        for future in futures.values():
            future.cancel()


def _next(finished: SimpleQueue[Future[Arrays]]) -> Future[Arrays]:
    """The next finished future; wakes up often enough for Ctrl-C on every system."""
    while True:
        with contextlib.suppress(Empty):
            return finished.get(timeout=0.5)


def _one(task: Experiment) -> Arrays:
    with one_blas_thread():
        return task.realise()


# ---------------------------------------------------------------- worker processes


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(task: Experiment, realisations: int) -> int:
    """One process a processor that memory allows, or none for work that is done sooner than processes start."""
    fitting = max(1, int(physical_memory() / max(task.memory(), 1.0)))
    return min(cpu_count(), fitting) if task.work() * realisations > 1.5e10 else 1


def physical_memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


@contextlib.contextmanager
def process_pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes with one BLAS thread; when the body raises, busy ones give up at their next measurement.

    Ctrl-C is for the parent alone, which keeps what is finished. Killing workers instead could lock the pool's queues.
    """
    context = _Context()
    stop = context.Event()
    with _environment(dict.fromkeys(THREAD_VARIABLES, "1")):
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=stop_when, initargs=(stop,))
        try:
            yield pool
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Process(SpawnProcess):
    """A spawned process that does not import the user's script again (scripts need no ``__main__`` guard)."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = blank = types.ModuleType("__main__")
        blank.__spec__ = None
        try:
            with _blocked_interrupts():
                return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = script


@contextlib.contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back: a process started meanwhile inherits the mask for good, here it is delivered afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    Process = _Process


# ---------------------------------------------------------------- BLAS threads


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """One BLAS thread within the body, so that sums round alike everywhere and workers do not fight for processors."""
    with contextlib.ExitStack() as stack:
        try:
            limits = import_module("threadpoolctl").threadpool_limits(1)
        except ImportError:
            limits = _one_openblas_thread()
        stack.enter_context(limits)
        yield


@contextlib.contextmanager
def _one_openblas_thread() -> Iterator[None]:
    """The same through the OpenBLAS that comes with numpy wheels; elsewhere nothing happens."""
    library = _openblas()
    if library is None:
        yield
        return
    get, put = library.scipy_openblas_get_num_threads64_, library.scipy_openblas_set_num_threads64_
    before = get()
    put(1)
    try:
        yield
    finally:
        put(before)


def _openblas() -> ctypes.CDLL | None:
    folder = Path(np.__file__).parent
    for place in (folder.parent / "numpy.libs", folder / ".dylibs"):
        for file in sorted(place.glob("libscipy_openblas64_*")):
            with contextlib.suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(file))
                _ = library.scipy_openblas_set_num_threads64_
                return library
    return None


@contextlib.contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """The executor interface of a running Dask cluster.

    Raises
    ------
    QuenchedError
        When dask.distributed is not installed or nobody answers at the address.
    """
    try:
        from distributed import Client
    except ImportError:
        raise QuenchedError("a scheduler address needs dask: install quenched[sweep]") from None
    try:
        client = Client(address, timeout=DASK_TIMEOUT)
    except (OSError, ValueError, TypeError) as error:
        raise QuenchedError(f"no Dask scheduler at {address}: {type(error).__name__}") from None
    try:
        yield client.get_executor(pure=False)
    finally:
        client.close()


@contextlib.contextmanager
def progress_bar(label: str, enabled: bool) -> Iterator[Progress | None]:
    """A bar on standard error that counts finished realisations."""
    if not enabled:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task(label, total=None)
        yield lambda finished, total: bar.update(row, completed=finished, total=total)


__all__ = ["Missing", "dask_executor", "one_blas_thread", "process_pool", "progress_bar", "run"]
