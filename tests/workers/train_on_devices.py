"""Trains on one device and on several, and prints both results as JSON.

    PYTHONPATH=tests python tests/workers/train_on_devices.py DEVICES

A process of its own, as the number of (logical) CPU devices is fixed once
TensorFlow or JAX has started. `KERAS_BACKEND` chooses between
`tf.distribute.MirroredStrategy` and `keras.distribution.DataParallel`. JAX needs
`JAX_ENABLE_X64=1 XLA_FLAGS=--xla_force_host_platform_device_count=DEVICES`.
"""

import contextlib
import json
import sys

import every_term
import keras
import numpy as np

import addloss_kit as alk

DEVICES = int(sys.argv[1])


@contextlib.contextmanager
def several_devices():
    if keras.backend.backend() == "jax":
        devices = keras.distribution.list_devices("cpu")[:DEVICES]
        several = keras.distribution.DataParallel(devices=devices)
        keras.distribution.set_distribution(several)
        yield
        keras.distribution.set_distribution(None)
    else:
        with STRATEGY.scope():
            yield


def fit(model, rows, **arguments):
    history = model.fit(
        every_term.data(model, rows, seed=rows),
        y=None,
        batch_size=8,
        shuffle=False,
        verbose=0,
        **arguments,
    ).history
    return {key: values[-1] for key, values in history.items()}


def all_terms(rows):
    """Every term, for as many calls of `fit` as `rows` has entries."""
    model = every_term.build()
    logs = [fit(model, count) for count in rows]
    return {"logs": logs, "state": listed(model)}


def evaluation(rows):
    """The plug-in values that terms have outside training."""
    model = every_term.build()
    packed = every_term.data(model, rows)
    return model.evaluate(packed, batch_size=8, verbose=0, return_dict=True)


def losses_of_other_layers():
    """A BatchNormalization and an activity regulariser before the endpoint.

    Both make replicas wait for each other while losses are under way. Keras
    averages what layers add over the replicas, whatever their rows, so the rows
    must divide by the devices here.
    """
    is_tensorflow = keras.backend.backend() == "tensorflow"
    x = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(5, activity_regularizer="l2", kernel_regularizer="l2")(x)
    hidden = keras.layers.BatchNormalization(synchronized=is_tensorflow)(hidden)
    hidden = keras.layers.ActivityRegularization(l2=0.1)(hidden)
    model = alk.build_training_model(
        keras.Model(x, keras.layers.Dense(1, bias_regularizer="l2")(hidden)),
        ["mse", alk.losses.GroupGap(every_term.NUM_GROUPS, momentum=0.9)],
        metrics=[alk.metrics.GroupError(every_term.NUM_GROUPS)],
    )
    model.compile(keras.optimizers.SGD(0.02))
    rng = np.random.default_rng(0)
    features = rng.normal(size=(24, 4))
    packed = alk.pack_inputs(
        model, features, features.sum(axis=1), group_ids=rng.integers(0, 3, size=24)
    )
    history = model.fit(
        packed, y=None, batch_size=8, epochs=2, shuffle=False, verbose=0
    ).history
    return {"logs": history, "state": listed(model)}


def listed(model):
    return {name: value.tolist() for name, value in every_term.state(model).items()}


def run(case, *arguments):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    one = case(*arguments)
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    with several_devices():
        several = case(*arguments)
    return {"one": one, "several": several}


if __name__ == "__main__":
    # In double precision a difference is a fault, never rounding.
    keras.config.set_floatx("float64")
    # Last batches of 3 rows and of 1: uneven replicas, and some without rows.
    rows = [19, 9]
    if keras.backend.backend() == "jax":
        rows = [16, 8]  # Keras on JAX: the batch must divide by the devices.
    else:
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * DEVICES
        )
        # Optimising the graph takes longer than the few steps that it runs.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        # One strategy for all: collective operations do not survive a second.
        STRATEGY = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(DEVICES)])
    results = {"all_terms": run(all_terms, rows)}
    if DEVICES == 2:  # What does not depend on their number.
        results["evaluation"] = run(evaluation, rows[0])
        results["losses_of_other_layers"] = run(losses_of_other_layers)
    print(json.dumps(results))
