"""Batches of 16 rows lead where all rows at once lead: what running totals are for."""

import engines
import keras
import numpy as np
import pytest
from scipy.optimize import minimize

import addloss_kit as alk
from addloss_kit.losses import GroupGap

ROWS, FEATURES, LOSS_WEIGHT = 2000, 10, 5.0


def rows(num_groups):
    """Groups with lines and noise of their own: no model serves them equally well."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES))
    if num_groups == 2:  # a minority of 10 %
        ids = (rng.uniform(size=ROWS) < 0.1).astype("int32")
        noise = np.array([0.2, 0.5])
    else:
        ids = rng.integers(0, num_groups, ROWS).astype("int32")
        noise = np.linspace(0.1, 0.6, num_groups)
    lines = rng.normal(size=FEATURES) / np.sqrt(FEATURES)
    lines = lines + 0.2 * rng.normal(size=(num_groups, FEATURES))
    y = (x * lines[ids]).sum(1) + noise[ids] * rng.normal(size=ROWS)
    return x.astype("float32"), y.astype("float32")[:, None], ids


def objective(parameters, x, y, ids, num_groups):
    """MSE + λ · mean squared gap over pairs, of a linear model on all rows."""
    error = (x @ parameters[:-1] + parameters[-1] - y[:, 0]) ** 2
    means = np.array([error[ids == k].mean() for k in range(num_groups)])
    squares = np.square(means[:, None] - means[None]).sum()
    return error.mean() + LOSS_WEIGHT * squares / (num_groups * (num_groups - 1))


def train(x, y, ids, num_groups, *, batch_size, epochs, learning_rate, **options):
    """The objective that training ends at, with these options of the gap."""
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(1, kernel_initializer="zeros")
    predictor = keras.Sequential([keras.Input((FEATURES,)), layer])
    model = alk.build_training_model(
        predictor,
        ["mse", GroupGap(num_groups, **options)],
        loss_weights=[1.0, LOSS_WEIGHT],
    )
    steps = epochs * ROWS // batch_size
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule), steps_per_execution=engines.STEPS_PER_EXECUTION
    )
    # All epochs as one, each in an order of its own: an epoch costs time by itself.
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(ROWS) for _ in range(epochs)])
    packed = alk.pack_inputs(model, x, y, group_ids=ids)
    packed = {name: array[order] for name, array in packed.items()}
    model.fit(packed, batch_size=batch_size, shuffle=False, verbose=0)
    kernel, bias = layer.get_weights()
    parameters = np.append(kernel[:, 0], bias).astype("float64")
    return objective(parameters, x.astype("float64"), y, ids, num_groups)


@pytest.mark.parametrize("num_groups", [2, 20])
def test_batches_of_16_end_where_the_full_batch_ends_and_the_plug_in_does_not(num_groups):
    x, y, ids = rows(num_groups)
    data = x, y, ids, num_groups
    plain = {"momentum": 0, "max_force": float("inf")}
    full = train(*data, batch_size=ROWS, epochs=300, learning_rate=0.05, **plain)
    small = {"batch_size": 16, "epochs": 20, "learning_rate": 0.01}
    running = train(*data, **small)
    plug_in = train(*data, **small, **plain)
    best = minimize(
        objective,
        np.zeros(FEATURES + 1),
        args=(x.astype("float64"), y.astype("float64"), ids, num_groups),
        method="BFGS",
    ).fun
    print(
        f"{num_groups} groups, MSE + {LOSS_WEIGHT:g} · gap²: BFGS {best:.4f}, full batch "
        f"{full:.4f}; batch 16: running totals {running:.4f} ({running / full - 1:+.2%}), "
        f"plug-in {plug_in:.4f} ({plug_in / full - 1:+.2%})"
    )
    assert full == pytest.approx(best, rel=1e-3)
    assert abs(running / full - 1) < 0.03
    assert plug_in / full - 1 > 0.05
    assert plug_in - full > 5 * abs(running - full)
