"""Several errors and metrics in one report: equal to fairlearn's MetricFrame."""

import json

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

import addloss_kit as alk

METHODS = ("between_groups", "to_overall")


def bias(y_true, y_pred, sample_weight=None):
    return np.average(y_pred - y_true, weights=sample_weight)


def numbers(rng, num_groups, rows=300):
    """Targets, predictions, ids and weights."""
    y = rng.normal(1.0, 1.0, size=rows)
    y_pred = 0.7 * y + 0.5 * rng.normal(size=rows)
    ids = np.arange(rows) % num_groups
    return y, y_pred, ids, rng.uniform(0.1, 3.0, rows)


def labels(rng, num_groups, rows=400):
    """Labels, probabilities, ids and weights."""
    y = (rng.random(rows) < 0.4).astype(int)
    probability = np.clip(0.35 * y + rng.uniform(0.0, 0.7, rows), 0.0, 1.0)
    ids = np.arange(rows) % num_groups
    return y, probability, ids, rng.uniform(0.1, 3.0, rows)


def check_against_fairlearn(report, metrics, y, y_pred, ids, weight):
    """Every heading of `metrics`: values, differences and ratios."""
    fairlearn = pytest.importorskip("fairlearn.metrics", reason="in the test extra")
    takes_weight = [m for m in metrics if weight is not None]
    frame = fairlearn.MetricFrame(
        metrics=metrics,
        y_true=y,
        y_pred=y_pred,
        sensitive_features=ids,
        sample_params={m: {"sample_weight": weight} for m in takes_weight} or None,
    )
    for heading in metrics:
        values, errors = report.measures[heading]
        wanted = frame.by_group[heading].to_numpy("float64")
        np.testing.assert_allclose(values, wanted, rtol=1e-9, err_msg=heading)
        assert report.overall[heading][0] == pytest.approx(frame.overall[heading], rel=1e-9)
        for method in METHODS:
            difference = frame.difference(method=method)[heading]
            ratio = frame.ratio(method=method)[heading]
            assert report.difference(method, heading) == pytest.approx(difference, 1e-9)
            assert report.error_ratio(method, heading) == pytest.approx(ratio, 1e-9)
        assert report.gap_of(heading).value == report.difference(heading=heading)
        assert report.ratio_of(heading).value == report.error_ratio(heading=heading)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("num_groups", [2, 6])
def test_errors_of_numbers_equal_fairlearns_metric_frame(rng, num_groups, is_weighted):
    y, y_pred, ids, weight = numbers(rng, num_groups)
    weight = weight if is_weighted else None
    metrics = {
        "squared_error": sk.mean_squared_error,
        "absolute_error": sk.mean_absolute_error,
        "rmse": sk.root_mean_squared_error,
        "r2": sk.r2_score,
        "signed_error": bias,
    }
    functions = {
        "median": sk.median_absolute_error,
        "explained": sk.explained_variance_score,
        "R²": sk.r2_score,
        "bias": bias,
    }
    report = alk.group_report(
        y,
        y_pred,
        ids,
        sample_weight=weight,
        error={name: name for name in metrics} | functions,
        bootstrap=2,
    )
    check_against_fairlearn(report, metrics | functions, y, y_pred, ids, weight)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("num_groups", [2, 6])
@pytest.mark.parametrize("predicted", ["labels", "probabilities"])
def test_rates_of_labels_equal_fairlearns_metric_frame(
    rng, predicted, num_groups, is_weighted
):
    fairlearn = pytest.importorskip("fairlearn.metrics", reason="in the test extra")
    y, probability, ids, weight = labels(rng, num_groups)
    weight = weight if is_weighted else None
    y_pred = (probability > 0.5).astype(int)
    metrics = {
        "error_rate": sk.zero_one_loss,
        "accuracy": sk.accuracy_score,
        "selection_rate": fairlearn.selection_rate,
        "true_positive_rate": fairlearn.true_positive_rate,
        "false_positive_rate": fairlearn.false_positive_rate,
    }
    of_labels = {"recall": sk.recall_score, "balanced": sk.balanced_accuracy_score}
    report = alk.group_report(
        y,
        y_pred if predicted == "labels" else probability,
        ids,
        sample_weight=weight,
        error={name: name for name in metrics}
        | (of_labels if predicted == "labels" else {}),
        bootstrap=2,
    )
    if predicted == "labels":
        metrics |= of_labels
    check_against_fairlearn(report, metrics, y, y_pred, ids, weight)


def test_r2_of_several_outputs_is_scikit_learns(rng):
    y = rng.normal(size=(60, 3))
    y_pred, ids = y + rng.normal(size=y.shape), np.arange(60) % 2
    report = alk.group_report(y, y_pred, ids, error={"MSE": "mse", "R²": "r2"})
    wanted = [sk.r2_score(y[ids == k], y_pred[ids == k]) for k in (0, 1)]
    np.testing.assert_allclose(report.measures["R²"][0], wanted, rtol=1e-12)


