"""The rule: when a theory agrees, disagrees, or cannot be judged."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from quenched.theory.errors import QuenchedError
from quenched.validate import calibrate
from quenched.validate.agreement import Agreement
from quenched.validate.cases import Case, Options, balanced
from quenched.validate.looks import Looks, predicted_error, realisations_needed
from quenched.validate.verdict import judge, judge_points

SIZES = (200, 400, 800)
LAGS = np.arange(9.0)
CURVE = 2.0 * np.exp(-LAGS / 4)
THEORY: dict[str, Any] = {
    "C_x0": (2.0, 1e-9),
    "lyapunov": (0.11, 1e-7),
    "C_x": (CURVE, np.full(9, 1e-7)),
}


@dataclass
class Estimator:
    assumes: str = "declaration"
    bias: str = "none"
    power: float = 1.0
    reason: str = "order 1/N"
    min_N: int = 1
    max_N: int = 10**6


def runs(
    R: int, seed: int = 0, sizes: tuple[int, ...] = SIZES, offset: float = 0.0, law: float = 1.0
) -> dict[int, Any]:
    """Correlated observables of R networks per N, with corrections of order N^-law and `offset` (relative) in C_x0."""
    rng = np.random.default_rng(seed)
    out = {}
    for N in sizes:
        slow = rng.standard_normal((R, 1))
        noise = 0.5 / np.sqrt(N)
        out[N] = {
            "C_x0": 2.0 * (1 + offset) + 4 / N**law + noise * (slow[:, 0] + 0.3 * rng.standard_normal(R)),
            "lyapunov": 0.11 - 6 / N**law + 0.1 * noise * rng.standard_normal(R),
            "C_x": CURVE + 2 / N**law + noise * (slow + 0.3 * rng.standard_normal((R, 9))),
        }
    return out


def scaled(name: str, factor: float) -> dict[str, Any]:
    value, error = THEORY[name]
    return {**THEORY, name: (np.asarray(value) * factor, error)}


# -- the three verdicts ------------------------------------------------------------------------------------------------
def test_a_right_theory_agrees_when_the_runs_could_have_told() -> None:
    report = judge(runs(60), THEORY, quick=True)
    assert report.verdict == "agree"
    assert report.exit_code == 0
    assert report.detectable <= report.target == 0.05
    assert "99 %" in report.reason
    assert report.p_value > 1e-3


@pytest.mark.parametrize("name", ["C_x0", "lyapunov", "C_x"])
@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_theory_wrong_by_five_percent_is_rejected(name: str, factor: float) -> None:
    report = judge(runs(60), scaled(name, factor), quick=True)
    assert report.verdict == "disagree"
    assert report.exit_code == 1
    assert name in report.reason


def test_the_culprit_is_named() -> None:
    report = judge(runs(60), scaled("lyapunov", 1.3), parameters={"g": 2.0})
    assert "lyapunov at g = 2" in report.reason


def test_a_combination_of_numbers_can_be_wrong_where_none_is() -> None:
    # slow fluctuations move the whole curve: one lag out of line by a fraction of them is an error of the theory
    bent = CURVE.copy()
    bent[4] += 0.004
    report = judge(runs(200), {**THEORY, "C_x": (bent, 0.0)})
    assert report.verdict == "disagree"
    assert "no number alone" in report.reason
    assert "combination" in report.reason


def test_few_runs_are_inconclusive_not_agreement() -> None:
    report = judge(runs(8), THEORY, quick=True)
    assert report.verdict == "inconclusive"
    assert report.exit_code == 3
    assert "would have been caught" in report.reason
    assert report.detectable > 0.05


def test_full_is_stricter_than_quick() -> None:
    data = runs(60)
    assert judge(data, THEORY, quick=True).verdict == "agree"
    assert judge(data, THEORY).verdict == "inconclusive"


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_runs_that_are_not_asymptotic_never_disagree(factor: float) -> None:
    report = judge(runs(200, law=0.3), scaled("lyapunov", factor))
    assert report.verdict == "inconclusive"
    assert report.reason.startswith("not asymptotic")


def test_a_rejection_far_from_the_limit_says_so() -> None:
    report = judge(runs(60), scaled("lyapunov", 1.05), quick=True)
    assert report.verdict == "disagree"
    assert "finite-size term" in report.reason


def test_the_declared_power_is_used_and_its_reason_kept() -> None:
    data = runs(200, law=0.5)
    declared = {name: (0.5, "corrections of order N^-1/2") for name in THEORY}
    report = judge(data, THEORY, quick=True, powers=declared)
    assert report.verdict == "agree"
    assert report["C_x0"].power == 0.5
    assert report["C_x0"].power_reason == "corrections of order N^-1/2"
    by_estimator = judge(data, THEORY, quick=True, estimators={name: Estimator(power=0.5) for name in THEORY})
    assert by_estimator.p_value == pytest.approx(report.p_value)


def test_two_powers_are_fitted_and_told() -> None:
    declared = {name: (0.5, 1.0, "two terms") for name in THEORY}
    report = judge(runs(200), THEORY, quick=True, powers=declared)
    row = report["C_x0"]
    assert (row.power, row.second_power, row.power_reason) == (0.5, 1.0, "two terms")
    assert row.law == "a + b/N^0.5 + c/N^1"
    assert row.detectable > 2 * judge(runs(200), THEORY, quick=True)["C_x0"].detectable
    assert "0.5, 1" in str(report)
    assert report.to_dict()["observables"]["C_x0"]["finite_size"]["second_p"] == 1.0


def test_the_finite_size_coefficient_is_reported() -> None:
    component = judge(runs(400), THEORY)["lyapunov"].components[0]
    assert component.slope == pytest.approx(-6, abs=5 * component.slope_error)
    assert component.slope_error < 1


# -- what keeps a verdict from "agree" ---------------------------------------------------------------------------------
def test_estimators_that_use_the_theory_are_at_most_consistent() -> None:
    circular = {name: Estimator(assumes="theory") for name in THEORY}
    report = judge(runs(60), THEORY, quick=True, estimators=circular)
    assert report.verdict == "inconclusive"
    assert report.reason.startswith("consistent")
    mixed = {**circular, "C_x0": Estimator(assumes="nothing")}
    assert judge(runs(60), THEORY, quick=True, estimators=mixed).verdict == "agree"
    assert judge(runs(60), scaled("C_x0", 1.1), quick=True, estimators=circular).verdict == "disagree"


def test_an_unknown_independence_class_is_refused() -> None:
    with pytest.raises(QuenchedError, match="assumes one of"):
        judge(runs(8), THEORY, estimators={"C_x0": Estimator(assumes="luck")})


def test_uncovered_parts_forbid_agreement_but_not_disagreement() -> None:
    report = judge(runs(60), THEORY, quick=True, uncovered=("R_x",))
    assert report.verdict == "inconclusive"
    assert "R_x" in report.reason
    assert judge(runs(60), scaled("C_x0", 1.1), quick=True, uncovered=("R_x",)).verdict == "disagree"


def test_sizes_outside_the_range_of_an_estimator_are_inconclusive() -> None:
    report = judge(runs(60), scaled("lyapunov", 1.5), quick=True, estimators={"lyapunov": Estimator(min_N=250)})
    assert report.verdict == "inconclusive"
    assert "250" in report.reason


def test_errors_of_the_theory_and_of_the_time_step_widen_the_comparison() -> None:
    data, wrong = runs(60), scaled("C_x0", 1.05)
    vague = {**wrong, "C_x0": (wrong["C_x0"][0], 0.1)}
    assert judge(data, wrong, quick=True).verdict == "disagree"
    assert judge(data, vague, quick=True).verdict == "inconclusive"
    biased = judge(data, wrong, quick=True, time_step={"C_x0": (-0.1, 0.01)})
    assert biased.verdict == "inconclusive"
    assert biased["C_x0"].time_step == (0.1, 0.01)


def test_relative_errors_need_a_scale_where_the_theory_is_zero() -> None:
    data = {N: {"mean_x": 0.01 * np.random.default_rng(N).standard_normal(60) / np.sqrt(N)} for N in SIZES}
    report = judge(data, {"mean_x": (0.0, 0.0)})
    assert report.verdict == "inconclusive"
    assert "scale" in report.reason
    scale = {"mean_x": (1.4, "standard deviation of x")}
    declared = judge(data, {"mean_x": (0.0, 0.0)}, scales=scale)
    assert declared.verdict == "agree"
    assert declared["mean_x"].scale_reason == "standard deviation of x"


def test_a_scale_never_hides_an_error_behind_a_smaller_number() -> None:
    assert judge(runs(8), THEORY, scales={"C_x0": 0.5})["C_x0"].scale == 2.0


def test_a_quiescent_state_agrees_with_zero_in_spite_of_rounding() -> None:
    rng = np.random.default_rng(1)
    data = {N: {"C_x0": 1e-20 * (1 + 0.1 * rng.standard_normal(12))} for N in SIZES}
    assert judge(data, {"C_x0": (0.0, 0.0)}, scales={"C_x0": 1.0}).verdict == "agree"
    assert judge(data, {"C_x0": (0.3, 0.0)}, scales={"C_x0": 1.0}).verdict == "disagree"


# -- components and tests ----------------------------------------------------------------------------------------------
def test_a_curve_enters_at_four_declared_lags() -> None:
    report = judge(runs(60), THEORY, lags={"C_x": LAGS})
    assert [c.lag for c in report["C_x"].components] == [1.0, 2.0, 4.0, 8.0]
    chosen = judge(runs(60), THEORY, lags={"C_x": LAGS}, select={"C_x": [2, -1]})
    assert [c.lag for c in chosen["C_x"].components] == [2.0, 8.0]
    with pytest.raises(QuenchedError, match="1 to 4 different"):
        judge(runs(60), THEORY, select={"C_x": [0, 1, 2, 3, 4]})


@pytest.mark.parametrize("R", [8, 12, 24, 60])
def test_every_component_is_tested_whatever_the_number_of_runs(R: int) -> None:
    report = judge(runs(R), THEORY)
    assert len(report.points[0].block_p) == -(-6 // max(1, R // 4))
    assert sum(len(row.components) for row in report.rows) == 6


def test_the_verdict_is_that_of_the_vectorised_calibration() -> None:
    nulls = calibrate.gaussian_nulls((40, 16, 3, 4), np.random.default_rng(2))
    law = calibrate.false_alarms(nulls, SIZES, level=0.05)
    alarms = 0
    for experiment in nulls:
        samples = {N: {"o": experiment[:, i]} for i, N in enumerate(SIZES)}
        alarms += judge(samples, {"o": (np.zeros(4), 0.0)}, resolution=0.0).p_value < 0.05
    assert alarms == law.alarms


def test_several_points_share_the_level_and_one_wrong_point_is_found() -> None:
    cases = [Case(runs(60, seed), THEORY, {"g": g}) for seed, g in enumerate((1.5, 2.0, 3.0))]
    joint, single = judge_points(cases, Options(quick=True)), judge_points(cases[:1], Options(quick=True))
    assert joint.verdict == "agree"
    assert joint.points[0].rows[0].detectable > single.points[0].rows[0].detectable
    wrong = [*cases[:2], Case(cases[2].samples, scaled("C_x0", 1.05), {"g": 3.0})]
    report = judge_points(wrong, Options(quick=True))
    assert report.verdict == "disagree"
    assert "C_x0 at g = 3" in report.reason


def test_ci_mode_is_a_thousand_times_stricter() -> None:
    assert judge(runs(8), THEORY, ci=True).level == pytest.approx(1e-6)
    assert judge(runs(8), THEORY, look=2, looks=4).level == pytest.approx(2.5e-4)


# -- bad input ---------------------------------------------------------------------------------------------------------
def _unequal() -> dict[int, Any]:
    return {**runs(12), 800: runs(8)[800]}


def _with_nan() -> dict[int, Any]:
    data = runs(8)
    data[400]["lyapunov"][3] = np.nan
    return data


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (runs(8, sizes=(200, 400)), {}, "three different"),
        (_unequal(), {}, "same number of realisations"),
        (_with_nan(), {}, "lyapunov: the runs must be finite"),
        (runs(3), {}, "at least 4"),
        (runs(8), {"powers": {"liapunov": 1.0}}, "did you mean 'lyapunov'"),
        (runs(8), {"powers": {"lyapunov": -1.0}}, "positive"),
        (runs(8), {"look": 3, "looks": 2}, "look 3 of 2"),
        (runs(8), {"looks": 6}, "look 1 of 6"),
        ({}, {}, "nothing to compare"),
    ],
)
def test_bad_input_is_one_clear_error(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QuenchedError, match=message) as caught:
        judge(data, THEORY, **options)
    assert "\n" not in str(caught.value)


def test_shapes_must_match() -> None:
    with pytest.raises(QuenchedError, match="theory has 5 values"):
        judge(runs(8), {"C_x": (np.ones(5), 0.0)})
    with pytest.raises(QuenchedError, match="theory must be finite"):
        judge(runs(8), {"C_x0": (np.nan, 0.0)})


def test_balanced_keeps_the_first_runs_of_every_size() -> None:
    data = _unequal()
    equal = balanced(data)
    assert {len(x) for sample in equal.values() for x in sample.values()} == {8}
    assert np.array_equal(equal[200]["lyapunov"], data[200]["lyapunov"][:8])


def test_observables_that_only_one_side_knows_are_listed() -> None:
    report = judge(runs(8), {"C_x0": (2.0, 0.0), "R_x": (1.0, 0.0)})
    assert report.points[0].unjudged == ("C_x", "R_x", "lyapunov")


def test_observables_have_sizes_of_their_own() -> None:
    data = runs(60, sizes=(20, 40, 80, *SIZES))
    for N, row in data.items():
        row.pop("lyapunov" if N >= 200 else "C_x0")
    report = judge(data, {"C_x0": (2.0, 0.0), "lyapunov": (0.11, 0.0), "C_x": THEORY["C_x"]})
    assert report["C_x0"].sizes == SIZES
    assert report["lyapunov"].sizes == (20, 40, 80)
    assert "lyapunov at N = 20, 40, 80" in repr(report)
    assert report.to_dict()["observables"]["lyapunov"]["sizes"] == [20, 40, 80]
    data[80].pop("lyapunov")
    assert judge(data, {"C_x0": (2.0, 0.0), "lyapunov": (0.11, 0.0)}).points[0].unjudged == ("C_x", "lyapunov")


# -- looks -------------------------------------------------------------------------------------------------------------
def test_the_plan_reaches_the_target() -> None:
    looks, R, seen = Looks(3, quick=True), 12, []
    for look in range(1, 4):
        report = judge(runs(R, seed=3), THEORY, **looks.options(look))
        plan = looks.plan(report)
        seen.append(R)
        if not plan.more:
            break
        R = plan.realisations
    assert report.verdict == "agree"
    assert len(seen) in {2, 3}
    assert report.level == pytest.approx(1e-3 / 3)


def test_predicted_error_is_what_more_runs_give() -> None:
    small, large = judge(runs(40), THEORY), judge(runs(200, seed=1), THEORY)
    assert predicted_error(small, 40) == pytest.approx(small.detectable)
    assert predicted_error(small, 200) == pytest.approx(large.detectable, rel=0.35)
    needed = realisations_needed(small)
    assert needed is not None
    assert predicted_error(small, needed) <= 0.9 * small.target < predicted_error(small, needed - 4)


def test_a_plan_stops_where_runs_cannot_help() -> None:
    looks = Looks(2, quick=True)
    vague = {**THEORY, "C_x0": (2.0, 0.2)}
    assert "no number of realisations" in looks.plan(judge(runs(8), vague, **looks.options(1))).reason
    wrong_law = judge(runs(200, law=0.3), THEORY, **looks.options(1))
    assert "larger networks" in looks.plan(wrong_law).reason
    last = looks.plan(judge(runs(8), THEORY, **looks.options(2)))
    assert not last.more
    assert "spent" in last.reason
    assert not looks.plan(judge(runs(60), scaled("C_x0", 1.2), **looks.options(1))).more
    limited = Looks(2, quick=True, limit=8).plan(judge(runs(8), THEORY, **looks.options(1)))
    assert not limited.more
    with pytest.raises(QuenchedError, match="1 to 5"):
        Looks(6)


def test_looking_five_times_keeps_the_level() -> None:
    # 400 experiments, five looks at growing data, at a family level raised to 5 % so that the count says something
    rng, alarms, n = np.random.default_rng(4), 0, 400
    nulls = calibrate.gaussian_nulls((n, 40, 3, 2), rng)
    rejected = np.zeros(n, dtype=bool)
    for R in (8, 16, 24, 32, 40):
        outcome = calibrate.st.joint_p(
            calibrate.st.block_p_values(
                calibrate.st.extrapolated(nulls[:, :R], calibrate.st.extrapolation(SIZES)), guarded=False
            )
        )
        rejected |= outcome < 0.05 / 5
    alarms = int(rejected.sum())
    assert 0 < alarms <= calibrate.binomial_band(n, 0.05)[1]


# -- mutants -----------------------------------------------------------------------------------------------------------
def test_mutants_above_the_printed_error_are_detected() -> None:
    case = Case(runs(60), THEORY)
    mutants = {f"{name} × {k:g}": scaled(name, k) for name in THEORY for k in (1.005, 1.03, 1.1, 2.0)}
    mutants["sign"] = lambda theory: {"lyapunov": (-0.11, 0.0)}
    results = calibrate.compare_mutants(case, mutants, Options(quick=True))
    assert [r.name for r in results] == list(mutants)
    assert all(r.as_promised for r in results)
    assert sum(r.detected for r in results) >= 7
    weak = next(r for r in results if r.name == "lyapunov × 1.005")
    assert not weak.detected
    assert weak.effect < 1
    strong = next(r for r in results if r.name == "lyapunov × 2")
    assert strong.detected
    assert strong.effect > 1
    assert strong.observable == "lyapunov"
    table = calibrate.mutant_table(results)
    assert "SURVIVES" in table
    assert "against the promise" not in table


def test_mutants_of_several_points() -> None:
    cases = [Case(runs(60, seed), THEORY, {"g": g}) for seed, g in enumerate((1.5, 2.0))]
    (result,) = calibrate.compare_mutants(cases, {"m": [THEORY, scaled("C_x0", 1.1)]}, Options(quick=True))
    assert result.detected
    with pytest.raises(QuenchedError, match="1 theories for 2 points"):
        calibrate.compare_mutants(cases, {"m": [THEORY]})


def test_agreement_knows_its_rows() -> None:
    report: Agreement = judge(runs(8), THEORY)
    assert report["lyapunov"].name == "lyapunov"
    with pytest.raises(QuenchedError, match="did you mean 'lyapunov'"):
        report["liapunov"]
    assert len(report.table()) == 6


def test_the_calibration_prints_itself() -> None:
    pool = {N: np.random.default_rng(N).exponential(size=(40, 3)) for N in SIZES}
    table = calibrate.calibration_table(pool, SIZES, realisations=(8,), n=200)
    assert "simulated" in table
    assert len(table.splitlines()) == 6


# -- rows alone --------------------------------------------------------------------------------------------------------
def test_one_vague_observable_leaves_the_others_in_agreement() -> None:
    data = runs(60)
    rng = np.random.default_rng(1)
    for row in data.values():
        row["C_x0"] = row["C_x0"] + 2 * rng.standard_normal(60)
    report = judge(data, THEORY, quick=True)
    assert report.verdict == "inconclusive"
    assert {row.name: row.outcome for row in report.rows} == {
        "C_x0": "inconclusive",
        "lyapunov": "agree",
        "C_x": "agree",
    }
    assert report.reason.endswith("alone agree: lyapunov, C_x")
    assert {r["observable"]: r["verdict"] for r in report.table()}["lyapunov"] == "agree"
    document = report.to_dict()["observables"]
    assert document["lyapunov"]["verdict"] == "agree"
    assert "would have been caught" in document["C_x0"]["why"]
    assert "agree" in next(line for line in repr(report).splitlines() if "lyapunov" in line and "±" in line)


def test_a_wrong_observable_is_told_from_right_ones() -> None:
    report = judge(runs(60), scaled("lyapunov", 1.3), quick=True)
    assert {row.name: row.outcome for row in report.rows}["lyapunov"] == "disagree"
    assert report["lyapunov"].outcome_reason.startswith("rejected alone")
    bent = CURVE.copy()
    bent[4] += 0.004
    joint = judge(runs(200), {**THEORY, "C_x": (bent, 0.0)})
    assert joint["lyapunov"].outcome == "agree" or "combination" in joint["lyapunov"].outcome_reason
    assert all(row.outcome == "agree" for row in judge(runs(60), THEORY, quick=True).rows)


def test_no_row_agrees_where_the_runs_or_the_state_are_in_doubt() -> None:
    for doubt in ({"unreliable": ("runs are short",)}, {"doubts": ("another state may be reached",)}):
        report = judge(runs(60), THEORY, quick=True, **doubt)
        assert {row.outcome for row in report.rows} == {"inconclusive"}
    slow = judge(runs(200, law=0.3), THEORY, quick=True)
    assert "a + b/N^1" in slow["lyapunov"].outcome_reason
    narrow = judge(runs(60), THEORY, quick=True, estimators={"C_x0": Estimator(max_N=300)})
    assert narrow["C_x0"].outcome == "inconclusive"
    assert narrow["lyapunov"].outcome == "agree"
