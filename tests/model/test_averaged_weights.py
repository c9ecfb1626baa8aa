"""An optimizer's averages outlive what is done with the weights that they were assigned to.

At the end of `fit`, averages and weights are one array, on JAX; there a call of the model
takes the arrays of the weights away, and plain Keras loses the averages with them.
"""

import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk


@pytest.fixture
def data(rng):
    return {"x": rng.normal(size=(12, 2)), "y_true": rng.normal(size=(12, 1))}


def trained(data):
    keras.utils.set_random_seed(0)
    predictor = linear(2)
    model = alk.build_training_model(predictor, "mse")
    model.compile(keras.optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2))
    fit(model, data)
    return model, predictor


def fit(model, data):
    model.fit(data, batch_size=4, epochs=2, shuffle=False, verbose=0)


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def evaluate_predictor(model, predictor, data):
    predictor.compile(keras.optimizers.SGD(0.1), loss="mse")
    predictor.evaluate(data["x"], data["y_true"], verbose=0)


CALLS = {
    "evaluate": lambda model, predictor, data: model.evaluate(data, verbose=0),
    "predict": lambda model, predictor, data: model.predict(data, verbose=0),
    "test_on_batch": lambda model, predictor, data: model.test_on_batch(data),
    "predict_on_batch": lambda model, predictor, data: model.predict_on_batch(data),
    "the predictor's evaluate": evaluate_predictor,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_between_two_trainings_changes_nothing(data, tmp_path, call):
    undisturbed, _ = trained(data)
    fit(undisturbed, data)
    model, predictor = trained(data)
    call(model, predictor, data)
    model.save(tmp_path / "model.keras")
    fit(model, data)
    loaded = alk.load_training_model(tmp_path / "model.keras")
    fit(loaded, data)
    for one, other, reloaded in zip(state(model), state(undisturbed), state(loaded)):
        np.testing.assert_allclose(one, other, rtol=1e-6)
        np.testing.assert_allclose(reloaded, other, rtol=1e-6)


def test_averages_assigned_by_hand_outlive_an_evaluation(data):
    model, _ = trained(data)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    averages = [v for v in model.optimizer.variables if v.path.endswith("_average")]
    before = [keras.ops.convert_to_numpy(variable) for variable in averages]
    model.evaluate(data, verbose=0)
    assert averages
    for variable, value in zip(averages, before):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
