"""Sequences: weights per row, step and element; masks; RNNs; CTC."""

import keras
import numpy as np
import pytest
from keras import ops

import addloss_kit as alk

ROWS, STEPS, FEATURES, OUTPUTS = 9, 5, 3, 2
# From Keras 3.16 on, a recurrent layer says that it passes no mask on.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*was passed an input with a mask attached to it:UserWarning"
)
registered = keras.saving.register_keras_serializable("addloss_kit_tests")


@pytest.fixture
def arrays(rng):
    x = rng.normal(size=(ROWS, STEPS, FEATURES)).astype("float32")
    y = rng.normal(size=(ROWS, STEPS, OUTPUTS)).astype("float32")
    return x, y


def _evaluate(model, packed):
    # Eagerly: most of the time would go into graphs that run once.
    model.compile(run_eagerly=keras.backend.backend() != "jax")
    return model.evaluate(packed, batch_size=4, verbose=0, return_dict=True)


def _reloaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras", compile=False)


def _per_step():
    return keras.Sequential(
        [keras.Input((STEPS, FEATURES), name="x"), keras.layers.Dense(OUTPUTS)]
    )


# Weights -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(), (STEPS,), (STEPS, OUTPUTS)], ids=["row", "step", "element"]
)
@pytest.mark.parametrize("kind", ["keras_loss", "function"])
def test_a_weight_meets_the_loss_first_axes_on_first_axes(shape, kind, arrays, rng):
    x, y = arrays
    weight = rng.uniform(0, 2, (ROWS, *shape)).astype("float32")

    def squares(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    predictor = _per_step()
    model = alk.build_training_model(
        predictor,
        "mse" if kind == "keras_loss" else squares,
        sample_weight=True,
        inputs={"sample_weight": keras.Input(shape)},
    )

    logs = _evaluate(model, alk.pack_inputs(model, x, y, sample_weight=weight))

    # The rule: a weight lacking axes is repeated, one with more is averaged.
    per_step = weight.reshape(ROWS, -1, OUTPUTS).mean(-1) if len(shape) == 2 else weight
    per_step = per_step if per_step.ndim == 2 else per_step[:, None]
    error = np.square(predictor.predict(x, verbose=0).astype("float64") - y).mean(axis=-1)
    assert logs["loss"] == pytest.approx(np.mean(per_step * error), rel=1e-6)


def test_a_weight_per_step_is_that_of_keras(arrays, rng):
    x, y = arrays
    weight = rng.uniform(0, 2, (ROWS, STEPS)).astype("float32")
    predictor = _per_step()
    model = alk.build_training_model(
        predictor,
        "mse",
        metrics=["mae"],
        sample_weight=True,
        inputs={"sample_weight": keras.Input((STEPS,))},
    )

    logs = _evaluate(model, alk.pack_inputs(model, x, y, sample_weight=weight))

    predictor.compile(loss="mse", weighted_metrics=["mae"], run_eagerly=True)
    expected = predictor.evaluate(
        x, y, sample_weight=weight, batch_size=4, verbose=0, return_dict=True
    )
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert logs["mae"] == pytest.approx(expected["mae"], rel=1e-6)


def test_a_weight_per_row_is_spread_over_a_weight_input_per_step(arrays, rng):
    x, y = arrays
    weight = rng.uniform(0, 2, ROWS).astype("float32")
    model = alk.build_training_model(
        _per_step(),
        "mse",
        sample_weight=True,
        inputs={"sample_weight": keras.Input((STEPS,))},
    )

    packed = alk.pack_inputs(model, x, y, sample_weight=weight)

    np.testing.assert_array_equal(packed["sample_weight"], np.tile(weight, (STEPS, 1)).T)


def test_a_weight_per_element_weighs_the_weighted_rmse(arrays, rng):
    x, y = arrays
    weight = rng.uniform(0, 2, (ROWS, STEPS, OUTPUTS)).astype("float32")
    predictor = _per_step()
    model = alk.build_training_model(predictor, alk.losses.WeightedRMSE())
    model.compile()

    packed = alk.pack_inputs(model, x, y, sample_weight=weight)
    value = model.evaluate(packed, batch_size=ROWS, verbose=0, return_dict=True)["loss"]

    square = np.square(predictor.predict(x, verbose=0).astype("float64") - y)
    expected = np.sqrt(np.average(square, weights=weight))
    assert value == pytest.approx(expected, rel=1e-6)


# Masks ---------------------------------------------------------------------------


def _with_embedding():
    ids = keras.Input((STEPS,), dtype="int32", name="ids")
    h = keras.layers.Embedding(6, 4, mask_zero=True)(ids)
    h = keras.layers.GRU(4, return_sequences=True)(h)
    return keras.Model(ids, keras.layers.Dense(OUTPUTS)(h))


def _with_masking():
    x = keras.Input((STEPS, FEATURES), name="x")
    h = keras.layers.Masking(0.0)(x)
    h = keras.layers.LSTM(4, return_sequences=True)(h)
    return keras.Model(x, keras.layers.Dense(OUTPUTS)(h))


def _masked(kind, rng):
    """A predictor and features, of which the last steps of some rows are padding."""
    length = rng.integers(1, STEPS + 1, ROWS)
    is_valid = np.arange(STEPS) < length[:, None]
    if kind == "embedding":
        return _with_embedding(), is_valid * rng.integers(1, 6, (ROWS, STEPS)), is_valid
    x = rng.normal(size=(ROWS, STEPS, FEATURES)) * is_valid[..., None]
    return _with_masking(), x.astype("float32"), is_valid


@pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", ["embedding", "masking"])
def test_masked_steps_are_left_out_as_by_keras(kind, is_weighted, rng, tmp_path):
    predictor, x, is_valid = _masked(kind, rng)
    y = rng.normal(size=(ROWS, STEPS, OUTPUTS)).astype("float32")
    weight = rng.uniform(0.5, 2, (ROWS, STEPS)).astype("float32")
    model = alk.build_training_model(
        predictor,
        ["mse", keras.losses.Huber(0.3, reduction="sum")],
        metrics=["mae"],
        sample_weight=is_weighted,
        inputs={"sample_weight": keras.Input((STEPS,))} if is_weighted else None,
    )
    weight = weight if is_weighted else None
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)

    logs = _evaluate(model, packed)
    again = _evaluate(_reloaded(model, tmp_path), packed)

    assert again == pytest.approx(logs, rel=1e-6)
    for layer in predictor.layers:
        # From Keras 3.16 on, the recurrent layer would lose its mask, and Keras's own loss
        # count the padding.
        layer.supports_masking = True
    for name, loss in [("mse", "mse"), ("huber_loss", model.endpoint.terms[1].error.loss)]:
        predictor.compile(loss=loss, run_eagerly=True)
        expected = predictor.evaluate(
            x, y, sample_weight=weight, batch_size=4, verbose=0, return_dict=True
        )
        assert logs[name] == pytest.approx(expected["loss"], rel=1e-6)
    # By hand, as Keras's own `weighted_metrics` on torch are off by some percent in
    # batches of 4 rows.
    counts = is_valid * (weight if is_weighted else 1.0)
    errors = np.abs(y - predictor.predict(x, verbose=0)).mean(axis=-1)
    expected_mae = np.average(errors, weights=counts)
    assert logs["mae"] == pytest.approx(expected_mae, rel=1e-6)


