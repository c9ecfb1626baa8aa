"""Terms with a weight per sample and per output, by hand, in models, in `compile`."""

import engines
import keras
import numpy as np
import oracles
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import WeightedMSE, WeightedResidualNorm, WeightedRMSE

TERMS = {
    "mse": (WeightedMSE, {}, oracles.weighted_mse),
    "rmse": (WeightedRMSE, {}, oracles.weighted_rmse),
    "rmse_sample": (
        WeightedRMSE,
        {"over": "sample"},
        lambda *a: oracles.weighted_rmse(*a, over="sample"),
    ),
    "norm": (WeightedResidualNorm, {}, oracles.weighted_residual_norm),
    "norm_sample": (
        WeightedResidualNorm,
        {"over": "sample"},
        lambda *a: oracles.weighted_residual_norm(*a, over="sample"),
    ),
}
each_term = pytest.mark.parametrize("name", TERMS)


def a_batch(rng, rows=12, outputs=3):
    x = rng.normal(size=(rows, 2)).astype("float32")
    y = rng.normal(size=(rows, outputs)).astype("float32")
    return x, y, rng.uniform(0.1, 2.0, (rows, outputs)).astype("float32")


def a_predictor(outputs=3):
    return linear(2, outputs)


def predict(model, x):
    return model.predict(x, verbose=0, batch_size=len(x))


@each_term
def test_evaluate_over_batches_is_the_mean_of_the_loops_by_rows(name, rng):
    term_class, options, oracle = TERMS[name]
    x, y, weight = a_batch(rng)
    predictor = a_predictor()
    model = alk.build_training_model(predictor, term_class(**options))
    model.compile("sgd")
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)
    logs = model.evaluate(packed, batch_size=5, verbose=0, return_dict=True)
    y_pred = predict(predictor, x)
    batches = [slice(0, 5), slice(5, 10), slice(10, 12)]
    values = [oracle(y[b], y_pred[b], weight[b]) for b in batches]
    expected = np.average(values, weights=[5, 5, 2])
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    assert logs[model.endpoint.bound_terms[0].name] == pytest.approx(expected, rel=1e-6)


@each_term
def test_one_weight_vector_for_all_rows_is_that_vector_in_each_row(name, rng):
    weights = [0.25, 0.0, 1.0]
    term_class, options, oracle = TERMS[name]
    x, y, _ = a_batch(rng)
    predictor = a_predictor()
    model = alk.build_training_model(predictor, term_class(weights=weights, **options))
    assert "sample_weight" not in [tensor.name for tensor in model.inputs]
    model.compile("sgd")
    packed = alk.pack_inputs(model, x, y)
    loss, _ = model.evaluate(packed, batch_size=12, verbose=0)
    expected = oracle(y, predict(predictor, x), np.tile(weights, (12, 1)))
    assert loss == pytest.approx(expected, rel=1e-6)


