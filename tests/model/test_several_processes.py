"""The scripts of docs/scaling: several processes train as one, also if one is killed."""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import keras
import pytest

pytest.importorskip("pyarrow")

TESTS = pathlib.Path(__file__).parents[1]
SCRIPT = TESTS.parent / "docs" / "scaling" / "several_processes.py"
ON_RAY = SCRIPT.with_name("on_ray.py")
LOSES_ONE = TESTS / "workers" / "train_and_lose_one.py"

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="Keras has several processes on JAX only."
)


def start(*command, **variables):
    paths = [str(TESTS.parent), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(*command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        start(
            *command,
            KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]


def result(process):
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors[-4000:]
    return printed(output)


def printed(output):
    # Ray may print what its actors print after the script's own last line.
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    start(SCRIPT, "write", folder).communicate(timeout=200)
    return folder


@pytest.fixture(scope="module")
def alone(files, tmp_path_factory):
    """What one process ends with."""
    folder = tmp_path_factory.mktemp("alone")
    return result(start(SCRIPT, "train", shutil.copytree(files, folder / "files")))


@pytest.fixture
def folder(files, tmp_path):
    return shutil.copytree(files, tmp_path / "files")


def epochs_begun(folder):
    return (folder / "epochs.txt").read_text().split()


def test_two_processes_train_as_one_each_from_its_own_row_groups(folder, alone):
    both = [result(process) for process in start_two(SCRIPT, "train", folder)]
    for logs in both:
        assert logs == pytest.approx(alone, rel=1e-6)
    assert list(folder.glob("*.ckpt")) == [folder / "training.ckpt"]
    assert not list(folder.glob(".*.partial"))


def test_after_the_kill_of_one_both_go_on_from_the_last_checkpoint(folder, alone):
    first, killed = start_two(LOSES_ONE, folder)
    killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL
    try:
        first.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        first.kill()  # which waits for the dead; a scheduler would do so too
        first.communicate()
    assert first.returncode != 0
    for logs in [result(process) for process in start_two(LOSES_ONE, folder)]:
        assert logs == pytest.approx(alone, rel=1e-6)
    assert epochs_begun(folder).count("0") == 1


needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra `ray`"
)


@needs_ray
def test_actors_of_ray_train_as_one_process(folder, alone):
    assert result(start(ON_RAY, folder)) == pytest.approx(alone, rel=1e-6)


@needs_ray
def test_ray_starts_anew_from_the_last_checkpoint_when_an_actor_is_killed(folder, alone):
    process = start(LOSES_ONE, folder, "ray")
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors[-4000:]
    assert errors.count("Restarted from the last checkpoint") == 1
    assert printed(output) == pytest.approx(alone, rel=1e-6)
    assert epochs_begun(folder).count("0") == 1
