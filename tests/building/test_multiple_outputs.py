"""Several inputs and outputs: dicts, lists, losses and metrics per output."""

import keras
import numpy as np
import pytest
from keras import ops

import addloss_kit as alk

ROWS = 30
registered = keras.saving.register_keras_serializable("addloss_kit_tests")


def _two_by_two(outputs="dict", inputs="list"):
    """A two-input two-output predictor: a price and a demand class."""
    house = keras.Input((3,), name="house")
    area = keras.Input((2,), name="area")
    h = keras.layers.Concatenate()([house, area])
    price = keras.layers.Dense(1, name="price")(h)
    demand = keras.layers.Dense(4, "softmax", name="demand")(h)
    ins = [house, area] if inputs == "list" else {"house": house, "area": area}
    outs = {"price": price, "demand": demand} if outputs == "dict" else [price, demand]
    return keras.Model(ins, outs)


@pytest.fixture
def arrays(rng):
    return {
        "house": rng.normal(size=(ROWS, 3)).astype("float32"),
        "area": rng.normal(size=(ROWS, 2)).astype("float32"),
        "price": rng.normal(size=(ROWS, 1)).astype("float32"),
        "demand": rng.integers(0, 4, ROWS),
        "weight": rng.uniform(0.5, 2.0, ROWS).astype("float32"),
        "sex": rng.integers(0, 2, ROWS),
        "age_band": rng.integers(0, 4, ROWS),
    }


LOSSES = {"price": "mse", "demand": "sparse_categorical_crossentropy"}


def _pack(model, arrays, **kwargs):
    x = {"house": arrays["house"], "area": arrays["area"]}
    y = {"price": arrays["price"], "demand": arrays["demand"]}
    return alk.pack_inputs(model, x, y, **kwargs)


def _evaluate(model, packed):
    model.compile()
    return model.evaluate(packed, batch_size=ROWS, verbose=0, return_dict=True)


def _features(arrays, predictor):
    by_name = {"house": arrays["house"], "area": arrays["area"]}
    if isinstance(predictor.input, dict):
        return by_name
    return list(by_name.values())


@pytest.mark.parametrize("outputs", ["dict", "list"])
@pytest.mark.parametrize("inputs", ["dict", "list"])
def test_losses_weights_and_metrics_are_those_of_compile(outputs, inputs, arrays):
    predictor = _two_by_two(outputs, inputs)
    factors = {"price": 0.3, "demand": 0.7}
    metrics = {"price": ["mae"], "demand": ["accuracy"]}
    model = alk.build_training_model(
        predictor, LOSSES, loss_weights=factors, metrics=metrics, sample_weight=True
    )
    weights = {"price": arrays["weight"], "demand": arrays["weight"] ** 2}

    logs = _evaluate(model, _pack(model, arrays, sample_weight=weights))

    in_order = (lambda d: d) if outputs == "dict" else (lambda d: list(d.values()))
    predictor.compile(
        loss=in_order(LOSSES),
        loss_weights=in_order(factors),
        weighted_metrics=in_order(metrics),
    )
    expected = predictor.evaluate(
        _features(arrays, predictor),
        in_order({"price": arrays["price"], "demand": arrays["demand"]}),
        sample_weight=in_order(weights),
        batch_size=ROWS,
        verbose=0,
        return_dict=True,
    )
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    for name in ("price_mae", "demand_accuracy"):
        assert logs[name] == pytest.approx(expected[name], rel=1e-6)
    mixed = 0.3 * logs["price_mse"]
    mixed += 0.7 * logs["demand_sparse_categorical_crossentropy"]
    assert logs["loss"] == pytest.approx(mixed, rel=1e-6)


def test_losses_as_a_list_go_to_the_outputs_in_their_order(arrays):
    predictor = _two_by_two("list")
    by_name = alk.build_training_model(predictor, LOSSES)
    by_place = alk.build_training_model(predictor, list(LOSSES.values()))
    packed = _pack(by_name, arrays)

    assert _evaluate(by_place, packed) == _evaluate(by_name, packed)


