"""A recipe of weighted RMSE with `add_loss`, on its own shapes: 200 rows, 100 outputs."""

import keras
import numpy as np
import oracles
import pytest

import addloss_kit as alk
from addloss_kit.losses import WeightedMSE, WeightedResidualNorm, WeightedRMSE

ROWS, FEATURES, OUTPUTS = 200, 10, 100


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(ROWS, FEATURES)).astype("float32")
    y = rng.uniform(size=(ROWS, OUTPUTS)).astype("float32")
    weight = rng.uniform(size=(ROWS, OUTPUTS)).astype("float32")
    return x, y, weight


def a_predictor():
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(256),
            keras.layers.Dense(OUTPUTS),
        ]
    )


TERMS = {
    "WeightedRMSE": (WeightedRMSE, oracles.weighted_rmse),
    "WeightedResidualNorm": (WeightedResidualNorm, oracles.weighted_residual_norm),
}
each_term = pytest.mark.parametrize("name", TERMS)
each_over = pytest.mark.parametrize("over", ["sample", "batch"])


@each_term
@each_over
def test_weights_that_differ_between_samples(name, over, data):
    x, y, weight = data
    term_class, oracle = TERMS[name]
    predictor = a_predictor()
    model = alk.build_training_model(predictor, term_class(over=over))
    model.compile("adam")
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)
    history = model.fit(packed, y=None, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]

    inference = alk.export_inference_model(model)
    y_pred = inference.predict(x, verbose=0)
    np.testing.assert_array_equal(y_pred, predictor.predict(x, verbose=0))

    # All rows at once, for `over="batch"` depends on what a batch is.
    loss, _ = model.evaluate(packed, batch_size=ROWS, verbose=0)
    whole = predictor.predict(x, batch_size=ROWS, verbose=0)
    assert loss == pytest.approx(oracle(y, whole, weight, over), rel=1e-6)

    # And in batches of 64, 64, 64 and 8, by the mean over rows.
    loss, _ = model.evaluate(packed, batch_size=64, verbose=0)
    parts = np.split(np.arange(ROWS), [64, 128, 192])
    values = [oracle(y[p], whole[p], weight[p], over) for p in parts]
    expected = np.average(values, weights=[len(p) for p in parts])
    assert loss == pytest.approx(expected, rel=1e-6)


def test_over_sample_does_not_depend_on_the_batches(data):
    x, y, weight = data
    model = alk.build_training_model(a_predictor(), WeightedRMSE(over="sample"))
    model.compile("adam")
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)
    whole, _ = model.evaluate(packed, batch_size=ROWS, verbose=0)
    parts, _ = model.evaluate(packed, batch_size=7, verbose=0)
    assert parts == pytest.approx(whole, rel=1e-6)


@each_over
def test_one_weight_vector_for_all_samples_in_a_training_model(over, data):
    x, y, weight = data
    predictor = a_predictor()
    model = alk.build_training_model(predictor, WeightedRMSE(weights=weight[0], over=over))
    model.compile("adam")
    packed = alk.pack_inputs(model, x, y)
    assert list(packed) == [model.inputs[0].name, "y_true"]
    history = model.fit(packed, y=None, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    loss, _ = model.evaluate(packed, batch_size=ROWS, verbose=0)
    y_pred = predictor.predict(x, batch_size=ROWS, verbose=0)
    repeated = np.tile(weight[0], (ROWS, 1))
    assert loss == pytest.approx(oracles.weighted_rmse(y, y_pred, repeated, over), rel=1e-6)


@each_over
def test_one_weight_vector_for_all_samples_in_a_plain_compile(over, data):
    x, y, weight = data
    predictor = a_predictor()
    predictor.compile("adam", loss=WeightedRMSE(weights=weight[0], over=over))
    history = predictor.fit(x, y, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    loss = predictor.evaluate(x, y, batch_size=ROWS, verbose=0)
    y_pred = predictor.predict(x, batch_size=ROWS, verbose=0)
    repeated = np.tile(weight[0], (ROWS, 1))
    assert loss == pytest.approx(oracles.weighted_rmse(y, y_pred, repeated, over), rel=1e-6)


def test_the_wrapper_of_the_recipe_is_the_residual_norm_over_the_batch(data):
    # Its sum of weights is multiplied by the number of rows, as the term's is.
    x, y, weight = data
    predictor = a_predictor()
    predictor.compile("adam", loss=WeightedResidualNorm(weights=weight[0]))
    loss = predictor.evaluate(x, y, batch_size=ROWS, verbose=0)
    y_pred = predictor.predict(x, batch_size=ROWS, verbose=0).astype("float64")
    shared = weight[0].astype("float64")
    norm = np.sqrt(np.sum(shared * np.square(y - y_pred)))
    # Single precision on both sides: 2e-6 was seen on torch.
    assert loss == pytest.approx(norm / (shared.sum() * ROWS), rel=1e-5)


def test_the_class_version_gives_0_8():
    y_true = np.array([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    y_pred = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]])
    weights = np.array([0.25, 0.50, 1.0, 0.75])
    assert float(WeightedMSE()(y_true, y_pred, weights)) == pytest.approx(0.8, rel=1e-6)
    assert float(alk.functional.weighted_mse(y_true, y_pred, weights)) == pytest.approx(
        0.8, rel=1e-6
    )


def test_the_symbolic_call_of_the_recipe_works_again(data):
    x, y, weight = data
    inp = keras.Input((FEATURES,), name="x")
    true = keras.Input((OUTPUTS,), name="y_true")
    weights = keras.Input((OUTPUTS,), name="sample_weight")
    pred = keras.layers.Dense(OUTPUTS)(keras.layers.Dense(256)(inp))
    model = keras.Model([inp, true, weights], pred)
    residuals = keras.ops.sum(weights * keras.ops.square(true - pred))
    model = alk.add_loss(model, keras.ops.sqrt(residuals) / keras.ops.sum(weights))
    model.compile("adam", loss=None)
    history = model.fit([x, y, weight], y=None, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]

    inference = alk.export_inference_model(model)
    y_pred = inference.predict(x, batch_size=ROWS, verbose=0)
    loss, _ = model.evaluate([x, y, weight], batch_size=ROWS, verbose=0)
    expected = oracles.weighted_residual_norm(y, y_pred, weight)
    assert loss == pytest.approx(expected, rel=1e-6)
