"""From predictors of every kind to training models."""

import keras
import numpy as np
import oracles
import pytest
from keras import ops
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import GroupGap, WeightedMSE
from addloss_kit.metrics import GroupError

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(12, 1)).astype("float32")
IDS = np.tile([0, 1], 6).astype("int32")


def a_functional():
    x = keras.Input((3,), name="x")
    hidden = keras.layers.Dense(4, activation="relu", name="hidden")(x)
    return keras.Model(x, keras.layers.Dense(1, name="y")(hidden))


def a_sequential():
    return linear(3, name=None)


def with_dropout_and_batch_normalization():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )


@keras.saving.register_keras_serializable("tests_of_building")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(4, activation="relu")
        self.dropout = keras.layers.Dropout(0.5)
        self.head = keras.layers.Dense(1)

    def call(self, x, training=False):
        return self.head(self.dropout(self.hidden(x), training=training))


def a_subclassed():
    predictor = Subclassed()
    predictor(X[:2])
    return predictor


def names(model):
    return [tensor.name for tensor in model.inputs]


# Predictors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [a_functional, a_sequential, with_dropout_and_batch_normalization, a_subclassed],
)
def test_every_kind_of_predictor_trains_saves_and_exports(make, tmp_path):
    predictor = make()
    model = alk.build_training_model(predictor, ["mse", GroupGap(2)], metrics=GroupError(2))
    model.compile("adam")
    packed = alk.pack_inputs(model, X, Y, group_ids=IDS)
    history = model.fit(packed, y=None, epochs=2, verbose=0).history
    assert set(history) == {"loss", "mse", "group_gap", "group_error_0", "group_error_1"}

    y_pred = predictor.predict(X, verbose=0)
    inference = alk.export_inference_model(model, tmp_path / "predictor.keras")
    np.testing.assert_array_equal(inference.predict(X, verbose=0), y_pred)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(packed, verbose=0) == model.evaluate(packed, verbose=0)


def test_dropout_acts_in_training_only_and_batch_normalization_learns():
    predictor = with_dropout_and_batch_normalization()
    model = alk.build_training_model(predictor, "mse")
    model.compile("sgd")
    packed = alk.pack_inputs(model, X, Y)
    before = np.copy(predictor.layers[1].moving_mean)
    model.fit(packed, verbose=0)
    assert not np.allclose(before, predictor.layers[1].moving_mean)
    loss, _ = model.evaluate(packed, batch_size=12, verbose=0)
    expected = oracles.weighted_mse(Y, predictor.predict(X, verbose=0), np.ones((12, 1)))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_the_predictor_itself_is_trained():
    predictor = a_sequential()
    before = predictor.get_weights()
    model = alk.build_training_model(predictor, "mse")
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(alk.pack_inputs(model, X, Y), verbose=0)
    assert not np.allclose(before[0], predictor.get_weights()[0])


def test_plain_mse_trains_exactly_as_keras_itself():
    weights = []
    for is_ours in (False, True):
        keras.utils.set_random_seed(3)
        predictor = a_functional()
        options = {"epochs": 3, "batch_size": 5, "shuffle": False, "verbose": 0}
        if is_ours:
            model = alk.build_training_model(predictor, "mse")
            model.compile("adam")
            model.fit(alk.pack_inputs(model, X, Y), **options)
        else:
            predictor.compile("adam", "mse")
            predictor.fit(X, Y, **options)
        weights.append(predictor.get_weights())
    for plain, ours in zip(*weights):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-7)


def test_what_cannot_be_a_predictor_is_refused():
    with pytest.raises(TypeError, match=r"`predictor` must be a Keras model.*Dense"):
        alk.build_training_model(keras.layers.Dense(1), "mse")
    with pytest.raises(ValueError, match=r"`predictor` must be built"):
        alk.build_training_model(keras.Sequential([keras.layers.Dense(1)]), "mse")
    with pytest.raises(ValueError, match=r"`predictor` already has losses"):
        alk.build_training_model(alk.build_training_model(a_sequential(), "mse"), "mse")


# Inputs --------------------------------------------------------------------------


def test_inputs_are_named_after_the_arguments_of_the_losses():
    def distance(y_true, y_pred, delta):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1) * delta

    model = alk.build_training_model(a_functional(), [distance, GroupGap(2), WeightedMSE()])
    assert names(model) == ["x", "y_true", "sample_weight", "delta", "group_ids"]
    shapes = {tensor.name: (tuple(tensor.shape), tensor.dtype) for tensor in model.inputs}
    assert shapes["sample_weight"] == ((None, 1), "float32")
    assert shapes["delta"] == ((None,), "float32")
    assert shapes["group_ids"] == ((None,), "int32")


def test_weights_are_an_input_only_where_they_are_wanted():
    assert "sample_weight" not in names(alk.build_training_model(a_functional(), "mse"))
    model = alk.build_training_model(a_functional(), "mse", sample_weight=True)
    assert "sample_weight" in names(model)
    assert tuple(model.inputs[-1].shape) == (None,)


