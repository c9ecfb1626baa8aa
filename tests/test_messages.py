"""Where an error was wrong, and now the thing works; or the remedy that it names does."""

import pathlib
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.metrics import log_loss

import addloss_kit as alk
from addloss_kit import losses, metrics
from addloss_kit._checks import did_you_mean
from addloss_kit.keras_internals.messages import own_error

BACKEND = keras.backend.backend()
ROOT = pathlib.Path(alk.__file__).parents[1]


def a_predictor(outputs=1, *between):
    return keras.Sequential(
        [keras.Input((2,), name="x"), *between, layers.Dense(outputs)], name="predictor"
    )


# Names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("huber_loss", "huber"),
        ("mean_square_error", "mean_squared_error"),
        ("meen_absolute_error", "mean_absolute_error"),
        ("binary_cross_entropy", "binary_crossentropy"),
        ("squared_eror", "squared_error"),
    ],
)
def test_a_misspelled_loss_is_told_which_one_is_meant(given, meant):
    for make in (losses.get, lambda name: losses.GroupGap(2, error=name)):
        with pytest.raises(ValueError, match=rf"Did you mean `{meant}`.*Received: loss="):
            make(given)
    assert losses.get(meant).error.loss is not None  # The remedy works.


@pytest.mark.parametrize(
    ("given", "meant"),
    [("mean_squared_eror", "mean_squared_error"), ("precison", "precision")],
)
def test_a_misspelled_metric_is_told_which_one_is_meant(given, meant):
    with pytest.raises(ValueError, match=rf"A metric must be.*Did you mean `{meant}`"):
        alk.build_training_model(a_predictor(), "mse", metrics=[given])
    alk.build_training_model(a_predictor(), "mse", metrics=[meant])


def test_a_name_like_no_other_gets_no_guess():
    assert did_you_mean("wasserstein", ["huber", "hinge"]) == ""
    assert did_you_mean(3, ["huber"]) == ""


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: losses.GroupGap(2, distance="square"), "squared"),
        (lambda: losses.GroupGap(2, between="pair"), "pairs"),
        (lambda: losses.WeightedRMSE(over="samples"), "sample"),
        (lambda: losses.GroupDistributionGap(2, kernel="gausian"), "gaussian"),
        (lambda: metrics.BoundIsMet(2, bound=1.0, of="errors"), "error"),
    ],
)
def test_a_misspelled_option_is_told_which_one_is_meant(make, meant):
    with pytest.raises(ValueError, match=rf"Expected one of.*Did you mean `{meant}`\?"):
        make()


# Errors of rows ----------------------------------------------------------------------


@pytest.mark.parametrize("error", ["binary_crossentropy", "huber", "mse"])
@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_a_report_takes_an_elementwise_error_of_rows(error, dtype, rng):
    y, y_pred = rng.integers(0, 2, 8).astype(dtype), rng.uniform(0.1, 0.9, 8)
    ids = np.arange(8) % 2
    report = alk.group_report(y, y_pred, ids, error=error)
    per_row = {
        "binary_crossentropy": lambda t, p: log_loss(t, p, labels=[0, 1]),
        "huber": lambda t, p: 0.5 * np.mean((t - p) ** 2),  # All errors are below 1.
        "mse": lambda t, p: np.mean((t - p) ** 2),
    }[error]
    expected = [per_row(y[ids == k], y_pred[ids == k]) for k in (0, 1)]
    np.testing.assert_allclose(report.means, expected, rtol=1e-5)


def test_a_report_of_rows_says_which_axis_an_error_of_classes_lacks():
    with pytest.raises(ValueError, match=r"takes the last axis.*`y\[:, None\]`"):
        alk.group_report(
            np.ones(4), np.ones(4), [0, 1, 0, 1], error="categorical_crossentropy"
        )


# A loss that does not fit --------------------------------------------------------------


def test_the_message_of_a_loss_that_does_not_fit_stands_alone():
    with pytest.raises(ValueError, match=r"^`weights` must have one weight per output\."):
        alk.build_training_model(a_predictor(), losses.WeightedMSE(weights=[1.0, 2.0]))


def test_an_error_inside_a_loss_shows_the_line_of_the_loss():
    def own_loss(y_true, y_pred):
        return y_pred.no_such_method()

    with pytest.raises(AttributeError) as caught:
        alk.build_training_model(a_predictor(), own_loss)
    assert "LossEndpoint.call" not in str(caught.value)
    assert "own_loss" in [entry.name for entry in caught.traceback]


def test_an_error_that_says_something_else_is_not_dug_up():
    with pytest.raises(ValueError) as caught:
        try:
            {}["key"]
        except KeyError:
            raise ValueError("What was meant.") from None
    assert own_error(caught.value) is caught.value


# add_loss on a Sequential ----------------------------------------------------------------