def test_a_weight_per_row_meets_a_mask(rng):
    predictor, x, is_valid = _masked("embedding", rng)
    y = rng.normal(size=(ROWS, STEPS, OUTPUTS)).astype("float32")
    weight = rng.uniform(0.5, 2, ROWS).astype("float32")
    model = alk.build_training_model(predictor, "mse", metrics=["mae"], sample_weight=True)
    model.compile()

    packed = alk.pack_inputs(model, x, y, sample_weight=weight)
    logs = model.evaluate(packed, batch_size=ROWS, verbose=0, return_dict=True)

    error = predictor.predict(x, verbose=0).astype("float64") - y
    square = np.square(error).mean(axis=-1)
    expected = np.sum(weight[:, None] * is_valid * square) / is_valid.sum()
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    absolute = np.abs(error).mean(axis=-1)
    expected = np.average(absolute, weights=weight[:, None] * is_valid)
    assert logs["mae"] == pytest.approx(expected, rel=1e-6)


def test_a_function_is_averaged_over_the_steps_that_count(rng):
    predictor, x, is_valid = _masked("embedding", rng)
    y = rng.normal(size=(ROWS, STEPS, OUTPUTS)).astype("float32")

    def absolute(y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    model = alk.build_training_model(predictor, absolute)
    model.compile()

    packed = alk.pack_inputs(model, x, y)
    value = model.evaluate(packed, batch_size=ROWS, verbose=0, return_dict=True)["loss"]

    error = np.abs(predictor.predict(x, verbose=0).astype("float64") - y).mean(axis=-1)
    assert value == pytest.approx(error[is_valid].mean(), rel=1e-6)


def test_a_function_may_take_the_mask_itself(rng):
    predictor, x, is_valid = _masked("embedding", rng)
    y = np.zeros((ROWS, STEPS, OUTPUTS), "float32")

    def share_that_counts(y_true, y_pred, mask):
        return ops.mean(ops.cast(mask, "float32")) + 0 * ops.mean(y_pred)

    model = alk.build_training_model(predictor, share_that_counts)
    model.compile()

    packed = alk.pack_inputs(model, x, y)
    value = model.evaluate(packed, batch_size=ROWS, verbose=0, return_dict=True)["loss"]

    assert value == pytest.approx(is_valid.mean(), rel=1e-6)


def test_group_errors_leave_masked_steps_out(rng):
    predictor, x, is_valid = _masked("masking", rng)
    y = rng.normal(size=(ROWS, STEPS, OUTPUTS)).astype("float32")
    groups = np.arange(ROWS) % 2
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2, momentum=0.0)],
        metrics=[alk.metrics.GroupError(2)],
    )
    model.compile()

    packed = alk.pack_inputs(model, x, y, group_ids=groups)
    logs = model.evaluate(packed, batch_size=ROWS, verbose=0, return_dict=True)

    square = np.square(predictor.predict(x, verbose=0).astype("float64") - y).mean(axis=-1)
    rows = np.array([s[v].mean() for s, v in zip(square, is_valid)])
    means = [rows[groups == k].mean() for k in (0, 1)]
    assert logs["group_error_0"] == pytest.approx(means[0], rel=1e-5)
    assert logs["group_error_1"] == pytest.approx(means[1], rel=1e-5)
    assert logs["group_gap"] == pytest.approx((means[0] - means[1]) ** 2, rel=1e-4)


