"""Two processes of torch train as one, where Keras distributes on torch."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

TESTS = pathlib.Path(__file__).parents[1]
WORKER = TESTS / "workers" / "train_on_torch_processes.py"

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch"
    or tuple(map(int, keras.__version__.split(".")[:2])) < (3, 16),
    reason="Keras trains on several processes of torch from 3.16 on.",
)


CASES = ["all_terms", "a_few_terms", "resumed_with_a_distribution"]


def start(folder, **variables):
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    variables |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(folder)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors[-4000:]
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one process ends with, then what each of two does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = tmp_path_factory.mktemp("together")
    started = [start(tmp_path_factory.mktemp("alone"))]
    started += [
        start(
            together,
            KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
    return [result(process) for process in started]


def leaves(nested, path=""):
    if isinstance(nested, dict):
        for key, value in nested.items():
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, np.asarray(nested, "float64")


def assert_same(one, other):
    one, other = dict(leaves(one)), dict(leaves(other))
    assert one and one.keys() == other.keys()
    for path, expected in one.items():
        # In single precision; `atol` is for small differences of numbers around 1.
        np.testing.assert_allclose(
            other[path], expected, rtol=1e-5, atol=1e-6, err_msg=path
        )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(results, case):
    alone, *both = results
    for each in both:
        assert_same(alone[case], each[case])


@pytest.mark.parametrize("case", CASES)
def test_weights_states_and_logs_are_the_same_in_both(results, case):
    _, first, second = results
    assert first[case] == second[case]


def test_a_resumed_training_goes_on_after_the_last_epoch(results):
    for each in results:
        assert each["resumed_with_a_distribution"]["epochs"] == [1, 2]


def test_a_process_without_rows_has_those_of_the_other_and_the_gradient_is_exact(results):
    alone, *both = results
    # Σ k (2 x)² over rows k = 1, 2, 3 of two columns; its slope at 2 is 2·2·Σ k x².
    assert alone["rows_of_one_process"]["rows"] == [[2.0, 4.0], [6.0, 8.0], [10.0, 12.0]]
    assert alone["rows_of_one_process"]["gradient"] == 4.0 * (5.0 + 2 * 25.0 + 3 * 61.0)
    for each in both:
        assert each["rows_of_one_process"] == alone["rows_of_one_process"]


def test_rows_of_unlike_shape_are_refused_in_every_process(results):
    for each in results[1:]:
        assert (
            "Pad all steps to one length. Received: shapes=[[2, 3], [2, 4]]."
            in each["rows_of_unlike_shape"]["error"]
        )