def test_a_sequential_takes_a_loss_and_trains(rng):
    model = a_predictor()
    model = alk.add_loss(model, ops.mean(ops.square(model.outputs[0] - 1.0)))
    model.compile(keras.optimizers.SGD(0.1))
    x = rng.normal(size=(32, 2)).astype("float32")
    history = model.fit({"x": x}, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert alk.export_inference_model(model).predict(x, verbose=0).shape == (32, 1)


def test_the_remedy_for_a_lacking_input_works():
    model, y = a_predictor(), keras.Input((1,), name="y")
    value = ops.mean(ops.square(model.outputs[0] - y))
    with pytest.raises(ValueError, match=re.escape("Inputs ['y']")) as caught:
        alk.add_loss(model, value)
    remedy = re.search(r"`(keras\.Model\(.*?\))`", str(caught.value)).group(1)
    model = eval(remedy, {"keras": keras, "model": model, "y": y})
    assert alk.add_loss(model, value).output_shape == (None, 1)


# Loading ---------------------------------------------------------------------------------

DEFINE = """
import keras
@keras.saving.register_keras_serializable("shop")
def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)
@keras.saving.register_keras_serializable("shop")
class Own(keras.layers.Dense):
    pass
"""
SAVE = (
    DEFINE
    + """
import sys, addloss_kit as alk
predictor = keras.Sequential([keras.Input((2,), name="x"), Own(1)])
model = alk.build_training_model(predictor, own_loss)
model.compile("sgd")
model.save(sys.argv[1])
"""
)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A file of another program, with a loss and a layer of its own."""
    path = tmp_path_factory.mktemp("foreign") / "model.keras"
    subprocess.run([sys.executable, "-c", SAVE, str(path)], cwd=ROOT, check=True)
    return path


def test_loading_without_the_registered_loss_says_what_to_pass(foreign):
    with pytest.raises(ValueError, match="could not be loaded") as caught:
        alk.load_training_model(foreign)
    message = str(caught.value)
    assert len(message) < 500
    assert "needs ['shop>Own', 'shop>own_loss']" in message
    remedy = re.search(r"`custom_objects=(\{.*?\})`", message).group(1)
    own = {}
    exec(DEFINE.replace("@keras", "#"), own)
    objects = eval(remedy, own)
    assert alk.load_training_model(foreign, custom_objects=objects).built


def test_a_damaged_file_is_not_told_of_objects(foreign, tmp_path):
    cut = tmp_path / "cut.keras"
    cut.write_bytes(foreign.read_bytes()[:300])
    with pytest.raises(ValueError, match="truncated, damaged") as caught:
        alk.load_training_model(cut)
    assert len(str(caught.value)) < 600
    with zipfile.ZipFile(cut, "w") as file:
        file.writestr("config.json", "[" * 100_000)
    with pytest.raises((ValueError, RecursionError)):
        alk.load_training_model(cut)


# ONNX ------------------------------------------------------------------------------------


def normalised(kind, rng):
    if kind == "adapted":
        layer = layers.Normalization()
        layer.adapt(rng.normal(3.0, 2.0, (50, 2)))
        return layer
    return layers.Normalization(mean=[1.0, -2.0], variance=[0.5, 4.0])


@pytest.mark.skipif(BACKEND == "jax", reason="Keras writes ONNX from JAX by a package more")
@pytest.mark.parametrize("kind", ["adapted", "given"])
def test_onnx_holds_the_mean_of_a_normalization(kind, tmp_path, rng):
    onnxruntime = pytest.importorskip("onnxruntime")
    layer = normalised(kind, rng)
    model = alk.build_training_model(a_predictor(1, layer), "mse")
    path = tmp_path / "model.onnx"
    inference = alk.export_inference_model(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["x"]
    x = rng.normal(size=(7, 2)).astype("float32")
    (predicted,) = session.run(None, {"x": x})
    np.testing.assert_allclose(predicted, inference.predict(x, verbose=0), rtol=1e-4)
    # The model itself is as it was.
    assert ops.is_tensor(layer.mean)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it is about TensorFlow's converter")
def test_a_constant_that_onnx_lacks_is_named(tmp_path):
    pytest.importorskip("tf2onnx")
    held = ops.ones((1, 300))

    @keras.saving.register_keras_serializable("tests")
    class Hiding(layers.Layer):
        def call(self, x):
            return x + ops.sum(held)

    model = alk.build_training_model(a_predictor(1, Hiding()), "mse")
    with pytest.raises(
        RuntimeError, match=r"made Inputs of the constants \['.*NumPy array"
    ):
        alk.export_inference_model(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


# Whole numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array, lambda n: np.arange(9)[n]])
def test_a_whole_number_of_numpy_is_taken_everywhere(kind):
    made = losses.GroupGap(kind(2))
    assert type(made.num_groups) is int
    assert losses.GroupGap.from_config(made.get_config()).num_groups == 2
    data = alk.make_dataset({"x": np.arange(4.0)}, kind(2), seed=kind(7))
    assert [batch["x"].shape for batch in data] == [(2,), (2,)]
    ids = np.array([0, 1, 0, 1])
    same = alk.make_dataset({"group_ids": ids}, kind(2), balance_groups=np.True_)
    assert [sorted(b["group_ids"].numpy().tolist()) for b in same] == [[0, 1], [0, 1]]
    assert losses.WorstGroup(kind(2), step_size=np.float32(0.5)).step_size == 0.5
