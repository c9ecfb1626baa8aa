"""Group metrics against scikit-learn and fairlearn, over many batches."""

import engines
import keras
import numpy as np
import oracles
import pytest
from fairlearn.metrics import MetricFrame
from predictors import linear
from sklearn.metrics import mean_absolute_error, mean_squared_error

import addloss_kit as alk
from addloss_kit.metrics import BoundIsMet, GroupError, GroupGap


def rows_in_groups(rng, rows=103, num_groups=3):
    x = rng.normal(size=(rows, 4)).astype("float32")
    # Sorted, so that most batches lack most groups and batch values say little.
    ids = np.sort(rng.integers(0, num_groups, rows)).astype("int32")
    y = rng.normal(size=(rows, 1)).astype("float32") * (1 + ids[:, None])
    return x, y, ids, rng.uniform(0.1, 3.0, rows).astype("float32")


def test_group_metrics_of_evaluate_are_those_of_scikit_learn_on_all_rows(rng):
    x, y, ids, weight = rows_in_groups(rng)
    predictor = linear(4, name=None)
    model = alk.build_training_model(
        predictor,
        "mse",
        metrics=[GroupError(3), GroupGap(3), GroupGap(3, distance="absolute", name="gap")],
        sample_weight=True,
    )
    model.compile("sgd")
    packed = alk.pack_inputs(model, x, y, group_ids=ids, sample_weight=weight)
    logs = model.evaluate(packed, batch_size=8, verbose=0, return_dict=True)

    y_pred = predictor.predict(x, verbose=0)
    errors = [
        mean_squared_error(y[ids == k], y_pred[ids == k], sample_weight=weight[ids == k])
        for k in range(3)
    ]
    for k, expected in enumerate(errors):
        assert logs[f"group_error_{k}"] == pytest.approx(expected, rel=1e-6)
    pairs = [errors[0] - errors[1], errors[0] - errors[2], errors[1] - errors[2]]
    # Each mean is known to 1e-6, so their differences to 1e-6 of the means.
    size = max(errors)
    assert logs["gap"] == pytest.approx(np.mean(np.abs(pairs)), abs=1e-6 * size)
    assert logs["group_gap"] == pytest.approx(
        np.mean(np.square(pairs)), abs=2e-6 * size * np.max(np.abs(pairs))
    )


def test_the_metric_is_not_an_average_of_batch_values():
    # Batches {0: 1, 9} and {0: 1; 1: 4}: means 11/3 and 4, averages of means 3 and 4.
    metric = GroupError(2)
    metric.update_state([[0.0], [0.0]], [[1.0], [3.0]], [0, 0])
    metric.update_state([[0.0], [0.0]], [[1.0], [2.0]], [0, 1])
    result = {name: float(value) for name, value in metric.result().items()}
    assert result["group_error_0"] == pytest.approx(11 / 3, rel=1e-6)
    assert result["group_error_1"] == 4.0


@pytest.mark.parametrize(
    ("error", "of_sklearn"),
    [("squared_error", mean_squared_error), ("absolute_error", mean_absolute_error)],
)
def test_the_range_of_the_metric_is_the_difference_of_fairlearn(error, of_sklearn, rng):
    _, y, ids, weight = rows_in_groups(rng)
    frame = MetricFrame(
        metrics=of_sklearn,
        y_true=y,
        y_pred=0 * y,
        sensitive_features=ids,
        sample_params={"sample_weight": weight},
    )
    gap = GroupGap(3, error=error, distance="absolute", between="range")
    for rows in np.array_split(np.arange(103), 9):
        gap.update_state(y[rows], 0 * y[rows], ids[rows], weight[rows])
    assert float(gap.result()) == pytest.approx(frame.difference(), rel=1e-5)


@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_the_gap_is_that_of_the_loop_over_all_rows(distance, between, rng):
    _, y, ids, weight = rows_in_groups(rng)
    gap = GroupGap(4, distance=distance, between=between)  # Group 3 has no row.
    for rows in np.array_split(np.arange(103), 9):
        gap.update_state(y[rows], 0 * y[rows], ids[rows], weight[rows])
    error = oracles.squared_errors(y, 0 * y)
    expected = oracles.group_gap(error, ids, weight, 4, distance, between)
    assert float(gap.result()) == pytest.approx(expected, rel=1e-5)


def test_rows_of_no_group_and_groups_without_rows_count_nowhere():
    metric = GroupError(2)
    metric.update_state([[0.0], [0.0]], [[1.0], [9.0]], [0, -1])
    # 0 would look perfect.
    np.testing.assert_equal([float(v) for v in metric.result().values()], [1.0, np.nan])


