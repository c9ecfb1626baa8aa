"""add_loss and add_metric: Keras 2's symbolic calls."""

import keras
import numpy as np
import pytest
from keras import ops
from predictors import linear

import addloss_kit as alk

ROWS, FEATURES, OUTPUTS = 40, 10, 6


def weighted_residual_norm(true, pred, weights):
    """The loss of the published recipe, in `keras.ops`."""
    sum_weights = ops.sum(weights)
    resid = ops.sqrt(ops.sum(weights * ops.square(true - pred)))
    return resid / sum_weights


def _by_numpy(true, pred, weights):
    true, pred, weights = (np.asarray(a, "float64") for a in (true, pred, weights))
    return np.sqrt(np.sum(weights * (true - pred) ** 2)) / np.sum(weights)


@pytest.fixture
def arrays(rng):
    X = rng.uniform(0, 1, (ROWS, FEATURES))
    y = rng.uniform(0, 1, (ROWS, OUTPUTS))
    W = rng.uniform(0, 1, (ROWS, OUTPUTS))
    return X, y, W


def _recipe(**names):
    """The published model up to its `add_loss`, with or without Input names."""
    inp = keras.Input((FEATURES,), name=names.get("x"))
    true = keras.Input((OUTPUTS,), name=names.get("true"))
    weights = keras.Input((OUTPUTS,), name=names.get("weights"))
    x = keras.layers.Dense(16)(inp)
    pred = keras.layers.Dense(OUTPUTS)(x)
    model = keras.Model([inp, true, weights], pred)
    return model, weighted_residual_norm(true, pred, weights)


NAMES = {"x": "x", "true": "true", "weights": "weights"}


def _evaluate(model, data):
    return model.evaluate(data, batch_size=ROWS, verbose=0, return_dict=True)


# The published recipe ------------------------------------------------------------


def test_the_recipe_runs_with_one_line_changed(arrays):
    X, y, W = arrays
    model, value = _recipe()

    model = alk.add_loss(model, value)
    model.compile("adam", loss=None)
    history = model.fit([X, y, W], y=None, epochs=3, verbose=0).history

    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(history["loss"], history["loss_1"], rtol=1e-6)


def test_the_loss_is_the_formula(arrays):
    X, y, W = arrays
    model, value = _recipe()
    model = alk.add_loss(model, value)
    model.compile()

    logs = _evaluate(model, [X, y, W])

    pred = alk.export_inference_model(model).predict(X, verbose=0)
    assert logs["loss"] == pytest.approx(_by_numpy(y, pred, W), rel=1e-6)


@pytest.mark.parametrize(
    "scaled",
    [lambda value: 0.25 * value, lambda value: value * 0.25],
    ids=["left", "right"],
)
def test_a_value_times_a_number_is_a_loss(scaled, arrays):
    # Keras takes the product of a tensor of the graph and a number for a sparse tensor.
    X, y, W = arrays
    model, value = _recipe()
    model = alk.add_loss(model, scaled(value))
    model.compile()

    pred = alk.export_inference_model(model).predict(X, verbose=0)
    logs = _evaluate(model, [X, y, W])
    assert logs["loss"] == pytest.approx(0.25 * _by_numpy(y, pred, W), rel=1e-6)


def test_named_inputs_train_alike_from_a_list_and_from_a_dict(arrays):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value)
    model.compile("sgd")
    start = model.get_weights()

    from_list = model.fit([X, y, W], shuffle=False, epochs=2, verbose=0).history
    model.set_weights(start)
    packed = {"x": X, "weights": W, "true": y}
    from_dict = model.fit(packed, shuffle=False, epochs=2, verbose=0).history

    assert from_dict == from_list


def test_unnamed_inputs_are_fed_by_the_names_that_the_model_shows(arrays):
    X, y, W = arrays
    model, value = _recipe()
    model = alk.add_loss(model, value)
    model.compile()
    names = [tensor.name for tensor in model.inputs]

    from_dict = _evaluate(model, dict(zip(names, [X, y, W])))

    assert from_dict == _evaluate(model, [X, y, W])


def test_the_prediction_comes_from_features_alone(arrays, tmp_path):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value)
    model.compile("adam")
    model.fit([X, y, W], verbose=0)

    exported = alk.export_inference_model(model, tmp_path / "predictor.keras")

    assert [tensor.name for tensor in exported.inputs] == ["x"]
    loaded = keras.saving.load_model(tmp_path / "predictor.keras")
    full = model.predict([X, y, W], verbose=0)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), full, rtol=1e-5, atol=1e-6)