def test_an_input_given_by_hand_replaces_the_default():
    def loss(y_true, y_pred, margins):
        return ops.mean(margins * ops.square(y_true - y_pred), axis=-1)

    given = keras.Input((3,), dtype="float32", name="margins")
    model = alk.build_training_model(a_functional(), loss, inputs={"margins": given})
    assert tuple(model.inputs[-1].shape) == (None, 3)
    with pytest.raises(ValueError, match=r"`inputs=` names \['margin'\], which no loss"):
        alk.build_training_model(a_functional(), loss, inputs={"margin": given})


def test_an_intermediate_tensor_can_feed_a_loss(tmp_path):
    predictor = a_functional()
    hidden = predictor.get_layer("hidden").output

    @keras.saving.register_keras_serializable("tests_of_building")
    def activity(y_pred, hidden):
        return ops.mean(ops.square(hidden), axis=-1)

    model = alk.build_training_model(
        predictor, ["mse", activity], tensors={"hidden": hidden}
    )
    model.compile("sgd")
    packed = alk.pack_inputs(model, X, Y)
    logs = model.evaluate(packed, verbose=0, return_dict=True)
    values = keras.Model(predictor.input, hidden).predict(X, verbose=0)
    assert logs["activity"] == pytest.approx(np.mean(np.square(values)), rel=1e-6)
    model.fit(packed, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(packed, verbose=0) == model.evaluate(packed, verbose=0)


def test_a_tensor_that_no_loss_takes_is_refused():
    predictor = a_functional()
    with pytest.raises(ValueError, match=r"`tensors=` names \['h'\], which no loss"):
        alk.build_training_model(predictor, "mse", tensors={"h": predictor.output})


def test_two_wishes_for_one_input_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"`group_ids` cannot have two .*`num_groups`: 2"):
        alk.build_training_model(a_functional(), GroupGap(2), metrics=GroupError(3))


# Several outputs -------------------------------------------------------------------


def two_outputs():
    x = keras.Input((3,), name="x")
    hidden = keras.layers.Dense(4)(x)
    return keras.Model(
        x,
        {
            "price": keras.layers.Dense(1, name="p")(hidden),
            "demand": keras.layers.Dense(2, name="d")(hidden),
        },
    )


