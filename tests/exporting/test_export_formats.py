"""What is exported, in each format, asked by that format's own runtime.

The runtimes are the oracles: Keras, `tf.saved_model.load`, onnxruntime and LiteRT's
interpreter load what was written, and must predict what the model does.
"""

import os
import pathlib
import subprocess
import sys
import textwrap
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import addloss_kit as alk

BACKEND = keras.backend.backend()
# What Keras can write from this backend; `test_export_refusals.py` has the others.
FORMATS = {
    "tensorflow": ["keras", "tf_saved_model", "onnx", "litert"],
    "jax": ["keras", "tf_saved_model"],
    "torch": ["keras", "onnx"],
}[BACKEND]
SERVED = [name for name in FORMATS if name != "keras"]
PLACES = {
    "keras": "model.keras",
    "tf_saved_model": "model",
    "onnx": "model.onnx",
    "litert": "model.tflite",
}
TENSORFLOW_ONLY = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="only TensorFlow has strings and LiteRT"
)


def exported(model, folder, name, **options):
    path = folder / PLACES[name]
    inference = alk.export_inference_model(model, path, format=name, **options)
    return inference, path


def served(path, name, x, model):
    """Flat predictions of the written file; `x` has the structure of the inputs."""
    if name == "keras":
        return keras.tree.flatten(keras.saving.load_model(path).predict(x, verbose=0))
    by_name = dict(zip([t.name for t in model.inputs], keras.tree.flatten(x)))
    if name == "tf_saved_model":
        import tensorflow as tf

        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        found = signature(**{k: tf.constant(v) for k, v in by_name.items()})
        found = {key: value.numpy() for key, value in found.items()}
    elif name == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(str(path)).run(None, by_name)
    else:
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(str(path)).get_signature_runner()
        found = run(**by_name)
    if isinstance(model.output, dict):
        return [found[key] for key in sorted(found)]
    return [found[f"output_{i}"] for i in range(len(found))]


def assert_served(path, name, x, model, tolerance=1e-5):
    expected = keras.tree.flatten(model.predict(x, verbose=0))
    actual = served(path, name, x, model)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def plain_predictor():
    inputs = keras.Input((3,), name="x")
    hidden = layers.Dense(4, "relu")(inputs)
    hidden = layers.BatchNormalization()(hidden)
    return keras.Model(inputs, layers.Dense(1)(hidden), name="plain")


def grouped_training(predictor=None):
    """A training model with all that must not be exported, after a few steps."""
    model = alk.build_training_model(
        predictor or plain_predictor(),
        [alk.losses.WeightedMSE(), alk.losses.GroupGap(2)],
        metrics=[alk.metrics.GroupError(2)],
    )
    model.compile("adam")
    train(model)
    return model


def train(model):
    rng = np.random.default_rng(0)
    packed = alk.pack_inputs(
        model,
        rng.normal(3.0, 2.0, (64, 3)),
        rng.normal(size=64),
        sample_weight=np.ones(64),
        group_ids=rng.integers(0, 2, 64),
    )
    model.fit(packed, batch_size=16, verbose=0)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """One trained model, exported in each format: `(predictor, model, folder)`."""
    folder = tmp_path_factory.mktemp("deployed")
    predictor = plain_predictor()
    model = grouped_training(predictor)
    for name in FORMATS:
        exported(model, folder, name)
    return predictor, model, folder


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_predicts_what_the_trained_model_does(name, deployed, rng):
    predictor, _, folder = deployed
    x = rng.normal(size=(7, 3)).astype("float32")
    assert_served(folder / PLACES[name], name, x, predictor)


@pytest.mark.parametrize("name", FORMATS)
def test_several_inputs_and_outputs_keep_their_names(name, tmp_path, rng):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    hidden = layers.Concatenate()([a, b])
    outputs = {"price": layers.Dense(1)(hidden), "demand": layers.Dense(2)(hidden)}
    predictor = keras.Model({"a": a, "b": b}, outputs)
    model = alk.build_training_model(predictor, {"price": "mse", "demand": "mse"})
    inference, path = exported(model, tmp_path, name)
    x = {"a": rng.normal(size=(5, 3)), "b": rng.normal(size=(5, 2))}
    x = {key: value.astype("float32") for key, value in x.items()}
    assert inference.predict(x, verbose=0).keys() == {"price", "demand"}
    assert_served(path, name, x, inference)


