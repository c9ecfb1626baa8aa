"""What cannot be exported is refused, by the name of what stands in the way."""

import dataclasses
import importlib.util
import re
import zipfile

import keras
import numpy as np
import pytest
from keras import layers
from predictors import linear

import addloss_kit as alk
from addloss_kit.exporting import formats

BACKEND = keras.backend.backend()


def training_model(losses="mse"):
    predictor = linear(3)
    return alk.build_training_model(predictor, losses)


def leaky_model(name, *between):
    """A model of `add_loss` whose prediction uses the Input `name`."""
    x = keras.Input((3,), name="x")
    leaked = keras.Input((1,), name=name)
    hidden = leaked
    for layer in between:
        hidden = layer(hidden)
    y_pred = layers.Dense(1)(layers.Concatenate()([x, hidden]))
    return alk.add_loss(keras.Model([x, leaked], y_pred), keras.ops.mean(y_pred))


@pytest.mark.parametrize("name", ["y_true", "sample_weight", "group_ids", "price_y_true"])
def test_a_prediction_from_a_training_only_input_is_refused_by_its_name(name):
    with pytest.raises(ValueError, match=f"training-only Input `{name}`"):
        alk.export_inference_model(leaky_model(name))


def test_it_is_refused_through_layers_and_nested_models_too():
    nested = keras.Sequential([keras.Input((1,)), layers.Dense(2), layers.Dense(2)])
    model = leaky_model(
        "group_ids", layers.Dense(2), layers.Dropout(0.5), layers.Dense(1), nested
    )
    with pytest.raises(ValueError, match="training-only Input `group_ids`"):
        alk.export_inference_model(model)


def test_it_is_refused_where_the_predictor_itself_takes_the_ids():
    x, ids = keras.Input((3,), name="x"), keras.Input((), dtype="int32", name="group_ids")
    hidden = layers.Concatenate()([x, layers.Embedding(2, 2)(ids)])
    predictor = keras.Model([x, ids], layers.Dense(1)(hidden))
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    with pytest.raises(ValueError, match="training-only Input `group_ids`.*features"):
        alk.export_inference_model(model)


def test_it_is_refused_after_a_reload_too(tmp_path):
    leaky_model("sample_weight").save(tmp_path / "leaky.keras")
    model = alk.load_training_model(tmp_path / "leaky.keras")
    with pytest.raises(ValueError, match="training-only Input `sample_weight`"):
        alk.export_inference_model(model)


def test_an_output_that_leaks_does_not_keep_the_others_from_export():
    x, ids = keras.Input((3,), name="x"), keras.Input((1,), name="group_ids")
    clean = layers.Dense(1, name="clean")(x)
    leaky = layers.Dense(1, name="leaky")(layers.Concatenate()([x, ids]))
    model = keras.Model([x, ids], [clean, leaky])
    model = alk.add_loss(model, keras.ops.mean(clean))
    inference = alk.export_inference_model(model, outputs=["clean"])
    assert [tensor.name for tensor in inference.inputs] == ["x"]
    with pytest.raises(ValueError, match="`group_ids`"):
        alk.export_inference_model(model, outputs=["leaky"])


def test_a_model_without_losses_is_refused():
    predictor = linear(3, name=None)
    with pytest.raises(ValueError, match="build_training_model.*Received.*Sequential"):
        alk.export_inference_model(predictor)


def test_a_plain_model_around_an_endpoint_is_refused():
    model = training_model()
    with pytest.raises(ValueError, match="build_training_model.*Received.*Functional"):
        alk.export_inference_model(keras.Model(model.inputs, model.outputs))


@pytest.mark.parametrize("given", ["model.keras", None])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(ValueError, match="build_training_model"):
        alk.export_inference_model(given)


def test_unknown_outputs_are_refused_with_the_known_ones():
    x = keras.Input((3,), name="x")
    predictor = keras.Model(x, {"a": layers.Dense(1)(x), "b": layers.Dense(1)(x)})
    model = alk.build_training_model(predictor, {"a": "mse"})
    with pytest.raises(ValueError, match=r"\['a', 'b'\].*Received: outputs=\['c'\]"):
        alk.export_inference_model(model, outputs=["c"])
    with pytest.raises(ValueError, match=r"outputs=\[\]"):
        alk.export_inference_model(model, outputs=[])


# Places and formats -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "model.h5", "model.pb"])
def test_a_path_that_does_not_tell_needs_a_format(name, tmp_path):
    with pytest.raises(ValueError, match="`format` must be one of.*tf_saved_model"):
        alk.export_inference_model(training_model(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="format=pickle"):
        alk.export_inference_model(training_model(), tmp_path / "m.keras", format="pickle")


@pytest.mark.parametrize(
    ("name", "format"),
    [("m.onnx", "keras"), ("m", "keras"), ("m.keras", "tf_saved_model"), ("m.bin", "onnx")],
)
def test_a_suffix_that_contradicts_the_format_is_refused(name, format, tmp_path):
    with pytest.raises(ValueError, match=f"For `format='{format}'`"):
        alk.export_inference_model(training_model(), tmp_path / name, format=format)


def test_a_format_without_a_path_is_refused():
    with pytest.raises(ValueError, match="`format` needs a `filepath`"):
        alk.export_inference_model(training_model(), format="onnx")


def test_a_remote_path_is_refused():
    with pytest.raises(ValueError, match="local disk.*gs://bucket/m.keras"):
        alk.export_inference_model(training_model(), "gs://bucket/m.keras")


def test_a_directory_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "m.keras").mkdir()
    with pytest.raises(ValueError, match="`filepath` is a directory"):
        alk.export_inference_model(training_model(), tmp_path / "m.keras")


