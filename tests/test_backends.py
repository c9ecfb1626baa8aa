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
