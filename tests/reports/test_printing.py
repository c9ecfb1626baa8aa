"""What a report prints and plots claims no more than its intervals do."""

import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.reports import TradeoffCurve, TradeoffPoint, tables


@pytest.fixture
def no_screen():
    matplotlib = pytest.importorskip("matplotlib", reason="in the test extra")
    matplotlib.use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def a_report(errors, ids, **options):
    """Of squared errors as they are."""
    zeros = np.zeros(len(errors))
    return alk.group_report(zeros, np.sqrt(errors), ids, **options)


def a_curve(rng, rows=400, **options):
    """Three points; the second closes the gap, the third changes it within noise."""
    ids, noise = np.arange(rows) % 2, rng.normal(size=rows) ** 2
    reports = [
        a_report(noise * np.where(ids, *scale), ids, **options)
        for scale in ((2.0, 1.0), (1.2, 1.0), (1.99, 1.0))
    ]
    points = [TradeoffPoint(k, report, 1, []) for k, report in enumerate(reports)]
    return TradeoffCurve(points, None, 0.5)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (tables.plus_minus(0.5, np.nan), "0.5"),
        (tables.plus_minus(np.nan, np.nan), "–"),
        (tables.percent(0.05, np.nan), "+5.0 %"),
        (tables.percent(np.nan, 0.1), "–"),
        (tables.estimate((0.5, 0.1, 0.9)), "0.5 [0.1, 0.9]"),
        (tables.estimate((np.nan, np.nan, np.nan)), "–"),
    ],
)
def test_a_number_without_a_standard_error_has_no_plus_minus(shown, text):
    assert shown == text


def test_no_bound_of_an_error_that_is_never_negative_is_below_0(no_screen):
    errors, ids = np.array([0.0, 0.0, 9.0, 0.0, 0.1, 4.0]), [0, 0, 0, 1, 1, 1]
    report = a_report(errors, ids)
    normal = report.means - 1.96 * report.standard_errors
    assert (normal < 0).all()
    for heading in ("MSE", "RMSE", "MAE"):
        assert (report.interval(heading)[0] >= 0).all()
    assert report.worst_error.low >= 0.0
    assert report.certify(1.0, of="worst_error").lower >= 0.0
    bars = report.plot().containers[0].lines[2][0].get_segments()
    assert min(end[0] for bar in bars for end in bar) >= 0.0
    signed = alk.group_report(0 * errors, errors - 3, ids, error=lambda y, p: p)
    assert signed.worst_error.low < 0.0


def test_few_rows_that_count_are_named_for_the_measure(rng):
    # 200 rows of each group, but 10 positive ones in the second.
    y = np.concatenate([rng.random(200) < 0.5, np.arange(200) < 10]).astype(int)
    y_pred, ids = (rng.random(400) < 0.5).astype(int), np.repeat([0, 1], 200)
    report = alk.group_report(
        y,
        y_pred,
        ids,
        error={"error": "error_rate", "TPR": "true_positive_rate"},
        group_names=["a", "b"],
    )
    few = [line for line in repr(report).splitlines() if "fewer than 30 rows" in line]
    assert len(few) == 1 and few[0].startswith("TPR: ") and few[0].endswith(": b")


def test_comparisons_strata_and_curves_name_groups_of_few_rows(rng):
    errors, ids = rng.random(60), np.repeat([0, 1], [40, 20])
    report = a_report(errors, ids, control_groups=np.arange(60) % 2)
    for shown in (report, report.compare(report), a_curve(rng, rows=40)):
        assert "of fewer than 30 rows" in repr(shown)
    assert repr(report.by_stratum).endswith(": 0 in 0, 1 in 0, 0 in 1, 1 in 1")
    assert "fewer than" not in repr(a_curve(rng))


def test_a_curve_plots_the_standard_errors_of_its_changes(rng, no_screen):
    curve = a_curve(rng)
    ax = curve.plot()
    x_bars, y_bars = (lines.get_segments() for lines in ax.containers[0].lines[2])
    for k, point in enumerate(curve.points):
        (left, _), (right, _) = x_bars[k]
        cost = curve.cost(point).standard_error * curve.start.error
        assert (right - left) / 2 == pytest.approx(cost)
        (_, low), (_, high) = y_bars[k]
        assert (high - low) / 2 == pytest.approx(curve.gap_change(point).standard_error)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "± standard error of the\nchange from the start" in legend


def test_a_recommendation_says_by_how_much_the_gap_changes(rng):
    curve = a_curve(rng)
    change = tables.plus_minus(*curve.gap_change(curve.recommend()))
    assert f"a change of {change}." in repr(curve)


@pytest.mark.parametrize(("scale", "noise"), [(1.001, "within"), (0.6, "beyond")])
def test_the_title_of_a_comparison_says_whether_the_gap_changed(
    rng, no_screen, scale, noise
):
    ids, errors = np.arange(400) % 2, rng.normal(size=400) ** 2
    before = a_report(np.where(ids, 2.0, 1.0) * errors, ids)
    other = rng.normal(size=400) ** 2 if noise == "within" else errors
    after = a_report(np.where(ids, 2.0 * scale, 1.0) * other, ids)
    title = after.compare(before).plot().get_title(loc="left")
    assert title.startswith("Gap ") and f"{noise} noise" in title


def test_one_group_has_no_gap_in_the_title(no_screen):
    title = a_report(np.ones(5), np.zeros(5, int)).plot().get_title(loc="left")
    assert title == "No gap: one group"
