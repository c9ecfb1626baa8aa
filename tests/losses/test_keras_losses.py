"""Every loss of Keras, as a term: Keras itself is the oracle."""

import keras
import numpy as np
import pytest
from keras import losses

import addloss_kit as alk
from addloss_kit.losses import KerasLoss

ROWS = 13
CLASSES = 4
BATCH = 5  # leaves a partial batch of 3


# What each loss asks of predictions and targets, as an activation and a maker.
def _numbers(rng, shape):
    return rng.uniform(0.1, 2.0, shape).astype("float32")


def _binary(rng, shape):
    return rng.integers(0, 2, shape).astype("float32")


def _one_hot(rng, shape):
    return np.eye(shape[-1], dtype="float32")[rng.integers(0, shape[-1], shape[:-1])]


def _classes(rng, shape):
    return rng.integers(0, shape[-1], shape[:-1])


NUMBERS = ("softplus", _numbers)
BINARY = ("sigmoid", _binary)
BINARY_LOGITS = ("linear", _binary)
SIGNS = ("tanh", lambda rng, shape: 2 * _binary(rng, shape) - 1)
ONE_HOT = ("softmax", _one_hot)
ONE_HOT_LOGITS = ("linear", _one_hot)
CLASS = ("softmax", _classes)
CLASS_LOGITS = ("linear", _classes)

# Every class, with arguments that differ from the defaults wherever there are any.
CONFIGURED = [
    (losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2), BINARY_LOGITS),
    (losses.BinaryFocalCrossentropy(True, alpha=0.4, gamma=3.0), BINARY),
    (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT_LOGITS),
    (losses.CategoricalCrossentropy(label_smoothing=0.3), ONE_HOT),
    (losses.CategoricalFocalCrossentropy(alpha=0.6, gamma=1.5), ONE_HOT),
    (losses.CategoricalGeneralizedCrossEntropy(q=0.8), CLASS),
    (losses.CategoricalHinge(), ONE_HOT),
    (losses.Circle(gamma=8.0, margin=0.2, remove_diagonal=False), CLASS),
    (losses.CosineSimilarity(axis=0), NUMBERS),
    (losses.CosineSimilarity(axis=1), NUMBERS),
    (losses.Dice(axis=(1,)), BINARY),
    (losses.Dice(), BINARY),
    (losses.Hinge(), SIGNS),
    (losses.Huber(delta=0.3), NUMBERS),
    (losses.KLDivergence(), ONE_HOT),
    (losses.LogCosh(), NUMBERS),
    (losses.MeanAbsoluteError(), NUMBERS),
    (losses.MeanAbsolutePercentageError(), NUMBERS),
    (losses.MeanSquaredError(), NUMBERS),
    (losses.MeanSquaredLogarithmicError(), NUMBERS),
    (losses.Poisson(), NUMBERS),
    (losses.SparseCategoricalCrossentropy(from_logits=True), CLASS_LOGITS),
    (losses.SparseCategoricalCrossentropy(ignore_class=2), CLASS),
    (losses.SquaredHinge(), SIGNS),
    (losses.Tversky(alpha=0.7, beta=0.2, axis=(1,)), BINARY),
    (losses.Tversky(alpha=0.7, beta=0.2), BINARY),
]

NAMED = {
    "binary_crossentropy": BINARY,
    "binary_focal_crossentropy": BINARY,
    "categorical_crossentropy": ONE_HOT,
    "categorical_focal_crossentropy": ONE_HOT,
    "categorical_hinge": ONE_HOT,
    "circle": CLASS,
    "cosine_similarity": NUMBERS,
    "dice": BINARY,
    "hinge": SIGNS,
    "huber": NUMBERS,
    "kl_divergence": ONE_HOT,
    "log_cosh": NUMBERS,
    "mean_absolute_error": NUMBERS,
    "mae": NUMBERS,
    "mean_absolute_percentage_error": NUMBERS,
    "mean_squared_error": NUMBERS,
    "MSE": NUMBERS,
    "mean_squared_logarithmic_error": NUMBERS,
    "poisson": NUMBERS,
    "sparse_categorical_crossentropy": CLASS,
    "squared_hinge": SIGNS,
    "tversky": BINARY,
    "Huber": NUMBERS,
    "KLDivergence": ONE_HOT,
}