def test_classes_are_compared_with_their_numbers(rng):
    y, p = rng.integers(0, 3, 90), rng.random((90, 3))
    ids = np.arange(90) % 2
    by_probability = alk.group_report(y, p, ids, error="error_rate")
    by_number = alk.group_report(y[:, None], p.argmax(axis=1), ids, error="error_rate")
    wanted = [sk.zero_one_loss(y[ids == k], p.argmax(axis=1)[ids == k]) for k in (0, 1)]
    np.testing.assert_allclose(by_probability.means, wanted)
    np.testing.assert_allclose(by_number.means, wanted)


# Keras's metrics ----------------------------------------------------------------------


@pytest.mark.parametrize("is_weighted", [False, True])
def test_keras_metrics_equal_those_of_scikit_learn(rng, is_weighted):
    y, probability, ids, weight = labels(rng, 3)
    weight = weight if is_weighted else None
    y_pred = probability > 0.5
    pairs = {
        "mae": (keras.metrics.MeanAbsoluteError, sk.mean_absolute_error, probability),
        "accuracy": (keras.metrics.BinaryAccuracy(), sk.accuracy_score, y_pred),
        "recall": (keras.metrics.Recall(), sk.recall_score, y_pred),
        "R²": (keras.metrics.R2Score(), sk.r2_score, probability),
    }
    report = alk.group_report(
        y,
        probability[:, None],
        ids,
        sample_weight=weight,
        error={"MSE": "mse"} | {name: metric for name, (metric, _, _) in pairs.items()},
        bootstrap=3,
    )
    for name, (_, function, predicted) in pairs.items():
        for k in range(3):
            rows = ids == k
            w = None if weight is None else weight[rows]
            wanted = function(y[rows], predicted[rows], sample_weight=w)
            assert report.measures[name][0][k] == pytest.approx(wanted, rel=1e-5), name
        assert (report.measures[name][1] > 0).all()


def test_a_keras_metric_has_its_own_state_back(rng):
    metric = keras.metrics.MeanAbsoluteError()
    metric.update_state([[1.0]], [[3.0]])
    y, y_pred, ids, _ = numbers(rng, 2, rows=20)
    alk.group_report(y, y_pred, ids, error={"MSE": "mse", "MAE": metric}, bootstrap=2)
    assert float(metric.result()) == 2.0


# Standard errors -----------------------------------------------------------------------


def test_a_rate_has_the_standard_error_of_the_mean_over_the_rows_that_count(rng):
    y, probability, ids, _ = labels(rng, 2)
    report = alk.group_report(
        y, probability, ids, error={"error": "error_rate", "TPR": "true_positive_rate"}
    )
    for k in (0, 1):
        positives = probability[(ids == k) & (y == 1)] > 0.5
        _, errors = report.measures["TPR"]
        assert errors[k] == pytest.approx(stats.sem(positives))