def test_a_list_per_output_gives_it_several_losses_with_factors(arrays):
    predictor = _two_by_two()
    model = alk.build_training_model(
        predictor,
        {"price": ["mse", "mae"], "demand": "sparse_categorical_crossentropy"},
        loss_weights={"price": [1.0, 0.5], "demand": 2.0},
    )

    logs = _evaluate(model, _pack(model, arrays))

    expected = logs["price_mse"] + 0.5 * logs["price_mae"]
    expected += 2.0 * logs["demand_sparse_categorical_crossentropy"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "losses", [{"price": "mse"}, ["mse", None], {"price": "mse", "demand": None}]
)
def test_an_output_may_have_no_loss(losses, arrays, tmp_path):
    predictor = _two_by_two("dict" if isinstance(losses, dict) else "list")
    model = alk.build_training_model(predictor, losses)
    x = {"house": arrays["house"], "area": arrays["area"]}
    packed = alk.pack_inputs(model, x, {"price": arrays["price"]})

    logs = _evaluate(model, packed)

    assert [t.name for t in model.inputs] == ["house", "area", "price_y_true"]
    prediction = predictor.predict(_features(arrays, predictor), verbose=0)
    price = prediction["price"] if isinstance(prediction, dict) else prediction[0]
    expected = np.mean(np.square(price.astype("float64") - arrays["price"]))
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    exported = alk.export_inference_model(model, tmp_path / "predictor.keras")
    assert len(exported.outputs) == 2


def test_an_output_without_a_loss_may_be_watched(arrays):
    predictor = _two_by_two()
    model = alk.build_training_model(
        predictor,
        {"price": "mse"},
        metrics={"demand": keras.metrics.SparseCategoricalAccuracy(name="accuracy")},
    )

    logs = _evaluate(model, _pack(model, arrays))

    demand = predictor.predict(_features(arrays, predictor), verbose=0)["demand"]
    expected = np.mean(demand.argmax(axis=1) == arrays["demand"])
    assert logs["demand_accuracy"] == pytest.approx(expected, rel=1e-6)


# Terms that span outputs ---------------------------------------------------------


@registered
def price_follows_demand(y_pred, demand_y_pred):
    expected = ops.sum(demand_y_pred * ops.arange(4, dtype="float32"), axis=-1)
    return ops.square(y_pred[:, 0] - expected)


@registered
def joint_error(price_y_true, price_y_pred, demand_y_true, demand_y_pred):
    chosen = ops.take_along_axis(demand_y_pred, demand_y_true[:, None], axis=-1)
    return ops.abs(price_y_true - price_y_pred)[:, 0] * (1 - chosen[:, 0])


def test_a_parameter_named_after_another_output_is_its_prediction(arrays, tmp_path):
    predictor = _two_by_two()
    model = alk.build_training_model(
        predictor, {"price": ["mse", price_follows_demand], "demand": LOSSES["demand"]}
    )
    packed = _pack(model, arrays)

    logs = _evaluate(model, packed)

    prediction = predictor.predict(_features(arrays, predictor), verbose=0)
    expected = prediction["demand"].astype("float64") @ np.arange(4)
    expected = np.mean(np.square(prediction["price"][:, 0] - expected))
    name = "price_follows_demand"  # begins with the output's name already
    assert logs[name] == pytest.approx(expected, rel=1e-5)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert _evaluate(reloaded, packed) == pytest.approx(logs, rel=1e-6)


def test_a_term_may_take_targets_and_predictions_of_both_outputs(arrays):
    predictor = _two_by_two()
    model = alk.build_training_model(
        predictor, {"price": [joint_error], "demand": LOSSES["demand"]}
    )

    logs = _evaluate(model, _pack(model, arrays))

    prediction = predictor.predict(_features(arrays, predictor), verbose=0)
    chosen = prediction["demand"][np.arange(ROWS), arrays["demand"]]
    error = np.abs(prediction["price"] - arrays["price"])[:, 0]
    assert logs["price_joint_error"] == pytest.approx(
        np.mean(error * (1 - chosen)), rel=1e-5
    )