def test_several_outputs_have_inputs_and_keys_of_their_own():
    predictor = two_outputs()
    model = alk.build_training_model(
        predictor,
        {"price": ["mse", GroupGap(2, momentum=0)], "demand": "mae"},
        loss_weights={"price": [1.0, 0.1]},
        metrics={"price": "mae", "demand": GroupError(2)},
    )
    assert sorted(names(model)) == ["demand_y_true", "group_ids", "price_y_true", "x"]
    model.compile("sgd")
    demand = np.repeat(Y, 2, axis=1)
    packed = alk.pack_inputs(model, X, {"price": Y, "demand": demand}, group_ids=IDS)
    logs = model.evaluate(packed, batch_size=12, verbose=0, return_dict=True)
    assert set(logs) == {
        "loss",
        "price_mse",
        "price_group_gap",
        "demand_mae",
        "price_mae",
        "demand_group_error_0",
        "demand_group_error_1",
    }
    y_pred = predictor.predict(X, verbose=0)
    assert logs["demand_mae"] == pytest.approx(
        np.mean(np.abs(demand - y_pred["demand"])), rel=1e-6
    )
    expected = logs["price_mse"] + 0.1 * logs["price_group_gap"] + logs["demand_mae"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    inference = alk.export_inference_model(model).predict(X, verbose=0)
    for name in ("price", "demand"):
        np.testing.assert_array_equal(inference[name], y_pred[name])


def test_outputs_in_a_list_take_losses_in_a_list():
    x = keras.Input((3,), name="x")
    outputs = [keras.layers.Dense(1, name=name)(x) for name in ("first", "second")]
    model = alk.build_training_model(keras.Model(x, outputs), ["mse", None])
    assert names(model) == ["x", "first_y_true"]


def test_a_term_may_span_outputs():
    def consistency(price_y_pred, demand_y_pred):
        return ops.square(price_y_pred[:, 0] - demand_y_pred[:, 0])

    predictor = two_outputs()
    model = alk.build_training_model(predictor, {"price": ["mse", consistency]})
    model.compile("sgd")
    packed = alk.pack_inputs(model, X, {"price": Y})
    logs = model.evaluate(packed, verbose=0, return_dict=True)
    y_pred = predictor.predict(X, verbose=0)
    expected = np.mean(np.square(y_pred["price"][:, 0] - y_pred["demand"][:, 0]))
    assert logs["price_consistency"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("losses", "options", "message"),
    [
        ({"prize": "mse"}, {}, r"`losses` names \['prize'\], but .*outputs are"),
        (["mse"], {}, r"`losses` must have one entry per output"),
        ({"price": "mse"}, {"metrics": {"x": "mae"}}, r"`metrics` names \['x'\]"),
        ({"price": None}, {}, r"At least one loss is needed"),
    ],
)
def test_structures_that_do_not_fit_the_outputs_are_refused(losses, options, message):
    with pytest.raises(ValueError, match=message):
        alk.build_training_model(two_outputs(), losses, **options)


# Losses, weights, metrics ----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": ["mse", "mse"]}, r"Two of the losses are named \['mse'\]"),
        ({"losses": "mze"}, r"Check the spelling. Received: loss='mze'"),
        ({"losses": []}, r"At least one loss is needed"),
        ({"losses": {"y": "mse"}}, r"needs a predictor with several outputs"),
        ({"losses": "mse", "loss_weights": [1.0, 2.0]}, r"one number per loss"),
        ({"losses": "mse", "loss_weights": {"mae": 1.0}}, r"names \['mae'\], but the"),
        (
            {"losses": "mse", "loss_weights": [float("nan")]},
            r"`loss_weights` must be finite",
        ),
        ({"losses": "mse", "metrics": ["mae", "mae"]}, r"Two of the metrics are named"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        alk.build_training_model(a_functional(), **options)


def test_what_can_be_no_loss_is_refused():
    with pytest.raises(TypeError, match=r"A loss must be a name, a Keras loss.*loss=3"):
        alk.build_training_model(a_functional(), 3)


def test_a_metric_by_name_keeps_that_name():
    model = alk.build_training_model(
        a_functional(), "mse", metrics=["mae", keras.metrics.MeanSquaredError, "accuracy"]
    )
    kept = [metric.name for metric in model.graph_metrics]
    assert kept == ["mae", "mean_squared_error", "accuracy"]


def test_one_term_in_two_models_has_a_state_of_its_own_in_each():
    term = GroupGap(2)
    models = [alk.build_training_model(a_functional(), ["mse", term]) for _ in range(2)]
    models[0].compile("sgd")
    models[0].fit(alk.pack_inputs(models[0], X, Y, group_ids=IDS), verbose=0)
    first, second = (model.endpoint.terms[1] for model in models)
    assert np.any(first.get_weights()[0])
    assert not np.any(second.get_weights()[0])


# add_loss and add_metric -------------------------------------------------------------


def a_model_with_target():
    x, y = keras.Input((3,), name="x"), keras.Input((1,), name="y")
    y_pred = keras.layers.Dense(1)(x)
    return x, y, y_pred, keras.Model([x, y], y_pred)


def test_symbolic_losses_and_metrics_add_up():
    _, y, y_pred, model = a_model_with_target()
    model = alk.add_loss(model, ops.mean(ops.square(y - y_pred)), name="squares")
    model = alk.add_loss(model, ops.mean(ops.abs(y - y_pred)), weight=0.5)
    model = alk.add_metric(model, ops.max(y_pred), name="largest")
    model.compile("sgd")
    data = {"x": X, "y": Y}
    logs = model.evaluate(data, batch_size=12, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "squares", "loss_2", "largest"}
    prediction = alk.export_inference_model(model).predict(X, verbose=0)
    error = np.abs(Y - prediction)
    assert logs["squares"] == pytest.approx(np.mean(error**2), rel=1e-6)
    assert logs["loss_2"] == pytest.approx(np.mean(error), rel=1e-6)
    assert logs["largest"] == pytest.approx(prediction.max(), rel=1e-6)
    assert logs["loss"] == pytest.approx(logs["squares"] + 0.5 * logs["loss_2"], rel=1e-6)


def test_a_loss_may_be_computed_from_the_output_of_a_model_with_losses():
    model = alk.build_training_model(a_functional(), "mse")
    more = alk.add_loss(model, ops.mean(ops.square(model.output)), name="size")
    more.compile("sgd")
    packed = alk.pack_inputs(more, X, Y)
    logs = more.evaluate(packed, batch_size=12, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["mse"] + logs["size"], rel=1e-6)


def test_what_cannot_be_added_is_refused():
    _, y, y_pred, model = a_model_with_target()
    with pytest.raises(TypeError, match=r"`value` must be a KerasTensor"):
        alk.add_loss(model, 3.0)
    with pytest.raises(ValueError, match=r"A loss must be a scalar.*\(None, 1\)"):
        alk.add_loss(model, ops.square(y - y_pred))
    other = keras.Input((1,), name="other")
    with pytest.raises(ValueError, match=r"needs the Inputs \['other'\].*model lacks"):
        alk.add_loss(model, ops.mean(ops.square(y_pred - other)))
    model = alk.add_loss(model, ops.mean(ops.square(y - y_pred)), name="squares")
    with pytest.raises(ValueError, match=r"The name `squares` is taken"):
        alk.add_metric(model, ops.mean(y), name="squares")


@pytest.mark.parametrize("said", [None, 0, np.False_, 1, np.True_])
def test_whether_there_are_weights_may_be_said_as_numpy_does(said):
    predictor = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    model = alk.build_training_model(predictor, "mse", sample_weight=said)
    assert ("sample_weight" in [tensor.name for tensor in model.inputs]) == bool(said)
