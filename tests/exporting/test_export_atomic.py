"""Whatever goes wrong on the way, the former export stands, and nothing half lies there."""

import ast
import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit import atomic
from addloss_kit.exporting import formats

BACKEND = keras.backend.backend()
WORKER = pathlib.Path(__file__).parents[1] / "workers" / "export_and_be_killed.py"
PLACES = {
    "keras": "model.keras",
    "tf_saved_model": "model",
    "onnx": "model.onnx",
    "litert": "model.tflite",
}
FORMATS = {
    "tensorflow": list(PLACES),
    "jax": ["keras", "tf_saved_model"],
    "torch": ["keras", "onnx"],
}[BACKEND]


def training_model(units=1):
    predictor = linear(3, units, name=None)
    return alk.build_training_model(predictor, "mse")


def snapshot(folder):
    """Every file below a folder, hidden ones too, with its contents."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@contextlib.contextmanager
def largest_file(size):
    """No file grows beyond `size` bytes, as on a disk that fills up."""
    import resource  # Not on Windows.

    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


@pytest.mark.parametrize("name", FORMATS)
def test_a_failed_comparison_leaves_the_former_export(name, tmp_path, monkeypatch):
    path = tmp_path / PLACES[name]
    alk.export_inference_model(training_model(), path, format=name)
    before = snapshot(tmp_path)
    chosen = formats.FORMATS[name]

    def off_by_one(path, model):
        predict = chosen.read(path, model)
        return lambda rows: [keras.ops.convert_to_numpy(y) + 1 for y in predict(rows)]

    broken = dataclasses.replace(chosen, read=off_by_one)
    monkeypatch.setitem(formats.FORMATS, name, broken)
    with pytest.raises(RuntimeError, match=f"{PLACES[name]} is unchanged"):
        alk.export_inference_model(training_model(), path, format=name)
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_that_fills_up_leaves_the_former_export(name, tmp_path):
    path = tmp_path / PLACES[name]
    alk.export_inference_model(training_model(), path, format=name)
    before = snapshot(tmp_path)
    # Every format writes weights of 80 kB into one file.
    model = training_model(units=5_000)
    errors = (OSError, RuntimeError, *formats.FORMATS[name].errors())
    with largest_file(30_000), pytest.raises(errors):
        alk.export_inference_model(model, path, format=name)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_that_is_full_at_the_last_write_leaves_the_former_export(
    name, tmp_path, monkeypatch
):
    path = tmp_path / PLACES[name]
    alk.export_inference_model(training_model(), path, format=name)
    before = snapshot(tmp_path)

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        alk.export_inference_model(training_model(), path, format=name)
    assert snapshot(tmp_path) == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX does not survive a fork")
@pytest.mark.parametrize("name", ["keras", "tf_saved_model"])
def test_a_kill_leaves_the_former_export_or_the_whole_new_one(name, tmp_path):
    seed = np.random.SeedSequence().generate_state(1)[0] % 2**31
    command = [sys.executable, WORKER, tmp_path, PLACES[name], name, "3", str(seed)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    *states, beside = output.splitlines()
    assert len(states) == 3 and set(states) <= {"former", "new"}, f"{seed=}"
    scratch = re.escape(f".{PLACES[name]}.") + r"\w+\.partial"
    assert all(re.fullmatch(scratch, found) for found in ast.literal_eval(beside))


# The mechanism --------------------------------------------------------------------


def test_an_error_on_the_way_leaves_no_trace(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic.replacing(tmp_path / "f") as place:
        place.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_on_the_way_are_made(tmp_path):
    alk.export_inference_model(training_model(), tmp_path / "a" / "b" / "model.keras")
    assert (tmp_path / "a" / "b" / "model.keras").exists()


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced_whole(can_exchange, tmp_path, monkeypatch):
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    path = tmp_path / "d"
    path.mkdir()
    (path / "former").write_text("1")
    with atomic.replacing(path) as place:
        place.mkdir()
        (place / "new").write_text("2")
    assert snapshot(tmp_path) == {str(pathlib.Path("d", "new")): b"2"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges in one step")
def test_linux_exchanges_directories_in_one_step(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert atomic._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "file").read_text() == "b"
    assert (tmp_path / "b" / "file").read_text() == "a"


def test_a_directory_whose_replacement_fails_is_put_back(tmp_path, monkeypatch):
    path = tmp_path / "d"
    path.mkdir()
    (path / "former").write_text("1")
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    rename = os.rename

    def fail_to_move_in(source, target):
        if pathlib.Path(source).name == "d" and target == path:
            raise PermissionError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_to_move_in)
    with pytest.raises(PermissionError), atomic.replacing(path) as place:
        place.mkdir()
    assert snapshot(tmp_path) == {str(pathlib.Path("d", "former")): b"1"}


def test_what_a_killed_process_left_is_removed_once_it_is_an_hour_old(tmp_path):
    an_hour_ago = time.time() - 3601
    for name, is_old in ((".m[1].a.partial", True), (".m[1].b.partial", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m[1]").write_text("half")
        if is_old:
            os.utime(tmp_path / name / "m[1]", (an_hour_ago, an_hour_ago))
            os.utime(tmp_path / name, (an_hour_ago, an_hour_ago))
    with atomic.replacing(tmp_path / "m[1]") as place:
        place.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"m[1]", ".m[1].b.partial"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_link_keeps_pointing_at_what_is_replaced(tmp_path):
    alk.export_inference_model(training_model(), tmp_path / "v1.keras")
    link = tmp_path / "current.keras"
    link.symlink_to(tmp_path / "v1.keras")
    alk.export_inference_model(training_model(units=2), link)
    assert link.is_symlink()
    assert keras.saving.load_model(tmp_path / "v1.keras").output_shape == (None, 2)


@pytest.mark.parametrize("method", ["save", "save_weights"])
def test_a_checkpoint_that_fails_leaves_the_former_one(method, tmp_path, monkeypatch):
    name = {"save": "m.keras", "save_weights": "m.weights.h5"}[method]
    model = training_model()
    getattr(model, method)(tmp_path / name)
    before = snapshot(tmp_path)

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        getattr(model, method)(tmp_path / name)
    assert snapshot(tmp_path) == before
