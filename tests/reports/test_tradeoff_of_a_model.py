"""tradeoff_curve of one compiled model, with repeats, and what recommend makes of it."""

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.reports import TradeoffCurve, TradeoffPoint
from addloss_kit.reports.paired import gap_change, is_within, relative_increase


def make_model(seed=0, hidden=()):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(units, "tanh") for units in hidden]
    predictor = keras.Sequential(
        [keras.Input((2,), name="x"), *layers, keras.layers.Dense(1)]
    )
    model = alk.build_training_model(
        predictor, ["mse", alk.losses.GroupGap(2)], loss_weights=[1.0, 0.5]
    )
    model.compile(keras.optimizers.Adam(0.02))
    return model


@pytest.fixture(scope="module")
def packed():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)).astype("float32")
    ids = (rng.random(600) < 0.3).astype(int)
    y = np.where(ids, x[:, 0] + x[:, 1], x[:, 0]) + 0.3 * rng.normal(size=600)
    model = make_model()
    return [
        alk.pack_inputs(model, x[rows], y[rows], group_ids=ids[rows])
        for rows in (slice(400), slice(400, None))
    ]


def curve_of(model, packed, values=(0.3, 3.0), **options):
    given = {"epochs": 4, "batch_size": 50, "seed": 0, "verbose": 0} | options
    return alk.tradeoff_curve(model, "group_gap", *packed, values, **given)


def state(model):
    return [np.array(v) for v in map(keras.ops.convert_to_numpy, variables(model))]


def variables(model):
    return [*model.variables, *model.optimizer.variables]


@pytest.mark.slow
def test_it_trains_as_a_new_model_for_each_value_does(packed):
    def build(weight):
        model = make_model()
        model.loss_weights["group_gap"] = weight
        return model

    options = {"epochs": 4, "batch_size": 50, "seed": 0, "verbose": 0}
    built = alk.tradeoff_curve(build, *packed, [0.3, 3.0], **options)
    curve = curve_of(make_model(), packed)
    for own, other in zip(curve.points, built.points):
        assert own.epochs == other.epochs
        for weights, others in zip(own.weights, other.weights):
            np.testing.assert_allclose(weights, others, rtol=1e-4, atol=1e-5)


def test_the_model_has_its_state_back_even_after_an_error(packed):
    model = make_model()
    model.fit(packed[0], epochs=1, verbose=0)
    before = state(model)
    curve_of(model, packed, [0.3], epochs=2)
    for variable, value in zip(state(model), before):
        np.testing.assert_array_equal(variable, value)
    assert model.loss_weights["group_gap"] == 0.5
    seen = []

    def fails_once_trained(y_true, y_pred):
        seen.append(keras.ops.convert_to_numpy(y_pred))
        if (seen[-1] != seen[0]).any():
            raise ValueError("the model has changed")
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    with pytest.raises(ValueError, match="the model has changed"):
        curve_of(model, packed, [0.3], epochs=2, patience=None, error=fails_once_trained)
    for variable, value in zip(state(model), before):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="nothing is compiled with torch"
)
def test_a_second_curve_compiles_nothing(packed):
    model, traces = make_model(), []
    step = model.train_step
    # Python runs a step only while it is traced.
    model.train_step = lambda *args, **kwargs: traces.append(1) or step(*args, **kwargs)
    curve_of(model, packed, [1.0], epochs=70, patience=None)
    first = len(traces)
    curve_of(model, packed, [0.1, 0.3, 1.0], epochs=70, patience=None)
    assert 0 < first == len(traces)


def test_the_model_of_a_point_predicts_as_the_point_did(packed):
    model = make_model(hidden=[4])
    curve = curve_of(model, packed)
    point = curve.points[1]
    assert curve.build_model(point) is model
    assert model.loss_weights["group_gap"] == pytest.approx(0.3)
    predictions = model.predict(packed[1], verbose=0)
    error = np.mean((predictions - packed[1]["y_true"]) ** 2)
    assert error == pytest.approx(point.error, rel=1e-5)


@pytest.mark.slow
def test_repeats_start_from_new_weights_that_the_seed_decides(packed):
    model = make_model(hidden=[4])
    first, second = (curve_of(model, packed, [1.0], repeats=3) for _ in range(2))
    for point, again in zip(first.points, second.points):
        errors = [report.overall["MSE"][0] for report in point.reports]
        assert len(set(errors)) == 3
        assert point.error == pytest.approx(np.mean(errors))
        repeated = [report.overall["MSE"][0] for report in again.reports]
        np.testing.assert_allclose(errors, repeated, rtol=1e-4)
    assert "of 3 repeats" in repr(first)


def test_a_repeat_keeps_weights_that_are_not_trained(packed):
    norm = keras.layers.Normalization(axis=-1)
    norm.adapt(packed[0]["x"] * 3.0 + 5.0)
    predictor = keras.Sequential([keras.Input((2,), name="x"), norm, keras.layers.Dense(1)])
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    model.compile("adam")
    curve = curve_of(model, packed, [1.0], epochs=1, repeats=2)
    means = norm.get_weights()[0]
    assert means.ravel() == pytest.approx(5.0 + 3.0 * packed[0]["x"].mean(0), abs=1e-3)
    assert len(curve.start.reports) == 2


