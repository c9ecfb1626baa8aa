"""TrainingModel: what it logs, and what it refuses that Keras would not."""

import keras
import numpy as np
import pandas as pd
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import GroupGap
from addloss_kit.metrics import GroupError


def a_model():
    predictor = linear(2)
    return alk.build_training_model(
        predictor,
        ["mse", GroupGap(2)],
        loss_weights=[1.0, 0.5],
        metrics=[GroupError(2), "mae"],
    )


@pytest.fixture(scope="module")
def compiled_model():
    model = a_model()
    model.compile("sgd")
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(10, 2)).astype("float32"),
        "y_true": rng.normal(size=(10, 1)).astype("float32"),
        "group_ids": np.tile([0, 1], 5).astype("int32"),
    }


KEYS = {"loss", "mse", "group_gap", "group_error_0", "group_error_1", "mae"}

# What is logged -----------------------------------------------------------------


def test_the_history_has_every_term_and_metric_with_val_too(compiled_model, data):
    history = compiled_model.fit(data, validation_data=data, epochs=2, verbose=0).history
    assert set(history) == KEYS | {f"val_{key}" for key in KEYS}
    assert all(len(values) == 2 for values in history.values())


def test_loss_is_the_weighted_sum_of_the_terms_plus_regularisers(data):
    predictor = keras.Sequential(
        [keras.Input((2,), name="x"), keras.layers.Dense(1, kernel_regularizer="l2")]
    )
    model = alk.build_training_model(
        predictor, ["mse", GroupGap(2), "mae"], loss_weights={"group_gap": 0.5, "mae": 0.0}
    )
    model.compile("sgd")
    logs = model.evaluate(data, batch_size=4, verbose=0, return_dict=True)
    penalty = 0.01 * np.sum(np.square(predictor.layers[0].get_weights()[0]))
    expected = logs["mse"] + 0.5 * logs["group_gap"] + penalty
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    assert logs["mae"] > 0  # A weight of 0 still shows the term itself.


def test_a_partial_batch_counts_by_its_rows(compiled_model, data):
    # Batches of 4, 4 and 2 rows.
    logs = compiled_model.evaluate(data, batch_size=4, verbose=0, return_dict=True)
    whole = compiled_model.evaluate(data, batch_size=10, verbose=0, return_dict=True)
    assert logs["mse"] == pytest.approx(whole["mse"], rel=1e-6)
    assert logs["mae"] == pytest.approx(whole["mae"], rel=1e-6)


def test_a_term_with_the_name_of_a_metric_is_logged_as_loss(data):
    predictor = linear(2)
    model = alk.build_training_model(
        predictor, GroupGap(2, momentum=0), metrics=alk.metrics.GroupGap(2)
    )
    model.compile("sgd")
    logs = model.evaluate(data, batch_size=4, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "group_gap", "group_gap_loss"}
    assert logs["group_gap_loss"] == pytest.approx(logs["loss"], rel=1e-6)


def test_every_epoch_starts_its_counts_anew(data):
    model = a_model()
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(data, epochs=2, batch_size=10, verbose=0).history
    for name in ("mse", "mae", "group_error_0", "group_error_1"):
        assert history[name][0] == pytest.approx(history[name][1], rel=1e-6)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"jit_compile": True}])
def test_the_history_is_the_same_eagerly_and_by_xla(options, data):
    if keras.backend.backend() == "torch":
        pytest.skip("the torch backend of Keras has one way of execution")
    histories = []
    for compile_options in ({"jit_compile": False}, options):
        keras.utils.set_random_seed(1)
        model = a_model()
        model.compile("sgd", **compile_options)
        fitted = model.fit(data, batch_size=5, shuffle=False, epochs=2, verbose=0)
        histories.append(fitted.history)
    for name in KEYS:
        np.testing.assert_allclose(*(h[name] for h in histories), rtol=1e-5)


# What may be fed ----------------------------------------------------------------


def forms_of(data):
    """Every form in which Keras takes a dict and no `y`, by name."""
    forms = {"dict": data, "list in order": [data["x"], data["y_true"], data["group_ids"]]}
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        rows = tf.data.Dataset.from_tensor_slices(data)
        forms["dataset of dicts"] = rows.batch(5)
        forms["dataset of (dict,)"] = rows.map(lambda row: (row,)).batch(5)
        forms["dataset of make_dataset"] = alk.make_dataset(data, 5)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return ({name: a[5 * i : 5 * i + 5] for name, a in data.items()},)

    forms["PyDataset of (dict,)"] = Batches()
    return forms


