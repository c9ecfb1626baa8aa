"""AsymmetricAbsoluteError: scikit-learn's pinball loss and plain NumPy are the oracles."""

import keras
import numpy as np
import pytest
from keras import ops
from predictors import linear
from sklearn.metrics import mean_absolute_error, mean_pinball_loss

import addloss_kit as alk
from addloss_kit.losses import AsymmetricAbsoluteError


@pytest.fixture
def targets(rng):
    return rng.normal(size=(50, 3)).astype("float32")


@pytest.fixture
def predictions(rng):
    return rng.normal(size=(50, 3)).astype("float32")


def _price(y_true, y_pred, over, under):
    excess = y_pred.astype("float64") - y_true
    return np.where(excess > 0, over * excess, -under * excess)


def test_it_is_four_times_the_pinball_loss_at_a_quarter(targets, predictions):
    value = float(AsymmetricAbsoluteError(3, 1)(targets, predictions))

    # A price of 3 above and 1 below is 4 · (0.75 above, 0.25 below).
    expected = 4 * mean_pinball_loss(targets, predictions, alpha=0.25)
    assert value == pytest.approx(expected, rel=1e-6)


def test_equal_prices_of_one_are_the_mean_absolute_error(targets, predictions):
    value = float(AsymmetricAbsoluteError(1, 1)(targets, predictions))

    assert value == pytest.approx(mean_absolute_error(targets, predictions), rel=1e-6)


def test_the_defaults_are_the_seed_prices(targets, predictions):
    value = float(AsymmetricAbsoluteError()(targets, predictions))

    expected = _price(targets, predictions, 3, 1).mean()
    assert value == pytest.approx(expected, rel=1e-6)


def test_a_weight_per_row_weighs_the_mean_of_the_row(targets, predictions, rng):
    weight = rng.uniform(0, 2, 50).astype("float32")

    value = float(AsymmetricAbsoluteError()(targets, predictions, weight))

    expected = (weight * _price(targets, predictions, 3, 1).mean(axis=1)).mean()
    assert value == pytest.approx(expected, rel=1e-6)


def test_rows_without_weight_change_nothing_but_the_count(targets, predictions):
    weight = np.r_[np.ones(40), np.zeros(10)].astype("float32")

    value = float(AsymmetricAbsoluteError()(targets, predictions, weight))

    expected = _price(targets[:40], predictions[:40], 3, 1).mean() * 40 / 50
    assert value == pytest.approx(expected, rel=1e-6)


def test_the_order_of_rows_does_not_matter(targets, predictions, rng):
    order = rng.permutation(50)
    loss = AsymmetricAbsoluteError()

    value = float(loss(targets[order], predictions[order]))

    assert value == pytest.approx(float(loss(targets, predictions)), rel=1e-6)


def test_a_vector_of_targets_meets_a_column_of_predictions_row_by_row(rng):
    y_true, y_pred = rng.normal(size=20), rng.normal(size=(20, 1))

    value = float(AsymmetricAbsoluteError()(y_true, y_pred))

    expected = _price(y_true, y_pred[:, 0], 3, 1).mean()
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "start, slope",
    # Per row of 2: 3/2 above the target, -1/2 below it, 0 on it.
    [([[1.0], [-1.0]], [1.5, -0.5]), ([[0.0], [0.0]], [0.0, 0.0])],
    ids=["above_and_below", "perfect_fit"],
)
def test_the_gradient_is_the_price_of_the_side(start, slope):
    y_pred = keras.Variable(start)
    loss = AsymmetricAbsoluteError()
    model = _OneVariable(y_pred, loss)

    gradient = model.gradient(np.zeros((2, 1), "float32"))

    np.testing.assert_allclose(gradient[:, 0], slope, atol=1e-7)


class _OneVariable:
    """The gradient of a loss by its prediction, from one step of plain descent."""

    def __init__(self, variable, loss):
        layer = keras.layers.Dense(1, use_bias=False)
        rows = variable.shape[0]
        predictor = keras.Sequential([keras.Input((rows,)), layer])
        # Row i of the identity picks weight i: the weights are the predictions.
        layer.kernel.assign(variable)
        self.layer, self.before = layer, ops.convert_to_numpy(variable)
        self.model = alk.build_training_model(predictor, loss)
        self.model.compile(keras.optimizers.SGD(1.0))
        self.x = np.eye(rows, dtype="float32")

    def gradient(self, y_true):
        self.model.train_on_batch(alk.pack_inputs(self.model, self.x, y_true))
        return self.before - ops.convert_to_numpy(self.layer.kernel)


