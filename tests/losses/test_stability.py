"""The running totals where they could blow up: no order of rows, no rarity does it."""

import engines
import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import GroupGap


def rows(rng, minority, count=2000):
    """Rows of two groups; the minority follows another line, with more noise."""
    x = rng.normal(size=(count, 5)).astype("float32")
    ids = np.zeros(count, "int32")
    ids[: round(minority * count)] = 1
    rng.shuffle(ids)
    slope = np.where(ids[:, None] == 1, 0.6, 1.0) * np.linspace(-1, 1, 5)
    noise = rng.normal(size=count) * np.where(ids == 1, 0.5, 0.2)
    return x, ((x * slope).sum(1) + noise).astype("float32")[:, None], ids


def objective(kernel, bias, x, y, ids):
    """MSE + gap² of a linear model over all rows."""
    error = (x.astype("float64") @ kernel + bias - y)[:, 0] ** 2
    return error.mean() + (error[ids == 0].mean() - error[ids == 1].mean()) ** 2


@pytest.mark.parametrize("minority", [0.5, 0.1, 0.005])
@pytest.mark.parametrize("order", ["sorted", "sorted backwards", "shuffled"])
def test_training_never_leaps_above_its_start_and_ends_far_below(order, minority, rng):
    x, y, ids = rows(rng, minority)
    if order != "shuffled":
        by_group = np.argsort(ids, kind="stable")
        by_group = by_group[::-1] if order == "sorted backwards" else by_group
        x, y, ids = x[by_group], y[by_group], ids[by_group]
    layer = keras.layers.Dense(1, kernel_initializer="zeros")
    predictor = keras.Sequential([keras.Input((5,)), layer])
    model = alk.build_training_model(predictor, ["mse", GroupGap(2)])
    model.compile(
        keras.optimizers.SGD(0.01), steps_per_execution=engines.STEPS_PER_EXECUTION
    )
    values = [objective(*layer.get_weights(), x, y, ids)]

    def measure(epoch, logs):
        values.append(objective(*layer.get_weights(), x, y, ids))

    history = model.fit(
        alk.pack_inputs(model, x, y, group_ids=ids),
        batch_size=16,
        shuffle=order == "shuffled",
        epochs=8,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=measure)],
        verbose=0,
    ).history
    print(f"{order}, {minority:.1%}:", " ".join(f"{value:.2f}" for value in values))
    assert np.isfinite([history[name] for name in ("loss", "mse", "group_gap")]).all()
    assert history["loss"][-1] < history["loss"][0]
    assert max(values[1:]) < values[0]
    assert values[-1] < 0.2 * values[0]


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_the_first_steps_do_not_leap(distance, rng):
    # The totals start at 0 and are corrected for it: the very first step of the
    # running totals is that of the plug-in.
    x, y, ids = rows(rng, 0.3, count=64)
    moved = {}
    for momentum in (0.0, 0.9, 0.999):
        keras.utils.set_random_seed(0)
        predictor = linear(5, name=None)
        before = predictor.get_weights()[0]
        model = alk.build_training_model(
            predictor, GroupGap(2, momentum=momentum, distance=distance)
        )
        model.compile(keras.optimizers.SGD(0.01))
        packed = alk.pack_inputs(model, x, y, group_ids=ids)
        loss = model.fit(packed, batch_size=64, verbose=0).history["loss"][0]
        moved[momentum] = np.append(predictor.get_weights()[0] - before, loss)
    np.testing.assert_allclose(moved[0.9], moved[0.0], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(moved[0.999], moved[0.0], rtol=1e-3, atol=1e-7)


def test_a_group_that_comes_back_after_a_long_absence_does_not_leap(rng):
    x, y, ids = rows(rng, 0.5, count=4000)
    # One batch of group 1, 600 of group 0 alone, then group 1 again: of its running
    # totals 0.99⁶⁰⁰ = 0.2 % are left, and a batch over them would count 70 times.
    zero, one = np.flatnonzero(ids == 0), np.flatnonzero(ids == 1)
    order = np.concatenate([one[:16], np.resize(zero, 600 * 16), one[16:32]])
    layer = keras.layers.Dense(1, kernel_initializer="zeros")
    predictor = keras.Sequential([keras.Input((5,)), layer])
    model = alk.build_training_model(predictor, GroupGap(2, momentum=0.99))
    model.compile(
        keras.optimizers.SGD(0.01), steps_per_execution=engines.STEPS_PER_EXECUTION
    )
    packed = alk.pack_inputs(model, x[order], y[order], group_ids=ids[order])
    until = {name: a[:-16] for name, a in packed.items()}
    last = {name: a[-16:] for name, a in packed.items()}
    model.fit(until, batch_size=16, shuffle=False, verbose=0)
    before = layer.get_weights()[0]
    model.fit(last, batch_size=16, shuffle=False, verbose=0)
    leap = np.abs(layer.get_weights()[0] - before).max()
    print(f"the batch of the group that came back moved the weights by {leap:.3f}")
    assert leap < 0.5
