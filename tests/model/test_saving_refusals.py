"""What could be saved but never loaded is refused: at `save`, and before training."""

import keras
import numpy as np
import pytest
from keras import ops
from predictors import linear

import addloss_kit as alk


class Unregistered(keras.metrics.Mean):
    """A metric that no later process could find."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(ops.abs(y_true - y_pred))


@keras.saving.register_keras_serializable("tests")
class Forgetful(keras.metrics.Mean):
    """A metric whose config lacks an argument."""

    def __init__(self, factor, name="forgetful"):
        super().__init__(name=name)
        self.factor = factor

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(self.factor * ops.abs(y_true - y_pred))


def own_function(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


class OwnTerm(alk.losses.LossTerm):
    """A term that no later process could find."""

    def totals(self, y_true, y_pred):
        error = ops.abs(y_true - y_pred)
        return ops.sum(error), ops.sum(ops.ones_like(error))


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that no later process could find."""

    def __call__(self, step):
        return 1.0

    def get_config(self):
        return {}


CASES = {
    "metric class": (
        {"losses": "mse", "metrics": [Unregistered()]},
        "class `Unregistered`",
    ),
    "metric function": (
        {"losses": "mse", "metrics": [own_function]},
        "function `own_function`",
    ),
    "metric without its argument": (
        {"losses": "mse", "metrics": [Forgetful(2.0)]},
        "class `Forgetful` cannot be saved, because it cannot be made",
    ),
    "error of a metric": (
        {"losses": ["mse", alk.losses.GroupGap(2)],
         "metrics": [alk.metrics.GroupError(2, error=own_function)]},
        "function `own_function`",
    ),
    "function": ({"losses": own_function}, "function `own_function`"),
    "term": ({"losses": OwnTerm()}, "class `OwnTerm`"),
    "schedule": ({"losses": "mse", "loss_weights": [OwnSchedule()]}, "class `OwnSchedule`"),
}  # fmt: skip


def a_model(case):
    predictor = linear(2)
    options = dict(CASES[case][0])
    model = alk.build_training_model(predictor, options.pop("losses"), **options)
    model.compile("sgd")
    data = {t.name: np.zeros((4, *t.shape[1:]), t.dtype) for t in model.inputs}
    return model, data


@pytest.mark.parametrize("case", CASES)
def test_saving_what_would_not_load_is_refused_by_name(case, tmp_path):
    model, data = a_model(case)
    model.fit(data, verbose=0)
    with pytest.raises(ValueError, match=CASES[case][1]):
        model.save(tmp_path / "model.keras")


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_that_would_not_load_is_refused_before_a_step(case, as_list, tmp_path):
    model, data = a_model(case)
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    callbacks = [checkpoint] if as_list else checkpoint
    with pytest.raises(ValueError, match=CASES[case][1]):
        model.fit(data, verbose=0, callbacks=callbacks)
    for old, new in zip(before, model.trainable_variables):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new))


def test_a_checkpoint_of_weights_alone_needs_no_registration(tmp_path):
    model, data = a_model("metric class")
    path = tmp_path / "model.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    model.fit(data, verbose=0, callbacks=[checkpoint])
    assert path.exists()
