"""Extrapolation, Hotelling's T², its guarded p-values and its power."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import f, kstest, ncf, nct

from quenched.theory.errors import QuenchedError
from quenched.validate import calibrate
from quenched.validate import statistics as st

SIZES = (250, 500, 1000)
PLAIN_WIDTH = np.array(SIZES)[:, None] ** -0.5


def real_pool() -> dict[int, np.ndarray]:
    """320 simulated networks x' = −x + J tanh x at g = 2 for each N, dt = 0.1, window 100 after 60.

    Columns: ⟨x²⟩, ⟨φ²⟩, Lyapunov exponent, C_x at lags 2, 4, 8. Skewness −1.8 … 1.4, kurtosis up to 7.
    """
    with np.load(Path(__file__).parent / "data" / "null_pool.npz") as data:
        return {int(N): data[N].astype(float) for N in data.files}


# -- extrapolation -----------------------------------------------------------------------------------------------------
@given(
    some.lists(some.integers(20, 5000), min_size=3, max_size=6, unique=True),
    some.sampled_from([0.5, 1.0, 1.5, 2.0]),
)
def test_weights_extrapolate_the_declared_law_exactly(sizes: list[int], power: float) -> None:
    N = np.array(sorted(sizes), dtype=float)
    law = st.extrapolation(sorted(sizes), power)
    runs = 1.7 - 3.1 * N**-power
    tolerance = 1e-9 * np.abs(law.intercept).sum() + 1e-12
    assert law.intercept.sum() == pytest.approx(1, abs=tolerance)
    assert law.intercept @ N**-power == pytest.approx(0, abs=tolerance)
    assert law.intercept @ runs == pytest.approx(1.7, abs=10 * tolerance)
    assert law.slope @ runs == pytest.approx(-3.1, rel=1e-5)
    assert law.without_smallest @ runs == pytest.approx(0, abs=1e-8 * np.abs(law.without_smallest).sum() + 1e-12)
    assert law.contrasts.shape == (len(N) - 2, len(N))
    assert np.abs(law.contrasts @ runs).max() < 1e-8 * np.abs(law.contrasts).sum()


def test_weights_are_least_squares_with_variances_falling_as_one_over_n() -> None:
    N = np.array([100.0, 300.0, 800.0, 1000.0])
    slope, intercept = np.polyfit(1 / N, y := np.array([1.0, 2.0, 1.5, 1.1]), 1, w=np.sqrt(N))
    law = st.extrapolation([100, 300, 800, 1000])
    assert law.intercept @ y == pytest.approx(intercept)
    assert law.slope @ y == pytest.approx(slope)


def test_weights_know_how_the_variance_depends_on_n() -> None:
    N, y = np.array([8.0, 16.0, 32.0, 64.0]), np.array([1.0, 2.0, 1.5, 1.1])
    for noise in (1.0, 0.0):
        slope, intercept = np.polyfit(1 / N, y, 1, w=N ** (-noise / 2))
        law = st.extrapolation([8, 16, 32, 64], noise=noise)
        assert law.intercept @ y == pytest.approx(intercept)
        assert law.slope @ y == pytest.approx(slope)
        assert np.abs(law.contrasts @ np.stack([N**0, 1 / N], axis=1)).max() < 1e-12


@pytest.mark.parametrize("sizes", [(100, 200), (100, 100, 200), (300, 200, 100)])
def test_three_different_sizes_are_needed(sizes: tuple[int, ...]) -> None:
    with pytest.raises(QuenchedError, match="three different"):
        st.extrapolation(sizes)


@pytest.mark.parametrize("power", [0.0, -1.0, np.nan])
def test_power_must_be_positive(power: float) -> None:
    with pytest.raises(QuenchedError, match="positive"):
        st.extrapolation(SIZES, power)


# -- T² ----------------------------------------------------------------------------------------------------------------
def test_hotelling_is_the_textbook_formula() -> None:
    a = np.array([0.1, 0.2, 0.3]) + np.random.default_rng(0).standard_normal((12, 3))
    shift = a.mean(axis=0) - [0.0, 0.0, 1.0]
    expected = 12 * shift @ np.linalg.inv(np.cov(a.T)) @ shift
    assert st.hotelling(a, [0.0, 0.0, 1.0]) == pytest.approx(expected)
    # one component: the square of Student's t
    assert st.hotelling(a[:, :1]) == pytest.approx(st.standardised(a[:, :1])[0] ** 2)


@given(some.integers(0, 10_000), some.integers(1, 4))
@settings(max_examples=30)
def test_hotelling_is_affine_invariant(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    a, theory = rng.standard_normal((4 * d + 4, d)), rng.standard_normal(d)
    mix, offset = rng.standard_normal((d, d)) + 3 * np.eye(d), rng.standard_normal(d)
    mix *= 10.0 ** rng.uniform(-3, 3, d)  # units may differ by orders of magnitude
    assert st.hotelling(a @ mix + offset, theory @ mix + offset) == pytest.approx(st.hotelling(a, theory), rel=1e-6)


def test_a_component_given_twice_counts_once() -> None:
    a = np.random.default_rng(1).standard_normal((20, 2)) + 0.4
    twice = np.concatenate([a, a[:, :1]], axis=1)
    assert st.hotelling(twice) == pytest.approx(st.hotelling(a), rel=1e-3)


def test_an_error_of_the_theory_widens_the_comparison() -> None:
    a = np.random.default_rng(2).standard_normal((16, 2)) + 1.0
    plain, widened = st.hotelling(a), st.hotelling(a, 0.0, [0.5, 0.5])
    assert widened < plain / 2
    assert st.hotelling(a, 0.0, 1e-9) == pytest.approx(plain, rel=1e-6)


# -- reference distribution --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("R", "d"), [(8, 2), (16, 4), (40, 7)])
def test_plain_p_values_of_gaussian_nulls_are_uniform(R: int, d: int) -> None:
    nulls = calibrate.gaussian_nulls((2000, R, 3, d), np.random.default_rng(3)) * PLAIN_WIDTH
    outcome = calibrate.false_alarms(nulls, SIZES)
    assert outcome.uniformity > 0.01
    assert outcome.plain_alarms <= outcome.band[1] == 6
    assert outcome.holds


@pytest.mark.parametrize("R", [8, 16, 24, 40])
@pytest.mark.parametrize("family", ["lognormal", "gamma", "exponential", "simulated"])
def test_false_alarms_of_skewed_nulls_stay_in_the_binomial_band(R: int, family: str) -> None:
    rng, n, d = np.random.default_rng(4), 2000, R // 4
    if family == "simulated":
        pool = {N: x[:, : min(d, 6)] for N, x in real_pool().items()}
        nulls, sizes = calibrate.bootstrap_nulls(pool, n, R, rng), tuple(sorted(pool))
    else:
        sizes = SIZES
        draw = {
            "lognormal": calibrate.lognormal_nulls,
            "gamma": calibrate.gamma_nulls,
            "exponential": lambda shape, rng: calibrate.gamma_nulls(shape, rng, skewness=2.0),
        }[family]
        nulls = draw((n, R, 3, d), rng) * PLAIN_WIDTH
    outcome = calibrate.false_alarms(nulls, sizes)
    assert outcome.holds, outcome
    # the finite-size law is right: that gate must stay silent too, up to 0.27 % (doubled for skewness)
    assert outcome.not_asymptotic <= calibrate.binomial_band(n, 2 * st.THREE_SIGMA, 0.999)[1]


@pytest.mark.parametrize(("R", "d"), [(8, 2), (16, 4), (40, 4)])
def test_the_guard_is_needed_and_enough_for_the_family_that_it_is_fitted_to(R: int, d: int) -> None:
    # one size only: no cancellation of the skewness between sizes
    nulls = calibrate.lognormal_nulls((20_000, R, 1, d), np.random.default_rng(5))[:, :, 0]
    alarms = [int(np.sum(st.t2_p_values(st.hotelling(nulls), R, d, guarded=g) < 1e-3)) for g in (False, True)]
    low, high = calibrate.binomial_band(20_000, 1e-3)
    assert alarms[0] > high
    assert alarms[1] <= high
    assert low < 20


@pytest.mark.parametrize(("R", "d"), [(4, 1), (8, 2), (40, 5), (400, 5)])
def test_guard_is_a_heavier_reference(R: int, d: int) -> None:
    assert 0.6 < st.guard_exponent(R, d) < 1
    assert st.guard_exponent(100 * R, d) > st.guard_exponent(R, d)
    level = 1e-3
    assert st.t2_p_values(st.critical_t2(level, R, d), R, d) == pytest.approx(level)
    assert st.critical_t2(level, R, d) > st.critical_t2(level, R, d, guarded=False)
    assert st.critical_t2(level, R, d, guarded=False) == pytest.approx(f.isf(level, d, R - d) * d * (R - 1) / (R - d))


def test_blocks_partition_the_components() -> None:
    for R in range(4, 60):
        for d in range(1, 15):
            blocks = st.component_blocks(d, R)
            assert [i for b in blocks for i in range(b.start, b.stop)] == list(range(d))
            assert max(b.stop - b.start for b in blocks) <= max(1, R // 4)
    assert len(st.component_blocks(6, 24)) == 1
    assert len(st.component_blocks(7, 24)) == 2


def test_joint_p_is_valid_for_dependent_tests() -> None:
    rng = np.random.default_rng(6)
    p = rng.uniform(size=(4000, 5))
    assert 0.004 < np.mean(st.joint_p(p) < 0.01) < 0.016
    assert np.mean(st.joint_p(np.repeat(p[:, :1], 5, axis=1)) < 0.01) < 0.01


def test_max_t_is_the_largest_of_several_deviations() -> None:
    t = np.random.default_rng(7).standard_normal((4000, 40, 6))
    p = st.t2_p_values(np.square(st.standardised(t)), 40, 1, guarded=False)
    assert kstest(st.max_t_p_value(p.min(axis=-1), 6), "uniform").pvalue > 0.01


# -- power -------------------------------------------------------------------------------------------------------------
def test_power_is_the_noncentral_f() -> None:
    R, d, noncentrality = 20, 3, np.array([1.0, 10.0, 50.0, 100.0])
    critical = st.critical_t2(1e-2, R, d, guarded=False)
    expected = ncf.sf(critical * (R - d) / (d * (R - 1)), d, R - d, noncentrality)
    assert st.power_of_t2(noncentrality, critical, R, d) == pytest.approx(expected, abs=1e-9)
    assert st.power_of_t2(0.0, critical, R, d) == pytest.approx(1e-2, abs=1e-9)
    t = np.sqrt(st.critical_t2(1e-3, R, 1))
    assert st.power_of_t2(16.0, t**2, R, 1) == pytest.approx(nct.sf(t, R - 1, 4) + nct.cdf(-t, R - 1, 4), abs=1e-9)


def test_detectable_shift_has_the_stated_power_and_falls_with_more_runs() -> None:
    shift = st.detectable_shift(1e-3, 24, 4)
    assert st.power_of_t2(shift**2, st.critical_t2(1e-3, 24, 4), 24, 4) == pytest.approx(0.99, abs=1e-5)
    shifts = [st.detectable_shift(1e-3, R, 1) for R in (4, 8, 16, 32, 64, 1000)]
    assert all(a > b for a, b in pairwise(shifts))
    assert shifts[-1] == pytest.approx(3.29 + 2.33, rel=0.05)  # normal quantiles of 10⁻³ (two-sided) and of 99 %


@pytest.mark.parametrize("R", [8, 24, 40, 100])
@pytest.mark.parametrize("family", ["gaussian", "lognormal", "simulated"])
def test_errors_of_the_printed_size_are_detected_in_99_of_100_experiments(R: int, family: str) -> None:
    rng, n = np.random.default_rng(8), 2000
    pool = {N: x[:, :5] for N, x in real_pool().items()}
    nulls = {
        "gaussian": lambda: calibrate.gaussian_nulls((n, R, 3, 5), rng) * PLAIN_WIDTH,
        "lognormal": lambda: calibrate.lognormal_nulls((n, R, 3, 5), rng) * PLAIN_WIDTH,
        "simulated": lambda: calibrate.bootstrap_nulls(pool, n, R, rng),
    }[family]()
    for component in (0, 2, 4):
        for sign in (1, -1):
            rate = calibrate.detection_rate(nulls, SIZES, component=component, sign=sign)
            assert rate > 0.99 - 3 * np.sqrt(0.99 * 0.01 / n)
    # and the statement is sharp: half of that error is not reliably detected once R is large
    if R == 100 and family == "gaussian":
        assert _half_the_error(nulls) < 0.6


def _half_the_error(nulls: np.ndarray) -> float:
    a = st.extrapolated(nulls, st.extrapolation(SIZES))
    R, d = a.shape[-2:]
    error = np.zeros(d)
    error[0] = 0.5 * st.detectable_shift(1e-3, R, d) * a[..., 0].std() / np.sqrt(R)
    return float(np.mean(st.joint_p(st.block_p_values(a, error)) < 1e-3))


# -- the finite-size law -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sizes", [(100, 200, 400), (100, 200, 400, 800)])
def test_a_wrong_finite_size_law_is_noticed(sizes: tuple[int, ...]) -> None:
    rng, N = np.random.default_rng(9), np.array(sizes, dtype=float)
    noise = 0.02 * rng.standard_normal((200, 40, N.size, 2)) * N[:, None] ** -0.5
    law = st.extrapolation(sizes)
    linear = np.stack([1 - 5 / N, 2 + 3 / N], axis=-1)
    curved = np.stack([1 - 5 / N, 2 + 3 / np.sqrt(N)], axis=-1)
    assert np.mean(st.asymptotics(noise + linear, law)[1] < st.THREE_SIGMA) < 0.02
    shift, p = st.asymptotics(noise + curved, law)
    assert np.all(p[:, 1] < st.THREE_SIGMA)
    assert np.all(np.abs(shift[:, 1]) > 3)
    assert np.mean(p[:, 0] < st.THREE_SIGMA) < 0.02


def test_a_second_power_removes_what_a_first_leaves() -> None:
    """a + b/N + c/N² on four sizes: exact, tested, dearer; on three sizes it is determined and cannot be tested."""
    N = np.array([12.0, 16, 24, 40])
    runs = (1 - 5 / N + 30 / N**2)[None, :, None] + 1e-9 * np.random.default_rng(3).standard_normal((20, 4, 1))
    law = st.extrapolation([12, 16, 24, 40], 1.0, second=2.0)
    assert st.extrapolated(runs, law) == pytest.approx(1, abs=1e-7)
    assert st.slopes(runs, law) == pytest.approx(-5, abs=1e-5)
    assert law.contrasts.shape == (1, 4)
    assert st.asymptotics(runs, law)[1][0] > 1e-3
    assert st.asymptotics(runs + (1 / N**3)[:, None], law)[1][0] < st.THREE_SIGMA
    assert st.asymptotics(runs, st.extrapolation([12, 16, 24, 40]))[1][0] < st.THREE_SIGMA
    few = st.extrapolation([12, 16, 24], 1.0, second=2.0)
    assert st.extrapolated(runs[:, :3], few) == pytest.approx(1, abs=1e-6)
    assert st.asymptotics(runs[:, :3], few)[1] == pytest.approx(1)
    assert np.sum(law.intercept**2 / N) > 3 * np.sum(st.extrapolation([12, 16, 24, 40]).intercept ** 2 / N)
    with pytest.raises(QuenchedError, match="above p"):
        st.extrapolation([12, 16, 24], 1.0, second=0.5)


def test_the_resolution_silences_errors_below_it() -> None:
    N = np.array(SIZES, dtype=float)
    runs = 1e-7 * np.random.default_rng(10).standard_normal((16, 3, 1)) + (1 + 1e-3 / np.sqrt(N))[:, None]
    law = st.extrapolation(SIZES)
    assert st.asymptotics(runs, law)[1][0] < 1e-6
    assert st.asymptotics(runs, law, np.array([1e-4]))[1][0] > 0.5


# -- statistics that are not means -------------------------------------------------------------------------------------
def test_pseudo_values_of_a_mean_are_the_values() -> None:
    x = np.random.default_rng(11).standard_normal((10, 2))
    assert st.pseudo_values(lambda v: v.mean(axis=0), x) == pytest.approx(x)


def test_pseudo_values_estimate_a_ratio_of_means() -> None:
    rng = np.random.default_rng(12)
    top, bottom = 3 + rng.standard_normal(4000), 2 + rng.standard_normal(4000)
    values = st.pseudo_values(lambda u, v: u.mean() / v.mean(), top, bottom)
    assert values.mean() == pytest.approx(1.5, abs=5 * values.std() / np.sqrt(4000))
    assert values.std() == pytest.approx(np.sqrt(1 + 1.5**2) / 2, rel=0.1)
    with pytest.raises(QuenchedError, match="at least two"):
        st.pseudo_values(np.mean, top[:1])


def test_bootstrap_needs_a_pool_larger_than_the_experiment() -> None:
    with pytest.raises(QuenchedError, match="M ≥ 2R"):
        calibrate.bootstrap_nulls(real_pool(), 10, 200, np.random.default_rng(0))
