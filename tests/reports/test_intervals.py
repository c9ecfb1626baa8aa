"""Intervals of means: Student's t, of errors that are never negative on the log scale."""

import numpy as np
import pytest
from scipy import stats

import addloss_kit as alk
from addloss_kit.reports.intervals import (
    critical_value,
    log_spreads,
    range_interval,
    student_spreads,
)
from addloss_kit.reports.measures import MeanOf, Partition


def plain(values, weight):
    """Mean, standard error and degrees of freedom by a loop over the rows."""
    total = sum(weight)
    mean = sum(w * v for w, v in zip(weight, values)) / total
    moved = [w * (v - mean) for w, v in zip(weight, values)]
    squares, n = sum(m**2 for m in moved), len(values)
    df = min(
        sum(w**2 for w in weight) ** 2 / sum(w**4 for w in weight),
        3 * squares**2 / sum(m**4 for m in moved),
    )
    return mean, np.sqrt(squares * n / (n - 1)) / total, df - 1


@pytest.mark.parametrize("is_clustered", [False, True])
def test_an_error_has_students_t_on_the_log_scale_and_its_root_the_root(rng, is_clustered):
    residual, weight = rng.normal(size=120), rng.exponential(size=120)
    ids, person = np.arange(120) % 2, np.arange(120) // 4
    options = {"clusters": person} if is_clustered else {}
    report = alk.group_report(
        np.zeros(120), residual, ids, sample_weight=weight, confidence=0.9, **options
    )
    for k in (0, 1):
        rows = ids == k
        values, weights = residual[rows] ** 2, weight[rows]
        if is_clustered:
            members = [person[rows] == p for p in range(30)]
            values = [np.average(values[m], weights=weights[m]) for m in members]
            weights = [weights[m].sum() for m in members]
        mean, error, df = plain(values, weights)
        reach = stats.t.ppf(0.95, df) * error / mean
        wanted = mean * np.exp([-reach, reach])
        assert [b[k] for b in report.interval()] == pytest.approx(wanted, rel=1e-5)
        found = [b[k] for b in report.interval("RMSE")]
        assert found == pytest.approx(np.sqrt(wanted), rel=1e-5)


def test_r2_has_it_for_its_distance_from_1_and_a_bias_for_itself(rng):
    y = rng.normal(size=50)
    y_pred = y + 0.5 * rng.normal(size=50)
    errors = {"MSE": "mse", "R²": "r2", "bias": "signed_error"}
    report = alk.group_report(y, y_pred, np.zeros(50, int), error=errors)
    (value,), (error,) = report.measures["R²"]
    # By how much each row moves R², but for a factor.
    moved = (y - y_pred) ** 2 - (1 - value) * (y - y.mean()) ** 2
    t = stats.t.ppf(0.975, plain(moved, np.ones(50))[2])
    wanted = 1 - (1 - value) * np.exp(np.array([t, -t]) * error / (1 - value))
    assert np.ravel(report.interval("R²")) == pytest.approx(wanted, rel=1e-5)
    mean, error, df = plain(y_pred - y, np.ones(50))
    wanted = stats.t.interval(0.95, df, mean, error)
    assert np.ravel(report.interval("bias")) == pytest.approx(wanted, rel=1e-5)


def test_of_values_without_a_tail_it_is_the_usual_interval_of_t(rng):
    # Uniform ones: no row makes up more of the standard error than a normal one.
    y_pred = rng.uniform(-1, 1, size=40)
    report = alk.group_report(np.zeros(40), y_pred, np.zeros(40, int), error="signed_error")
    wanted = stats.t.interval(0.95, 39, y_pred.mean(), stats.sem(y_pred))
    assert np.ravel(report.interval()) == pytest.approx(wanted, rel=1e-5)


def test_the_ratio_is_the_gap_of_the_logarithms(rng):
    ids = np.repeat([0, 1], [40, 60])
    report = alk.group_report(np.zeros(100), rng.normal(size=100) * (1 + ids), ids)
    low, high = report.interval()
    reach = np.hypot(*np.log(high / report.means))
    assert np.log(report.means / low) == pytest.approx(np.log(high / report.means))
    wanted = report.ratio.value * np.exp([-reach, min(reach, -np.log(report.ratio.value))])
    assert [report.ratio.low, report.ratio.high] == pytest.approx(wanted, rel=1e-4)