def _name(case):
    if isinstance(case, tuple):
        return ""
    return f"{type(case).__name__}{case._fn_kwargs or ''}"


def _problem(rng, kind, shape=(CLASSES,)):
    activation, target = kind
    x = rng.normal(size=(ROWS, *shape)).astype("float32")
    predictor = keras.Sequential(
        [keras.Input(shape, name="x"), keras.layers.Dense(shape[-1], activation)]
    )
    return predictor, x, target(rng, (ROWS, *shape))


def _by_keras(predictor, loss, x, y, weight=None):
    predictor.compile(loss=loss, run_eagerly=True)
    return predictor.evaluate(x, y, sample_weight=weight, batch_size=BATCH, verbose=0)


def _by_kit(model, packed):
    # Eagerly, as a graph for each of a hundred models would take minutes.
    model.compile(run_eagerly=keras.backend.backend() != "jax")
    values = model.evaluate(packed, batch_size=BATCH, verbose=0, return_dict=True)
    return values["loss"]


def _saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    # Not compiled: Keras warns of an optimizer that has not made a step.
    return keras.saving.load_model(tmp_path / "model.keras", compile=False)


def test_the_tables_name_every_loss_of_keras():
    classes = {
        name
        for name, thing in vars(losses).items()
        if isinstance(thing, type) and thing is not losses.Loss
    }
    functions = {
        name
        for name, thing in vars(losses).items()
        if callable(thing) and not isinstance(thing, type)
    } - {"get", "serialize", "deserialize"}

    in_tables = {type(loss).__name__ for loss, _ in CONFIGURED}
    # CTC has targets of another length than its predictions: tests of its own. And
    # the function that needs a `q` is known to Keras by its class only.
    assert classes - in_tables == {"CTC"}
    assert functions - set(NAMED) == {"ctc", "categorical_generalized_cross_entropy"}


@pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss, kind", CONFIGURED, ids=_name)
def test_evaluate_is_that_of_keras_and_survives_a_reload(
    loss, kind, is_weighted, rng, tmp_path
):
    predictor, x, y = _problem(rng, kind)
    weight = rng.uniform(0.5, 3.0, ROWS).astype("float32") if is_weighted else None
    if getattr(loss, "_fn_kwargs", {}).get("axis") == 0 and is_weighted:
        pytest.skip("a cosine over the rows has no value per row to weigh")
    model = alk.build_training_model(predictor, loss, sample_weight=is_weighted)
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)

    value = _by_kit(model, packed)
    reloaded = _by_kit(_saved_and_loaded(model, tmp_path), packed)

    expected = _by_keras(predictor, loss, x, y, weight)
    assert value == pytest.approx(expected, rel=1e-6)
    assert reloaded == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NAMED)
def test_a_loss_by_its_name_is_that_of_keras(name, rng):
    predictor, x, y = _problem(rng, NAMED[name])
    weight = rng.uniform(0.5, 3.0, ROWS).astype("float32")
    model = alk.build_training_model(predictor, name, sample_weight=True)

    value = _by_kit(model, alk.pack_inputs(model, x, y, sample_weight=weight))

    expected = _by_keras(predictor, name, x, y, weight)
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss, kind", CONFIGURED, ids=_name)
def test_a_term_called_by_hand_is_the_keras_object_called_by_hand(loss, kind, rng):
    predictor, x, y = _problem(rng, kind)
    y_pred = predictor.predict(x, verbose=0)

    value = float(KerasLoss(loss)(y, y_pred))

    assert value == pytest.approx(float(loss(y, y_pred)), rel=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean", "mean_with_sample_weight"])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
def test_the_reduction_is_that_of_keras(reduction, is_weighted, rng, tmp_path):
    predictor, x, y = _problem(rng, NUMBERS)
    loss = losses.Huber(delta=0.3, reduction=reduction)
    weight = rng.uniform(0.5, 3.0, ROWS).astype("float32") if is_weighted else None
    model = alk.build_training_model(predictor, loss, sample_weight=is_weighted)
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)

    value = _by_kit(model, packed)
    reloaded = _by_kit(_saved_and_loaded(model, tmp_path), packed)

    expected = _by_keras(predictor, loss, x, y, weight)
    assert value == pytest.approx(expected, rel=1e-6)
    assert reloaded == pytest.approx(expected, rel=1e-6)