@pytest.mark.parametrize("name", FORMATS)
def test_lists_keep_their_order_where_that_of_the_names_differs(name, tmp_path, rng):
    b, a = keras.Input((2,), name="b"), keras.Input((3,), name="a")
    hidden = layers.Concatenate()([b, a])
    outputs = [layers.Dense(1, name="z")(hidden), layers.Dense(2, name="y")(hidden)]
    model = alk.build_training_model(keras.Model([b, a], outputs), ["mse", "mse"])
    inference, path = exported(model, tmp_path, name)
    x = [rng.normal(size=(5, n)).astype("float32") for n in (2, 3)]
    assert [y.shape for y in inference.predict(x, verbose=0)] == [(5, 1), (5, 2)]
    assert_served(path, name, x, inference)


@TENSORFLOW_ONLY
@pytest.mark.parametrize("name", SERVED)
def test_nested_structures_are_served_flat(name, tmp_path, rng):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    hidden = layers.Concatenate()([a, b])
    outputs = {"u": [layers.Dense(1)(hidden), layers.Dense(1)(hidden)]}
    predictor = keras.Model({"pair": [a, b]}, outputs)
    model = alk.build_training_model(predictor, ["mse", "mse"])
    inference, path = exported(model, tmp_path, name)
    rows = [rng.normal(size=(5, n)).astype("float32") for n in (3, 2)]
    # By a call, as Keras's `predict` makes tuples of nested lists, and warns of them.
    expected = [np.asarray(y) for y in inference({"pair": rows})["u"]]
    flat = keras.Model(inference.inputs, {"0": inference.outputs[0]})
    actual = served(path, name, rows, flat)
    assert len(actual) == 2
    for one, other in zip(actual, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@TENSORFLOW_ONLY
@pytest.mark.parametrize("name", ["tf_saved_model", "onnx"])
def test_a_sequence_may_have_any_length(name, tmp_path, rng):
    inference, path = exported(alk.build_training_model(reader(), "mse"), tmp_path, name)
    for length in (3, 11):
        ids = rng.integers(0, 9, (4, length)).astype("int32")
        assert_served(path, name, ids, inference)


@TENSORFLOW_ONLY
def test_litert_reads_sequences_row_by_row(tmp_path, rng):
    model = alk.build_training_model(reader(), "mse")
    inference, path = exported(model, tmp_path, "litert")
    for length in (3, 11):
        ids = rng.integers(0, 9, (1, length)).astype("int32")
        assert_served(path, "litert", ids, inference)


def reader():
    inputs = keras.Input((None,), dtype="int32", name="words")
    hidden = layers.LSTM(3)(layers.Embedding(9, 2, mask_zero=True)(inputs))
    return keras.Model(inputs, layers.Dense(1)(hidden))


@TENSORFLOW_ONLY
@pytest.mark.parametrize("name", ["keras", "tf_saved_model", "litert"])
def test_strings_are_looked_up_in_the_file(name, tmp_path):
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(np.array(["ash", "oak"]))
    inputs = keras.Input((1,), dtype="string", name="tree")
    predictor = keras.Model(inputs, layers.Dense(1)(lookup(inputs)))
    model = alk.build_training_model(predictor, "mse")
    inference, path = exported(model, tmp_path, name)
    import tensorflow as tf

    trees = tf.constant([["ash"], ["oak"], ["elm"]])
    assert len(np.unique(inference.predict(trees, verbose=0))) == 3
    x = trees if name == "keras" else trees.numpy()
    expected = inference.predict(trees, verbose=0)
    np.testing.assert_allclose(served(path, name, x, inference)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "tf_saved_model"])
def test_mixed_precision_is_exported(name, tmp_path, rng):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = alk.build_training_model(plain_predictor(), "mse")
    finally:
        keras.config.set_dtype_policy("float32")
    inference, path = exported(model, tmp_path, name)
    x = rng.normal(size=(7, 3)).astype("float32")
    # Half precision has 11 bits.
    assert_served(path, name, x, inference, tolerance=1e-2)
    assert keras.backend.standardize_dtype(inference(x).dtype) == "float16"