@each_term
def test_one_weight_vector_works_in_a_plain_compile(name, rng):
    term_class, options, oracle = TERMS[name]
    x, y, _ = a_batch(rng)
    predictor = a_predictor()
    weights = [0.25, 0.5, 1.0]
    predictor.compile("adam", loss=term_class(weights=weights, **options))
    expected = oracle(y, predict(predictor, x), np.tile(weights, (12, 1)))
    assert predictor.evaluate(x, y, batch_size=12, verbose=0) == pytest.approx(
        expected, rel=1e-6
    )
    history = predictor.fit(x, y, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_a_predictor_compiled_with_a_term_saves_and_loads(rng, tmp_path):
    x, y, _ = a_batch(rng)
    predictor = a_predictor()
    predictor.compile("adam", loss=WeightedRMSE(weights=[0.25, 0.5, 1.0]))
    predictor.fit(x, y, verbose=0)
    predictor.save(tmp_path / "predictor.keras")
    loaded = keras.saving.load_model(tmp_path / "predictor.keras")
    assert loaded.evaluate(x, y, verbose=0) == predictor.evaluate(x, y, verbose=0)


@each_term
def test_a_training_model_saves_and_loads_without_custom_objects(name, rng, tmp_path):
    term_class, options, _ = TERMS[name]
    x, y, weight = a_batch(rng)
    model = alk.build_training_model(a_predictor(), term_class(name="mine", **options))
    model.compile("adam")
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)
    model.fit(packed, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(packed, verbose=0, return_dict=True) == model.evaluate(
        packed, verbose=0, return_dict=True
    )
    assert loaded.endpoint.terms[0].get_config() == model.endpoint.terms[0].get_config()


@each_term
@pytest.mark.parametrize("case", ["perfect fit", "zero weights"])
def test_a_step_where_the_formula_is_0_over_0_moves_nothing(name, case):
    term_class, options, _ = TERMS[name]
    predictor = a_predictor()
    predictor.layers[0].kernel.assign(np.ones((2, 3)))
    model = alk.build_training_model(predictor, term_class(**options))
    model.compile(keras.optimizers.SGD(1.0))
    x = np.ones((4, 2), "float32")
    y = np.full((4, 3), 2.0 if case == "perfect fit" else 5.0, "float32")
    weight = np.full((4, 3), 0.0 if case == "zero weights" else 1.0, "float32")
    # Weights of 0 for all rows are refused, but a batch may have no others.
    packed = alk.pack_inputs(model, x, y, sample_weight=np.ones((4, 3)))
    logs = model.train_on_batch({**packed, "sample_weight": weight}, return_dict=True)
    assert logs["loss"] == 0.0
    np.testing.assert_array_equal(predictor.layers[0].kernel, np.ones((2, 3)))


@each_term
def test_a_masked_step_counts_as_one_without_weight(name, rng):
    term_class, options, oracle = TERMS[name]
    x = rng.normal(size=(3, 4, 2)).astype("float32")
    x[0, 2:] = x[2, :] = 0.0
    y = rng.normal(size=(3, 4, 2)).astype("float32")
    weight = rng.uniform(0.1, 2.0, (3, 4, 2)).astype("float32")
    predictor = keras.Sequential(
        [
            keras.Input((4, 2)),
            keras.layers.Masking(),
            keras.layers.Dense(2, bias_initializer="ones"),
        ]
    )
    model = alk.build_training_model(predictor, term_class(**options))
    model.compile("sgd")
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)
    loss, _ = model.evaluate(packed, verbose=0)
    kept = weight * (x != 0).any(-1, keepdims=True)
    assert loss == pytest.approx(oracle(y, predict(predictor, x), kept), rel=1e-6)


def test_large_targets_stay_finite_under_mixed_precision(rng):
    # 1000² is above float16's largest number, 65,504.
    x, y, weight = a_batch(rng)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        predictor = a_predictor()
        model = alk.build_training_model(predictor, WeightedRMSE())
    finally:
        keras.config.set_dtype_policy(before)
    model.compile("sgd")
    packed = alk.pack_inputs(model, x, 1000 * y, sample_weight=weight)
    loss, _ = model.evaluate(packed, batch_size=12, verbose=0)
    y_pred = predict(predictor, x).astype("float32")
    assert packed["y_true"].dtype == "float32"
    assert loss == pytest.approx(oracles.weighted_rmse(1000 * y, y_pred, weight), rel=1e-6)


def test_the_class_version_gives_the_published_example():
    # Outputs 2 and 3 err in the first row, output 0 in the second: by hand,
    # (1 + 0.75 + 0.25) / 2.5 = 0.8, or half of it if the weights count in both rows.
    y_true = np.array([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    y_pred = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]])
    weights = np.array([0.25, 0.5, 1.0, 0.75])
    assert float(WeightedMSE()(y_true, y_pred, weights)) == pytest.approx(0.8, rel=1e-6)
    assert float(WeightedMSE()(y_true, y_pred, np.tile(weights, (2, 1)))) == pytest.approx(
        0.4, rel=1e-6
    )


@each_term
def test_a_term_as_graph_and_by_xla_is_the_eager_one(name, rng):
    term_class, options, _ = TERMS[name]
    _, y, weight = a_batch(rng)
    term = term_class(**options)
    y_pred = (y + 1 / weight).astype("float32")
    expected = float(term(y, y_pred, weight))
    for run in engines.compiled(lambda *x: term(*x)).values():
        assert float(run(y, y_pred, weight)) == pytest.approx(expected, rel=1e-6)


def test_a_term_without_weights_says_what_to_do():
    with pytest.raises(ValueError, match=r"needs weights. Pass `sample_weight`, or"):
        WeightedRMSE()([[1.0]], [[2.0]])


@pytest.mark.parametrize(
    "weights",
    [[1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")], [0.0, 0.0], 3.0],
)
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match=r"`weights` must be finite and at least 0"):
        WeightedMSE(weights=weights)


def test_one_of_the_weights_may_be_0():
    assert float(WeightedMSE(weights=[0.0, 0.5])([[1.0, 1.0]], [[9.0, 4.0]])) == 9.0


def test_a_weight_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"one weight per output.*weights.shape=\(2,\)"):
        WeightedMSE(weights=[1.0, 2.0])([[1.0, 1.0, 1.0]], [[2.0, 2.0, 2.0]])


def test_an_unknown_over_is_refused():
    with pytest.raises(ValueError, match=r"Invalid value for argument `over`"):
        WeightedRMSE(over="rows")