SAMPLES = 4000


def held(values, weight, truth):
    """Shares of samples whose interval holds the truth, and of mean ± 1.96 errors."""
    samples, rows = values.shape
    ids = np.repeat(np.arange(samples), rows)
    part = Partition(np.arange(len(ids)), ids, weight.ravel(), None, samples)
    means, errors, df = MeanOf(values.ravel()).estimate(part)
    spreads_at = student_spreads(means, errors, df, (0.0, np.inf))
    c = critical_value(0.95)

    def share(below, above):
        return np.mean((means - c * below <= truth) & (truth <= means + c * above))

    return share(*spreads_at(c)), share(errors, errors)


@pytest.mark.parametrize("kind", ["weights", "clusters", "30 rows"])
def test_intervals_of_squared_errors_hold_where_normal_ones_are_too_short(rng, kind):
    if kind == "weights":  # Worth about 100 rows.
        values = rng.normal(size=(SAMPLES, 200)) ** 2
        weight = rng.exponential(size=values.shape)
    elif kind == "clusters":  # Of five rows, which share half of the variance.
        each, shared = rng.normal(size=(SAMPLES, 40, 5)), rng.normal(size=(SAMPLES, 40, 1))
        values = np.mean(0.5 * (each + shared) ** 2, axis=2)
        weight = np.ones(values.shape)
    else:
        values, weight = rng.normal(size=(SAMPLES, 30)) ** 2, np.ones((SAMPLES, 30))
    share, normal = held(values, weight, 1.0)
    # The criterion; 4,000 samples leave ± 0.4 % at one standard error.
    assert 0.93 <= share <= 0.97
    assert normal < 0.925


def test_the_gap_of_two_such_groups_holds(rng):
    # Far apart, so that it is clear which is the worse one.
    values = rng.normal(size=(1500, 2, 60)) ** 2 * [[1.0], [4.0]]
    weight = rng.exponential(size=values.shape)
    ids = np.repeat(np.arange(3000), 60)
    part = Partition(np.arange(len(ids)), ids, weight.ravel(), None, 3000)
    means, errors, df = MeanOf(values.ravel()).estimate(part)
    covered = 0
    for k in range(0, 3000, 2):
        pair = slice(k, k + 2)
        of_pair = means[pair], errors[pair]
        spreads_at = student_spreads(*of_pair, df[pair], (0.0, np.inf))
        low, high = range_interval(*of_pair, 0.95, spreads_at)
        covered += low <= 3.0 <= high
    assert 0.93 <= covered / 1500 <= 0.97


def test_no_error_and_a_handful_of_rows_have_bounds_without_a_warning():
    none = alk.group_report(np.zeros(40), np.zeros(40), np.arange(40) % 2)
    assert np.all(np.array(none.interval()) == 0.0) and none.gap.high == 0.0
    # Of two rows, of which one has all of the error, and of many groups at once.
    ids = np.repeat(np.arange(200), 2)
    few = alk.group_report(np.zeros(400), np.arange(400) % 2 * 9.0, ids)
    assert few.gap.low == 0.0 and few.gap.high > 1e6
    assert few.ratio.low < 1e-6 and few.ratio.high == 1.0


def test_a_ratio_reaches_0_where_a_score_may_be_negative():
    means, errors, df = np.array([0.1, 0.8]), np.array([0.2, 0.01]), np.array([30.0, 30.0])
    spreads_at = log_spreads(means, student_spreads(means, errors, df, (-np.inf, 1.0)))
    _, high = range_interval(np.log(means), errors / means, 0.95, spreads_at)
    assert np.exp(-high) == 0.0


def test_two_rows_do_not_dwarf_the_bars_of_all_others(rng):
    pytest.importorskip("matplotlib").use("Agg")
    ids = np.repeat([0, 1, 2], [100, 100, 2])
    residual = np.append(rng.normal(size=200), [0.5, 1.5])
    report = alk.group_report(np.zeros(202), residual, ids)
    axes = report.plot()
    assert report.interval()[1][2] > 20 * report.interval()[1][:2].max()
    assert report.means.max() < axes.get_xlim()[1] < 8 * report.interval()[1][:2].max()
