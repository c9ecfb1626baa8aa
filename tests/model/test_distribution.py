"""The result on several devices is that on one, for every term and metric."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from addloss_kit.keras_internals.replicas import ReplicaLosses

TESTS = pathlib.Path(__file__).parents[1]
BACKEND = keras.backend.backend()
# Double precision; but Keras takes means in single precision on JAX.
TOLERANCE = {"tensorflow": 1e-9, "jax": 1e-6}


def run_worker(name, devices):
    """What the last line that the worker printed holds."""
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    settings = {
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_ENABLE_X64": "1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    done = subprocess.run(
        [sys.executable, str(TESTS / "workers" / name), str(devices)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def leaves(nested, path=""):
    """Every array of a nest of dicts and lists of dicts, by its path."""
    if isinstance(nested, dict):
        for key, value in nested.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(nested, list) and nested and isinstance(nested[0], dict):
        for number, value in enumerate(nested):
            yield from leaves(value, f"{path}/{number}")
    else:
        yield path, np.asarray(nested, "float64")


@pytest.mark.skipif(
    BACKEND == "torch", reason="Keras distributes on TensorFlow and JAX only."
)
# Powers of 2: Keras divides by the replicas in single precision.
@pytest.mark.parametrize("devices", [2, 4])
def test_training_on_several_devices_is_that_on_one(devices):
    results = run_worker("train_on_devices.py", devices)
    assert results
    for case, result in results.items():
        one, several = dict(leaves(result["one"])), dict(leaves(result["several"]))
        assert one.keys() == several.keys()
        for path in one:
            tolerance = TOLERANCE[BACKEND]
            np.testing.assert_allclose(
                several[path],
                one[path],
                rtol=tolerance,
                atol=tolerance,
                err_msg=case + path,
            )


def test_losses_of_one_thread_are_hidden_from_another():
    import threading

    losses = ReplicaLosses()
    losses.extend([1.0, 2.0])
    seen = []
    other = threading.Thread(target=lambda: (losses.clear(), seen.append(losses[:])))
    other.start()
    other.join()
    assert (losses[:], seen) == ([1.0, 2.0], [[]])


def test_keras_uses_a_list_of_losses_as_replica_losses_can_be_used():
    """What `separate_losses` replaces is private to Keras, so hold it here."""
    layer = keras.layers.ActivityRegularization(l2=1.0)
    object.__setattr__(layer, "_losses", ReplicaLosses())
    layer(np.ones((2, 1), "float32"))
    assert [float(loss) for loss in layer.losses] == [1.0]
    layer(np.ones((2, 1), "float32"))
    assert len(layer.losses) == 1
