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
import tempfile
import warnings

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


def all_terms(rows, batch_size):
    """Every term, trained and then evaluated: outside training values are plug-ins."""
    # Tracing takes long: with more devices than 2 step by step, one epoch, no evaluation.
    model = every_term.build(run_eagerly=DEVICES > 2)
    packed = every_term.data(model, rows)
    options = {"epochs": 2 if DEVICES == 2 else 1, "shuffle": False, "verbose": 0}
    history = model.fit(packed, y=None, batch_size=batch_size, **options).history
    result = {"logs": history, "state": listed(model)}
    if DEVICES == 2:
        result["evaluated"] = model.evaluate(
            packed, batch_size=batch_size, verbose=0, return_dict=True
        )
    return result


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


def outside_of_its_scope(scope):
    """Saved, restored and fitted outside the scope in which the model was built."""
    keras.utils.set_random_seed(0)
    with scope:
        x = keras.Input((4,), name="x")
        hidden = keras.layers.Dense(5, "relu")(x)
        model = alk.build_training_model(
            keras.Model(x, keras.layers.Dense(1)(hidden)),
            ["mse", alk.losses.GroupGap(2, momentum=0.9)],
        )
        model.compile(keras.optimizers.SGD(0.02, momentum=0.9))
    rng = np.random.default_rng(0)
    features = rng.normal(size=(24, 4))
    packed = alk.pack_inputs(
        model, features, features.sum(axis=1), group_ids=np.arange(24) % 2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with tempfile.TemporaryDirectory() as folder:
            # Makes the optimizer's state, as before any `fit` that resumes.
            model.save_weights(f"{folder}/model.weights.h5")
            model.load_weights(f"{folder}/model.weights.h5")
        whole = model.fit(packed, batch_size=8, shuffle=False, verbose=0)
        last_layer = alk.fit_last_layer(
            model, packed, validation=packed, epochs=2, batch_size=8, seed=1, verbose=0
        )
    logs = {"fit": whole.history, "fit_last_layer": last_layer.history}
    return {"logs": logs, "state": listed(model)}


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
    if keras.backend.backend() == "jax":
        rows, batch_size = 16, 8  # Keras on JAX: every batch must divide by the devices.
    else:
        # Batches of 9, 9 and 1 rows: replicas of 5 and 4, 3 and 0, 1 and 0 rows.
        rows, batch_size = 19, 9
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * DEVICES
        )
        # Optimising the graph takes longer than the few steps that it runs.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        # One strategy for all: collective operations do not survive a second.
        STRATEGY = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(DEVICES)])
    results = {"all_terms": run(all_terms, rows, batch_size)}
    if DEVICES == 2:
        results["losses_of_other_layers"] = run(losses_of_other_layers)
        if keras.backend.backend() == "tensorflow":
            scopes = {"one": contextlib.nullcontext(), "several": STRATEGY.scope()}
            results["outside_of_its_scope"] = {
                name: outside_of_its_scope(scope) for name, scope in scopes.items()
            }
    print(json.dumps(results))
