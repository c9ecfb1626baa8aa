"""Contrastive: a plain loop over pairs is the oracle; and the siamese model."""

import keras
import numpy as np
import pytest
from keras import ops

import addloss_kit as alk
from addloss_kit.losses import Contrastive


def _by_loop(is_alike, distance, margin):
    """Equation 4 of the paper, doubled, with 1 for a pair that is alike."""
    values = []
    for alike, d in zip(np.ravel(is_alike), np.ravel(distance).astype("float64")):
        values.append(d**2 if alike else max(0.0, margin - d) ** 2)
    return np.array(values)


@pytest.fixture
def pairs(rng):
    is_alike = rng.integers(0, 2, (40, 1)).astype("float32")
    return is_alike, rng.uniform(0, 2, (40, 1)).astype("float32")


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_it_is_the_loop_over_pairs(margin, pairs):
    value = float(Contrastive(margin)(*pairs))

    assert value == pytest.approx(_by_loop(*pairs, margin).mean(), rel=1e-6)


def test_a_weight_weighs_its_pair(pairs, rng):
    weight = rng.uniform(0, 2, 40).astype("float32")

    value = float(Contrastive(1.0)(*pairs, weight))

    assert value == pytest.approx((weight * _by_loop(*pairs, 1.0)).mean(), rel=1e-6)


def test_vectors_meet_columns_pair_by_pair(pairs):
    is_alike, distance = pairs

    value = float(Contrastive(1.0)(is_alike[:, 0], distance))

    assert value == pytest.approx(_by_loop(*pairs, 1.0).mean(), rel=1e-6)


def test_a_pair_beyond_the_margin_costs_nothing():
    assert float(Contrastive(1.0)([[0.0]], [[1.0]])) == 0.0
    assert float(Contrastive(1.0)([[0.0]], [[7.0]])) == 0.0


def test_the_order_of_pairs_does_not_matter(pairs, rng):
    is_alike, distance = pairs
    order = rng.permutation(40)

    value = float(Contrastive(1.0)(is_alike[order], distance[order]))

    assert value == pytest.approx(float(Contrastive(1.0)(*pairs)), rel=1e-6)


@pytest.mark.parametrize("margin", [0, -1.0, float("nan")])
def test_a_margin_that_is_not_above_zero_is_refused(margin):
    with pytest.raises(ValueError, match="`margin` must"):
        Contrastive(margin)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="`y_pred` must have the shape of `y_true`"):
        Contrastive(1.0)(np.zeros((4, 2)), np.zeros((4, 3)))


@keras.saving.register_keras_serializable("addloss_kit_tests")
def euclidean_distance(left, right):
    squares = ops.sum(ops.square(left - right), axis=-1, keepdims=True)
    return alk.functional.safe_sqrt(squares)


@keras.saving.register_keras_serializable("addloss_kit_tests")
class Distance(keras.layers.Layer):
    def call(self, inputs):
        return euclidean_distance(*inputs)


def _siamese():
    tower = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)]
    )
    left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    distance = Distance()([tower(left), tower(right)])
    return keras.Model([left, right], distance)


def _rings(rng, rows):
    """Points on two rings; a pair is alike if both lie on the same one."""
    ring = rng.integers(0, 2, (rows, 2))
    angle = rng.uniform(0, 2 * np.pi, (rows, 2))
    radius = 1.0 + ring
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return points.astype("float32"), (ring[:, :1] == ring[:, 1:]).astype("float32")


def test_a_siamese_model_trains_exports_and_tells_pairs_apart(rng, tmp_path):
    points, is_alike = _rings(rng, 512)
    model = alk.build_training_model(_siamese(), Contrastive(margin=1.0))
    model.compile(keras.optimizers.Adam(0.02))
    data = alk.pack_inputs(model, [points[:, 0], points[:, 1]], is_alike)

    history = model.fit(data, batch_size=64, epochs=25, verbose=0).history
    exported = alk.export_inference_model(model, tmp_path / "siamese.keras")

    new_points, new_alike = _rings(rng, 300)
    loaded = keras.saving.load_model(tmp_path / "siamese.keras")
    new = [new_points[:, 0], new_points[:, 1]]
    distance = loaded.predict(new, verbose=0)
    np.testing.assert_allclose(distance, exported.predict(new, verbose=0), rtol=1e-5)
    assert history["loss"][-1] < 0.4 * history["loss"][0]
    # Half of the margin parts them; guessing is right for a half.
    assert np.mean((distance < 0.5) == new_alike) > 0.85


def test_equal_twins_at_a_distance_of_zero_leave_the_weights_finite(rng):
    # The two towers share their weights, so equal points lie exactly 0 apart.
    points = rng.normal(size=(8, 2)).astype("float32")
    model = alk.build_training_model(_siamese(), Contrastive(margin=1.0))
    model.compile(keras.optimizers.SGD(0.1))
    data = alk.pack_inputs(model, [points, points], np.tile([[0.0], [1.0]], (4, 1)))

    model.fit(data, epochs=2, verbose=0)

    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


def test_it_survives_save_and_reload_with_its_margin(pairs, tmp_path):
    is_alike, distance = pairs
    predictor = keras.Sequential([keras.Input((1,)), keras.layers.ReLU()])
    model = alk.build_training_model(predictor, Contrastive(margin=2.5))
    data = alk.pack_inputs(model, distance, is_alike)
    model.compile()

    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    reloaded.compile()

    value = reloaded.evaluate(data, batch_size=40, verbose=0, return_dict=True)["loss"]
    assert value == pytest.approx(_by_loop(*pairs, 2.5).mean(), rel=1e-6)
