"""class_weight of the builder: weights by class for one output and for several."""

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight

import addloss_kit as alk

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("float32")
KIND = RNG.integers(0, 3, size=60)
SOLD = RNG.integers(0, 2, size=60)
OF_KIND, OF_SOLD = {0: 1.0, 2: 5.0}, {0: 0.5, 1: 3.0}
FULL = {0: 1.0, 1: 1.0, 2: 5.0}


def predictor():
    x = keras.Input((3,), name="x")
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(x)
    sold = keras.layers.Dense(1, activation="sigmoid", name="sold")(x)
    return keras.Model(x, [kind, sold])


def kinds():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])


def expected(labels, p, class_weight, row_weight=1.0):
    """scikit-learn's weighted log loss, by the number of rows."""
    p = p.astype("float64")
    if p.shape[1] == 1:
        p = np.concatenate([1 - p, p], axis=1)
    w = compute_sample_weight(class_weight, labels) * row_weight
    p /= p.sum(axis=1, keepdims=True)
    return log_loss(labels, p, sample_weight=w, normalize=False) / len(labels)


@pytest.mark.parametrize("has_weights", [False, True])
def test_each_output_has_the_weights_of_its_classes(has_weights):
    model = alk.build_training_model(
        predictor(),
        {"kind": "sparse_categorical_crossentropy", "sold": "binary_crossentropy"},
        class_weight={"kind": OF_KIND, "sold": OF_SOLD},
        sample_weight=has_weights,
    )
    model.compile("sgd")
    rows = RNG.uniform(0.5, 2.0, size=60) if has_weights else np.ones(60)
    weights = {"kind": rows, "sold": rows} if has_weights else None

    packed = alk.pack_inputs(model, X, {"kind": KIND, "sold": SOLD}, sample_weight=weights)
    logs = model.evaluate(packed, batch_size=60, verbose=0, return_dict=True)

    kind, sold = alk.export_inference_model(model).predict(X, verbose=0)
    of_kind = expected(KIND, kind, FULL, rows)
    of_sold = expected(SOLD, sold, OF_SOLD, rows)
    assert logs["kind_sparse_categorical_crossentropy"] == pytest.approx(of_kind, rel=1e-5)
    assert logs["sold_binary_crossentropy"] == pytest.approx(of_sold, rel=1e-5)
    assert logs["loss"] == pytest.approx(of_kind + of_sold, rel=1e-5)


def test_a_loss_that_is_added_later_keeps_the_weights_of_classes():
    model = alk.build_training_model(
        kinds(), "sparse_categorical_crossentropy", class_weight=OF_KIND
    )
    prediction = alk.export_inference_model(model).outputs[0]
    model = alk.add_loss(model, keras.ops.mean(prediction), weight=0.0)
    model.compile("sgd")
    packed = alk.pack_inputs(model, X, KIND)
    logs = model.evaluate(packed, batch_size=60, verbose=0, return_dict=True)
    p = alk.export_inference_model(model).predict(X, verbose=0)
    assert logs["loss"] == pytest.approx(expected(KIND, p, FULL), rel=1e-5)


def test_one_output_trains_as_keras_s_class_weight():
    plain = kinds()
    mine = keras.models.clone_model(plain)
    mine.set_weights(plain.get_weights())
    options = {"batch_size": 20, "epochs": 2, "shuffle": False, "verbose": 0}
    plain.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    plain.fit(X, KIND, class_weight=OF_KIND, **options)

    model = alk.build_training_model(
        mine, "sparse_categorical_crossentropy", class_weight=OF_KIND
    )
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(alk.pack_inputs(model, X, KIND), **options)

    for one, other in zip(mine.get_weights(), plain.get_weights()):
        assert np.allclose(one, other, atol=1e-6)


def test_one_hot_rows_are_their_classes():
    model = alk.build_training_model(
        kinds(), "categorical_crossentropy", class_weight=OF_KIND
    )
    model.compile("sgd")
    packed = alk.pack_inputs(model, X, np.eye(3)[KIND])

    value = model.evaluate(packed, batch_size=60, verbose=0, return_dict=True)["loss"]

    p = alk.export_inference_model(model).predict(X, verbose=0)
    assert value == pytest.approx(expected(KIND, p, FULL), rel=1e-5)