def test_the_bootstrap_is_that_of_a_plain_loop(rng):
    y, y_pred, ids, weight = numbers(rng, 2, rows=40)
    ids[5] = -1
    weight[7] = 0.0
    report = alk.group_report(
        y,
        y_pred,
        ids,
        sample_weight=weight,
        error={"MSE": "mse", "R²": sk.r2_score},
        bootstrap=9,
        seed=3,
    )
    generator, present = np.random.default_rng(3), np.delete(np.arange(40), 7)
    drawn = []
    for _ in range(9):
        rows = present[generator.integers(0, 39, 39)]
        parts = [rows[ids[rows] == 0], rows[ids[rows] == 1], rows]
        drawn.append([sk.r2_score(y[r], y_pred[r], sample_weight=weight[r]) for r in parts])
    n = np.array([(ids[present] == 0).sum(), (ids[present] == 1).sum(), 39])
    wanted = np.std(drawn, axis=0, ddof=1) * np.sqrt(n / (n - 1))
    found = [*report.measures["R²"][1], report.overall["R²"][1]]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("of", ["rows", "clusters"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_formula_and_bootstrap_agree(rng, of, is_weighted):
    # 500 resamples: a standard deviation of 3.2 %. Four groups and the overall value.
    y, y_pred, ids, weight = numbers(rng, 4, rows=1200)
    person = np.arange(1200) // 8 if of == "clusters" else None
    if person is not None:  # The rows of a person are alike.
        y_pred = y_pred + rng.normal(size=150)[person]

    def mean(values, weight):
        return np.average(values, weights=weight)

    def squared(y_true, y_pred, sample_weight=None):
        return mean((y_true - y_pred) ** 2, sample_weight)

    def r2(y_true, y_pred, sample_weight=None):
        center = mean(y_true, sample_weight)
        return 1 - squared(y_true, y_pred, sample_weight) / mean(
            (y_true - center) ** 2, sample_weight
        )

    def rmse(y_true, y_pred, sample_weight=None):
        return np.sqrt(squared(y_true, y_pred, sample_weight))

    report = alk.group_report(
        y,
        y_pred,
        ids,
        sample_weight=weight if is_weighted else None,
        clusters=person,
        error={"MSE": "mse", "R²": "r2", "RMSE": "rmse"}
        | {"MSE by bootstrap": squared, "R² by bootstrap": r2, "RMSE by bootstrap": rmse},
        bootstrap=500,
        seed=0,
    )
    for heading in ("MSE", "R²", "RMSE"):
        wanted = [*report.measures[heading][1], report.overall[heading][1]]
        other = f"{heading} by bootstrap"
        found = [*report.measures[other][1], report.overall[other][1]]
        np.testing.assert_allclose(found, wanted, rtol=0.12, err_msg=heading)


def test_the_bootstrap_interval_covers():
    # The study in docs/studies has 500 simulations; of 100, the standard error is 2.2 %.
    rng, times, held = np.random.default_rng(0), 100, 0

    def r2(y_true, y_pred, sample_weight=None):
        return 1 - np.mean((y_true - y_pred) ** 2) / np.var(y_true)

    for number in range(times):
        y = rng.normal(size=200)
        report = alk.group_report(
            y,
            y + 0.5 * rng.normal(size=200),
            np.zeros(200, int),
            error={"MSE": "mse", "R²": r2},
            bootstrap=50,
            seed=number,
        )
        low, high = report.interval("R²")
        held += low[0] <= 0.75 <= high[0]
    assert 0.9 <= held / times <= 0.99


def test_a_seed_makes_it_repeatable_and_no_resamples_leave_no_standard_error(rng):
    y, y_pred, ids, _ = numbers(rng, 2, rows=40)
    errors = {"MSE": "mse", "R²": sk.r2_score}
    one, same, other, none = (
        alk.group_report(y, y_pred, ids, error=errors, bootstrap=b, seed=s)
        for b, s in ((5, 0), (5, 0), (5, 1), (0, 0))
    )
    np.testing.assert_array_equal(one.measures["R²"][1], same.measures["R²"][1])
    assert (one.measures["R²"][1] != other.measures["R²"][1]).all()
    assert np.isnan(none.measures["R²"][1]).all()
    assert none.gap_of("R²").high == np.inf
    assert "nan" not in repr(none) and "resamples" not in repr(none)
    assert "standard errors of R² are from 5 resamples of rows" in repr(one)


def test_a_progress_bar_is_drawn_only_if_asked_for(rng, capsys):
    y, y_pred, ids, _ = numbers(rng, 2, rows=20)
    errors = {"MSE": "mse", "R²": sk.r2_score}
    alk.group_report(y, y_pred, ids, error=errors, bootstrap=2)
    assert capsys.readouterr().out == ""
    alk.group_report(y, y_pred, ids, error=errors, bootstrap=2, verbose=1)
    assert "2/2" in capsys.readouterr().out


# What is undefined ----------------------------------------------------------------------


def test_a_group_without_positives_has_no_rate_and_it_is_said():
    y = np.array([1, 0, 1, 1, 0, 1, 0, 0, 0, 0])
    y_pred = np.array([1, 0, 0, 1, 0, 0, 1, 0, 1, 0])
    sex = np.array([*"aaabbbcccc"])
    report = alk.group_report(
        y,
        y_pred,
        sex,
        error={"error": "error_rate", "TPR": "true_positive_rate", "rec": sk.recall_score},
        bootstrap=20,
        seed=0,
    )
    for heading in ("TPR", "rec"):
        np.testing.assert_allclose(report.measures[heading][0], [0.5, 0.5, np.nan])
        assert f"{heading} is undefined in: c" in repr(report)
        assert report.gap_of(heading).value == 0.0
    assert report.gap.value == pytest.approx(0.5 - 1 / 3)
    assert "nan" not in repr(report)
    assert json.dumps(report.to_dict())


def test_r2_of_equal_targets_is_undefined():
    y = np.array([0.1, 0.1, 0.1, 0.1, 1.0, 2.0, 3.0, 5.0])
    ids = np.repeat([0, 1], 4)
    report = alk.group_report(y, y + 0.1, ids, error={"MSE": "mse", "R²": "r2"})
    values, errors = report.measures["R²"]
    assert np.isnan([values[0], errors[0]]).all() and values[1] > 0.9
    assert np.isnan(report.gap_of("R²").value)
    assert "gap in R²: –, as fewer than two groups have one" in repr(report)


def test_a_metric_without_a_value_on_most_resamples_has_no_standard_error():
    def of_all(y_true, y_pred, sample_weight=None):
        is_whole = len(np.unique(y_true)) == len(y_true) and len(y_true) > 1
        return 1.0 if is_whole else np.nan

    y, ids = np.arange(20.0), np.arange(20) % 2
    report = alk.group_report(y, y, ids, error={"MSE": "mse", "whole": of_all}, seed=0)
    values, errors = report.measures["whole"]
    np.testing.assert_array_equal(values, 1.0)
    assert np.isnan(errors).all()


# What is handed to a metric -----------------------------------------------------------


def test_without_weights_a_metric_gets_its_own_default_or_ones(rng):
    y, y_pred, ids, weight = numbers(rng, 2, rows=20)
    given = []

    def spy(y_true, y_pred, sample_weight="default"):
        given.append(sample_weight)
        return 0.0

    def needs(y_true, y_pred, sample_weight):
        return np.sum(sample_weight)

    report = alk.group_report(
        y, y_pred, ids, error={"MSE": "mse", "spy": spy, "sum": needs}, bootstrap=0
    )
    assert set(given) == {"default"}
    np.testing.assert_array_equal(report.measures["sum"][0], [10.0, 10.0])
    weighted = alk.group_report(
        y, y_pred, ids, error={"MSE": "mse", "sum": needs}, sample_weight=weight
    )
    np.testing.assert_allclose(weighted.measures["sum"][0], np.bincount(ids, weight))


def test_rows_without_weight_are_absent_from_a_metric(rng):
    y, y_pred, ids, weight = numbers(rng, 2, rows=20)
    weight[:6] = 0.0

    def count(y_true, y_pred, sample_weight=None):
        return len(y_true)

    report = alk.group_report(
        y, y_pred, ids, error={"MSE": "mse", "rows": count}, sample_weight=weight
    )
    np.testing.assert_array_equal(report.measures["rows"][0], [7, 7])


# The first error ------------------------------------------------------------------------


def test_the_first_of_several_errors_decides_what_a_single_one_does(rng):
    y, y_pred, ids, weight = numbers(rng, 3)
    several = {"mine": "squared_error", "R²": "r2", "MAE": "mae"}
    better = 0.9 * y_pred + 0.1 * y
    one, many = (
        [
            alk.group_report(y, p, ids, sample_weight=weight, error=e)
            for p in (y_pred, better)
        ]
        for e in ("squared_error", several)
    )
    for plain, report in zip(one, many):
        assert report.heading == "mine" and report.error_name == "squared_error"
        assert list(report.measures) == list(several)
        assert report.gap == plain.gap and report.ratio == plain.ratio
        assert report.worst_error == plain.worst_error
        assert report.certify(0.5).upper == plain.certify(0.5).upper
    mixed = many[1].compare(one[0])  # The same error under another heading.
    assert mixed.p_values.tolist() == one[1].compare(one[0]).p_values.tolist()
    assert repr(mixed) and mixed.to_dict()["overall"]["before"] == one[0].overall["MSE"][0]


def test_each_further_gap_is_printed_and_in_the_dict(rng):
    y, y_pred, ids, _ = numbers(rng, 2)
    y_pred = y_pred + 2.0 * ids
    report = alk.group_report(y, y_pred, ids, error={"MSE": "mse", "bias": "signed_error"})
    assert "gap in bias: " in repr(report) and "beyond noise" in repr(report)
    gaps = json.loads(json.dumps(report.to_dict()))["further_gaps"]
    assert gaps == {"bias": report.gap_of("bias")._asdict()}
    assert gaps["bias"]["low"] < 2.0 < gaps["bias"]["high"]
    assert "further_gaps" not in alk.group_report(y, y_pred, ids).to_dict()


def test_a_ready_name_is_an_error_of_its_own(rng):
    y, probability, ids, _ = labels(rng, 2)
    report = alk.group_report(y, probability, ids, error="error_rate")
    assert report.heading == "error_rate" and list(report.measures) == ["error_rate"]
    assert report.certify(0.9).method == "bounded"


def test_a_signed_error_may_be_negative_though_no_row_is():
    y_pred, ids = [0.1, 5.0, 0.2, 4.0], [0, 0, 1, 1]
    report = alk.group_report(np.zeros(4), y_pred, ids, error="signed_error")
    low, _ = report.interval()
    # Mean 2.55, standard error |5.0 - 0.1| / 2; mean 2.1, standard error 1.9. With one
    # degree of freedom, 2.5 % of t lie above 12.7062.
    np.testing.assert_allclose(low, [2.55 - 12.7062 * 2.45, 2.1 - 12.7062 * 1.9], rtol=1e-5)
    assert report.worst_error.low < 0
