"""What Keras asks of its own layers, losses and metrics holds for those of the kit."""

import importlib.util

import engines
import every_term
import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.model.derivative import Derivative
from addloss_kit.per_sample_error import PerSampleError

GROUPS = every_term.NUM_GROUPS
# Unregistered functions cannot be saved.
register = keras.saving.register_keras_serializable("conformance")
for function in (every_term.mean_function, every_term.row_function):
    register(function)


@register
def cubed_error(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)


def alone():
    """Every object that can be made without a model, by a name for the test."""
    named = {
        term.name: term
        for term in every_term.every_term()
        if not isinstance(term, alk.losses.FunctionLoss)
    }
    named["function_loss"] = alk.losses.FunctionLoss(cubed_error)
    named["derivative"] = Derivative([[0, 1], [0, 1]], 0, (2,))
    named["symbolic_loss"] = alk.losses.SymbolicLoss(name="symbolic")
    named["per_sample_error"] = PerSampleError(keras.losses.Huber(delta=0.3))
    named["error_metric"] = alk.metrics.GroupError(GROUPS, group_names=["a", "b", "c"])
    named["gap_metric"] = alk.metrics.GroupGap(GROUPS, between="range")
    named["verdict"] = alk.metrics.BoundIsMet(GROUPS, bound=[1.0, 2.0, 3.0])
    return named


@pytest.fixture
def model():
    return every_term.build()


def test_every_registered_class_is_tested_here(model):
    registered = {
        thing
        for name, thing in keras.saving.get_custom_objects().items()
        if name.startswith("addloss_kit") and thing.__module__.startswith("addloss_kit")
    }
    tested = {type(thing) for thing in alone().values()} | {type(model)}
    tested |= {type(layer) for layer in model.layers}
    assert registered - tested == set()


@pytest.mark.parametrize("name", alone())
def test_it_passes_keras_s_own_test_of_serialization(name):
    # Private to Keras, and so only in a test: configs as JSON, there and back, twice.
    from keras.src import testing

    testing.TestCase().run_class_serialization_test(alone()[name])


@pytest.mark.parametrize("name", [n for n, m in alone().items() if n.endswith("metric")])
def test_a_metric_without_state_of_its_own_is_that_with_state(name, rng):
    metric, stateless = alone()[name], alone()[name]
    values = stateless.stateless_reset_state()
    for _ in range(3):
        y_true, y_pred = rng.normal(size=(2, 6, 2)).astype("float32")
        ids = rng.integers(0, GROUPS, 6)
        metric.update_state(y_true, y_pred, ids)
        values = stateless.stateless_update_state(values, y_true, y_pred, ids)
    found, expected = stateless.stateless_result(values), metric.result()
    if not isinstance(found, dict):
        found, expected = {"": found}, {"": expected}
    for key, value in expected.items():
        assert float(found[key]) == pytest.approx(float(value), rel=1e-6)
    # Its own variables were never touched.
    assert all(float(keras.ops.sum(v)) == 0 for v in stateless.variables)


# Keras's `run_layer_test` is for layers of flat arguments: it makes no input for the nested
# ones of `LossEndpoint`. What it asks is asked of the model here.
def test_a_model_goes_through_its_config(model):
    again = type(model).from_config(model.get_config())
    assert isinstance(again, alk.TrainingModel)
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]


@pytest.mark.slow
def test_a_clone_is_a_training_model_with_weights_of_its_own(model):
    packed = every_term.data(model, 40)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile(keras.optimizers.SGD(0.05))

    before = model.get_weights()
    clone.fit(packed, y=None, batch_size=10, shuffle=False, verbose=0)

    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    model.fit(packed, y=None, batch_size=10, shuffle=False, verbose=0)
    for mine, theirs in zip(model.get_weights(), clone.get_weights()):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_summary_names_the_layer_of_the_losses_and_all_parameters(model):
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    text = "\n".join(lines)
    assert "LossEndpoint" in text
    assert f"{model.count_params():,}" in text


def test_the_ema_of_the_weights_is_that_of_a_plain_loop(rng):
    # `use_ema` averages what is trained, not running totals or multipliers.
    model = every_term.build(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9))
    packed = every_term.data(model, 40)
    variables, averages = model.trainable_variables, None
    for first in range(0, 40, 10):
        model.train_on_batch({name: x[first : first + 10] for name, x in packed.items()})
        weights = [np.array(engines.as_numpy(v)) for v in variables]
        averages = averages or weights
        averages = [0.9 * old + 0.1 * new for old, new in zip(averages, weights)]

    model.optimizer.finalize_variable_values(variables)  # As `fit` does at its end.
    for found, expected in zip(map(engines.as_numpy, variables), averages, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is missing."
)
def test_tensorboard_takes_a_training(model, tmp_path):
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    model.fit(every_term.data(model, 20), y=None, verbose=0, callbacks=[board])
    assert list(tmp_path.rglob("events*"))


@pytest.mark.skipif(importlib.util.find_spec("pydot") is None, reason="pydot is missing.")
def test_plot_model_draws_the_layer_of_the_losses(model):
    dot = keras.utils.model_to_dot(model).to_string()
    assert "loss_endpoint" in dot or "LossEndpoint" in dot