FORMS = ["dict", "list in order", "PyDataset of (dict,)"]
if keras.backend.backend() == "tensorflow":
    FORMS += ["dataset of dicts", "dataset of (dict,)", "dataset of make_dataset"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_feeding_gives_the_same_logs(form, compiled_model, data):
    given = forms_of(data)[form]
    expected = compiled_model.evaluate(data, batch_size=5, verbose=0, return_dict=True)
    options = {"batch_size": 5} if form in ("dict", "list in order") else {}
    logs = compiled_model.evaluate(given, verbose=0, return_dict=True, **options)
    # The gap of a batch depends on the order of rows, which `make_dataset` draws.
    for name in KEYS - {"loss", "group_gap"}:
        assert logs[name] == pytest.approx(expected[name], rel=1e-5)


@pytest.mark.parametrize(
    "form", ["dict", "(dict,)", "(dict, None)", "PyDataset of (dict,)"] + FORMS[3:]
)
def test_validation_data_may_have_every_form(form, compiled_model, data):
    known = {"(dict,)": (data,), "(dict, None)": (data, None), **forms_of(data)}
    history = compiled_model.fit(data, validation_data=known[form], verbose=0).history
    assert "val_group_error_0" in history


def test_validation_split_works(compiled_model, data):
    history = compiled_model.fit(data, validation_split=0.3, verbose=0).history
    assert "val_mse" in history


def test_a_table_of_pandas_and_a_vector_for_a_column_work(compiled_model, data):
    # In a model of their own: Keras's own fails where a column has gone before.
    model = a_model()
    model.compile("sgd")
    model.set_weights(compiled_model.get_weights())
    given = {
        "x": pd.DataFrame(data["x"]),
        "y_true": data["y_true"][:, 0],
        "group_ids": pd.Series(data["group_ids"]),
    }
    logs = model.evaluate(given, verbose=0, return_dict=True)
    expected = compiled_model.evaluate(data, verbose=0, return_dict=True)
    assert logs == pytest.approx(expected, rel=1e-6)


def test_single_batches_can_be_trained_and_tested(compiled_model, data):
    assert set(compiled_model.train_on_batch(data, return_dict=True)) == KEYS
    assert set(compiled_model.test_on_batch(data, return_dict=True)) == KEYS


# What is refused ----------------------------------------------------------------


def without(data, name):
    return {key: value for key, value in data.items() if key != name}


def calls_of(model):
    """The four ways to feed data, by name."""
    return {
        "fit": lambda x, **k: model.fit(x, verbose=0, **k),
        "evaluate": lambda x, **k: model.evaluate(x, verbose=0, **k),
        "train_on_batch": model.train_on_batch,
        "test_on_batch": model.test_on_batch,
    }


each_method = pytest.mark.parametrize(
    "method", ["fit", "evaluate", "train_on_batch", "test_on_batch"]
)


@each_method
def test_a_missing_key_is_refused_by_its_name(method, compiled_model, data):
    with pytest.raises(ValueError, match=r"`group_ids` is missing.*Received: keys="):
        calls_of(compiled_model)[method](without(data, "group_ids"))


@each_method
def test_an_unknown_key_is_refused_by_its_name(method, compiled_model, data):
    with pytest.raises(ValueError, match=r"`group_id` is not one of them"):
        calls_of(compiled_model)[method]({**data, "group_id": data["group_ids"]})


@each_method
def test_unequal_lengths_are_refused(method, compiled_model, data):
    short = {**data, "group_ids": data["group_ids"][:9]}
    with pytest.raises(ValueError, match=r"`group_ids` must have one row per.*\(9,\)"):
        calls_of(compiled_model)[method](short)


@each_method
def test_sample_weight_which_keras_would_ignore_is_refused(method, compiled_model, data):
    with pytest.raises(ValueError, match=r"would ignore `sample_weight=`.*`pack_inputs`"):
        calls_of(compiled_model)[method](data, sample_weight=np.ones(10))


@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_class_weight_which_has_no_classes_is_refused(method, compiled_model, data):
    with pytest.raises(ValueError, match=r"would ignore `class_weight=`"):
        calls_of(compiled_model)[method](data, class_weight={0: 1.0, 1: 2.0})


@each_method
def test_y_which_keras_would_ignore_is_refused(method, compiled_model, data):
    with pytest.raises(
        ValueError, match=r"would ignore `y=`.*`pack_inputs\(model, x, y\)`"
    ):
        calls_of(compiled_model)[method](data, y=data["y_true"])


@each_method
def test_features_alone_are_refused(method, compiled_model, data):
    with pytest.raises(ValueError, match=r"3 Inputs.*takes a dict with that many arrays"):
        calls_of(compiled_model)[method](data["x"])


def test_labels_in_the_place_of_ids_are_refused_by_their_name(compiled_model, data):
    labels = np.array(["a", "b"] * 5, object)
    with pytest.raises(TypeError, match=r"`group_ids` must be numbers.*= encode_groups"):
        compiled_model.fit({**data, "group_ids": labels}, verbose=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d, d["y_true"]), r"`validation_data` would ignore `y=`"),
        (lambda d: (d, None, np.ones(10)), r"`validation_data` would ignore `sample_w"),
        (lambda d: without(d, "y_true"), r"`y_true` is missing"),
        (lambda d: {**d, "x": d["x"][:3]}, r"must have one row per row of `x`"),
    ],
)
def test_validation_data_are_checked_as_well(change, message, compiled_model, data):
    with pytest.raises(ValueError, match=message):
        compiled_model.fit(data, validation_data=change(data), verbose=0)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a tf.data pipeline is TensorFlow's"
)
def test_a_dataset_with_targets_beside_the_dict_is_refused(compiled_model, data):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((data, data["y_true"])).batch(5)
    with pytest.raises(ValueError, match=r"would ignore all but the first part.*keys \["):
        compiled_model.fit(dataset, verbose=0)
    lacking = tf.data.Dataset.from_tensor_slices(without(data, "y_true")).batch(5)
    with pytest.raises(ValueError, match=r"`y_true` is missing"):
        compiled_model.evaluate(lacking, verbose=0)


