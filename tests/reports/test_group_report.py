"""group_report: equal to fairlearn's MetricFrame, honest about noise."""

import ast
import json
import pathlib
import sys

import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit.reports.intervals import critical_value, range_interval, weighted_means

METHODS = ("between_groups", "to_overall")


def data(rng, rows=300, num_groups=4):
    y = rng.normal(size=rows)
    return {
        "y_true": y,
        "y_pred": y + rng.normal(size=rows),
        "ids": rng.integers(0, num_groups, rows),
        "weight": rng.uniform(0.1, 3.0, rows),
    }


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("error", ["squared_error", "absolute_error"])
def test_it_equals_fairlearns_metric_frame(rng, is_weighted, error):
    fairlearn = pytest.importorskip("fairlearn.metrics", reason="in the test extra")
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    metric = {"squared_error": mean_squared_error, "absolute_error": mean_absolute_error}
    d = data(rng)
    frame = fairlearn.MetricFrame(
        metrics=metric[error],
        y_true=d["y_true"],
        y_pred=d["y_pred"],
        sensitive_features=d["ids"],
        sample_params={"sample_weight": d["weight"]} if is_weighted else None,
    )
    report = alk.group_report(
        d["y_true"],
        d["y_pred"],
        d["ids"],
        error=error,
        sample_weight=d["weight"] if is_weighted else None,
    )
    np.testing.assert_allclose(report.means, frame.by_group.to_numpy(), rtol=1e-12)
    np.testing.assert_allclose(report.overall[report.heading][0], frame.overall, rtol=1e-12)
    for method in METHODS:
        np.testing.assert_allclose(
            report.difference(method), frame.difference(method=method), rtol=1e-12
        )
        np.testing.assert_allclose(
            report.error_ratio(method), frame.ratio(method=method), rtol=1e-12
        )
    assert report.gap.value == report.difference()
    assert report.ratio.value == report.error_ratio()


def test_the_numbers_of_fairlearns_documentation():
    # Of its tests of MetricFrame with mean_squared_error.
    given = [0.3, 0.5, 0.1, 1.0], [0.3, 0.6, 0.6, 0.5], ["a", "a", "b", "b"]
    report = alk.group_report(*given, sample_weight=[1, 3, 1, 1])
    np.testing.assert_allclose(report.overall["MSE"][0], 0.088333, atol=5e-7)
    np.testing.assert_allclose(report.means, [0.0075, 0.25])
    np.testing.assert_allclose(report.gap.value, 0.2425)
    np.testing.assert_allclose(alk.group_report(*given).gap.value, 0.245)


def test_equal_weights_give_the_standard_error_of_scipy(rng):
    scipy_stats = pytest.importorskip("scipy.stats", reason="in the test extra")
    d = data(rng)
    report = alk.group_report(d["y_true"], d["y_pred"], d["ids"])
    errors = (d["y_true"] - d["y_pred"]) ** 2
    wanted = [scipy_stats.sem(errors[d["ids"] == k]) for k in range(4)]
    np.testing.assert_allclose(report.standard_errors, wanted, rtol=1e-12)


def test_the_rmse_and_its_standard_error_follow_from_the_mse(rng):
    d = data(rng, rows=4000)
    report = alk.group_report(d["y_true"], d["y_pred"], d["ids"])
    rmse, standard_error = report.measures["RMSE"]
    np.testing.assert_allclose(rmse**2, report.means)
    # The slope of the root, by a small step.
    step = 1e-6
    slope = (np.sqrt(report.means + step) - np.sqrt(report.means)) / step
    np.testing.assert_allclose(standard_error, slope * report.standard_errors, rtol=1e-5)


def test_the_weighted_standard_error_is_that_of_repeated_samples():
    # 4,000 samples of 60 rows with the weights drawn too: the spread of their
    # weighted means is what the standard error of one of them should be.
    rng = np.random.default_rng(1)
    ids = np.zeros(60, int)
    means, errors, _ = zip(
        *(
            weighted_means(rng.normal(size=60), ids, rng.uniform(0.2, 3.0, 60), 1)
            for _ in range(4000)
        )
    )
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.04)