def test_totals_stay_exact_where_float32_would_stand_still():
    # 2²⁴ + 1 is no float32: a plain sum would ignore every later row.
    metric = GroupError(1)
    metric.update_state([[0.0]], [[4096.0]], [0])
    for _ in range(8):
        metric.update_state([[0.0]], [[1.0]], [0])
    error, weight = (
        float(engines.as_numpy(sums).astype("float64").sum())
        for sums in (metric.error_totals, metric.weight_totals)
    )
    assert (error, weight) == (2.0**24 + 8, 9.0)


def test_a_large_error_leaves_small_ones_be_whatever_its_sign():
    def signed_error(y_true, y_pred):
        return keras.ops.mean(y_pred - y_true, axis=-1)

    metric = GroupError(1, error=signed_error)
    for error in (1.0, -1e8, 1e8):
        metric.update_state([[0.0]], [[error]], [0])
    # 1/3; in float32, 1 - 1e8 is -1e8.
    assert float(metric.result()["group_error_0"]) == pytest.approx(1 / 3, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_only_ratios_of_weights_matter(scale):
    ids, weight = np.array([0, 1, 1]), scale * np.array([0.3, 0.2, 0.6])
    values = []
    for metric in (
        GroupGap(2, distance="absolute"),
        BoundIsMet(2, bound=1.0, of="gap"),
        BoundIsMet(2, bound=5.0),
    ):
        y_pred = np.array([[1.0], [2.0], [3.0]])
        metric.update_state(np.zeros((3, 1)), y_pred, ids, sample_weight=weight)
        values.append(float(metric.result()))
    # (0.2·4 + 0.6·9) / 0.8 = 7.75 against 1.
    np.testing.assert_allclose(values, [6.75, 0.0, 0.0], rtol=1e-5)


def test_a_reset_forgets_everything():
    metric = GroupGap(2)
    metric.update_state([[0.0], [0.0]], [[1.0], [3.0]], [0, 1])
    metric.reset_state()
    assert np.isnan(float(metric.result()))


def makers():
    for between in ("pairs", "range", "overall"):
        yield lambda b=between: GroupGap(3, between=b)
    yield lambda: GroupGap(3, distance="absolute")


@pytest.mark.parametrize("make", list(makers()))
@pytest.mark.parametrize(("ids", "is_known"), [([-1], 0), ([1], 0), ([0, 2], 1)])
def test_a_gap_needs_two_groups_with_rows(make, ids, is_known):
    metric = make()
    rows = np.arange(1.0, len(ids) + 1)[:, None]
    metric.update_state(0 * rows, rows, ids)
    assert np.isfinite(float(metric.result())) == is_known
    if is_known:
        both = make()  # The absent group is left out, not counted as 0.
        both.update_state(0 * rows, rows, [0, 1])
        np.testing.assert_allclose(float(metric.result()), float(both.result()))


@pytest.mark.parametrize(
    ("of", "ids", "verdict"),
    [
        ("error", [-1, -1], np.nan),
        ("error", [1, 1], 0.0),
        ("error", [1, -1], 1.0),
        ("gap", [-1, -1], np.nan),
        ("gap", [1, 1], np.nan),
        ("gap", [0, 1], 0.0),
    ],
)
def test_a_verdict_needs_rows(of, ids, verdict):
    metric = BoundIsMet(2, bound=1.0, of=of)
    metric.update_state([[0.0], [0.0]], [[1.0], [3.0]], ids)
    np.testing.assert_equal(float(metric.result()), verdict)


def test_a_group_without_rows_is_never_the_best_epoch():
    epochs = [4.0, np.nan, 5.0]
    model = linear(1, name=None)
    stop = keras.callbacks.EarlyStopping("val_error_1", mode="min", patience=9)
    stop.set_model(model)
    stop.on_train_begin()
    for epoch, error in enumerate(epochs):
        stop.on_epoch_end(epoch, {"val_error_1": error})
    assert (stop.best, stop.best_epoch) == (4.0, 0)


def test_names_of_groups_are_keys_in_the_history():
    metric = GroupError(2, group_names=["women", "men"], name="mse")
    assert list(metric.result()) == ["mse_women", "mse_men"]


def test_a_metric_on_another_attribute_is_named_after_it():
    assert GroupError(2, group_ids="sex").name == "sex_group_error"


def test_a_masked_step_does_not_count():
    metric = GroupError(1)
    y_true, y_pred = [[[0.0], [0.0]]], [[[1.0], [3.0]]]
    metric.update_state(y_true, y_pred, [0], mask=[[True, False]])
    assert float(metric.result()["group_error_0"]) == 1.0


@pytest.mark.parametrize(
    "metric",
    [
        GroupError(2, error=keras.losses.Huber(delta=0.3), group_names=["a", "b"]),
        GroupGap(2, distance="absolute", between="range", group_ids="sex", name="mine"),
    ],
    ids=["GroupError", "GroupGap"],
)
def test_the_config_gives_the_same_metric_again(metric):
    config = keras.saving.serialize_keras_object(metric)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == metric.get_config()
    y_true, y_pred, ids = [[0.0], [0.0]], [[1.0], [5.0]], [0, 1]
    for one in (again, metric):
        one.reset_state()
        one.update_state(y_true, y_pred, ids)
    one, other = (keras.tree.flatten(m.result()) for m in (metric, again))
    assert [float(v) for v in one] == [float(v) for v in other]


def test_metrics_of_a_model_survive_its_file(rng, tmp_path):
    x, y, ids, _ = rows_in_groups(rng)
    predictor = linear(4, name=None)
    model = alk.build_training_model(
        predictor, "mse", metrics=[GroupError(3, group_names="abc"), "mae"]
    )
    model.compile("sgd")
    packed = alk.pack_inputs(model, x, y, group_ids=ids)
    model.fit(packed, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(packed, verbose=0, return_dict=True) == model.evaluate(
        packed, verbose=0, return_dict=True
    )


def test_options_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"`group_names` must have one name per group"):
        GroupError(2, group_names=["a"])
    with pytest.raises(ValueError, match=r"at most 1000. Use `metrics.GroupGap`"):
        GroupError(1001)
    assert GroupError(1000).num_groups == 1000
    with pytest.raises(ValueError, match=r"Invalid value for argument `between`"):
        GroupGap(2, between="all")
    with pytest.raises(ValueError, match=r"`num_groups` must be .*at least 1"):
        GroupGap(0)


@pytest.mark.parametrize(
    ("values", "best"),
    [([3.0, np.nan, 2.0], 2.0), ([3.0, 2.0, np.nan], 2.0), ([np.nan, 3.0, 2.0], np.nan)],
)
def test_early_stopping_takes_no_nan_for_better_but_keeps_one_of_the_first_epoch(
    values, best
):
    # What docs/formulas.md says of Keras.
    stopping = keras.callbacks.EarlyStopping("gap", mode="min", patience=9)
    stopping.set_model(keras.Sequential())
    stopping.on_train_begin()
    for epoch, value in enumerate(values):
        stopping.on_epoch_end(epoch, {"gap": value})
    np.testing.assert_array_equal(float(stopping.best), best)


def test_names_of_groups_must_differ():
    with pytest.raises(ValueError, match=r"`group_names` must differ.*twice=\['a'\]"):
        GroupError(2, group_names=["a", "a"])


@pytest.mark.parametrize(
    ("of", "bound"), [("error", 3.0), ("error", [1.0, 3.0]), ("gap", 2.0)]
)
def test_a_bound_that_is_just_met_is_met(of, bound):
    metric = BoundIsMet(2, bound=bound, of=of, tolerance=0.0, error="absolute_error")
    metric.update_state([[0.0], [0.0]], [[1.0], [3.0]], [0, 1])
    assert float(metric.result()) == 1.0


@pytest.mark.parametrize("bound", [0.0, 0.5, [0.0, 0.5]])
def test_a_bound_may_be_anything_from_0(bound):
    metric = BoundIsMet(2, bound=bound, error="absolute_error")
    metric.update_state([[0.0], [0.0]], [[0.0], [0.5]], [0, 1])
    assert float(metric.result()) == (0.0 if bound == 0.0 else 1.0)


@pytest.mark.parametrize("bound", [[1.0, -1.0], [np.inf, 1.0], [1.0, 2.0, 3.0], 1e39])
def test_one_bound_that_is_none_is_refused(bound):
    with pytest.raises(ValueError, match="`bound` must be a number, finite and at least 0"):
        BoundIsMet(2, bound=bound)


def test_sums_of_negative_errors_keep_what_they_cannot_hold():
    # float32 holds -2²⁵ - 1 as -2²⁵.
    metric = GroupError(1, error=lambda y_true, y_pred: (y_pred - y_true)[:, 0])
    errors = [-(2.0**25)] + [-1.0] * 40
    for error in errors:
        metric.update_state(np.zeros((1, 1)), np.full((1, 1), error), np.zeros(1, "int32"))
    sums = keras.ops.convert_to_numpy(metric.error_totals).astype("float64")
    assert sums.sum() == sum(errors)