def test_float64_is_exported_in_float64(tmp_path, rng):
    if BACKEND == "jax":
        pytest.skip("JAX computes in float64 only if it is told to at its start")
    inputs = keras.Input((3,), name="x", dtype="float64")
    predictor = keras.Model(inputs, layers.Dense(1, dtype="float64")(inputs))
    model = alk.build_training_model(predictor, "mse")
    inference, path = exported(model, tmp_path, "keras")
    x = rng.normal(size=(5, 3))
    assert_served(path, "keras", x, inference, tolerance=1e-14)


# Weights: shared or own ---------------------------------------------------------


def test_without_copy_training_on_changes_the_predictions(rng):
    model = grouped_training()
    inference = alk.export_inference_model(model)
    x = rng.normal(size=(5, 3)).astype("float32")
    before = inference.predict(x, verbose=0)
    train(model)
    assert not np.array_equal(inference.predict(x, verbose=0), before)


def test_with_copy_training_on_changes_nothing(rng):
    model = grouped_training()
    inference = alk.export_inference_model(model, copy=True)
    x = rng.normal(size=(5, 3)).astype("float32")
    before = inference.predict(x, verbose=0)
    train(model)
    np.testing.assert_array_equal(inference.predict(x, verbose=0), before)


@TENSORFLOW_ONLY
def test_a_copy_has_the_vocabulary_too():
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(np.array(["ash", "oak"]))
    inputs = keras.Input((1,), dtype="string", name="tree")
    predictor = keras.Model(inputs, layers.Dense(1)(lookup(inputs)))
    model = alk.build_training_model(predictor, "mse")
    import tensorflow as tf

    trees = tf.constant([["ash"], ["oak"], ["elm"]])
    copied = alk.export_inference_model(model, copy=True)
    expected = predictor.predict(trees, verbose=0)
    np.testing.assert_array_equal(copied.predict(trees, verbose=0), expected)


def test_an_export_after_more_training_has_the_later_moving_averages(tmp_path, rng):
    model = grouped_training()
    _, path = exported(model, tmp_path, "keras")
    early = keras.saving.load_model(path)
    train(model)
    inference, path = exported(model, tmp_path, "keras")
    late = keras.saving.load_model(path)
    moving = [m.layers[2].moving_mean for m in (early, late, inference)]
    moving = [keras.ops.convert_to_numpy(mean) for mean in moving]
    assert not np.array_equal(moving[0], moving[1])
    np.testing.assert_array_equal(moving[1], moving[2])


# Some of the outputs --------------------------------------------------------------


def two_output_training(structure):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    price = layers.Dense(1, name="price")(a)
    demand = layers.Dense(2, name="demand")(layers.Concatenate()([a, b]))
    outputs = {"price": price, "demand": demand}
    if structure is list:
        outputs = [price, demand]
    predictor = keras.Model([a, b], outputs)
    return alk.build_training_model(predictor, {"price": "mse", "demand": "mse"})


def test_one_output_of_a_list_is_a_tensor_and_needs_its_own_features_only():
    model = alk.export_inference_model(two_output_training(list), outputs=["price"])
    assert [tensor.name for tensor in model.inputs] == ["a"]
    assert model.predict([np.ones((4, 3))], verbose=0).shape == (4, 1)


def test_outputs_of_a_list_come_in_the_order_asked_for():
    model = two_output_training(list)
    inference = alk.export_inference_model(model, outputs=["demand", "price"])
    shapes = [
        y.shape for y in inference.predict([np.ones((4, 3)), np.ones((4, 2))], verbose=0)
    ]
    assert shapes == [(4, 2), (4, 1)]


def test_outputs_of_a_dict_stay_a_dict():
    model = alk.export_inference_model(two_output_training(dict), outputs=["demand"])
    predicted = model.predict([np.ones((4, 3)), np.ones((4, 2))], verbose=0)
    assert {key: y.shape for key, y in predicted.items()} == {"demand": (4, 2)}


def test_an_output_of_add_loss_is_named_by_its_layer():
    x = keras.Input((3,), name="x")
    outputs = [layers.Dense(1, name="price")(x), layers.Dense(2, name="demand")(x)]
    model = keras.Model(x, outputs)
    model = alk.add_loss(model, keras.ops.mean(outputs[0]))
    inference = alk.export_inference_model(model, outputs=["demand"])
    assert inference.predict(np.ones((4, 3)), verbose=0).shape == (4, 2)


# Rows to compare on -----------------------------------------------------------------


