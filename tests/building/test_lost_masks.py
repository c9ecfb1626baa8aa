"""Layers that lose their mask, as recurrent ones do from Keras 3.16 on.

Losses and metrics leave padding out all the same. The tests make every version of
Keras lose it, by `supports_masking = False`.
"""

import keras
import numpy as np
import pytest

import addloss_kit as alk

ROWS, STEPS = 12, 5
GROUPS = np.arange(ROWS) % 2

# Keras says what it loses.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*was passed an input with a mask attached to it:UserWarning"
)


def losing(layer):
    layer.supports_masking = False
    return layer


def an_lstm(**options):
    return losing(keras.layers.LSTM(3, return_sequences=True, **options))


LAYERS = {
    "lstm": an_lstm,
    "bidirectional": lambda: losing(keras.layers.Bidirectional(an_lstm())),
    "time distributed": lambda: losing(keras.layers.TimeDistributed(keras.layers.Dense(3))),
    "with states": lambda: an_lstm(return_state=True),
}


def a_predictor(kind):
    x = keras.Input((STEPS, 2), name="x")
    h = LAYERS[kind]()(keras.layers.Masking()(x))
    h = h[0] if isinstance(h, (list, tuple)) else h
    return keras.Model(x, keras.layers.Dense(1)(h))


def padded_rows(rng):
    is_step = np.arange(STEPS) < rng.integers(1, STEPS + 1, ROWS)[:, None]
    x = rng.normal(size=(ROWS, STEPS, 2)) * is_step[..., None]
    return x.astype("float32"), rng.normal(size=(ROWS, STEPS, 1)), is_step


def evaluated(model, packed):
    # Eagerly: most of the time would go into graphs that run once.
    model.compile("sgd", run_eagerly=keras.backend.backend() != "jax")
    return model.evaluate(packed, batch_size=ROWS, verbose=0, return_dict=True)


@pytest.mark.parametrize("kind", LAYERS)
def test_padded_steps_count_in_no_term_and_no_metric(kind, rng, tmp_path):
    x, y, is_step = padded_rows(rng)
    predictor = a_predictor(kind)
    model = alk.build_training_model(
        predictor, ["mse"], metrics=["mae", alk.metrics.GroupError(2)]
    )
    packed = alk.pack_inputs(model, x, y, group_ids=GROUPS)
    logs = evaluated(model, packed)

    error = (predictor.predict(x, verbose=0) - y)[..., 0]
    assert logs["loss"] == pytest.approx(np.square(error[is_step]).mean(), rel=1e-5)
    assert logs["loss"] != pytest.approx(np.square(error).mean(), rel=1e-4)
    assert logs["mae"] == pytest.approx(np.abs(error[is_step]).mean(), rel=1e-5)
    of_rows = [np.square(e[kept]).mean() for e, kept in zip(error, is_step)]
    for group in (0, 1):
        expected = np.mean(np.array(of_rows)[group == GROUPS])
        assert logs[f"group_error_{group}"] == pytest.approx(expected, rel=1e-5)

    model.save(tmp_path / "model.keras")
    again = alk.load_training_model(tmp_path / "model.keras")
    assert evaluated(again, packed) == pytest.approx(logs, rel=1e-6)
    exported = alk.export_inference_model(again, tmp_path / "predictor.keras")
    assert [tensor.name for tensor in exported.inputs] == ["x"]


def test_a_model_saved_by_a_keras_that_kept_the_mask_keeps_it(rng, tmp_path):
    x, y, _ = padded_rows(rng)
    inputs = keras.Input((STEPS, 2), name="x")
    h = ForgetfulLSTM(3, return_sequences=True)(keras.layers.Masking()(inputs))
    model = alk.build_training_model(keras.Model(inputs, keras.layers.Dense(1)(h)), "mse")
    packed = alk.pack_inputs(model, x, y)
    logs = evaluated(model, packed)
    model.save(tmp_path / "model.keras")

    ForgetfulLSTM.keeps = False
    try:
        again = alk.load_training_model(tmp_path / "model.keras")
        assert evaluated(again, packed) == pytest.approx(logs, rel=1e-6)
    finally:
        ForgetfulLSTM.keeps = True


@keras.saving.register_keras_serializable("addloss_kit_tests")
class ForgetfulLSTM(keras.layers.LSTM):
    """An LSTM of a version of Keras that keeps masks, or of one that does not."""

    keeps = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = self.keeps


def test_add_loss_keeps_the_mask_of_the_terms_before_it(rng):
    x, y, is_step = padded_rows(rng)
    predictor = a_predictor("lstm")
    model = alk.build_training_model(predictor, "mse")
    model = alk.add_loss(model, keras.ops.mean(model.inputs[0]) * 0.0)
    logs = evaluated(model, alk.pack_inputs(model, x, y))

    error = (predictor.predict(x, verbose=0) - y)[is_step]
    assert logs["mse"] == pytest.approx(np.square(error).mean(), rel=1e-5)


def test_a_layer_that_keeps_its_mask_needs_nothing():
    x = keras.Input((STEPS, 2), name="x")
    lstm = keras.layers.LSTM(3, return_sequences=True)
    lstm.supports_masking = True
    predictor = keras.Model(x, lstm(keras.layers.Masking()(x)))
    model = alk.build_training_model(predictor, "mse")
    assert "NotEqual" not in [type(op).__name__ for op in model.operations[3:]]
    assert len(model.layers) == len(predictor.layers) + 2  # the target, the endpoint


@pytest.mark.parametrize("kind", ["nested", "subclassed"])
def test_a_layer_that_loses_its_mask_out_of_sight_is_refused_by_name(kind):
    if kind == "nested":
        inner = keras.Sequential(
            [
                keras.Input((STEPS, 2)),
                keras.layers.Masking(),
                an_lstm(name="recurrent"),
                keras.layers.Dense(1),
            ]
        )
        x = keras.Input((STEPS, 2), name="x")
        predictor = keras.Model(x, inner(x))
    else:
        predictor = Subclassed()
        predictor(np.zeros((2, STEPS, 2), "float32"))
    with pytest.raises(
        ValueError, match=r"`recurrent`, inside .* loses the mask .*supports_masking"
    ):
        alk.build_training_model(predictor, "mse")


class Subclassed(keras.Model):
    """A recurrent model whose graph is not visible."""

    def __init__(self):
        super().__init__()
        self.masking = keras.layers.Masking()
        self.recurrent = an_lstm(name="recurrent")

    def call(self, x):
        return self.recurrent(self.masking(x))


def test_without_a_mask_there_is_nothing_to_lose():
    inner = keras.Sequential([keras.Input((STEPS, 2)), an_lstm()])
    x = keras.Input((STEPS, 2), name="x")
    model = alk.build_training_model(keras.Model(x, inner(x)), "mse")
    assert [tensor.name for tensor in model.inputs] == ["x", "y_true"]
