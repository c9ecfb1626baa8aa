"""Losses are computed in float32 whatever the policy, in float64 where the model is."""

import every_term
import keras
import numpy as np
import pytest
from keras import ops

import addloss_kit as alk

MIXED = ["mixed_float16", "mixed_bfloat16"]
NUM_GROUPS = 2


@pytest.fixture
def policy(request):
    """The global dtype policy of one test."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def linear_model(losses, metrics=None):
    """`y_pred = x`, so that a test knows every prediction; weights can train."""
    x = keras.Input((1,), name="x")
    dense = keras.layers.Dense(1, kernel_initializer="ones")
    return alk.build_training_model(keras.Model(x, dense(x)), losses, metrics=metrics)


@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_half_precision_models_train_every_term_to_finite_values(policy):
    model = every_term.build(keras.optimizers.SGD(0.001))
    packed = every_term.data(model, 16)
    history = model.fit(packed, y=None, batch_size=8, verbose=0).history
    assert [key for key, (value,) in history.items() if not np.isfinite(value)] == []


@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_targets_of_ten_thousand_stay_finite_in_half_precision(policy):
    model = linear_model(
        ["mse", alk.losses.GroupGap(NUM_GROUPS)], metrics=[alk.metrics.GroupError(2)]
    )
    model.compile(keras.optimizers.SGD(1e-12))
    x = np.zeros((8, 1))
    packed = alk.pack_inputs(model, x, np.full((8, 1), 1e4), group_ids=[0, 1] * 4)
    history = model.fit(packed, y=None, batch_size=8, verbose=0).history
    # All predictions are 0: the error is (10⁴)², far beyond float16's 65,504.
    assert history["mse"] == pytest.approx([1e8], rel=1e-6)
    assert history["group_error_0"] == pytest.approx([1e8], rel=1e-6)
    assert history["group_gap"] == [0.0]


@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_losses_are_float32_and_predictions_stay_half(policy):
    model = linear_model(["mse", alk.losses.GroupGap(NUM_GROUPS)])
    assert model.compute_dtype == policy.removeprefix("mixed_")
    assert model.endpoint.compute_dtype == "float32"
    assert [t.dtype for t in model.inputs if t.name == "y_true"] == ["float32"]
    assert keras.backend.standardize_dtype(model.output.dtype) == model.compute_dtype
    assert {term.compute_dtype for term in model.endpoint.terms} == {"float32"}


@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_half_precision_loss_is_that_of_the_rounded_predictions_in_float32(policy):
    model = linear_model("mse")
    model.compile("sgd")
    x, y = np.linspace(0.1, 3.0, 8)[:, None], np.linspace(-1.0, 700.0, 8)[:, None]
    rounded = ops.cast(ops.cast(x, model.compute_dtype), "float32")
    predicted = ops.convert_to_numpy(rounded).astype("float64")
    packed = alk.pack_inputs(model, x, y)
    value = model.evaluate(packed, verbose=0, return_dict=True)["mse"]
    assert value == pytest.approx(np.mean((y - predicted) ** 2), rel=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras divides float64 in float32 on torch; JAX needs jax_enable_x64.",
)
@pytest.mark.parametrize("policy", ["float64"], indirect=True)
def test_float64_models_have_float64_losses(policy):
    model = linear_model(["mse", alk.losses.GroupGap(NUM_GROUPS)])
    model.compile("sgd")
    assert model.endpoint.compute_dtype == "float64"
    x = np.array([[1.0], [2.0]])
    # A difference of 1e-9 is lost in float32.
    packed = alk.pack_inputs(model, x, x + 1e-9, group_ids=[0, 1])
    loss = model.compute_loss(
        packed, y_pred=model({k: ops.convert_to_tensor(v) for k, v in packed.items()})
    )
    assert keras.backend.standardize_dtype(loss.dtype) == "float64"
    value = float(ops.convert_to_numpy(model.endpoint.values["mse"]))
    assert value == pytest.approx(1e-18, rel=1e-6)
