"""Reports on groups without rows, of one row, and on rows without a finite error."""

import numpy as np
import pytest

from addloss_kit.reports import group_report


def a_report(rng, sizes, centers, **options):
    """Residuals around `centers`, so that the mean errors differ."""
    ids = np.repeat(np.arange(len(sizes)), sizes)
    y_pred = np.asarray(centers)[ids] + rng.normal(0.0, 0.1, size=len(ids))
    return group_report(np.zeros(len(ids)), y_pred, ids, **options)


def test_a_group_without_rows_is_left_out_of_everything_and_said_so(rng):
    names = ["a", "b", "empty"]
    report = a_report(rng, [50, 50], [1.0, 2.0], group_names=names)
    without = a_report(np.random.default_rng(0), [50, 50], [1.0, 2.0])
    assert np.isnan(report.by_group["empty"])
    assert report.gap == without.gap
    assert report.ratio == without.ratio
    assert report.worst_group == "b"
    assert report.is_gap_beyond_noise
    assert "without rows, so left out: empty" in repr(report)


def test_one_group_with_rows_has_no_gap(rng):
    report = a_report(rng, [50], [1.0], group_names=["a", "empty"])
    assert np.isnan(report.gap).all()
    assert np.isnan(report.ratio).all()
    assert np.isnan(report.difference())
    assert not report.is_gap_beyond_noise
    assert "as only one group has rows" in repr(report)


@pytest.mark.parametrize("single", [1, 10, 2000])
def test_groups_of_one_row_do_not_change_the_verdict_on_others(single, rng):
    centers = np.concatenate([[1.0, 1.05], np.full(single, 1.02)])
    sizes = np.concatenate([[2000, 2000], np.ones(single, "int64")])
    report = a_report(rng, sizes, centers)
    pair = a_report(np.random.default_rng(0), [2000, 2000], [1.0, 1.05])
    assert pair.is_gap_beyond_noise
    assert report.is_gap_beyond_noise
    assert report.gap.low == pair.gap.low
    assert report.gap.high == np.inf
    assert "of one row, so without a standard error, not compared: 2" in repr(report)


def test_groups_of_one_row_do_not_change_the_verdicts_of_a_comparison(rng):
    sizes = np.concatenate([[500, 500], np.ones(1000, "int64")])
    before = a_report(rng, sizes, np.full(len(sizes), 1.0))
    after = a_report(np.random.default_rng(0), sizes, np.full(len(sizes), 0.99))
    pair = a_report(np.random.default_rng(0), [500, 500], [0.99, 0.99])
    former = a_report(np.random.default_rng(0), [500, 500], [1.0, 1.0])
    verdicts = after.compare(before).verdicts
    assert {verdicts["0"], verdicts["1"]} == set(pair.compare(former).verdicts.values())


@pytest.mark.parametrize("error", ["squared_error", "absolute_error", "huber"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("culprit", ["y_true", "y_pred"])
def test_a_row_without_a_finite_error_is_refused(culprit, value, error, rng):
    rows = {"y_true": rng.normal(size=(6, 1)), "y_pred": rng.normal(size=(6, 1))}
    rows[culprit][4] = value
    with pytest.raises(ValueError, match=rf"finite error.*\[4\].*{culprit}\[4\]=\[{value}"):
        group_report(**rows, group_ids=[0, 1, 0, 1, 0, 1], error=error)
