"""The default values of a trade-off curve, up to a weight of 30, on a net."""

import engines
import keras
import numpy as np
import pytest

import addloss_kit as alk


@pytest.mark.slow
def test_the_default_values_give_a_frontier_and_no_point_blows_up():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1600, 20)).astype("float32")
    ids = (rng.uniform(size=1600) < 0.3).astype("int32")
    line, other = rng.normal(size=(2, 20)) / np.sqrt(20)
    y = np.where(ids == 1, x @ (line + 0.7 * other), x @ line)
    y = (y + rng.normal(size=1600) * np.where(ids == 1, 0.8, 0.3)).astype("float32")

    keras.utils.set_random_seed(0)
    predictor = keras.Sequential(
        [
            keras.Input((20,), name="x"),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(1),
        ]
    )
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    model.compile(
        keras.optimizers.Adam(0.003), steps_per_execution=engines.STEPS_PER_EXECUTION
    )
    train = alk.pack_inputs(model, x[:1200], y[:1200], group_ids=ids[:1200])
    held_out = alk.pack_inputs(model, x[1200:], y[1200:], group_ids=ids[1200:])

    # Of a model, not of `build`: that one compiles anew for every value.
    curve = alk.tradeoff_curve(
        model,
        "group_gap",
        train,
        held_out,
        epochs=30,
        batch_size=32,
        seed=0,
        verbose=0,
    )

    errors = [point.error for point in curve.points]
    assert max(errors) < 2.0 * curve.start.error
    frontier = [(p.error, p.gap) for p in curve.frontier]
    assert len(frontier) >= 2
    assert all(a[1] >= b[1] for a, b in zip(frontier, frontier[1:]))
    # Largest weights close most of the gap that can be closed.
    assert curve.points[-1].gap < 0.8 * curve.start.gap
