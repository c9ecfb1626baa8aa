"""Any function, object or `keras.losses.Loss` subclass as a loss."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import FunctionLoss

ROWS, FEATURES = 24, 3
registered = keras.saving.register_keras_serializable("addloss_kit_tests")


@registered
def scaled_error(y_true, y_pred, delta):
    return ops.mean(ops.square(y_true - y_pred), axis=-1) * delta


@registered
def penalised(y_true, y_pred, strength=0.5):
    return ops.mean(ops.square(y_true - y_pred), axis=-1) + ops.mean(strength)


@registered
def mean_square(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


@registered
def kl_to_standard_normal(z_mean, z_log_var):
    terms = 1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var)
    return -0.5 * ops.sum(terms, axis=-1)


@pytest.fixture
def arrays(rng):
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    y = rng.normal(size=(ROWS, 2)).astype("float32")
    return x, y, rng.uniform(0.5, 2.0, ROWS).astype("float32")


def _predictor(outputs=2):
    return linear(FEATURES, outputs)


def _evaluate(model, packed):
    model.compile()
    return model.evaluate(packed, batch_size=ROWS, verbose=0, return_dict=True)


def _reloaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras", compile=False)


def _squares(predictor, x, y):
    return np.square(predictor.predict(x, verbose=0).astype("float64") - y)


# Parameters ----------------------------------------------------------------------


def test_a_further_parameter_is_an_input_of_one_number_a_row(arrays, tmp_path):
    x, y, delta = arrays
    predictor = _predictor()
    model = alk.build_training_model(predictor, scaled_error)
    packed = alk.pack_inputs(model, x, y, delta=delta)

    logs = _evaluate(model, packed)

    expected = np.mean(_squares(predictor, x, y).mean(axis=1) * delta)
    assert packed["delta"].shape == (ROWS,)
    assert logs["scaled_error"] == pytest.approx(expected, rel=1e-6)
    assert _evaluate(_reloaded(model, tmp_path), packed) == pytest.approx(logs, rel=1e-6)


def test_inputs_give_the_parameter_another_shape(arrays):
    x, y, _ = arrays
    delta = np.abs(y)

    def elementwise(y_true, y_pred, delta):
        return ops.square(y_true - y_pred) * delta

    predictor = _predictor()
    model = alk.build_training_model(
        predictor, elementwise, inputs={"delta": keras.Input((2,))}
    )

    logs = _evaluate(model, alk.pack_inputs(model, x, y, delta=delta))

    expected = np.mean(_squares(predictor, x, y) * delta)
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_parameter_with_a_default_is_no_input(arrays, tmp_path):
    x, y, _ = arrays
    predictor = _predictor()
    model = alk.build_training_model(predictor, penalised)
    packed = alk.pack_inputs(model, x, y)

    logs = _evaluate(model, packed)

    assert set(packed) == {"x", "y_true"}
    expected = _squares(predictor, x, y).mean() + 0.5
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    assert _evaluate(_reloaded(model, tmp_path), packed) == pytest.approx(logs, rel=1e-6)


def test_a_parameter_with_a_default_is_an_input_where_inputs_has_it(arrays):
    x, y, strength = arrays
    predictor = _predictor()
    model = alk.build_training_model(
        predictor, penalised, inputs={"strength": keras.Input(())}
    )

    logs = _evaluate(model, alk.pack_inputs(model, x, y, strength=strength))

    expected = _squares(predictor, x, y).mean() + strength.mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_parameter_may_be_a_feature(arrays):
    x, y, _ = arrays

    def heteroscedastic(y_true, y_pred, x):
        return ops.mean(ops.square(y_true - y_pred), axis=-1) * ops.exp(x[:, 0])

    predictor = _predictor()
    model = alk.build_training_model(predictor, heteroscedastic)

    logs = _evaluate(model, alk.pack_inputs(model, x, y))

    assert [tensor.name for tensor in model.inputs] == ["x", "y_true"]
    expected = np.mean(_squares(predictor, x, y).mean(axis=1) * np.exp(x[:, 0]))
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_training_tells_fit_from_evaluate(arrays):
    x, y, _ = arrays

    def three_times_in_fit(y_true, y_pred, training):
        return mean_square(y_true, y_pred) * (3.0 if training else 1.0)

    model = alk.build_training_model(_predictor(), three_times_in_fit)
    packed = alk.pack_inputs(model, x, y)
    before = _evaluate(model, packed)["loss"]

    history = model.fit(packed, batch_size=ROWS, verbose=0).history

    assert history["loss"][0] == pytest.approx(3 * before, rel=1e-6)


@pytest.mark.parametrize("shape", ["scalar", "row", "element"])
def test_what_a_function_returns_is_averaged(shape, arrays):
    x, y, _ = arrays
    axes = {"scalar": None, "row": -1}

    def squares(y_true, y_pred):
        square = ops.square(y_true - y_pred)
        return square if shape == "element" else ops.mean(square, axis=axes[shape])

    predictor = _predictor()
    model = alk.build_training_model(predictor, squares)

    logs = _evaluate(model, alk.pack_inputs(model, x, y))

    expected = _squares(predictor, x, y).mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_keyword_only_and_positional_only_parameters_are_filled(arrays):
    x, y, delta = arrays

    def strict(y_true, y_pred, /, *, delta, **further):
        return scaled_error(y_true, y_pred, delta)

    one = alk.build_training_model(predictor := _predictor(), strict)
    other = alk.build_training_model(predictor, scaled_error)
    packed = alk.pack_inputs(one, x, y, delta=delta)

    assert _evaluate(one, packed)["loss"] == _evaluate(other, packed)["loss"]


def test_a_vector_of_targets_meets_a_column_of_predictions_row_by_row(arrays):
    x, y, _ = arrays
    predictor = _predictor(1)
    model = alk.build_training_model(
        predictor, mean_square, inputs={"y_true": keras.Input(())}
    )

    logs = _evaluate(model, alk.pack_inputs(model, x, y[:, 0]))

    expected = _squares(predictor, x, y[:, :1]).mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_rows_that_would_meet_all_other_rows_are_refused():
    def elementwise(y_true, y_pred, delta):  # (batch, 1) · (batch,)
        return ops.square(y_true - y_pred) * delta

    with pytest.raises(ValueError, match="compares every row with every other.*delta"):
        alk.build_training_model(_predictor(1), elementwise)


def test_rows_that_meet_all_other_rows_before_a_mean_are_refused():
    def reduced(y_true, y_pred, delta):
        return ops.mean(ops.square(y_true - y_pred) * ops.exp(delta))

    with pytest.raises(ValueError, match="compares every row with every other.*delta"):
        alk.build_training_model(_predictor(1), reduced)

    column = {"delta": keras.Input((1,), name="delta")}
    model = alk.build_training_model(_predictor(1), reduced, inputs=column)
    assert model.training_fields["delta"].shape == (1,)


def test_pairs_of_rows_that_are_meant_are_not_refused(arrays):
    x, y, _ = arrays

    def spread(y_true, y_pred):
        error = (y_true - y_pred)[:, 0]
        return ops.mean(ops.square(error[:, None] - error[None, :]))

    predictor = _predictor(1)
    model = alk.build_training_model(predictor, spread)
    model.compile()

    logs = _evaluate(model, alk.pack_inputs(model, x, y[:, :1]))

    error = y[:, 0] - predictor.predict(x, verbose=0)[:, 0]
    assert logs["loss"] == pytest.approx(2 * error.var(), rel=1e-5)


# Weights -------------------------------------------------------------------------


def test_sample_weight_multiplies_values_per_row(arrays):
    x, y, weight = arrays

    def squares(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    predictor = _predictor()
    model = alk.build_training_model(predictor, squares, sample_weight=True)

    logs = _evaluate(model, alk.pack_inputs(model, x, y, sample_weight=weight))

    expected = np.mean(_squares(predictor, x, y).mean(axis=1) * weight)
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_function_that_takes_sample_weight_gets_it_and_does_the_rest(arrays):
    x, y, weight = arrays

    def weighted(y_true, y_pred, sample_weight):
        error = ops.mean(ops.square(y_true - y_pred), axis=-1)
        return ops.sum(error * sample_weight) / ops.sum(sample_weight)

    predictor = _predictor()
    model = alk.build_training_model(predictor, weighted)

    logs = _evaluate(model, alk.pack_inputs(model, x, y, sample_weight=weight))

    expected = np.average(_squares(predictor, x, y).mean(axis=1), weights=weight)
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_weights_that_a_scalar_could_not_use_are_refused_when_building():
    with pytest.raises(ValueError, match="returns one number for the whole batch"):
        alk.build_training_model(_predictor(), mean_square, sample_weight=True)


# Kinds of callables --------------------------------------------------------------


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="raw TensorFlow code")
def test_raw_tensorflow_code_is_a_loss(arrays):
    import tensorflow as tf

    x, y, _ = arrays

    def custom_mean_squared_error(y_true, y_pred):
        return tf.math.reduce_mean(tf.square(y_true - y_pred))

    predictor = _predictor()
    model = alk.build_training_model(predictor, custom_mean_squared_error)

    logs = _evaluate(model, alk.pack_inputs(model, x, y))
    model.fit(alk.pack_inputs(model, x, y), verbose=0)

    assert logs["loss"] > 0
    assert "custom_mean_squared_error" in logs


@registered
class WeightedMSE:
    """The class version of the published recipe, with a configuration to save."""

    def __init__(self, power=2.0):
        self.power = power

    def __call__(self, y_true, y_pred, weights):
        error = ops.power(ops.abs(y_true - y_pred), self.power)
        return ops.sum(weights * error) / ops.sum(weights)

    def get_config(self):
        return {"power": self.power}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_an_object_with_call_is_a_loss_and_keeps_its_config(arrays, tmp_path):
    x, y, _ = arrays
    weights = np.abs(y) + 0.1
    predictor = _predictor()
    model = alk.build_training_model(
        predictor, WeightedMSE(power=4.0), inputs={"weights": keras.Input((2,))}
    )
    packed = alk.pack_inputs(model, x, y, weights=weights)

    logs = _evaluate(model, packed)

    expected = np.average(_squares(predictor, x, y) ** 2, weights=weights)
    assert logs["weighted_mse"] == pytest.approx(expected, rel=1e-5)
    assert _evaluate(_reloaded(model, tmp_path), packed) == pytest.approx(logs, rel=1e-6)


def test_a_partial_and_a_lambda_train(arrays):
    x, y, _ = arrays
    half = functools.partial(scaled_error, delta=0.5)
    predictor = _predictor()
    model = alk.build_training_model(
        predictor, [half, lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred))]
    )

    logs = _evaluate(model, alk.pack_inputs(model, x, y))

    assert set(logs) == {"loss", "scaled_error", "lambda"}
    assert logs["scaled_error"] == pytest.approx(logs["lambda"] / 2, rel=1e-6)


def test_two_functions_of_one_name_take_names_of_their_own(arrays):
    x, y, _ = arrays
    losses = [
        FunctionLoss(lambda y_true, y_pred: ops.mean(ops.square(y_pred)), name="size"),
        lambda y_true, y_pred: ops.mean(ops.square(y_true - y_pred)),
    ]

    model = alk.build_training_model(_predictor(), losses)

    assert {"size", "lambda"} < set(_evaluate(model, alk.pack_inputs(model, x, y)))


def test_a_function_named_loss_stands_beside_the_total(arrays):
    x, y, _ = arrays

    def loss(y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred))

    model = alk.build_training_model(_predictor(), loss, loss_weights=2.0)

    logs = _evaluate(model, alk.pack_inputs(model, x, y))
    assert logs["loss"] == pytest.approx(2 * logs["loss_loss"], rel=1e-6)


# keras.losses.Loss subclasses ----------------------------------------------------


class CustomMSE(keras.losses.Loss):
    """As published: it forgets `get_config`."""

    def __init__(self, regularization_factor=0.1, name="custom_mse"):
        super().__init__(name=name)
        self.regularization_factor = regularization_factor

    def call(self, y_true, y_pred):
        mse = ops.mean(ops.square(y_true - y_pred))
        return mse + ops.mean(ops.square(0.5 - y_pred)) * self.regularization_factor


@registered
class RegisteredMSE(CustomMSE):
    pass


@registered
class Quantile(keras.losses.Loss):
    def __init__(self, q, reduction="sum_over_batch_size", name="quantile"):
        super().__init__(name=name, reduction=reduction)
        self.q = q

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.q * error, (self.q - 1) * error), axis=-1)

    def get_config(self):
        return {**super().get_config(), "q": self.q}


@registered
class PerClass(keras.losses.Loss):
    def __init__(self, factors):
        super().__init__(name="per_class")
        self.factors = np.asarray(factors, "float32")

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred) * ops.array(self.factors), axis=-1)


@registered
class Forgetful(keras.losses.Loss):
    def __init__(self, alpha):
        super().__init__(name="forgetful")
        self.strength = alpha

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1) * self.strength


@pytest.mark.parametrize(
    "loss",
    [RegisteredMSE(0.7), Quantile(0.9), Quantile(0.9, "sum"), PerClass([1.0, 3.0])],
    ids=["published", "quantile", "quantile_sum", "per_class"],
)
@pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
def test_a_subclass_is_that_of_keras_and_keeps_its_arguments(
    loss, is_weighted, arrays, tmp_path
):
    x, y, weight = arrays
    weight = weight if is_weighted else None
    predictor = _predictor()
    model = alk.build_training_model(predictor, loss, sample_weight=is_weighted)
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)

    logs = _evaluate(model, packed)
    reloaded = _evaluate(_reloaded(model, tmp_path), packed)

    predictor.compile(loss=loss)
    expected = predictor.evaluate(x, y, sample_weight=weight, batch_size=ROWS, verbose=0)
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    assert reloaded == pytest.approx(logs, rel=1e-6)


# Saving --------------------------------------------------------------------------


def _unregistered(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


class _Unregistered:
    def __call__(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred))


@pytest.mark.parametrize(
    "loss, shown",
    [
        (_unregistered, "function `_unregistered`"),
        (lambda y_true, y_pred: ops.mean(y_pred), "function `<lambda>`"),
        (functools.partial(scaled_error, delta=2.0), r"function `partial\(scaled_error\)`"),
        (_Unregistered(), "class `_Unregistered`"),
        (CustomMSE(), "class `CustomMSE`"),
    ],
    ids=["function", "lambda", "partial", "object", "loss"],
)
def test_what_is_not_registered_says_on_save_how_to(loss, shown, tmp_path):
    model = alk.build_training_model(_predictor(), loss)

    with pytest.raises(ValueError, match=f"{shown} cannot be saved.*register_keras"):
        model.save(tmp_path / "model.keras")


def test_a_class_that_would_lose_an_argument_is_refused_on_save(tmp_path):
    model = alk.build_training_model(_predictor(), Forgetful(alpha=2.0))

    with pytest.raises(ValueError, match=r"losing its arguments \['alpha'\].*get_config"):
        model.save(tmp_path / "model.keras")


# Intermediate tensors ------------------------------------------------------------


class Sampling(keras.layers.Layer):
    """z = mean + deviation · noise."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.noise = keras.random.SeedGenerator(0)

    def call(self, z_mean, z_log_var):
        noise = keras.random.normal(ops.shape(z_mean), seed=self.noise)
        return z_mean + ops.exp(0.5 * z_log_var) * noise


