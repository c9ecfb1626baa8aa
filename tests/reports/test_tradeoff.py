"""tradeoff_curve: from the solution without the group loss, along the frontier."""

import json

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.reports import TradeoffCurve, TradeoffPoint


@pytest.fixture(scope="module")
def problem():
    """Two groups whose slopes differ: one slope must serve both."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 1)).astype("float32")
    ids = (rng.random(900) < 0.25).astype(int)
    y = np.where(ids, 2.0, 1.0) * x[:, 0]
    return x, y.astype("float32"), ids


def build(loss_weight):
    predictor = keras.Sequential(
        [keras.Input((1,), name="x"), keras.layers.Dense(1, use_bias=False)]
    )
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2, distance="absolute")],
        loss_weights=[1.0, loss_weight],
    )
    model.compile(keras.optimizers.SGD(0.05))
    return model


@pytest.fixture(scope="module")
def packed(problem):
    x, y, ids = problem
    model = build(0.0)
    return [
        alk.pack_inputs(model, x[rows], y[rows], group_ids=ids[rows])
        for rows in (slice(600), slice(600, None))
    ]


@pytest.fixture(scope="module")
def curve(packed):
    train, validation = packed
    keras.utils.set_random_seed(0)
    return alk.tradeoff_curve(
        build,
        train,
        validation,
        [0.07, 0.15],
        budget=0.3,
        epochs=6,
        batch_size=100,
        group_names=["many", "few"],
        seed=0,
        verbose=0,
    )


def test_the_points_lie_where_the_exact_solutions_do(curve, problem):
    # With the slope s, group errors are (1−s)²q₀ and (2−s)²q₁ (q the mean of x²), and
    # the loss is their mean plus weight times their distance: a parabola in s, as
    # long as the second group's error stays the larger one (s < 1.5).
    x, _, ids = (array[:600] for array in problem)
    q = np.array([np.mean(x[ids == k] ** 2) for k in (0, 1)])
    share = np.array([np.mean(ids == 0), np.mean(ids == 1)])
    for point in curve.points:
        a = (share + point.value * np.array([-1.0, 1.0])) * q
        exact = (a * [1.0, 2.0]).sum() / a.sum()
        assert point.weights[0].item() == pytest.approx(exact, rel=0.03)


@pytest.mark.slow
def test_the_values_may_be_bounds(packed, problem):
    def build_bounded(bound):
        predictor = keras.Sequential(
            [keras.Input((1,), name="x"), keras.layers.Dense(1, use_bias=False)]
        )
        term = alk.losses.BoundedGroupLoss(2, bound=bound)
        model = alk.build_training_model(predictor, ["mse", term])
        model.compile(keras.optimizers.SGD(0.02))
        return model

    curve = alk.tradeoff_curve(
        build_bounded,
        *packed,
        [0.4, 0.3],
        start=100.0,
        epochs=40,
        patience=None,
        batch_size=100,
        seed=0,
        verbose=0,
    )
    # The worse group's error is (2−s)²q₁, so the bound b is met from 2 − √(b/q₁) on.
    x, _, ids = (array[:600] for array in problem)
    square = np.mean(x[ids == 1] ** 2)
    start, wide, narrow = sorted(curve.points, key=lambda point: -point.value)
    for point in (wide, narrow):
        exact = 2.0 - np.sqrt(point.value / square)
        assert point.weights[0].item() == pytest.approx(exact, rel=0.03)
    assert narrow.gap < wide.gap < start.gap


def test_a_larger_weight_buys_a_smaller_gap_for_a_larger_error(curve):
    errors = [point.error for point in curve.points]
    gaps = [point.gap for point in curve.points]
    assert errors == sorted(errors)
    assert gaps == sorted(gaps, reverse=True)
    assert curve.frontier == curve.points


def test_a_point_is_reported_on_the_held_out_rows(curve, packed):
    _, validation = packed
    for point in curve.points:
        predictions = validation["x"] * point.weights[0]
        own = alk.group_report(validation["y_true"], predictions, validation["group_ids"])
        np.testing.assert_allclose(point.report.means, own.means, rtol=1e-4)
        assert point.report.group_names == ["many", "few"]


def test_the_recommended_point_has_the_smallest_gap_within_the_budget(curve):
    start, middle, last = curve.points
    assert curve.recommend(0.0) is start
    within = middle.error / start.error - 1 + 1e-6
    assert curve.recommend(within, confidence=None) is middle
    assert curve.recommend(within) is start
    assert curve.recommend(100.0) is last


def test_the_model_of_a_point_predicts_as_the_point_did(curve, packed):
    _, validation = packed
    point = curve.points[2]
    predictions = curve.build_model(point).predict(validation, verbose=0)
    error = np.mean((predictions - validation["y_true"]) ** 2)
    assert error == pytest.approx(point.error, rel=1e-5)


def test_it_prints_plots_and_becomes_plain_numbers(curve):
    pytest.importorskip("matplotlib", reason="in the test extra").use("Agg")
    pytest.importorskip("pandas", reason="in the test extra")
    from matplotlib import pyplot

    text = repr(curve)
    assert "start" in text and "recommended" in text and "30 % more MSE" in text
    assert "<table>" in curve._repr_html_()
    assert json.loads(json.dumps(curve.to_dict()))["points"][0]["value"] == 0.0
    assert curve.to_pandas()["gap"].tolist() == [p.gap for p in curve.points]
    ax = curve.plot()
    drawn = ax.get_lines()[0].get_xydata()
    np.testing.assert_allclose(drawn, [[p.error, p.gap] for p in curve.frontier])
    pyplot.close("all")


def test_training_ends_early_and_each_value_begins_at_the_start(packed):
    train, validation = packed
    begun = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            begun.append(self.model.get_layer("slope").get_weights()[0].item())

    def build_watched(loss_weight):
        slope = keras.layers.Dense(1, use_bias=False, name="slope")
        predictor = keras.Sequential([keras.Input((1,), name="x"), slope])
        model = alk.build_training_model(
            predictor, ["mse", alk.losses.GroupGap(2)], loss_weights=[1.0, loss_weight]
        )
        # A step of 0.5/q is Newton's: the first epoch ends near the solution.
        model.compile(keras.optimizers.SGD(0.3))
        fit = model.fit
        model.fit = lambda *args, callbacks, **kwargs: fit(
            *args, callbacks=[*callbacks, Watch()], **kwargs
        )
        return model

    curve = alk.tradeoff_curve(
        build_watched,
        train,
        validation,
        [0.001],
        epochs=25,
        batch_size=600,
        patience=2,
        seed=0,
        verbose=0,
    )
    assert curve.start.epochs < 25
    # Patience is counted from the second epoch after the start on, to pass the shock of a
    # weight: the epochs 0 and 1 are not kept, and 3 and 4 are no better than 2.
    assert curve.points[1].epochs >= 5
    assert begun[1] == pytest.approx(curve.start.weights[0].item())


def point(value, residual):
    ids = np.arange(len(residual)) % 2
    y = np.zeros(len(residual))
    return TradeoffPoint(value, alk.group_report(y, residual, ids), 1, [])


def test_a_point_that_another_beats_is_off_the_frontier():
    # Group errors (1, 4), (1.1, 3), (1.2, 4.4).
    points = [
        point(value, np.tile(np.sqrt(errors), 50))
        for value, errors in ((0, (1.0, 4.0)), (1, (1.1, 3.0)), (2, (1.2, 4.4)))
    ]
    curve = TradeoffCurve(points, build, 0.05)
    assert [p.is_on_frontier for p in points] == [False, True, False]
    assert curve.recommend() is points[1]
    assert "dominated" in repr(curve)


def test_levelling_down_is_said_of_the_recommended_point():
    rng = np.random.default_rng(0)
    noise = np.abs(rng.normal(size=400))
    start, level = (
        point(v, noise * np.tile(scale, 200)) for v, scale in ((0, [1, 2]), (1, [1.3, 2]))
    )
    assert "Levelling down" in repr(TradeoffCurve([start, level], build, 0.5))


def test_where_nothing_fits_the_budget_the_start_is_recommended():
    points = [point(0, np.tile([1.0, 2.0], 50)), point(1, np.tile([2.0, 2.0], 50))]
    curve = TradeoffCurve(points, build, 0.05)
    assert curve.recommend() is points[0]
    assert "no value closes the gap within that budget" in repr(curve)


@pytest.mark.parametrize("error, is_warned", [(0.5, True), (0.97, False)])
def test_a_start_that_was_left_too_early_is_told(error, is_warned):
    points = [point(v, np.full(100, e**0.5)) for v, e in ((0, 1.0), (1, error))]
    text = repr(TradeoffCurve(points, build, 0.05))
    assert ("had not converged" in text) == is_warned


@pytest.mark.parametrize(
    "change, message",
    [
        ({"values": []}, "`values` must hold a value"),
        ({"train": {"x": np.zeros(2)}}, "`train` must have the entries"),
        ({"group_ids": "sex"}, "missing=.'sex'."),
        ({"budget": -0.1}, "`budget` must lie"),
        ({"epochs": 0}, "`epochs` must be a whole number"),
    ],
)
def test_what_cannot_be_trained_is_refused(packed, change, message):
    train, validation = packed
    given = {"train": train, "validation": validation, "values": [1.0]} | change
    with pytest.raises(ValueError, match=message):
        alk.tradeoff_curve(build, **given, verbose=0)
