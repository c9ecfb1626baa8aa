"""The journey on TensorFlow, JAX and torch, each in a process of its own."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

JOURNEY = pathlib.Path(__file__).with_name("journey.py")
KEYS = {
    "loss",
    "mse",
    "group_gap",
    "weighted_rmse",
    "group_error_0",
    "group_error_1",
    "gap",
    "mae",
}


def backend(name):
    is_missing = importlib.util.find_spec(name) is None
    reason = f"{name} is not installed, so Keras cannot run on it"
    return pytest.param(name, marks=pytest.mark.skipif(is_missing, reason=reason))


@pytest.mark.parametrize("name", [backend(n) for n in ("tensorflow", "jax", "torch")])
def test_the_whole_road_leads_through_on_every_backend(name, tmp_path):
    done = subprocess.run(
        [sys.executable, JOURNEY, tmp_path],
        env={**os.environ, "KERAS_BACKEND": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["backend"] == name
    history = result["history"]
    assert set(history) == KEYS | {f"val_{key}" for key in KEYS}
    for name in ("mse", "val_mse", "group_error_0", "val_group_error_1"):
        assert history[name][-1] < history[name][0]
    assert result["group_errors"] == pytest.approx(result["expected"], rel=1e-6)
    assert result["largest_difference_after_loading"] == pytest.approx(0, abs=1e-6)
    assert result["state_is_equal"]
    assert result["resumed_mse"] < history["mse"][0]
    assert result["largest_difference_of_the_export"] == pytest.approx(0, abs=1e-6)
    assert result["inference_inputs"] == 1


# Keras on JAX imports no TensorFlow for arrays, so neither does the kit.
ROWS_ON_JAX = """
import sys
import keras
import numpy as np
import addloss_kit as alk

predictor = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
model.compile("adam")
ids = np.arange(32) % 2
packed = alk.pack_inputs(model, np.ones((32, 2)), np.ones(32), group_ids=ids)
resuming = alk.callbacks.CheckpointAndResume("training.ckpt", delete_checkpoint=False)
options = {"batch_size": 8, "verbose": 0, "callbacks": [resuming]}
model.fit(packed, epochs=1, **options)
model.fit(packed, epochs=2, validation_data=packed, **options)
balanced = alk.make_dataset(packed, 8, balance_groups=True)
balanced.set_epoch(0)
model.fit(balanced, verbose=0, validation_data=alk.make_dataset(packed, 8))
model.evaluate(balanced, verbose=0)
model.evaluate(packed, batch_size=8, verbose=0)
model.predict(packed, verbose=0)
print("tensorflow" in sys.modules)
"""


@pytest.mark.parametrize("name", [backend("jax")])
def test_rows_in_memory_are_trained_on_without_tensorflow(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ROWS_ON_JAX],
        env={**os.environ, "KERAS_BACKEND": name},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
