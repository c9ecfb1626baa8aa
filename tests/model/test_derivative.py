"""derivative: against closed forms, in differential equations, saved and exported."""

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.model.derivative import Derivative

RNG = np.random.default_rng(0)
X = RNG.uniform(-1.0, 1.0, size=(20, 2)).astype("float32")
A, B = np.array([[0.7], [-1.2]]), np.array([0.3])


def wave():
    """tanh(x·a + b), whose derivatives are known."""
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1, "tanh")])
    model.set_weights([A, B])
    return model


def closed_form(by):
    """With t = tanh: t' = 1 − t², t'' = −2t·t', t''' = (6t² − 2)·t'."""
    t = np.tanh(X.astype("float64") @ A + B)
    of_order = [t, 1 - t**2, -2 * t * (1 - t**2), (6 * t**2 - 2) * (1 - t**2)]
    return of_order[len(by)] * np.prod([A[column, 0] for column in by])


@pytest.mark.parametrize("by", [[0], [1], [0, 0], [0, 1], [1, 1, 0]])
def test_it_is_the_closed_form(by):
    predictor = wave()
    values = keras.Model(predictor.inputs, alk.derivative(predictor, by=by))

    assert np.allclose(values.predict(X, verbose=0), closed_form(by), atol=1e-5)


def test_each_output_has_its_derivative():
    x = keras.Input((2,), name="x")
    product = keras.ops.concatenate([x[:, :1] * x[:, 1:], x[:, :1] ** 3], axis=1)
    predictor = keras.Model(x, product)
    values = keras.Model(x, alk.derivative(predictor, by=0))

    expected = np.stack([X[:, 1], 3 * X[:, 0] ** 2], axis=1)
    assert np.allclose(values.predict(X, verbose=0), expected, atol=1e-5)


def test_inputs_and_outputs_have_names():
    t, x = keras.Input((1,), name="t"), keras.Input((2,), name="x")
    heat = keras.layers.Identity(name="heat")(t * x[:, 1:])
    flow = keras.layers.Identity(name="flow")(t**2)
    predictor = keras.Model([t, x], {"heat": heat, "flow": flow})
    by_x = alk.derivative(predictor, by=("x", 1), output="heat")
    by_t = alk.derivative(predictor, by=[("t", 0), ("x", 1)], output="heat")
    flow_t = alk.derivative(predictor, by=("t", 0), output="flow")
    values = keras.Model([t, x], [by_x, by_t, flow_t])

    given = X[:, :1], X
    one, two, three = values.predict(list(given), verbose=0)

    assert np.allclose(one, given[0], atol=1e-6)
    assert np.allclose(two, 1.0, atol=1e-6)
    assert np.allclose(three, 2 * given[0], atol=1e-6)


@keras.saving.register_keras_serializable("tests")
def decay(y_pred, slope):
    return keras.ops.square(slope + y_pred)


@keras.saving.register_keras_serializable("tests")
def oscillation(y_pred, curvature):
    return keras.ops.square(curvature + y_pred)


def network(value_at_zero, power):
    """value + xᵖ·net(x), which meets the conditions at 0 by itself."""
    keras.utils.set_random_seed(0)
    x = keras.Input((1,), name="x")
    hidden = keras.layers.Dense(20, "tanh")(keras.layers.Dense(20, "tanh")(x))
    return keras.Model(x, value_at_zero + x**power * keras.layers.Dense(1)(hidden))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Ten thousand slow steps.")
@pytest.mark.parametrize(
    ("equation", "argument", "by", "power", "solution"),
    [
        pytest.param(decay, "slope", 0, 1, lambda x: np.exp(-x), id="u'=-u"),
        pytest.param(oscillation, "curvature", [0, 0], 2, np.cos, id="u''=-u"),
    ],
)
def test_a_differential_equation_is_solved_to_a_thousandth(
    equation, argument, by, power, solution
):
    predictor = network(1.0, power)
    model = alk.build_training_model(
        predictor, equation, tensors={argument: alk.derivative(predictor, by=by)}
    )
    rows, epochs = 6400, 80
    schedule = keras.optimizers.schedules.CosineDecay(0.01, rows // 64 * epochs)
    model.compile(keras.optimizers.Adam(schedule))
    x = RNG.uniform(0.0, 2.0, size=(rows, 1))
    model.fit(alk.pack_inputs(model, x), batch_size=64, epochs=epochs, verbose=0)

    grid = np.linspace(0.0, 2.0, 101)[:, None]
    u = alk.export_inference_model(model).predict(grid, verbose=0)
    assert np.abs(u - solution(grid)).max() < 1e-3


def test_slopes_may_be_targets():
    # Sobolev training: the same value and slope as those of 3x₀ − 2x₁.
    predictor = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])

    def sobolev(y_true, y_pred, slope, d0):
        return keras.ops.square(y_true - y_pred) + keras.ops.square(slope - d0)

    model = alk.build_training_model(
        predictor, sobolev, inputs={"slope": keras.Input((1,))},
        tensors={"d0": alk.derivative(predictor, by=0)},
    )  # fmt: skip
    model.compile("sgd")
    y = 3 * X[:, 0] - 2 * X[:, 1]
    packed = alk.pack_inputs(model, X, y, slope=np.full(20, 3.0))

    value = model.evaluate(packed, batch_size=20, verbose=0, return_dict=True)["loss"]

    kernel, bias = predictor.get_weights()
    error = (X @ kernel)[:, 0] + bias - y
    assert value == pytest.approx((error**2).mean() + (kernel[0, 0] - 3.0) ** 2, rel=1e-4)