def test_a_value_that_diverges_is_said_and_never_recommended(packed):
    def build(weight):
        model = make_model()
        model.compile(keras.optimizers.SGD(1e20 if weight > 5 else 0.05))
        model.loss_weights["group_gap"] = weight
        return model

    options = {"epochs": 4, "patience": None, "seed": 0, "verbose": 0}
    curve = alk.tradeoff_curve(build, *packed, [0.3, 10.0], **options)
    gone = curve.points[2]
    assert gone.has_diverged and np.isnan(gone.error) and np.isnan(gone.gap)
    assert not gone.is_on_frontier
    for confidence in (None, 0.8):
        assert curve.recommend(1e9, confidence) is not gone
    assert "Diverged, so never recommended: 10." in repr(curve)
    assert np.isnan(curve.to_dict()["points"][2]["cost"])
    with pytest.raises(ValueError, match="The start must not diverge"):
        alk.tradeoff_curve(build, *packed, [0.3], start=10.0, **options)


def reports(errors, ids):
    """Reports whose rows have exactly these squared errors."""
    return [alk.group_report(np.zeros(len(ids)), np.sqrt(row), ids) for row in errors]


def point(value, errors, ids=None):
    ids = np.arange(len(errors)) % 2 if ids is None else ids
    (report,) = reports([errors], ids)
    return TradeoffPoint(value, report, 1, [])


def test_a_value_worse_than_both_neighbours_says_so():
    levels = [(1.0, 4.0), (1.3, 3.6), (1.9, 4.4), (1.6, 3.2)]
    points = [point(v, np.tile(errors, 50)) for v, errors in enumerate(levels)]
    text = repr(TradeoffCurve(points, None, 0.05))
    assert "Worse than its neighbours, in error and gap, is 2:" in text
    assert text.count("worse than its neighbours") == 1
    straight = TradeoffCurve([points[0], points[1], points[3]], None, 0.05)
    assert "orse than its neighbours" not in repr(straight)


def test_changes_have_the_standard_errors_of_paired_rows(rng):
    ids = rng.integers(0, 2, 400)
    before = (1.0 + ids) * rng.normal(size=400) ** 2
    after = before * rng.uniform(0.5, 1.4, 400)
    old, new = reports([before, after], ids)
    difference = after - before
    spread = [
        np.std(difference[ids == k], ddof=1) / np.sqrt(np.sum(ids == k)) for k in (0, 1)
    ]
    change = gap_change([old], [new])
    assert change.value == pytest.approx(new.gap.value - old.gap.value)
    assert change.standard_error == pytest.approx(np.hypot(*spread))
    # By the bootstrap: rows drawn again, both errors of a row together.
    rows = rng.integers(0, 400, (4000, 400))
    ratios = after[rows].mean(1) / before[rows].mean(1)
    cost = relative_increase([old], [new])
    assert cost.value == pytest.approx(after.mean() / before.mean() - 1.0)
    assert cost.standard_error == pytest.approx(ratios.std(), rel=0.15)


def test_repeats_add_the_spread_of_the_training(rng):
    ids = np.arange(100) % 2
    before, levels = np.ones((3, 100)), np.array([1.0, 1.1, 1.3])
    old, new = reports(before, ids), reports(before * levels[:, None], ids)
    cost = relative_increase(old, new)
    # All rows are alike, so nothing but the repeats is noise.
    assert cost.value == pytest.approx(levels.mean() - 1.0)
    assert cost.standard_error == pytest.approx(np.std(levels, ddof=1) / np.sqrt(3))


@pytest.mark.parametrize("repeats", [1, 4])
def test_a_cost_beyond_the_budget_passes_in_at_most_20_percent(rng, repeats):
    ids, passed = np.arange(100) % 2, 0
    for _ in range(300):
        before = np.tile(rng.normal(size=100) ** 2, (repeats, 1))
        # 10 % more in expectation, with a spread between trainings if there are some.
        level = 1.1 + 0.05 * rng.normal(size=(repeats, 1)) * (repeats > 1)
        after = before * (rng.uniform(0.5, 1.5, 100) + level - 1.0)
        passed += is_within(reports(before, ids), reports(after, ids), 0.0999, 0.8)
    assert 20 < passed <= 60 + 4 * np.sqrt(300 * 0.2 * 0.8)


def test_recommend_asks_for_certainty(rng):
    noise = rng.normal(size=200) ** 2
    start = point(0, noise * np.tile([1.0, 3.0], 100))
    # 4 % more on average, but from a few rows only.
    extra = np.zeros(200)
    extra[::50] = 0.04 * start.error * 50
    unsure = point(1, np.maximum(noise * np.tile([1.2, 2.9], 100), 0) + extra)
    curve = TradeoffCurve([start, unsure], None, 0.05)
    within = curve.cost(unsure).value + 1e-6
    assert curve.recommend(within, confidence=None) is unsure
    assert curve.recommend(within) is start
    assert curve.recommend(within, confidence=0.99) is start
    assert curve.recommend(10 * within) is unsure
    assert "none, so the start" in repr(curve)