# Groups --------------------------------------------------------------------------


def _by_hand(error, groups, num_groups):
    means = [error[groups == k].mean() for k in range(num_groups)]
    pairs = [(i, j) for i in range(num_groups) for j in range(i)]
    return np.mean([(means[i] - means[j]) ** 2 for i, j in pairs])


def test_group_ids_are_shared_by_all_outputs(arrays):
    gap = alk.losses.GroupGap(2, momentum=0.0)
    other = alk.losses.GroupGap(2, momentum=0.0, error="sparse_categorical_crossentropy")
    predictor = _two_by_two()
    model = alk.build_training_model(predictor, {"price": [gap], "demand": [other]})

    logs = _evaluate(model, _pack(model, arrays, group_ids=arrays["sex"]))

    assert [t.name for t in model.inputs].count("group_ids") == 1
    prediction = predictor.predict(_features(arrays, predictor), verbose=0)
    square = np.square(prediction["price"].astype("float64") - arrays["price"])[:, 0]
    chosen = prediction["demand"][np.arange(ROWS), arrays["demand"]].astype("float64")
    expected = _by_hand(square, arrays["sex"], 2)
    assert logs["price_group_gap"] == pytest.approx(expected, rel=1e-4)
    expected = _by_hand(-np.log(chosen), arrays["sex"], 2)
    assert logs["demand_group_gap"] == pytest.approx(expected, rel=1e-4)


def test_two_group_attributes_in_one_model(arrays, tmp_path):
    predictor = keras.Sequential([keras.Input((3,), name="house"), keras.layers.Dense(1)])
    model = alk.build_training_model(
        predictor,
        [
            "mse",
            alk.losses.GroupGap(2, group_ids="sex", momentum=0.0),
            alk.losses.GroupGap(4, group_ids="age_band", momentum=0.0),
        ],
        loss_weights={"mse": 1.0, "sex_group_gap": 0.5, "age_band_group_gap": 0.25},
        metrics=[
            alk.metrics.GroupGap(2, group_ids="sex", name="gap_by_sex"),
            alk.metrics.GroupError(4, group_ids="age_band"),
        ],
    )
    packed = alk.pack_inputs(
        model,
        arrays["house"],
        arrays["price"],
        sex=arrays["sex"],
        age_band=arrays["age_band"],
    )

    logs = _evaluate(model, packed)

    error = predictor.predict(arrays["house"], verbose=0).astype("float64")
    error = np.square(error - arrays["price"])[:, 0]
    by_sex = _by_hand(error, arrays["sex"], 2)
    by_age = _by_hand(error, arrays["age_band"], 4)
    assert logs["sex_group_gap"] == pytest.approx(by_sex, rel=1e-4)
    assert logs["age_band_group_gap"] == pytest.approx(by_age, rel=1e-4)
    assert logs["gap_by_sex"] == pytest.approx(by_sex, rel=1e-4)
    total = error.mean() + 0.5 * by_sex + 0.25 * by_age
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert _evaluate(reloaded, packed) == pytest.approx(logs, rel=1e-6)


def test_ids_out_of_range_are_refused_by_the_attributes_name(arrays):
    predictor = keras.Sequential([keras.Input((3,), name="house"), keras.layers.Dense(1)])
    model = alk.build_training_model(
        predictor, ["mse", alk.losses.GroupGap(2, group_ids="sex")]
    )

    with pytest.raises(ValueError, match=r"`sex` must lie in \[0, 2\)"):
        alk.pack_inputs(model, arrays["house"], arrays["price"], sex=arrays["age_band"])


# Training and export -------------------------------------------------------------