def _fit_in_one_epoch(model, x, y, steps):
    """Full-batch steps, as the rows over and over: many short epochs are slow."""
    again = alk.pack_inputs(model, np.tile(x, (steps, 1)), np.tile(y.T, steps).T)
    model.fit(again, batch_size=x.shape[0], shuffle=False, verbose=0)


def test_the_best_constant_is_the_quantile_of_the_prices(rng):
    y = rng.normal(size=(400, 1)).astype("float32")
    steps = 300
    # No input but a constant: what is learnt is the bias alone.
    layer = keras.layers.Dense(1, kernel_initializer="zeros")
    predictor = keras.Sequential([keras.Input((1,)), layer])
    model = alk.build_training_model(predictor, AsymmetricAbsoluteError(3, 1))
    schedule = keras.optimizers.schedules.CosineDecay(0.05, steps)
    model.compile(keras.optimizers.Adam(schedule))

    _fit_in_one_epoch(model, np.zeros((400, 1)), y, steps)

    bias = float(ops.convert_to_numpy(layer.bias)[0])
    assert bias == pytest.approx(np.quantile(y, 0.25), abs=0.02)


def test_a_linear_model_ends_at_the_weights_of_the_linear_programme(rng):
    # The seed's problem: y = x1 + 2·x2 without a bias, too much costs three times.
    from scipy.optimize import linprog

    x = rng.normal(2.0, 1.0, (20, 2)).astype("float32")
    y = (x @ [1.0, 2.0] + rng.normal(0, 0.5, 20)).astype("float32")
    predictor = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model = alk.build_training_model(predictor, AsymmetricAbsoluteError(3, 1))
    steps = 600
    schedule = keras.optimizers.schedules.CosineDecay(0.1, steps)
    model.compile(keras.optimizers.Adam(schedule))

    _fit_in_one_epoch(model, x, y, steps)
    data = alk.pack_inputs(model, x, y)
    value = model.evaluate(data, batch_size=20, verbose=0, return_dict=True)["loss"]

    # Minimise the mean of 3·above + below, where x·w - y = above - below.
    cost = np.r_[0, 0, np.full(20, 3 / 20), np.full(20, 1 / 20)]
    equations = np.c_[x, -np.eye(20), np.eye(20)]
    bounds = [(None, None)] * 2 + [(0, None)] * 40
    best = linprog(cost, A_eq=equations, b_eq=y, bounds=bounds)
    assert value == pytest.approx(best.fun, rel=1e-2)


def test_it_survives_save_and_reload_with_its_prices(targets, predictions, tmp_path):
    predictor = linear(3, 3, name=None)
    model = alk.build_training_model(
        predictor, AsymmetricAbsoluteError(over_price=5, under_price=0.5)
    )
    data = alk.pack_inputs(model, predictions, targets)
    model.compile()

    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    reloaded.compile()

    expected = model.evaluate(data, verbose=0)
    assert reloaded.evaluate(data, verbose=0) == pytest.approx(expected, rel=1e-6)
    (term,) = reloaded.endpoint.terms
    assert (term.over_price, term.under_price) == (5.0, 0.5)


@pytest.mark.parametrize("prices", [{"over_price": -1}, {"under_price": float("inf")}])
def test_a_price_that_is_negative_or_infinite_is_refused(prices):
    with pytest.raises(ValueError, match=f"`{next(iter(prices))}` must lie in"):
        AsymmetricAbsoluteError(**prices)


def test_one_price_may_be_0_but_not_both():
    assert float(AsymmetricAbsoluteError(0, 0.5)([[0.0], [0.0]], [[2.0], [-2.0]])) == 0.5
    with pytest.raises(ValueError, match="must not both be 0"):
        AsymmetricAbsoluteError(0, 0)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="`y_pred` must have the shape of `y_true`"):
        AsymmetricAbsoluteError()(np.zeros((4, 2)), np.zeros((4, 3)))
