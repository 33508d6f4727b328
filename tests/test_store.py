"""The store of realisations, resuming, executors and exact repetition."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from sympy import sqrt, symbols, tanh

from quenched.theory.couplings import Gaussian
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import Field, WhiteNoise
from quenched.theory.model import Dynamics
from quenched.theory.observables import mean
from quenched.validate import realisations
from quenched.validate.simulate import simulate
from quenched.validate.simulate_dynamics import prepare
from quenched.validate.store import Store, as_store, key_of

SETTINGS = dict(trials=3, seed=1, duration=5, burn=5, lags=[0, 1], params={"g": 1.5})


@pytest.fixture(name="net")
def declared():
    x, g = Field("x"), symbols("g", positive=True)
    return Dynamics({x: -x + Gaussian("J", variance=g**2) @ tanh(x) + sqrt(2) * WhiteNoise("xi")})


def equal(a, b):
    return all(np.array_equal(a[name].values, b[name].values) for name in a.observables)


class Counting(Executor):
    """Runs at once, counts, and stops like Ctrl-C after `limit` tasks."""

    def __init__(self, limit=10**9):
        self.done, self.limit = 0, limit

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if self.done >= self.limit:
            future.set_exception(KeyboardInterrupt())
        else:
            self.done += 1
            future.set_result(fn(*args, **kwargs))
        return future


def test_files_are_complete_or_absent(tmp_path):
    store = Store(tmp_path)
    key = key_of({"a": 1})
    assert store.load(key) is None
    store.save(key, {"C": np.arange(3.0)})
    assert np.array_equal(store.load(key)["C"], np.arange(3.0))
    assert [p.suffix for p in tmp_path.rglob("*") if p.is_file()] == [".npz"]
    store.path(key).write_bytes(store.path(key).read_bytes()[:50])
    assert store.load(key) is None  # damaged files count as absent

    class Bad:
        def __array__(self, *args, **kwargs):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        store.save(key_of({"a": 2}), {"C": Bad()})
    assert [p.name for p in tmp_path.rglob("*.part")] == []


def test_folder_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("QUENCHED_CACHE", str(tmp_path))
    assert as_store(None).folder == tmp_path / "realisations"
    assert as_store(False) is None
    assert as_store(tmp_path).folder == tmp_path


def test_repetition_is_bitwise_and_seeds_matter(net):
    first = simulate(net, 30, store=False, workers=1, **SETTINGS)
    assert equal(first, simulate(net, 30, store=False, workers=1, **SETTINGS))
    assert len({v for v in first["C_x0"].values[:, 0]}) == 3
    later = simulate(net, 30, store=False, workers=1, first=2, **{**SETTINGS, "trials": 1})
    assert np.array_equal(later["C_x"].values[0], first["C_x"].values[2])
    assert first.seeds == ((1, 30, 0), (1, 30, 1), (1, 30, 2))
    other = simulate(net, 30, store=False, workers=1, **{**SETTINGS, "seed": 2})
    assert not np.isin(other["C_x0"].values, first["C_x0"].values).any()


def test_interrupted_runs_resume(net, tmp_path):
    seen = []
    with pytest.raises(KeyboardInterrupt, match="2 of 3 realisations are kept"):
        simulate(net, 30, store=tmp_path, executor=Counting(limit=2), progress=lambda *a: seen.append(a), **SETTINGS)
    assert seen == [(0, 3), (1, 3), (2, 3)]
    rest = Counting()
    resumed = simulate(net, 30, store=tmp_path, executor=rest, **SETTINGS)
    assert rest.done == 1
    assert equal(resumed, simulate(net, 30, store=False, workers=1, **SETTINGS))
    again = Counting()
    assert equal(resumed, simulate(net, 30, store=tmp_path, executor=again, **SETTINGS))
    assert again.done == 0
    simulate(net, 30, store=tmp_path, executor=again, fresh=True, **SETTINGS)
    assert again.done == 3


def test_key_names_everything_that_matters(net):
    def key(
        model=net, N=30, seed=1, named=None, dt=0.1, duration=5, burn=5, lags=(0, 1), dtype="float64", trajectories=1
    ):
        how = dict(dt=dt, duration=duration, burn=burn, lags=lags, dtype=dtype, trajectories=trajectories)
        problem = prepare(model, N, seed, {"g": 1.5} | (named or {}), **how)
        return key_of(problem.identity)

    x = Field("x")
    other = Dynamics({x: -x + Gaussian("J", variance=symbols("g", positive=True) ** 2) @ tanh(x)})
    changes = [
        dict(model=other),
        dict(N=31),
        dict(seed=2),
        dict(dt=0.05),
        dict(duration=6),
        dict(burn=6),
        dict(lags=(0, 2)),
        dict(dtype="float32"),
        dict(trajectories=2),
    ]
    keys = [key(), *(key(**c) for c in changes)]
    assert len(set(keys)) == len(keys)
    assert key() == key()
    observed = Dynamics(dict(net.eqs)).observe(m=mean(Field("x") ** 4))
    assert key(model=observed) != key()


def test_threads_and_processes_give_the_same_numbers(net):
    here = simulate(net, 30, store=False, workers=1, **SETTINGS)
    with ThreadPoolExecutor(2) as pool:
        assert equal(here, simulate(net, 30, store=False, executor=pool, **SETTINGS))
    assert equal(here, simulate(net, 30, store=False, workers=2, **SETTINGS))


def test_errors_of_realisations_reach_the_caller(tmp_path):
    x = Field("x")
    net = Dynamics({x: x**3 + 1})
    for workers in (1, 2):
        with pytest.raises(QuenchedError, match="diverged at t ="):
            simulate(net, 10, trials=2, store=tmp_path, workers=workers, dt=0.1, duration=10, burn=0)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(N=0), "N should be a positive whole number"),
        (dict(trials=2.5), "trials should be"),
        (dict(N=10**7), "GB for its couplings"),
        (dict(dt=-1), "dt should be a positive number"),
        (dict(duration=0), "duration should be"),
        (dict(lags=[0.03]), "lag = 0.03 should be a multiple of the step 0.1"),
        (dict(dtype="float16"), "dtype should be"),
        (dict(scheme="huen"), "did you mean 'heun'"),
        (dict(scheme="rk4"), "without noise"),
        (dict(params={"g": -1}), "g"),
        (dict(params={}), "no value for g"),
        (dict(params={"gain": 2}), "unknown parameter 'gain'"),
        (dict(scheduler="tcp://127.0.0.1:1"), "no Dask scheduler"),
    ],
)
def test_bad_settings_get_one_line(net, change, message, monkeypatch):
    monkeypatch.setattr(realisations, "DASK_TIMEOUT", "0.2s")
    settings = dict(N=10, dt=0.1, store=False, workers=1) | SETTINGS | change
    with pytest.raises(QuenchedError, match=message) as caught:
        simulate(net, **settings)
    assert "\n" not in str(caught.value)


SCRIPT = """
import sys
from sympy import tanh
from quenched.theory.couplings import Gaussian
from quenched.theory.fields import Field
from quenched.theory.model import Dynamics
from quenched.validate.simulate import simulate
x = Field("x")
net = Dynamics({x: -x + Gaussian("J", variance=4) @ tanh(x)})
simulate(net, 20, trials=4000, workers=2, duration=200, burn=0, store=sys.argv[1],
         progress=lambda a, b: print(a, flush=True))
