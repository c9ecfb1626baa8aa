"""Files that the first release wrote load, predict and train on as they did."""

import json
import pathlib

import keras
import numpy as np
import pytest

import addloss_kit as alk

DATA = pathlib.Path(__file__).parents[1] / "data"
EXPECTED = json.loads((DATA / "expected_0.1.json").read_text())
WRITTEN_BY = (3, 15)

# `quantization_config`, in every layer's config since then, stops an older one.
pytestmark = pytest.mark.skipif(
    tuple(int(part) for part in keras.__version__.split(".")[:2]) < WRITTEN_BY,
    reason="Keras does not read what a later Keras wrote.",
)


def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 3)).astype("float32")
    ids = np.arange(48) % 2
    y = x[:, :1] + rng.normal(size=(48, 1)) * (1 + ids[:, None])
    return x, y.astype("float32"), ids


def packed_for(model):
    x, y, ids = rows()
    weight = np.linspace(0.5, 1.5, 48)
    return alk.pack_inputs(model, x, y, group_ids=ids, sample_weight=weight)


def test_its_predictor_predicts_the_same():
    model = keras.saving.load_model(DATA / "inference_0.1.keras")

    found = model.predict(rows()[0], verbose=0)[:, 0]

    np.testing.assert_allclose(found, EXPECTED["predict"], rtol=1e-5, atol=1e-6)


def test_its_training_model_evaluates_the_same_and_trains_on_where_it_stood():
    model = alk.load_training_model(DATA / "training_0.1.keras")
    packed = packed_for(model)

    logs = model.evaluate(packed, batch_size=16, verbose=0, return_dict=True)
    history = model.fit(packed, batch_size=16, shuffle=False, verbose=0).history

    assert logs == pytest.approx(EXPECTED["evaluate"], rel=1e-4)
    went_on = {name: values[0] for name, values in history.items()}
    assert went_on == pytest.approx(EXPECTED["next_epoch"], rel=1e-3)