def test_a_loss_without_a_reduction_is_refused():
    with pytest.raises(ValueError, match="needs a reduction"):
        KerasLoss(losses.MeanSquaredError(reduction=None))


@pytest.mark.parametrize("loss", [losses.CTC(), "ctc"], ids=["class", "name"])
def test_ctc_is_that_of_keras_with_targets_of_any_length(loss, rng, tmp_path):
    steps = 9
    predictor, x, _ = _problem(rng, ONE_HOT_LOGITS, (steps, CLASSES))
    y = rng.integers(1, CLASSES, (ROWS, 3))
    y[::2, 2] = 0  # shorter ones are padded with the blank
    model = alk.build_training_model(predictor, loss)
    packed = alk.pack_inputs(model, x, y)

    value = _by_kit(model, packed)
    reloaded = _by_kit(_saved_and_loaded(model, tmp_path), packed)

    expected = _by_keras(predictor, loss, x, y)
    assert value == pytest.approx(expected, rel=1e-6)
    assert reloaded == pytest.approx(expected, rel=1e-6)


def test_sparse_labels_per_step_have_the_shape_of_the_steps(rng):
    predictor, x, y = _problem(rng, CLASS, (6, CLASSES))
    model = alk.build_training_model(predictor, "sparse_categorical_crossentropy")

    value = _by_kit(model, alk.pack_inputs(model, x, y))

    assert model.training_fields["y_true"].shape == (6,)
    assert model.training_fields["y_true"].dtype == "int32"
    expected = _by_keras(predictor, "sparse_categorical_crossentropy", x, y)
    assert value == pytest.approx(expected, rel=1e-6)


def test_the_classes_may_lie_on_another_axis():
    # (rows, classes, pixels), as in torch. Keras's own kernels know axis=-1 only as
    # yet, so this is what the kit does about it: the target, and the saved axis.
    term = KerasLoss(losses.SparseCategoricalCrossentropy(axis=1))

    field = term.field("y_true", keras.KerasTensor((None, CLASSES, 6)))
    again = KerasLoss.from_config(term.get_config())

    assert field.shape == (6,)
    assert again.error.loss._fn_kwargs["axis"] == 1


def test_ignored_classes_do_not_count_in_the_mean_per_step(rng):
    loss = losses.SparseCategoricalCrossentropy(ignore_class=0)
    predictor, x, y = _problem(rng, CLASS, (6, CLASSES))
    weight = rng.uniform(0.5, 3.0, (ROWS, 6)).astype("float32")
    steps = keras.Input((6,))
    model = alk.build_training_model(
        predictor, loss, sample_weight=True, inputs={"sample_weight": steps}
    )

    value = _by_kit(model, alk.pack_inputs(model, x, y, sample_weight=weight))

    expected = _by_keras(predictor, loss, x, y, weight)
    assert value == pytest.approx(expected, rel=1e-6)


def test_a_dice_over_all_but_the_batch_weighs_each_row(rng):
    loss = losses.Dice(axis=(1, 2))
    predictor, x, y = _problem(rng, BINARY, (6, 3))
    weight = rng.uniform(0.5, 3.0, ROWS).astype("float32")
    model = alk.build_training_model(predictor, loss, sample_weight=True)

    value = _by_kit(model, alk.pack_inputs(model, x, y, sample_weight=weight))

    expected = _by_keras(predictor, loss, x, y, weight)
    assert value == pytest.approx(expected, rel=1e-6)


