"""Intervals of shares of rows: Wilson's, and Newcombe's for a gap."""

import numpy as np
import pytest
from scipy import stats

import addloss_kit as alk
from addloss_kit.reports.intervals import range_interval, wilson_spreads


def report(is_wrong, ids, **options):
    """Of an error rate."""
    is_wrong = np.asarray(is_wrong, int)
    return alk.group_report(is_wrong, 0 * is_wrong, ids, error="error_rate", **options)


def test_a_rate_has_wilsons_interval_and_a_gap_newcombes():
    wrong, rows = (3, 0), (20, 15)
    is_wrong = np.concatenate([np.arange(n) < k for k, n in zip(wrong, rows)])
    found = report(is_wrong, np.repeat([0, 1], rows))
    intervals = [
        stats.binomtest(k, n).proportion_ci(0.95, "wilson") for k, n in zip(wrong, rows)
    ]
    for k, (low, high) in enumerate(intervals):
        assert [bound[k] for bound in found.interval()] == pytest.approx([low, high])
    (low, high), (other_low, other_high) = intervals
    assert found.gap.low == pytest.approx(max(0, 0.15 - np.hypot(0.15 - low, other_high)))
    assert found.gap.high == pytest.approx(0.15 + np.hypot(high - 0.15, 0 - other_low))
    assert found.standard_errors[1] == 0.0


def test_a_gap_to_a_few_rows_without_a_mistake_is_within_noise():
    # By standard errors it would be beyond: 0.25 ± 0.07, against 0 ± 0.
    is_wrong = [True] * 10 + [False] * 35
    found = report(is_wrong, np.repeat([0, 1], [40, 5]))
    assert found.gap.value == 0.25 and found.gap.low == 0.0
    assert 0.25 < found.gap.high < 1.0


@pytest.mark.parametrize("rates", [(0.02, 0.1), (0.0, 0.3), (0.5, 0.6)])
def test_the_interval_of_a_gap_covers_for_few_rows(rates):
    rng, rows, times = np.random.default_rng(0), np.array([25, 40]), 2000
    held = 0
    for shares in rng.binomial(rows, rates, size=(times, 2)) / rows:
        spreads_at = wilson_spreads(shares, rows)
        low, high = range_interval(shares, np.zeros(2), 0.95, spreads_at)
        held += low <= rates[1] - rates[0] <= high
    assert held / times >= 0.94  # 2,000 times: ±1 % at two standard errors.


def test_rows_that_repeat_a_cluster_tell_no_more_than_the_cluster(rng):
    is_wrong, ids = rng.random(60) < 0.2, np.arange(60) % 2
    one = report(is_wrong, ids)
    person = np.repeat(np.arange(60), 5)
    many = report(is_wrong[person], ids[person], clusters=person)
    np.testing.assert_allclose(many.interval(), one.interval())
    none = report(np.zeros(300), ids[person], clusters=person)
    np.testing.assert_allclose(none.interval(), report(np.zeros(60), ids).interval())


def test_rows_of_little_weight_count_for_little():
    ids, weight = np.zeros(20, int), np.repeat([1.0, 1e-6], 10)
    is_wrong = np.arange(20) >= 10  # All of those without much weight.
    for wrong in (is_wrong, np.zeros(20)):
        _, high = report(wrong, ids, sample_weight=weight).interval()
        assert high[0] == pytest.approx(
            stats.binomtest(0, 10).proportion_ci(0.95, "wilson").high, rel=1e-3
        )


def test_the_ratio_of_shares_has_an_interval_where_one_of_them_is_1():
    is_wrong = np.concatenate([np.ones(12), np.arange(12) < 3])
    ratio = report(is_wrong, np.repeat([0, 1], 12)).ratio
    # 3 of 12: Wilson's bounds; 12 of 12: at least 12 / (12 + 1.96²). On the log scale,
    # these distances are squared and added.
    low, high = np.log(stats.binomtest(3, 12).proportion_ci(0.95, "wilson")) - np.log(0.25)
    other = -np.log(12 / (12 + stats.norm.isf(0.025) ** 2))
    wanted = 0.25 * np.exp([low, np.hypot(high, other)])
    assert [ratio.low, ratio.high] == pytest.approx(wanted)