@pytest.mark.skipif(BACKEND == "torch", reason="Keras writes no SavedModel from torch")
def test_a_directory_of_other_things_is_not_replaced_by_a_saved_model(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"other_files=\['thesis.tex'\]"):
        alk.export_inference_model(training_model(), tmp_path, format="tf_saved_model")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("package", "name"),
    [("onnxruntime", "m.onnx"), ("tf2onnx", "m.onnx"), ("ai_edge_litert", "m.tflite")],
)
@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow writes these formats")
def test_a_missing_package_is_named_with_its_install_command(
    package, name, tmp_path, monkeypatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda p: None if p == package else find(p)
    )
    message = rf"needs \['{package}'\]. .*pip install 'addloss_kit\[export\]'"
    with pytest.raises(ImportError, match=message):
        alk.export_inference_model(training_model(), tmp_path / name)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow writes every format")
def test_what_the_backend_cannot_write_is_refused_with_the_way_round(tmp_path):
    place = {"jax": "m.onnx", "torch": "m.tflite"}[BACKEND]
    with pytest.raises(ValueError, match=f"from the backend {BACKEND}.*KERAS_BACKEND"):
        alk.export_inference_model(training_model(), tmp_path / place)


# What a format cannot hold ------------------------------------------------------------


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has strings")
def test_onnx_has_no_lookup_tables_and_the_error_names_the_file(tmp_path):
    inputs = keras.Input((1,), dtype="string", name="tree")
    lookup = layers.StringLookup(vocabulary=["ash"], output_mode="one_hot")
    predictor = keras.Model(inputs, layers.Dense(1)(lookup(inputs)))
    model = alk.build_training_model(predictor, "mse")
    with pytest.raises(RuntimeError, match="m.onnx is unchanged.*Lookup"):
        alk.export_inference_model(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_lambda_layer_is_refused_as_no_file_may_carry_code(tmp_path):
    predictor = keras.Sequential(
        [keras.Input((3,)), layers.Dense(1), layers.Lambda(lambda x: 2 * x)]
    )
    model = alk.build_training_model(predictor, "mse")
    with pytest.raises(RuntimeError, match="m.keras is unchanged.*`Lambda`"):
        alk.export_inference_model(model, tmp_path / "m.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_predictor_that_draws_at_random_cannot_be_compared(tmp_path):
    @keras.saving.register_keras_serializable("test_export_refusals")
    class Noise(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seed_generator = keras.random.SeedGenerator()

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)

    predictor = keras.Sequential([keras.Input((3,)), Noise(), layers.Dense(1)])
    model = alk.build_training_model(predictor, "mse")
    with pytest.raises(RuntimeError, match="differ from call to call"):
        alk.export_inference_model(model, tmp_path / "m.keras")


def test_predictions_that_differ_are_refused_with_the_difference(tmp_path, monkeypatch):
    def off_by_a_thousandth(path, model):
        predict = chosen.read(path, model)
        return lambda rows: [keras.ops.convert_to_numpy(y) * 1.001 for y in predict(rows)]

    chosen = formats.FORMATS["keras"]
    broken = dataclasses.replace(chosen, read=off_by_a_thousandth)
    monkeypatch.setitem(formats.FORMATS, "keras", broken)
    with pytest.raises(RuntimeError, match="different values.*1e-05.*difference=0.001"):
        alk.export_inference_model(training_model(), tmp_path / "m.keras")


def test_rows_of_too_few_features_are_refused(tmp_path):
    x = [keras.Input((3,), name=name) for name in "ab"]
    predictor = keras.Model(x, layers.Dense(1)(layers.Concatenate()(x)))
    model = alk.build_training_model(predictor, "mse")
    with pytest.raises(ValueError, match=r"each of the features \['a', 'b'\]"):
        alk.export_inference_model(model, tmp_path / "m.keras", sample=[np.ones((2, 3))])


# From disk -----------------------------------------------------------------------------


def test_a_reloaded_training_exports_the_very_same_file(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    hidden = layers.BatchNormalization()(layers.Concatenate()([a, b]))
    outputs = {"price": layers.Dense(1)(hidden), "demand": layers.Dense(2)(hidden)}
    model = alk.build_training_model(
        keras.Model({"a": a, "b": b}, outputs),
        {"price": ["mse", alk.losses.GroupGap(2)], "demand": "mse"},
        metrics={"price": [alk.metrics.GroupError(2)]},
    )
    model.save(tmp_path / "training.keras")
    alk.export_inference_model(model, tmp_path / "memory.keras")
    reloaded = alk.load_training_model(tmp_path / "training.keras")
    alk.export_inference_model(reloaded, tmp_path / "disk.keras")
    contents = [parts(tmp_path / name) for name in ("memory.keras", "disk.keras")]
    assert contents[0] == contents[1]


def parts(path):
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
        weights = archive.read("model.weights.h5")
    # Addresses in memory, where Keras notes that objects are shared.
    return re.sub(r',? ?"shared_object_id": \d+', "", config), weights