"""


def gone(group, patience=60.0):
    """Whether every process of a group has ended (zombies have), after some patience."""
    psutil = pytest.importorskip("psutil")

    def alive(process):
        try:
            return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False

    limit = time.monotonic() + patience
    while any(alive(p) for p in psutil.process_iter()):
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def test_ctrl_c_stops_workers_and_keeps_what_is_finished(tmp_path):
    """A script without a main guard, two worker processes, one SIGINT to the whole group as a terminal sends it."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "store")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while int(child.stdout.readline() or 4000) < 3:
        pass
    os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=240)  # a loaded machine takes its time; all realisations take longer still
    assert child.returncode != 0
    assert "realisations are kept" in errors
    assert 3 <= len(list((tmp_path / "store").rglob("*.npz"))) < 4000
    assert gone(child.pid), "a worker is left"


def test_running_dask_cluster(net):
    distributed = pytest.importorskip("distributed")
    here = simulate(net, 30, store=False, workers=1, **SETTINGS)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        there = simulate(net, 30, store=False, scheduler=cluster.scheduler_address, **SETTINGS)
    assert equal(here, there)


def test_dataset_carries_lags_and_settings(net):
    run = simulate(net, 30, store=False, workers=1, **SETTINGS)
    data = run.dataset()
    assert data["C_x"].dims == ("realisation", "tau")
    assert data["C_x0"].shape == (3,)
    assert data.attrs["N"] == 30
    assert data.attrs["parameter_g"] == 1.5
    assert "C_x0" in repr(run)


def test_death_of_a_worker_is_one_line(net, tmp_path):
    def dying(*args, **kwargs):
        future = Future()
        future.set_exception(BrokenProcessPool("gone"))
        return future

    executor = Counting()
    executor.submit = dying
    with pytest.raises(QuenchedError, match=r"a worker process died .* 0 of 3 realisations are kept"):
        simulate(net, 30, store=tmp_path, executor=executor, **SETTINGS)