def test_the_model_given_stays_as_it_was(arrays):
    model, value = _recipe()

    added = alk.add_loss(model, value)

    assert not isinstance(model, alk.TrainingModel)
    assert added.name == model.name
    assert added.layers[1] in model.layers


# pack_inputs ---------------------------------------------------------------------


def test_pack_inputs_takes_the_other_inputs_by_their_names(arrays):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value)

    packed = alk.pack_inputs(model, X, true=y, weights=W)

    assert {name: array.dtype for name, array in packed.items()} == {
        "x": "float32",
        "true": "float32",
        "weights": "float32",
    }
    np.testing.assert_array_equal(packed["true"], y.astype("float32"))


def test_pack_inputs_takes_all_of_them_as_a_list_or_a_dict(arrays):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value)
    expected = alk.pack_inputs(model, X, true=y, weights=W)

    for given in ([X, y, W], {"x": X, "true": y, "weights": W}):
        packed = alk.pack_inputs(model, given)
        assert all(np.array_equal(packed[name], expected[name]) for name in expected)


def test_pack_inputs_names_what_is_missing(arrays):
    X, y, _ = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value)

    with pytest.raises(ValueError, match=r"also needs \['weights'\]. Pass `weights=`"):
        alk.pack_inputs(model, X, true=y)


# Several values ------------------------------------------------------------------


def test_several_calls_add_up(arrays):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value)
    size = ops.mean(ops.square(model.output))  # after the first call

    model = alk.add_loss(model, size, weight=0.25, name="size")
    model.compile()
    logs = _evaluate(model, [X, y, W])

    pred = alk.export_inference_model(model).predict(X, verbose=0).astype("float64")
    norm, square = _by_numpy(y, pred, W), np.mean(pred**2)
    assert logs["loss_1"] == pytest.approx(norm, rel=1e-6)
    assert logs["size"] == pytest.approx(square, rel=1e-6)
    assert logs["loss"] == pytest.approx(norm + 0.25 * square, rel=1e-6)


def test_calls_without_a_name_are_numbered():
    model, value = _recipe()

    for _ in range(3):
        model = alk.add_loss(model, value)

    assert [b.name for b in model.endpoint.bound_terms] == ["loss_1", "loss_2", "loss_3"]


def test_a_value_of_the_first_model_can_still_be_added_to_the_second(arrays):
    X, y, W = arrays
    first, value = _recipe(**NAMES)
    size = ops.mean(ops.square(first.output))

    model = alk.add_loss(alk.add_loss(first, value), size, name="size")
    model.compile()

    pred = first.predict([X, y, W], verbose=0).astype("float64")
    logs = _evaluate(model, [X, y, W])
    assert logs["size"] == pytest.approx(np.mean(pred**2), rel=1e-6)


def test_a_value_computed_from_an_added_value_is_computed_once_more(arrays):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value)
    error = model.output - model.inputs[1]
    model = alk.add_loss(model, ops.mean(ops.abs(error)), name="mae")
    worst = ops.max(ops.abs(model.output - model.inputs[1]))
    model = alk.add_metric(model, worst, name="worst")
    model.compile()

    logs = _evaluate(model, [X, y, W])

    pred = alk.export_inference_model(model).predict(X, verbose=0)
    assert logs["worst"] == pytest.approx(np.abs(pred - y).max(), rel=1e-6)
    assert logs["loss"] == pytest.approx(logs["loss_1"] + logs["mae"], rel=1e-6)


def test_regularisers_of_the_layers_stay_in_the_loss(arrays):
    X, y, W = arrays
    inp, true = keras.Input((FEATURES,)), keras.Input((OUTPUTS,))
    layer = keras.layers.Dense(OUTPUTS, kernel_regularizer=keras.regularizers.L2(0.1))
    pred = layer(inp)
    model = alk.add_loss(
        keras.Model([inp, true], pred), ops.mean(ops.square(true - pred)), name="mse"
    )
    model.compile()

    logs = _evaluate(model, [X, y])

    kernel = ops.convert_to_numpy(layer.kernel).astype("float64")
    assert logs["loss"] == pytest.approx(logs["mse"] + 0.1 * np.sum(kernel**2), rel=1e-6)