def test_sparse_labels_per_step_with_a_mask_are_those_of_keras(rng):
    ids = keras.Input((STEPS,), dtype="int32", name="ids")
    h = keras.layers.Embedding(6, 4, mask_zero=True)(ids)
    predictor = keras.Model(ids, keras.layers.Dense(6, "softmax")(h))
    x = rng.integers(0, 6, (ROWS, STEPS))
    y = rng.integers(0, 6, (ROWS, STEPS))
    model = alk.build_training_model(
        predictor, "sparse_categorical_crossentropy", metrics=["accuracy"]
    )

    logs = _evaluate(model, alk.pack_inputs(model, x, y))

    predictor.compile(
        loss="sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
        run_eagerly=True,
    )
    expected = predictor.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert logs["accuracy"] == pytest.approx(expected["accuracy"], rel=1e-6)


# Recurrent predictors ------------------------------------------------------------


def test_an_lstm_trains_on_a_weight_per_row_and_output(rng, tmp_path):
    # The published question: sequences in, one vector out, a weight for each element.
    x = rng.normal(size=(64, STEPS, FEATURES)).astype("float32")
    y = np.tanh(x.sum(axis=1) @ rng.normal(size=(FEATURES, 4))).astype("float32")
    weight = rng.uniform(0, 1, (64, 4)).astype("float32")
    predictor = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES), name="x"),
            keras.layers.LSTM(8),
            keras.layers.Dense(4),
        ]
    )
    model = alk.build_training_model(predictor, alk.losses.WeightedRMSE(over="sample"))
    model.compile(keras.optimizers.Adam(0.02))
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)

    history = model.fit(packed, batch_size=16, epochs=8, verbose=0).history

    assert history["loss"][-1] < 0.7 * history["loss"][0]
    exported = alk.export_inference_model(model, tmp_path / "lstm.keras")
    expected = predictor.predict(x, verbose=0)
    np.testing.assert_allclose(exported.predict(x, verbose=0), expected, rtol=1e-5)