def test_predict_from_features_alone_points_to_the_export(compiled_model, data):
    with pytest.raises(ValueError, match=r"`export_inference_model\(model\)`"):
        compiled_model.predict(data["x"], verbose=0)
    with pytest.raises(ValueError, match=r"`export_inference_model\(model\)`"):
        compiled_model.predict({"x": data["x"]}, verbose=0)


def test_a_compiled_loss_without_y_is_refused(data):
    model = a_model()
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=r"needs `y`.*Call `compile` without `loss=`"):
        model.fit(data, verbose=0)


def test_a_compiled_loss_with_y_is_added_to_those_of_the_graph(data):
    model = a_model()
    model.compile("sgd", loss="mse")
    logs = model.evaluate(data, data["y_true"], batch_size=10, verbose=0, return_dict=True)
    expected = 2 * logs["mse"] + 0.5 * logs["group_gap"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_second_compile_forgets_the_loss_of_the_first(data):
    model = a_model()
    model.compile("sgd", loss="mse")
    model.compile("sgd")
    logs = model.evaluate(data, batch_size=10, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["mse"] + 0.5 * logs["group_gap"], rel=1e-6)


@pytest.mark.parametrize("name", ["metrics", "weighted_metrics"])
def test_compiled_metrics_without_a_loss_are_refused(name):
    with pytest.raises(
        ValueError, match=r"compares outputs with `y`.*`build_training_model`"
    ):
        a_model().compile("sgd", **{name: ["mae"]})


def test_a_model_without_an_endpoint_is_refused():
    x = keras.Input((2,))
    with pytest.raises(ValueError, match=r"needs a LossEndpoint in its graph"):
        alk.TrainingModel([x], keras.layers.Dense(1)(x))


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras traces nothing there."
)
@pytest.mark.parametrize(
    "method, jit_compile",
    [("fit", "auto"), ("fit", True), ("fit", False), ("train_on_batch", "auto")],
)
def test_a_step_is_traced_once(method, jit_compile, data):
    """Keras traces its own twice on TensorFlow, where the first trace makes variables."""
    # Without a compilation Keras on JAX calls the step itself, for every batch.
    if keras.backend.backend() == "jax" and not jit_compile:
        pytest.skip("Each step is run, none traced.")
    model = a_model()
    model.compile("adam", jit_compile=jit_compile)
    traces = []

    def counted(*args, step=model.train_step):
        traces.append(1)
        return step(*args)

    object.__setattr__(model, "train_step", counted)
    options = {"batch_size": 5, "verbose": 0} if method == "fit" else {}
    for _ in range(2):
        getattr(model, method)(data, **options)
    assert len(traces) == 1


# Saving and resuming --------------------------------------------------------------


def test_a_reloaded_model_resumes_bit_by_bit(data, tmp_path):
    model = a_model()
    model.compile("adam")
    model.fit(data, batch_size=5, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    options = {"batch_size": 5, "shuffle": False, "epochs": 2, "verbose": 0}
    assert loaded.fit(data, **options).history == model.fit(data, **options).history
    for one, other in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_weights_alone_can_be_saved_too(data, tmp_path):
    model, other = a_model(), a_model()
    model.compile("sgd")
    model.fit(data, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for one, two in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(one, two)
