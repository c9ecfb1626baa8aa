"""Predictors with preprocessing inside: Normalization, and lookups of strings."""

import keras
import numpy as np
import pytest

import addloss_kit as alk

ROWS = 48

is_tensorflow = keras.backend.backend() == "tensorflow"
needs_tensorflow = pytest.mark.skipif(
    not is_tensorflow, reason="Keras feeds strings on TensorFlow only"
)


def _normalised(x):
    normalise = keras.layers.Normalization()
    normalise.adapt(x)
    return keras.Sequential([keras.Input((2,), name="x"), normalise, keras.layers.Dense(1)])


def test_normalization_inside_works_in_the_units_of_the_data(rng, tmp_path):
    # Raw features of 1000 ± 300: without the layer inside no such step would hold.
    x = rng.normal(1000, 300, (ROWS, 2)).astype("float32")
    y = (x[:, :1] - 1000) / 300
    predictor = _normalised(x)
    model = alk.build_training_model(predictor, [alk.losses.WeightedMSE()])
    model.compile(keras.optimizers.Adam(0.2))
    packed = alk.pack_inputs(model, x, y, sample_weight=np.ones(ROWS))

    history = model.fit(packed, batch_size=ROWS, epochs=25, verbose=0).history
    alk.export_inference_model(model, tmp_path / "predictor.keras")

    assert history["loss"][-1] < 0.05 * history["loss"][0]
    loaded = keras.saving.load_model(tmp_path / "predictor.keras")
    expected = predictor.predict(x, verbose=0)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    # The layer holds what it has seen, not what training does.
    layer = next(v for v in loaded.layers if isinstance(v, keras.layers.Normalization))
    mean = np.ravel(keras.ops.convert_to_numpy(layer.mean))
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-4)


@pytest.fixture
def listings(rng):
    town = rng.choice(["Ulm", "Bonn", "Kiel"], ROWS)
    area = rng.uniform(40, 160, (ROWS, 1)).astype("float32")
    rent = {"Ulm": 1.0, "Bonn": 2.0, "Kiel": 3.0}
    price = area[:, 0] / 100 + np.array([rent[t] for t in town])
    return town, area, price.astype("float32")


def _with_lookup(area):
    town = keras.Input((1,), dtype="string", name="town")
    metres = keras.Input((1,), name="area")
    ids = keras.layers.StringLookup(
        vocabulary=["Ulm", "Bonn", "Kiel"], output_mode="one_hot"
    )(town)
    normalise = keras.layers.Normalization()
    normalise.adapt(area)
    h = keras.layers.Concatenate()([ids, normalise(metres)])
    return keras.Model({"town": town, "area": metres}, keras.layers.Dense(1)(h))


@needs_tensorflow
def test_a_lookup_of_strings_trains_saves_and_exports(listings, tmp_path):
    town, area, price = listings
    predictor = _with_lookup(area)
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2)],
        loss_weights=[1.0, 0.1],
        metrics=[alk.metrics.GroupError(2)],
    )
    model.compile(keras.optimizers.Adam(0.1))
    packed = alk.pack_inputs(
        model, {"town": town, "area": area}, price, group_ids=area[:, 0] > 100
    )

    history = model.fit(packed, batch_size=16, epochs=40, verbose=0).history
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    alk.export_inference_model(reloaded, tmp_path / "predictor.keras")

    assert history["loss"][-1] < 0.05 * history["loss"][0]
    loaded = keras.saving.load_model(tmp_path / "predictor.keras")
    features = {"town": packed["town"], "area": area}
    predicted = loaded.predict(features, verbose=0)
    np.testing.assert_allclose(predicted[:, 0], price, atol=0.4)
    expected = predictor.predict(features, verbose=0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)


@needs_tensorflow
@pytest.mark.parametrize("kind", ["list", "object", "unicode", "bytes", "pandas"])
def test_strings_of_any_kind_are_packed(kind, listings):
    import pandas as pd

    town, area, price = listings
    given = {
        "list": town.tolist(),
        "object": town.astype(object),
        "unicode": town,
        "bytes": town.astype("S"),
        "pandas": pd.Series(town),
    }[kind]
    model = alk.build_training_model(_with_lookup(area), "mse")
    model.compile()

    packed = alk.pack_inputs(model, {"town": given, "area": area}, price)

    expected = alk.pack_inputs(model, {"town": town, "area": area}, price)
    assert packed["town"].shape == (ROWS, 1)
    value = model.evaluate(packed, verbose=0, return_dict=True)["loss"]
    other = model.evaluate(expected, verbose=0, return_dict=True)["loss"]
    assert value == pytest.approx(other, rel=1e-6)


@needs_tensorflow
def test_strings_go_through_make_dataset(listings):
    town, area, price = listings
    model = alk.build_training_model(_with_lookup(area), "mse")
    model.compile()
    packed = alk.pack_inputs(model, {"town": town, "area": area}, price)

    dataset = alk.make_dataset(packed, 16, seed=0)
    history = model.fit(dataset, verbose=0).history

    assert np.isfinite(history["loss"][0])


@needs_tensorflow
def test_numbers_for_an_input_of_strings_are_refused(listings):
    _, area, price = listings
    model = alk.build_training_model(_with_lookup(area), "mse")

    with pytest.raises(TypeError, match="`town` must be strings"):
        alk.pack_inputs(model, {"town": area, "area": area}, price)