@pytest.mark.parametrize("outputs", ["dict", "list"])
@pytest.mark.parametrize("inputs", ["dict", "list"])
def test_the_exported_predictor_has_the_structures_of_the_given_one(
    outputs, inputs, arrays, tmp_path
):
    predictor = _two_by_two(outputs, inputs)
    model = alk.build_training_model(predictor, LOSSES)
    model.compile("adam")
    model.fit(_pack(model, arrays), verbose=0)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")

    exported = alk.export_inference_model(reloaded, tmp_path / "predictor.keras")

    loaded = keras.saving.load_model(tmp_path / "predictor.keras")
    features = _features(arrays, predictor)
    expected = predictor.predict(features, verbose=0)
    for candidate in (exported, loaded):
        prediction = candidate.predict(features, verbose=0)
        assert type(prediction) is type(expected)
        keras.tree.map_structure(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6),
            prediction,
            expected,
        )


def test_training_ends_where_compile_does(arrays):
    predictor = _two_by_two()
    start = predictor.get_weights()
    model = alk.build_training_model(
        predictor, LOSSES, loss_weights={"price": 0.3, "demand": 0.7}
    )
    packed = _pack(model, arrays)
    options = dict(batch_size=10, epochs=2, shuffle=False, verbose=0)

    model.compile(keras.optimizers.Adam(0.05))
    ours = model.fit(packed, **options).history["loss"]
    predictor.set_weights(start)
    predictor.compile(
        keras.optimizers.Adam(0.05),
        loss=LOSSES,
        loss_weights={"price": 0.3, "demand": 0.7},
    )
    targets = {"price": arrays["price"], "demand": arrays["demand"]}
    theirs = predictor.fit(_features(arrays, predictor), targets, **options)

    np.testing.assert_allclose(ours, theirs.history["loss"], rtol=1e-5)


def test_an_output_may_be_called_y(arrays):
    x = keras.Input((3,), name="house")
    outputs = {"y": keras.layers.Dense(1)(x), "z": keras.layers.Dense(1)(x)}
    predictor = keras.Model(x, outputs)
    model = alk.build_training_model(predictor, {"y": "mse", "z": "mae"})
    targets = {"y": arrays["price"], "z": 2 * arrays["price"]}

    logs = _evaluate(model, alk.pack_inputs(model, arrays["house"], targets))

    assert [t.name for t in model.inputs] == ["house", "y_y_true", "z_y_true"]
    predictor.compile(loss={"y": "mse", "z": "mae"})
    expected = predictor.evaluate(
        arrays["house"], targets, batch_size=ROWS, verbose=0, return_dict=True
    )
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_outputs_of_one_layer_are_numbered(arrays):
    x = keras.Input((3,), name="house")
    left, right = keras.ops.split(keras.layers.Dense(2)(x), 2, axis=-1)
    model = alk.build_training_model(
        keras.Model(x, [left, right]), {"output_0": "mse", "output_1": "mae"}
    )

    names = [tensor.name for tensor in model.inputs]

    assert names == ["house", "output_0_y_true", "output_1_y_true"]


def test_a_single_output_in_a_dict_comes_back_as_a_dict(arrays):
    x = keras.Input((3,), name="house")
    predictor = keras.Model(x, {"price": keras.layers.Dense(1)(x)})
    model = alk.build_training_model(predictor, "mse")
    model.compile()
    packed = alk.pack_inputs(model, arrays["house"], arrays["price"])
    model.fit(packed, verbose=0)

    exported = alk.export_inference_model(model)

    assert set(exported.predict(arrays["house"], verbose=0)) == {"price"}


# What is refused -----------------------------------------------------------------


def test_an_unknown_output_is_refused_by_its_name():
    with pytest.raises(ValueError, match=r"`losses` names \['prize'\].*'demand', 'price'"):
        alk.build_training_model(_two_by_two(), {"prize": "mse"})


def test_one_loss_for_two_outputs_is_refused():
    with pytest.raises(ValueError, match="one entry per output"):
        alk.build_training_model(_two_by_two(), "mse")


def test_targets_as_one_array_are_refused_with_the_outputs(arrays):
    model = alk.build_training_model(_two_by_two(), LOSSES)
    x = {"house": arrays["house"], "area": arrays["area"]}

    with pytest.raises(ValueError, match="`y` must be a dict by output name"):
        alk.pack_inputs(model, x, arrays["price"])