# CTC -----------------------------------------------------------------------------


@registered
def ctc(y_true, y_pred, label_length, input_length):
    return ops.ctc_loss(y_true, y_pred, label_length, input_length, mask_index=0)


CLASSES = 5


def _recogniser(frames=12):
    x = keras.Input((frames, FEATURES), name="x")
    h = keras.layers.Bidirectional(keras.layers.GRU(12, return_sequences=True))(x)
    return keras.Model(x, keras.layers.Dense(CLASSES)(h))


def _ctc_model(predictor):
    return alk.build_training_model(
        predictor,
        ctc,
        inputs={
            "y_true": keras.Input((None,), dtype="int32"),
            "label_length": keras.Input((), dtype="int32"),
            "input_length": keras.Input((), dtype="int32"),
        },
    )


def _speech(rng, rows, frames=12):
    """Labels of one to three classes, each held for some frames, then silence."""
    label_length = rng.integers(1, 4, rows)
    labels = rng.integers(1, CLASSES, (rows, 3)) * (np.arange(3) < label_length[:, None])
    prototypes = np.random.default_rng(7).normal(0, 2, (CLASSES, FEATURES))
    frame_class = np.zeros((rows, frames), int)
    for i in range(3):
        # Three frames a class and one of silence, so that repeats can be told apart.
        frame_class[:, 4 * i : 4 * i + 3] = labels[:, i : i + 1]
    x = prototypes[frame_class] + rng.normal(0, 0.1, (rows, frames, FEATURES))
    return x.astype("float32"), labels, label_length, 4 * label_length


@pytest.mark.slow
def test_ctc_with_lengths_as_inputs_trains_exports_and_reads(rng, tmp_path):
    x, labels, label_length, input_length = _speech(rng, 96)
    model = _ctc_model(_recogniser())
    model.compile(keras.optimizers.Adam(0.03))
    packed = alk.pack_inputs(
        model, x, labels, label_length=label_length, input_length=input_length
    )

    history = model.fit(packed, batch_size=16, epochs=12, verbose=0).history
    exported = alk.export_inference_model(model, tmp_path / "reader.keras")

    assert history["loss"][-1] < 0.2 * history["loss"][0]
    x, labels, label_length, input_length = _speech(rng, 40)
    loaded = keras.saving.load_model(tmp_path / "reader.keras")
    logits = loaded.predict(x, verbose=0)
    np.testing.assert_allclose(logits, exported.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    read = [_read(row[:n]) for row, n in zip(logits, input_length)]
    right = [r == list(row[:n]) for r, row, n in zip(read, labels, label_length)]
    assert np.mean(right) > 0.8


def _read(logits):
    """Greedy: repeats are one, blanks are none."""
    best = logits.argmax(axis=-1)
    return [int(c) for c, before in zip(best, [0, *best[:-1]]) if c not in (0, before)]


def test_ctc_with_full_lengths_is_the_loss_of_keras(rng, tmp_path):
    x, labels, label_length, _ = _speech(rng, ROWS)
    predictor = keras.Sequential(
        [keras.Input((12, FEATURES), name="x"), keras.layers.Dense(CLASSES)]
    )
    model = _ctc_model(predictor)
    packed = alk.pack_inputs(
        model, x, labels, label_length=label_length, input_length=np.full(ROWS, 12)
    )

    value = _evaluate(model, packed)["loss"]
    reloaded = _evaluate(_reloaded(model, tmp_path), packed)["loss"]

    predictor.compile(loss=keras.losses.CTC(), run_eagerly=True)
    expected = predictor.evaluate(x, labels, batch_size=4, verbose=0)
    assert value == pytest.approx(expected, rel=1e-5)
    assert reloaded == pytest.approx(value, rel=1e-6)