def test_onto_a_model_of_build_training_model(arrays, tmp_path):
    X, y, _ = arrays
    predictor = linear(FEATURES, OUTPUTS)
    model = alk.build_training_model(predictor, "mse", metrics=["mae"])
    bias = ops.mean(model.output - model.inputs[1])

    model = alk.add_loss(model, ops.square(bias), weight=2.0, name="squared_bias")
    model = alk.add_metric(model, bias, name="bias")
    model.compile()
    data = alk.pack_inputs(model, X, y)
    logs = _evaluate(model, data)

    error = predictor.predict(X, verbose=0).astype("float64") - y
    assert set(logs) == {"loss", "mse", "squared_bias", "bias", "mae"}
    assert logs["bias"] == pytest.approx(error.mean(), rel=1e-5)
    assert logs["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    expected = np.mean(error**2) + 2 * error.mean() ** 2
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    exported = alk.export_inference_model(model, tmp_path / "predictor.keras")
    assert exported.predict(X, verbose=0).shape == (ROWS, OUTPUTS)


def test_training_equals_compile_with_the_same_loss(arrays):
    X, y, _ = arrays
    inp, true = keras.Input((FEATURES,)), keras.Input((OUTPUTS,))
    pred = keras.layers.Dense(OUTPUTS)(inp)
    plain = keras.Model(inp, pred)
    start = plain.get_weights()
    model = alk.add_loss(keras.Model([inp, true], pred), ops.mean(ops.square(true - pred)))

    model.compile("adam")
    ours = model.fit([X, y], batch_size=16, epochs=2, shuffle=False, verbose=0).history
    plain.set_weights(start)
    plain.compile("adam", loss="mse")
    theirs = plain.fit(X, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history

    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)


# add_metric ----------------------------------------------------------------------


def test_a_metric_is_watched_and_moves_no_weight(arrays):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    size = ops.mean(ops.square(model.output))
    model = alk.add_loss(model, value)
    start = model.get_weights()
    with_metric = alk.add_metric(model, size, name="size")
    with_metric.compile("sgd")
    model.compile("sgd")

    watched = with_metric.fit([X, y, W], shuffle=False, verbose=0).history
    ended = with_metric.get_weights()
    model.set_weights(start)
    plain = model.fit([X, y, W], shuffle=False, verbose=0).history

    assert watched["loss"] == plain["loss"]
    assert watched["size"][0] > 0
    for one, other in zip(ended, model.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_the_history_shows_every_value_for_validation_too(arrays):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value, name="norm")
    model = alk.add_metric(model, ops.mean(model.output), name="mean")
    model.compile()

    data = [X, y, W]
    history = model.fit(data, validation_data=(data,), batch_size=ROWS, verbose=0).history

    assert set(history) == {"loss", "norm", "mean", "val_loss", "val_norm", "val_mean"}
    logs = _evaluate(model, [X, y, W])
    assert history["val_norm"][-1] == pytest.approx(logs["norm"], rel=1e-5)


# Save and reload -----------------------------------------------------------------


@pytest.mark.parametrize("names", [NAMES, {}], ids=["named", "unnamed"])
def test_it_survives_save_and_reload_and_trains_on(names, arrays, tmp_path):
    X, y, W = arrays
    model, value = _recipe(**names)
    model = alk.add_loss(model, value)
    model = alk.add_loss(model, ops.mean(ops.square(model.output)), weight=0.5, name="size")
    model = alk.add_metric(model, ops.max(model.output), name="largest")
    model.compile("adam")
    model.fit([X, y, W], verbose=0)

    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")

    before, after = _evaluate(model, [X, y, W]), _evaluate(reloaded, [X, y, W])
    assert after == pytest.approx(before, rel=1e-6)
    reloaded.fit([X, y, W], verbose=0)
    exported = alk.export_inference_model(reloaded)
    assert len(exported.inputs) == 1
    again = alk.add_metric(reloaded, ops.min(reloaded.output), name="least")
    again.compile()
    assert _evaluate(again, [X, y, W])["loss_1"] > 0


# What is refused -----------------------------------------------------------------


def test_a_value_that_is_not_scalar_is_refused_with_the_remedy():
    inp, true = keras.Input((3,)), keras.Input((1,))
    pred = keras.layers.Dense(1)(inp)
    model = keras.Model([inp, true], pred)

    with pytest.raises(ValueError, match=r"must be a scalar.*`keras.ops.mean\(value\)`"):
        alk.add_loss(model, ops.square(true - pred))


def test_rows_that_meet_all_other_rows_are_refused_with_the_remedy():
    x, weight = keras.Input((3,), name="x"), keras.Input((), name="weight")
    y_pred = keras.layers.Dense(1)(x)
    model = keras.Model([x, weight], y_pred)

    with pytest.raises(ValueError, match=r"computed from \['weight'\].*x\[:, 0\]"):
        alk.add_loss(model, ops.mean(weight * ops.square(y_pred)))


def test_an_input_that_the_model_lacks_is_refused_with_the_remedy():
    inp, true = keras.Input((3,), name="x"), keras.Input((1,), name="true")
    pred = keras.layers.Dense(1)(inp)
    model = keras.Model(inp, pred)

    with pytest.raises(
        ValueError,
        match=r"needs the Inputs \['true'\].*keras.Model\(\[\*model.inputs, true\]",
    ):
        alk.add_loss(model, ops.mean(ops.square(true - pred)))


@pytest.mark.parametrize("value", [3.0, np.float32(1), lambda: 1.0])
def test_what_is_no_tensor_of_the_graph_is_refused(value):
    model, _ = _recipe()

    with pytest.raises(TypeError, match="`value` must be a KerasTensor"):
        alk.add_loss(model, value)


def test_a_model_that_is_not_functional_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    _, value = _recipe()

    with pytest.raises(TypeError, match="must be a functional model"):
        alk.add_loss(Own(), value)


def test_a_name_twice_is_refused():
    model, value = _recipe()
    model = alk.add_loss(model, value, name="norm")

    with pytest.raises(ValueError, match="`norm` is taken"):
        alk.add_metric(model, value, name="norm")


def test_a_value_named_loss_stands_beside_the_total(arrays):
    X, y, W = arrays
    model, value = _recipe()
    model = alk.add_loss(model, value, weight=3.0, name="loss")
    model.compile()

    logs = _evaluate(model, [X, y, W])

    assert logs["loss"] == pytest.approx(3 * logs["loss_loss"], rel=1e-6)


def test_arrays_of_different_rows_are_refused(arrays):
    X, y, W = arrays
    model, value = _recipe(**NAMES)
    model = alk.add_loss(model, value)
    model.compile()

    with pytest.raises(ValueError, match="must have one row per row of"):
        model.fit([X, y[:-1], W], verbose=0)


SQUARE = "of the output", lambda y_true, y_pred: ops.mean(ops.square(y_pred))
DISTANCE = "of both", lambda y_true, y_pred: ops.mean(ops.abs(y_true - y_pred))


@pytest.mark.parametrize("first", [SQUARE, DISTANCE], ids=lambda pair: pair[0])
@pytest.mark.parametrize("second", [SQUARE, DISTANCE], ids=lambda pair: pair[0])
def test_values_of_a_training_model_are_saved_one_after_the_other(
    first, second, tmp_path, rng
):
    x = keras.Input((3,), name="x")
    predictor = keras.Model(x, keras.layers.Dense(1)(x))
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    y_true = next(tensor for tensor in model.inputs if tensor.name == "y_true")
    for name, (_, value) in {"first": first, "second": second}.items():
        model = alk.add_loss(model, value(y_true, model.output), name=name)
    model.compile()

    x, y, ids = rng.normal(size=(8, 3)), rng.normal(size=8), np.arange(8) % 2
    packed = alk.pack_inputs(model, x, y, group_ids=ids)
    logs = model.evaluate(packed, verbose=0, return_dict=True)
    y_pred = predictor.predict(x, verbose=0)[:, 0]
    expected = {
        "of the output": np.mean(y_pred**2),
        "of both": np.mean(np.abs(y - y_pred)),
    }
    assert logs["first"] == pytest.approx(expected[first[0]], rel=1e-5)
    assert logs["second"] == pytest.approx(expected[second[0]], rel=1e-5)
    terms = sum(logs[name] for name in ("mse", "group_gap", "first", "second"))
    assert logs["loss"] == pytest.approx(terms, rel=1e-5)
    model.save(tmp_path / "model.keras")
    again = alk.load_training_model(tmp_path / "model.keras")
    assert again.evaluate(packed, verbose=0, return_dict=True) == pytest.approx(logs)
