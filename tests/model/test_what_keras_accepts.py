"""`compile` and `predict` take what Keras's take, or say why not."""

import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk


@pytest.fixture
def model():
    predictor = linear(2)
    return alk.build_training_model(predictor, "mse")


@pytest.fixture
def data():
    return {"x": np.ones((6, 2), "float32"), "y_true": np.zeros((6, 1), "float32")}


@pytest.mark.parametrize("weights", [[0.5], {"mse": 0.5}, 0.5])
def test_loss_weights_without_a_loss_are_refused(model, weights):
    with pytest.raises(
        ValueError, match=r"build_training_model\(loss_weights=.*Received: "
    ):
        model.compile("sgd", loss_weights=weights)


def test_loss_weights_with_a_loss_are_those_of_keras(model, data):
    model.compile("sgd", loss="mae", loss_weights=[0.0])
    logs = model.evaluate(data, np.zeros((6, 1)), verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], logs["mse"], rtol=1e-6)


def test_a_new_compile_forgets_loss_and_metrics(model, data):
    model.compile("sgd", loss="mae", metrics=["mae"])
    model.fit(data, np.zeros((6, 1)), verbose=0)
    model.compile("sgd")
    history = model.fit(data, y=None, verbose=0).history
    assert set(history) == {"loss", "mse"}
    np.testing.assert_allclose(history["loss"], history["mse"])


@pytest.mark.parametrize("arguments", [(3,), (3, 0), (None, 0, 1), (2, 0, None, None)])
def test_predict_takes_its_arguments_by_position(model, data, arguments):
    predicted = model.predict(data, *arguments)
    rows = len(predicted)
    np.testing.assert_allclose(predicted, model.predict(data, verbose=0)[:rows], rtol=1e-6)


def test_validation_rows_come_in_batches_of_the_size_given_for_training(rng):
    model = alk.build_training_model(linear(2), alk.losses.WeightedRMSE())
    # Without a loop, which takes other ways.
    model.compile("sgd", jit_compile=False)
    x, weight = rng.normal(size=(6, 2)), np.ones(6)
    data = alk.pack_inputs(model, x, rng.normal(size=6), sample_weight=weight)
    steps = {"batch_size": 2, "steps_per_epoch": 2}
    history = model.fit(data, validation_data=data, verbose=0, **steps).history
    # In Keras `validation_batch_size` defaults to it. A mean of roots depends on it.
    root_of_two = model.evaluate(data, batch_size=2, verbose=0)[0]
    np.testing.assert_allclose(history["val_loss"], [root_of_two], rtol=1e-6)
    assert abs(root_of_two - model.evaluate(data, batch_size=6, verbose=0)[0]) > 1e-3
