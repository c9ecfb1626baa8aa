"""The predictor alone: cut, written whole or not at all, refused where it leaks."""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import GroupGap

X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


def a_model(optimizer="sgd"):
    predictor = linear(3)
    model = alk.build_training_model(predictor, ["mse", GroupGap(2)], sample_weight=True)
    model.compile(optimizer)
    return predictor, model


def test_the_exported_model_has_the_features_alone_and_predicts_the_same():
    predictor, model = a_model()
    inference = alk.export_inference_model(model)
    assert [tensor.name for tensor in inference.inputs] == ["x"]
    np.testing.assert_array_equal(
        inference.predict(X, verbose=0), predictor.predict(X, verbose=0)
    )
    kinds = {type(layer).__module__.split(".")[0] for layer in inference.layers}
    assert kinds == {"keras"}


def test_a_reloaded_training_model_exports_the_same(tmp_path):
    predictor, model = a_model()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        alk.export_inference_model(loaded).predict(X, verbose=0),
        predictor.predict(X, verbose=0),
    )


@pytest.mark.slow
def test_the_file_loads_where_the_kit_is_not_installed(tmp_path):
    predictor, model = a_model()
    alk.export_inference_model(model, tmp_path / "predictor.keras")
    np.save(tmp_path / "x.npy", X)
    script = (
        "import sys; sys.modules['addloss_kit'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.saving.load_model('predictor.keras')\n"
        "np.save('y.npy', model.predict(np.load('x.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), predictor.predict(X, verbose=0), rtol=1e-6
    )


def test_the_file_holds_nothing_of_the_training(tmp_path):
    _, model = a_model()
    path = tmp_path / "predictor.keras"
    alk.export_inference_model(model, path)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    for trace in ("addloss_kit", "y_true", "group", "sample_weight"):
        assert trace not in config


def test_what_is_exported_shares_the_weights():
    _, model = a_model(keras.optimizers.SGD(0.5))
    inference = alk.export_inference_model(model)
    before = inference.predict(X, verbose=0)
    packed = alk.pack_inputs(
        model, X, np.ones(6), group_ids=[0, 1] * 3, sample_weight=np.ones(6)
    )
    model.fit(packed, verbose=0)
    assert not np.allclose(before, inference.predict(X, verbose=0))


def test_a_failed_export_leaves_the_old_file_as_it_was(tmp_path, monkeypatch):
    _, model = a_model()
    path = tmp_path / "predictor.keras"
    path.write_bytes(b"what was there before")

    def break_off(self, filepath, *args, **kwargs):
        with open(filepath, "wb") as file:
            file.write(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(keras.Model, "save", break_off)
    with pytest.raises(OSError, match="no space left"):
        alk.export_inference_model(model, path)
    assert path.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["group_ids", "y_true"])
def test_a_prediction_that_needs_a_training_only_input_is_refused_by_its_name(name):
    x, extra = keras.Input((3,), name="x"), keras.Input((1,), name=name)
    predictor = keras.Model(
        [x, extra], keras.layers.Dense(1)(keras.layers.Concatenate()([x, extra]))
    )

    def loss(y_pred):
        return keras.ops.square(y_pred[:, 0])

    model = alk.build_training_model(predictor, loss)
    message = rf"depends on the training-only Input `{name}`, so it cannot be exported"
    with pytest.raises(ValueError, match=message):
        alk.export_inference_model(model)


def test_what_has_no_losses_is_refused():
    with pytest.raises(ValueError, match=r"must have losses in its graph.*Sequential"):
        alk.export_inference_model(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match=r"must have losses in its graph.*int"):
        alk.export_inference_model(3)


def test_a_path_of_an_unknown_kind_is_refused(tmp_path):
    _, model = a_model()
    with pytest.raises(ValueError, match=r"Received: .*predictor.h5"):
        alk.export_inference_model(model, tmp_path / "predictor.h5")
    assert not list(tmp_path.iterdir())