def test_steps_of_a_sequence_have_weights_of_their_own():
    x = keras.Input((4, 3))
    steps = keras.Model(x, keras.layers.Dense(3, activation="softmax")(x))
    model = alk.build_training_model(
        steps, "sparse_categorical_crossentropy", class_weight=OF_KIND, sample_weight=True
    )
    model.compile("sgd")
    rows = RNG.uniform(0.5, 2.0, size=15)
    packed = alk.pack_inputs(
        model, X.reshape(15, 4, 3), KIND.reshape(15, 4), sample_weight=rows
    )

    value = model.evaluate(packed, batch_size=15, verbose=0, return_dict=True)["loss"]

    p = steps.predict(X.reshape(15, 4, 3), verbose=0).reshape(60, 3)
    by_hand = expected(KIND, p, FULL, np.repeat(rows, 4))
    assert value == pytest.approx(by_hand, rel=1e-5)


def test_metrics_are_not_weighted():
    model = alk.build_training_model(
        kinds(), "sparse_categorical_crossentropy", metrics="accuracy", class_weight=OF_KIND
    )
    model.compile("sgd")

    logs = model.evaluate(alk.pack_inputs(model, X, KIND), verbose=0, return_dict=True)

    p = alk.export_inference_model(model).predict(X, verbose=0)
    assert logs["accuracy"] == pytest.approx((p.argmax(axis=1) == KIND).mean())


def test_a_gap_is_that_of_the_weighted_errors():
    groups = np.arange(60) % 2
    error = "sparse_categorical_crossentropy"
    gap = alk.losses.GroupGap(2, error=error, momentum=0.0, distance="absolute")
    model = alk.build_training_model(kinds(), [error, gap], class_weight=OF_KIND)
    model.compile("sgd")
    packed = alk.pack_inputs(model, X, KIND, group_ids=groups)

    logs = model.evaluate(packed, batch_size=60, verbose=0, return_dict=True)

    p = alk.export_inference_model(model).predict(X, verbose=0).astype("float64")
    row = -np.log(p[np.arange(60), KIND])
    w = compute_sample_weight(FULL, KIND)
    means = [np.average(row[groups == k], weights=w[groups == k]) for k in (0, 1)]
    assert logs["group_gap"] == pytest.approx(abs(means[0] - means[1]), rel=1e-4)


def test_the_weights_are_saved(tmp_path):
    model = alk.build_training_model(
        kinds(), "sparse_categorical_crossentropy", class_weight=OF_KIND
    )
    model.compile("sgd")
    packed = alk.pack_inputs(model, X, KIND)
    before = model.evaluate(packed, verbose=0)

    model.save(tmp_path / "model.keras")
    again = alk.load_training_model(tmp_path / "model.keras")

    assert again.evaluate(packed, verbose=0) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, TypeError, "must be a dict of weights by class"),
        ({"kind": 2.0}, TypeError, "must be a dict of weights by class"),
        ({"kinds": {0: 1.0}}, ValueError, "Did you mean `kind`"),
        ({0: 1.0, 1: 2.0}, ValueError, "a dict by output name"),
        ({"kind": {"a": 1.0}}, TypeError, "the numbers of the classes as keys"),
        ({"kind": {-1: 1.0}}, ValueError, "the numbers of the classes as keys"),
        ({"kind": {3: 1.0}}, ValueError, r"classes in \[0, 3\)"),
        ({"sold": {2: 1.0}}, ValueError, r"classes in \[0, 2\)"),
        ({"kind": {0: -1.0}}, ValueError, r"`class_weight\[0\]` must"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, error, message):
    losses = {"kind": "sparse_categorical_crossentropy", "sold": "binary_crossentropy"}
    with pytest.raises(error, match=message):
        alk.build_training_model(predictor(), losses, class_weight=given)


def test_an_output_whose_losses_take_no_target_is_refused():
    losses = {"kind": alk.losses.GroupDistributionGap(2), "sold": "binary_crossentropy"}
    with pytest.raises(ValueError, match="would have no effect"):
        alk.build_training_model(predictor(), losses, class_weight={"kind": OF_KIND})