def model_and_rows():
    predictor = network(1.0, 1)
    model = alk.build_training_model(
        predictor, decay, tensors={"slope": alk.derivative(predictor, by=0)}
    )
    model.compile(keras.optimizers.SGD(0.05))
    return model, alk.pack_inputs(model, RNG.uniform(0.0, 2.0, size=(32, 1)))


def test_it_trains_on_after_a_reload(tmp_path):
    model, packed = model_and_rows()
    model.fit(packed, epochs=1, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = alk.load_training_model(tmp_path / "model.keras")

    for each in (model, again):
        each.fit(packed, epochs=3, verbose=0, shuffle=False)

    assert len(again.trainable_weights) == len(model.trainable_weights) == 6
    for one, other in zip(again.get_weights(), model.get_weights()):
        assert np.allclose(one, other, atol=1e-6)


def test_the_export_does_not_know_of_it(tmp_path):
    model, packed = model_and_rows()
    inference = alk.export_inference_model(model, tmp_path / "predictor.keras")

    assert [tensor.name for tensor in inference.inputs] == ["x"]
    assert not any(isinstance(layer, Derivative) for layer in inference.layers)


def test_the_symbolic_call_of_keras_2_takes_it():
    predictor = wave()
    slope = alk.derivative(predictor, by=0)
    model = alk.add_loss(predictor, keras.ops.mean(slope**2))
    model.compile("sgd")

    value = model.evaluate({"x": X}, batch_size=20, verbose=0, return_dict=True)["loss"]

    assert value == pytest.approx((closed_form([0]) ** 2).mean(), rel=1e-4)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Compares TensorFlow's ways to run."
)
def test_eager_steps_and_xla_agree():
    weights = []
    for options in ({"run_eagerly": True}, {"jit_compile": True}, {"jit_compile": False}):
        model, _ = model_and_rows()
        model.compile(keras.optimizers.SGD(0.05), **options)
        packed = {"x": np.linspace(0, 2, 32, dtype="float32")[:, None]}
        model.fit(packed, epochs=2, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for others in weights[1:]:
        for one, other in zip(weights[0], others):
            assert np.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("by", "error", "message"),
    [
        (2, ValueError, "a column of an Input"),
        (-1, ValueError, "a column of an Input"),
        (0.5, TypeError, "a column's number"),
        ([], ValueError, "at least one column"),
        (("z", 0), ValueError, "names the Input `z`"),
    ],
)
def test_a_column_that_is_not_there_is_refused(by, error, message):
    with pytest.raises(error, match=message):
        alk.derivative(wave(), by=by)


def test_several_inputs_and_outputs_need_names():
    t, x = keras.Input((1,), name="t"), keras.Input((1,), name="x")
    predictor = keras.Model([t, x], [t * x, t + x])
    with pytest.raises(ValueError, match="must say which output"):
        alk.derivative(predictor, by=("t", 0))
    with pytest.raises(ValueError, match=r"must name the Input.*Pass `\('t', 0\)`"):
        alk.derivative(keras.Model([t, x], t * x), by=0)


def test_the_derivative_of_another_model_is_refused():
    other = wave()
    predictor = keras.Model(other.inputs[0], keras.layers.Dense(1)(other.outputs[0]))
    with pytest.raises(ValueError, match="a derivative of the predictor that is trained"):
        alk.build_training_model(
            predictor, decay, tensors={"slope": alk.derivative(other, by=0)}
        )


def test_a_training_model_is_no_predictor():
    model = alk.build_training_model(wave(), "mse")
    with pytest.raises(ValueError, match="must have no losses yet"):
        alk.derivative(model, by=0)
    with pytest.raises(TypeError, match="must be a functional model"):
        alk.derivative("model", by=0)