registered(Sampling)


def _vae():
    x = keras.Input((FEATURES,), name="x")
    h = keras.layers.Dense(8, "relu")(x)
    z_mean = keras.layers.Dense(2, name="z_mean")(h)
    z_log_var = keras.layers.Dense(2, name="z_log_var")(h)
    z = Sampling()(z_mean, z_log_var)
    out = keras.layers.Dense(FEATURES)(keras.layers.Dense(8, "relu")(z))
    return keras.Model(x, out), {"z_mean": z_mean, "z_log_var": z_log_var}


def test_a_vae_trains_saves_and_reconstructs_from_features_alone(arrays, tmp_path):
    x, _, _ = arrays
    predictor, tensors = _vae()
    model = alk.build_training_model(
        predictor,
        ["mse", kl_to_standard_normal],
        loss_weights=[1.0, 0.1],
        tensors=tensors,
    )
    packed = alk.pack_inputs(model, x, x)
    encoder = keras.Model(predictor.input, [tensors["z_mean"], tensors["z_log_var"]])

    logs = _evaluate(model, packed)
    z_mean, z_log_var = (z.astype("float64") for z in encoder.predict(x, verbose=0))
    divergence = -0.5 * np.sum(1 + z_log_var - z_mean**2 - np.exp(z_log_var), axis=1)
    assert logs["kl_to_standard_normal"] == pytest.approx(divergence.mean(), rel=1e-5)

    model.compile(keras.optimizers.Adam(0.02))
    history = model.fit(packed, epochs=10, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    reloaded = _reloaded(model, tmp_path)
    kl = "kl_to_standard_normal"
    assert _evaluate(reloaded, packed)[kl] == pytest.approx(
        _evaluate(model, packed)[kl], rel=1e-6
    )
    exported = alk.export_inference_model(reloaded)
    assert exported.predict(x, verbose=0).shape == x.shape


def test_a_penultimate_layer_feeds_a_loss(arrays):
    x, y, _ = arrays

    def sparse_features(features):
        return ops.mean(ops.abs(features), axis=-1)

    inputs = keras.Input((FEATURES,), name="x")
    hidden = keras.layers.Dense(5, "tanh")(inputs)
    predictor = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    model = alk.build_training_model(
        predictor, ["mse", sparse_features], tensors={"features": hidden}
    )

    logs = _evaluate(model, alk.pack_inputs(model, x, y))

    values = keras.Model(inputs, hidden).predict(x, verbose=0)
    assert logs["sparse_features"] == pytest.approx(np.abs(values).mean(), rel=1e-6)


def test_a_tensor_that_no_loss_takes_is_refused():
    predictor, tensors = _vae()

    with pytest.raises(ValueError, match=r"`tensors=` names \['z_log_var', 'z_mean'\]"):
        alk.build_training_model(predictor, "mse", tensors=tensors)


def test_a_tensor_of_another_graph_is_refused():
    inner = linear(FEATURES, 4, name=None)
    x = keras.Input((FEATURES,), name="x")
    predictor = keras.Model(x, keras.layers.Dense(2)(inner(x)))

    def size(features):
        return ops.mean(ops.square(features), axis=-1)

    with pytest.raises(ValueError, match=r"`tensors\['features'\]` must be computed from"):
        alk.build_training_model(
            predictor, ["mse", size], tensors={"features": inner.outputs[0]}
        )
    with pytest.raises(TypeError, match=r"`tensors\['features'\]` must be a KerasTensor"):
        alk.build_training_model(predictor, ["mse", size], tensors={"features": "dense"})


def test_inputs_that_no_loss_takes_are_refused():
    with pytest.raises(ValueError, match=r"`inputs=` names \['dleta'\].*\['y_true'\]"):
        alk.build_training_model(_predictor(), "mse", inputs={"dleta": keras.Input(())})


# What is refused -----------------------------------------------------------------


@pytest.mark.parametrize("loss", [lambda true, pred: ops.mean(true - pred), np.mean])
def test_a_function_without_a_prediction_is_told_to_name_its_parameters(loss):
    with pytest.raises(ValueError, match="takes no prediction.*`y_true`, `y_pred`"):
        alk.build_training_model(_predictor(), loss)


@pytest.mark.parametrize("returned", [None, {"a": 1.0}, (1.0, 2.0)])
def test_a_function_that_returns_no_tensor_is_refused(returned):
    with pytest.raises(TypeError, match="must return a scalar or a value per row"):
        alk.build_training_model(_predictor(), lambda y_true, y_pred: returned)
