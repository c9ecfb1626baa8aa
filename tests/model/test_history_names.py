"""Every key of the history has one meaning, or the model is not built."""

import keras
import numpy as np
import pytest
from keras import ops
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import BoundedGroupLoss, GroupGap, GroupGapConstraint, KerasLoss


@keras.saving.register_keras_serializable("tests")
class TwoNumbers(keras.metrics.Metric):
    """A custom metric whose result is a dict."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        pass

    def result(self):
        return {"first": ops.zeros(()), "second": ops.ones(())}


def named(name):
    return KerasLoss("mse", name=name)


def metric(name):
    return keras.metrics.MeanSquaredError(name=name)


def build(losses, metrics=None, **options):
    predictor = linear(2)
    return alk.build_training_model(predictor, losses, metrics=metrics, **options)


SCHEDULE = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
COLLISIONS = {
    "term and renamed term": ([named("loss"), named("loss_loss")], [], "loss_loss"),
    "metric and renamed term": (
        [named("a"), named("a_loss")],
        [metric("a")],
        "a_loss",
    ),
    "metric named loss": ([named("a")], [metric("loss")], "loss"),
    "metric of groups": (
        [named("a")],
        [alk.metrics.GroupError(2, name="e"), metric("e_0")],
        "e_0",
    ),
    "two metrics of groups": (
        [named("a")],
        [
            alk.metrics.GroupError(2, name="e"),
            alk.metrics.GroupError(2, name="e_x", group_names=["0", "1"]),
            metric("e_x_1"),
        ],
        "e_x_1",
    ),
    "multiplier and metric": (
        [named("a"), BoundedGroupLoss(2, bound=1.0, name="b")],
        [metric("b_multiplier_0")],
        "b_multiplier_0",
    ),
    "state and term": (
        [GroupGapConstraint(2, bound=1.0, name="c"), named("c_is_met")],
        [],
        "c_is_met",
    ),
    "weight and term": ([named("a"), named("a_weight")], [], "a_weight"),
    "weight and metric": ([named("a"), named("b")], [metric("a_weight")], "a_weight"),
    "validation": ([named("a"), named("val_a")], [], "val_a"),
    "validation's loss": ([named("val_loss")], [], "val_loss"),
    "custom dict": ([named("a")], [TwoNumbers(name="t"), metric("second")], "second"),
}


@pytest.mark.parametrize("kind", COLLISIONS)
def test_two_meanings_of_a_key_are_refused(kind):
    losses, metrics, culprit = COLLISIONS[kind]
    weights = [SCHEDULE] + [1.0] * (len(losses) - 1) if "weight" in kind else None
    with pytest.raises(ValueError, match=rf"must have one meaning.*twice=\['{culprit}'\]"):
        build(losses, metrics, loss_weights=weights)


def test_a_term_named_like_a_metric_is_logged_as_its_loss():
    model = build(
        [named("a"), named("loss"), GroupGap(2, name="e")],
        [metric("a"), alk.metrics.GroupError(2, name="e"), TwoNumbers(name="t")],
    )
    model.compile("sgd")
    packed = alk.pack_inputs(model, np.ones((4, 2)), np.zeros(4), group_ids=[0, 1, 0, 1])
    history = model.fit(packed, validation_data=(packed, None), verbose=0).history
    keys = {"loss", "a_loss", "loss_loss", "e_loss", "a", "e_0", "e_1", "first", "second"}
    assert set(history) == keys | {f"val_{key}" for key in keys}
    np.testing.assert_allclose(history["a"], history["a_loss"], rtol=1e-5)


def test_a_key_is_refused_when_a_scalar_is_added_too():
    x = keras.Input((2,), name="x")
    model = alk.add_loss(keras.Model(x, keras.layers.Dense(1)(x)), ops.mean(x), name="loss")
    with pytest.raises(ValueError, match=r"twice=\['loss_loss'\]"):
        alk.add_metric(model, ops.max(x), name="loss_loss")