def coverage(num_groups, rows, spread, repeats=1500, seed=0):
    """How often the interval of the gap holds the true gap."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(1.0, 1.0 + spread, num_groups)
    ids = np.repeat(np.arange(num_groups), rows)
    hits = 0
    for _ in range(repeats):
        values = rng.normal(truth[ids], 1.0 + ids)
        means, errors, _ = weighted_means(values, ids, np.ones(len(ids)), num_groups)
        low, high = range_interval(means, errors, 0.95)
        hits += low <= spread <= high
    return hits / repeats


def test_the_interval_of_two_groups_covers_at_its_level():
    # 1,500 repeats: ±1.1 % at two standard errors.
    assert coverage(2, rows=200, spread=0.5) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("spread", [0.0, 0.5, 5.0])
def test_the_interval_of_many_groups_covers_at_least_at_its_level(spread):
    assert coverage(6, rows=100, spread=spread, repeats=800) >= 0.95 - 0.015


def test_the_interval_of_squared_errors_covers_in_a_whole_report():
    rng = np.random.default_rng(3)
    ids = np.repeat([0, 1], [400, 200])
    hits, false_alarms = 0, 0
    for _ in range(400):
        residual = rng.normal(size=600) * np.where(ids == 0, 1.0, 1.5)
        gap = alk.group_report(residual, np.zeros(600), ids).gap
        hits += gap.low <= 1.25 <= gap.high  # 1.5² − 1²
        same = alk.group_report(rng.normal(size=600), np.zeros(600), ids)
        false_alarms += same.is_gap_beyond_noise
    # 400 repeats: ±2.2 % at two standard errors; squares are skew.
    assert hits / 400 >= 0.92
    assert false_alarms / 400 <= 0.08


def test_the_ratios_interval_covers():
    rng = np.random.default_rng(4)
    ids = np.repeat([0, 1], 300)
    hits = 0
    for _ in range(400):
        residual = rng.normal(size=600) * np.where(ids == 0, 1.0, 1.5)
        ratio = alk.group_report(residual, np.zeros(600), ids).ratio
        hits += ratio.low <= 1 / 2.25 <= ratio.high
    assert 0.92 <= hits / 400 <= 0.98


def test_two_groups_have_the_usual_interval_of_a_difference():
    means, errors = np.array([1.0, 3.0]), np.array([0.3, 0.4])
    low, high = range_interval(means, errors, 0.95)
    assert (low, high) == pytest.approx((2 - 1.959964 * 0.5, 2 + 1.959964 * 0.5), abs=1e-6)
    assert critical_value(0.95) == pytest.approx(1.959964, abs=1e-6)


def test_a_group_of_one_row_leaves_the_gap_open_above():
    report = alk.group_report([0.0, 1.0, 2.0, 9.0], np.zeros(4), [0, 0, 0, 1])
    assert np.isnan(report.standard_errors[1])
    assert report.gap.low == 0.0
    assert report.gap.high == np.inf
    assert not report.is_gap_beyond_noise


def test_rows_without_a_group_count_in_the_overall_error_only():
    report = alk.group_report([1.0, 1.0, 3.0], np.zeros(3), ["a", "a", None])
    assert report.by_group == {"a": 1.0}
    assert report.overall["MSE"][0] == pytest.approx(11 / 3)
    assert report.rows_without_group == 1


def test_an_empty_group_is_left_out_of_the_gap():
    report = alk.group_report([1.0, 2.0], [0.0, 0.0], [0, 2], group_names=["a", "b", "c"])
    assert np.isnan(report.by_group["b"])
    assert report.gap.value == 3.0
    assert "–" in repr(report)


def test_rows_without_weight_change_nothing(rng):
    d = data(rng, rows=50)
    padded = {k: np.concatenate([v, v[:9]]) for k, v in d.items()}
    padded["weight"][50:] = 0.0
    plain, same = (
        alk.group_report(x["y_true"], x["y_pred"], x["ids"], sample_weight=x["weight"])
        for x in (d, padded)
    )
    np.testing.assert_allclose(same.means, plain.means)
    np.testing.assert_allclose(same.standard_errors, plain.standard_errors)
    assert same.n.tolist() == plain.n.tolist()


def test_only_ratios_of_weights_matter(rng):
    d = data(rng)
    one, four = (
        alk.group_report(d["y_true"], d["y_pred"], d["ids"], sample_weight=f * d["weight"])
        for f in (1, 4)
    )
    np.testing.assert_allclose(four.gap, one.gap)


def test_any_keras_loss_is_an_error(rng):
    labels = rng.integers(0, 3, 40)
    logits = rng.normal(size=(40, 3)).astype("float32")
    ids = rng.integers(0, 2, 40)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    report = alk.group_report(labels, logits, ids, error=loss)
    each = keras.ops.convert_to_numpy(loss(labels, logits))
    wanted = [each[ids == k].mean() for k in range(2)]
    np.testing.assert_allclose(report.means, wanted, rtol=1e-5)
    assert report.heading == "sparse_categorical_crossentropy"


def test_a_column_and_a_vector_are_compared_row_by_row():
    report = alk.group_report([1.0, 2.0], np.array([[1.0], [1.0]]), ["a", "b"])
    assert report.by_group == {"a": 0.0, "b": 1.0}


def test_a_model_predicts_for_itself(rng):
    model = linear(2, name=None)
    x, y, ids = rng.normal(size=(20, 2)), rng.normal(size=20), rng.integers(0, 2, 20)
    own = alk.group_report(y, model, ids, x=x)
    handed = alk.group_report(y, model.predict(x, verbose=0), ids)
    assert own.by_group == handed.by_group


def test_hundred_thousand_groups_take_no_square_of_memory(rng):
    ids = np.arange(200_000) // 2
    report = alk.group_report(rng.normal(size=200_000), np.zeros(200_000), ids)
    assert report.gap.low <= report.gap.value <= report.gap.high
    assert len(repr(report).splitlines()) < 40


def test_names_with_markup_are_escaped_in_html():
    report = alk.group_report([1.0, 2.0], [0.0, 0.0], ["<b>", "c & d"])
    page = report._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page and "c &amp; d" in page


def test_the_dict_is_ready_for_json_and_the_table_has_a_row_a_group(rng):
    pytest.importorskip("pandas", reason="in the test extra")
    d = data(rng)
    report = alk.group_report(d["y_true"], d["y_pred"], d["ids"])
    assert json.loads(json.dumps(report.to_dict()))["gap"]["value"] == report.gap.value
    frame = report.to_pandas()
    assert frame["MSE"].to_dict() == report.by_group


@pytest.mark.parametrize(
    "change, message",
    [
        ({"y_pred": [1.0]}, "`y_pred` must have one row"),
        ({"group_ids": [0]}, "`group_ids` must have one row"),
        ({"group_ids": [-1, -1]}, "At least one row must have a group"),
        ({"group_ids": [0, 5], "group_names": ["a", "b"]}, r"lie in \[0, 2\)"),
        ({"sample_weight": [1.0, -1.0]}, r"at least 0. Received: sample_weight\[1\]=-1"),
        ({"sample_weight": [1.0]}, "`sample_weight` must have one row"),
        ({"y_pred": np.zeros((2, 3))}, "`y_pred` must have the shape"),
        ({"confidence": 1.0}, "`confidence` must lie"),
        ({"error": "no_such_error"}, "Check the spelling"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"y_true": [1.0, 2.0], "y_pred": [1.0, 1.0], "group_ids": [0, 1]} | change
    with pytest.raises(ValueError, match=message):
        alk.group_report(**given)


def test_a_model_without_features_is_refused():
    model = linear(2, name=None)
    with pytest.raises(ValueError, match="needs `x` to predict from"):
        alk.group_report([1.0], model, [0])


# Comparing ------------------------------------------------------------------------


def two_reports(rng, scale_before, scale_after, rows=800):
    """Residuals of groups 0 and 1 times their scales; the same rows."""
    ids = np.arange(rows) % 2
    residual = rng.normal(size=rows)
    return [
        alk.group_report(residual, residual * (1 - np.take(scale, ids)), ids)
        for scale in (scale_before, scale_after)
    ]


@pytest.mark.parametrize(
    "before, after, verdicts, is_levelling_down",
    [
        ([1.0, 2.0], [1.0, 1.5], ["no clear change", "better"], False),
        ([1.0, 2.0], [1.5, 2.0], ["worse", "no clear change"], True),
        ([1.0, 2.0], [1.5, 2.1], ["worse", "worse"], True),
        ([1.0, 2.0], [1.3, 1.5], ["worse", "better"], False),
        ([1.0, 2.0], [0.8, 2.2], ["better", "worse"], False),
        ([1.0, 2.0], [1.0, 2.0], ["no clear change"] * 2, False),
    ],
)
def test_levelling_down_is_a_gap_closed_by_loss_alone(
    rng, before, after, verdicts, is_levelling_down
):
    old, new = two_reports(rng, before, after)
    comparison = new.compare(old)
    assert comparison.is_paired
    assert list(comparison.verdicts.values()) == verdicts
    assert comparison.is_levelling_down == is_levelling_down
    assert ("Levelling down" in repr(comparison)) == is_levelling_down
    assert json.loads(json.dumps(comparison.to_dict()))["is_paired"]


def test_paired_rows_have_the_standard_error_of_their_difference(rng):
    d = data(rng, num_groups=2)
    better = d["y_true"] + 0.9 * (d["y_pred"] - d["y_true"])
    old = alk.group_report(d["y_true"], d["y_pred"], d["ids"])
    comparison = alk.group_report(d["y_true"], better, d["ids"]).compare(old)
    difference = (0.81 - 1.0) * (d["y_true"] - d["y_pred"]) ** 2
    of_group = difference[d["ids"] == 0]
    wanted = of_group.std(ddof=1) / np.sqrt(len(of_group))
    np.testing.assert_allclose(comparison.standard_errors[0], wanted, rtol=1e-9)


def test_other_rows_are_compared_as_two_samples(rng):
    (old, _), (new, _) = (two_reports(rng, [1.0, 2.0], [1.0, 2.0]) for _ in range(2))
    comparison = new.compare(old)
    assert not comparison.is_paired
    np.testing.assert_allclose(
        comparison.standard_errors, np.hypot(old.standard_errors, new.standard_errors)
    )


def test_reports_of_other_groups_or_errors_are_not_compared():
    one = alk.group_report([1.0], [0.0], ["a"])
    with pytest.raises(ValueError, match="same group names"):
        one.compare(alk.group_report([1.0], [0.0], ["b"]))
    with pytest.raises(ValueError, match="same error name"):
        one.compare(alk.group_report([1.0], [0.0], ["a"], error="absolute_error"))


# Plots ------------------------------------------------------------------------------


@pytest.fixture
def no_screen():
    matplotlib = pytest.importorskip("matplotlib", reason="in the test extra")
    matplotlib.use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def test_a_report_plots_each_group_at_its_mean(rng, no_screen):
    d = data(rng)
    report = alk.group_report(d["y_true"], d["y_pred"], d["ids"])
    ax = report.plot()
    points = ax.containers[0].lines[0].get_xdata()
    assert sorted(points) == sorted(report.means)
    assert ax.get_yticklabels()[0].get_text().startswith(report.worst_group)


def test_a_comparison_plots_and_says_levelling_down(rng, no_screen):
    old, new = two_reports(rng, [1.0, 2.0], [1.5, 2.0])
    assert "levelling down" in new.compare(old).plot().get_title(loc="left")


def test_of_many_groups_the_worst_and_the_best_are_drawn(rng, no_screen):
    d = data(rng, rows=900, num_groups=100)
    report = alk.group_report(d["y_true"], d["y_pred"], d["ids"])
    ax = report.plot()
    assert "20 worst and the 20 best of 100 groups" in ax.get_title(loc="right")
    assert ax.get_yticklabels()[0].get_text().startswith(report.worst_group)


@pytest.mark.parametrize("optional", ["matplotlib", "pandas"])
def test_without_an_optional_package_only_its_method_fails(rng, monkeypatch, optional):
    # None in sys.modules makes `import` fail, as if the package were not there.
    # Keras imports both where they are, so their absence cannot be seen otherwise.
    monkeypatch.setitem(sys.modules, optional, None)
    d = data(rng)
    report = alk.group_report(d["y_true"], d["y_pred"], d["ids"])
    assert "gap in MSE" in repr(report)
    method = {"matplotlib": report.plot, "pandas": report.to_pandas}[optional]
    with pytest.raises(ImportError, match="Install it: `pip install"):
        method()


def test_no_file_imports_an_optional_package_at_its_top():
    for path in pathlib.Path(alk.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                line = ast.unparse(node)
                assert "matplotlib" not in line and "pandas" not in line, path