def test_integer_class_targets_are_declared_as_integers(rng):
    predictor, _, _ = _problem(rng, CLASS)
    for loss in ("sparse_categorical_crossentropy", losses.Circle()):
        model = alk.build_training_model(predictor, loss)
        field = model.training_fields["y_true"]
        assert (field.shape, field.dtype) == ((), "int32")


@pytest.mark.parametrize(
    "loss",
    [
        losses.SparseCategoricalCrossentropy(name="mine"),
        losses.CategoricalGeneralizedCrossEntropy(),
        KerasLoss("sparse_categorical_crossentropy", name="mine"),
        losses.sparse_categorical_crossentropy,
    ],
    ids=["named", "generalized", "term", "function"],
)
def test_accuracy_is_chosen_by_the_target_not_by_a_name(loss, rng):
    predictor, x, y = _problem(rng, CLASS)
    model = alk.build_training_model(predictor, loss, metrics=["accuracy"])
    model.compile(run_eagerly=keras.backend.backend() != "jax")

    logs = model.evaluate(alk.pack_inputs(model, x, y), verbose=0, return_dict=True)

    expected = np.mean(predictor.predict(x, verbose=0).argmax(axis=1) == y)
    assert logs["accuracy"] == pytest.approx(expected, rel=1e-6)


def test_a_name_that_a_person_gives_a_loss_does_not_change_its_target(rng):
    predictor, _, _ = _problem(rng, NUMBERS)
    loss = losses.MeanSquaredError(name="sparse_ctc")

    model = alk.build_training_model(predictor, loss)

    assert model.training_fields["y_true"].shape == (CLASSES,)


def test_inputs_override_the_shape_and_dtype_of_the_target(rng):
    predictor, x, y = _problem(rng, CLASS)
    model = alk.build_training_model(
        predictor,
        "sparse_categorical_crossentropy",
        inputs={"y_true": keras.Input((1,), dtype="int16")},
    )

    value = _by_kit(model, alk.pack_inputs(model, x, y))

    field = model.training_fields["y_true"]
    assert (field.shape, field.dtype) == ((1,), "int16")
    expected = _by_keras(predictor, "sparse_categorical_crossentropy", x, y)
    assert value == pytest.approx(expected, rel=1e-6)


def test_training_with_a_keras_loss_ends_where_compile_does(rng):
    predictor, x, y = _problem(rng, NUMBERS)
    twin = keras.models.clone_model(predictor)
    twin.set_weights(predictor.get_weights())
    weight = rng.uniform(0.5, 3.0, ROWS).astype("float32")
    loss = losses.Huber(delta=0.3)

    model = alk.build_training_model(predictor, loss, sample_weight=True)
    model.compile(keras.optimizers.Adam(0.05))
    packed = alk.pack_inputs(model, x, y, sample_weight=weight)
    ours = model.fit(packed, batch_size=BATCH, epochs=3, shuffle=False, verbose=0)
    twin.compile(keras.optimizers.Adam(0.05), loss=loss)
    theirs = twin.fit(
        x, y, sample_weight=weight, batch_size=BATCH, epochs=3, shuffle=False, verbose=0
    )

    np.testing.assert_allclose(ours.history["loss"], theirs.history["loss"], rtol=1e-6)
    for mine, other in zip(predictor.get_weights(), twin.get_weights()):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="Check the spelling.*mean_sqared_error"):
        alk.losses.get("mean_sqared_error")


def test_what_cannot_be_a_loss_is_refused_by_what_it_is():
    with pytest.raises(TypeError, match="Received: loss=3"):
        alk.losses.get(3)


def test_a_name_that_keras_knows_is_keras_s_whatever_terms_there_are():
    class Huber(alk.losses.LossTerm):
        """A term of a user, with the name of a loss of Keras."""

    assert isinstance(alk.losses.get("huber"), type(alk.losses.get("mse")))
    with pytest.raises(ValueError, match=r"losses\.GroupGap\(\.\.\.\)"):
        alk.losses.get("group_gap")
    del Huber