def test_own_rows_are_compared_on_where_drawn_ones_would_not_do(tmp_path, rng):
    # Ids 0 and 1 would meet two rows of the table; these meet all.
    inputs = keras.Input((2,), dtype="int32", name="ids")
    hidden = layers.Flatten()(layers.Embedding(50, 2)(inputs))
    model = alk.build_training_model(keras.Model(inputs, layers.Dense(1)(hidden)), "mse")
    sample = np.arange(50).reshape(25, 2)
    inference, path = exported(model, tmp_path, "keras", sample=sample)
    assert_served(path, "keras", sample.astype("int32"), inference)


# Nothing of the training ------------------------------------------------------------

# Names of training-only Inputs, terms, state, optimizer and of this package. Of
# `y_true` and `adam` Keras's own code has nothing in a graph of Dense layers.
TRACES = (b"y_true", b"sample_weight", b"group_ids", b"group_gap", b"groupgap")
TRACES += (b"weighted_mse", b"group_error", b"running_", b"addloss", b"adam")
TRACES += (b"endpoint", b"momentum_")


def all_bytes(path):
    """Everything in a file, an archive or a directory, names included."""
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        return b"".join(file.name.encode() + file.read_bytes() for file in files)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return b"".join(
                name.encode() + archive.read(name) for name in archive.namelist()
            )
    return path.read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_the_file_holds_nothing_of_the_training(name, deployed):
    _, _, folder = deployed
    content = all_bytes(folder / PLACES[name]).lower()
    assert [trace for trace in TRACES if trace in content] == []


def test_the_same_look_finds_the_training_where_it_is(deployed, tmp_path):
    _, model, _ = deployed
    model.save(tmp_path / "training.keras")
    content = all_bytes(tmp_path / "training.keras").lower()
    found = [trace for trace in TRACES if trace in content]
    assert {b"y_true", b"group_ids", b"group_gap", b"addloss", b"adam"} <= set(found)


@pytest.mark.parametrize("name", FORMATS)
def test_it_is_no_larger_than_the_predictor_saved_directly(name, deployed, tmp_path):
    predictor, _, folder = deployed
    path = folder / PLACES[name]
    direct = tmp_path / "direct" / PLACES[name]
    direct.parent.mkdir()
    if name == "keras":
        predictor.save(direct)
    else:
        predictor.export(direct, name, verbose=False)
    sizes = [len(all_bytes(place)) for place in (path, direct)]
    # The numbers in the names of functions have more digits the later they are made.
    assert sizes[0] <= 1.01 * sizes[1]


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="Keras writes no SavedModel from torch")
def test_it_loads_where_addloss_kit_cannot_be_imported(deployed, rng):
    predictor, _, folder = deployed
    x = rng.normal(size=(5, 3)).astype("float32")
    np.save(folder / "x.npy", x)
    code = """
        import sys
        sys.modules["addloss_kit"] = None  # any import of it now fails
        import pathlib
        import numpy as np
        folder = pathlib.Path(sys.argv[1])
        x, found = np.load(folder / "x.npy"), []
        if (folder / "model.tflite").exists():
            from ai_edge_litert.interpreter import Interpreter
            run = Interpreter(str(folder / "model.tflite")).get_signature_runner()
            found.append(run(x=x)["output_0"])
        if (folder / "model.onnx").exists():
            import onnxruntime
            session = onnxruntime.InferenceSession(folder / "model.onnx")
            found.append(session.run(None, {"x": x})[0])
        assert "keras" not in sys.modules and "tensorflow" not in sys.modules
        import keras
        found.append(keras.saving.load_model(folder / "model.keras").predict(x, verbose=0))
        import tensorflow as tf
        loaded = tf.saved_model.load(str(folder / "model"))
        found.append(loaded.serve(x).numpy())
        np.save(folder / "found.npy", np.stack(found))
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)],
        check=True,
        cwd=pathlib.Path(os.sep),
    )
    found = np.load(folder / "found.npy")
    assert len(found) == len(FORMATS)
    expected = np.broadcast_to(predictor.predict(x, verbose=0), found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_predictor_may_be_trained_anew(deployed):
    predictor = keras.saving.load_model(deployed[2] / "model.keras")
    again = alk.build_training_model(predictor, "mae")
    assert [tensor.name for tensor in again.inputs] == ["x", "y_true"]
