"""A file that is damaged, or could not be written, is never taken for a whole one."""

import contextlib
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk


def trained(units=1):
    model = alk.build_training_model(linear(3, units, name=None), ["mse"])
    model.compile(keras.optimizers.Adam(), run_eagerly=True)
    rng = np.random.default_rng(0)
    packed = alk.pack_inputs(model, rng.normal(size=(8, 3)), rng.normal(size=(8, units)))
    model.fit(packed, verbose=0)
    return model, packed


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def test_a_training_model_with_a_flipped_bit_is_refused_or_the_same(tmp_path):
    model, _ = trained()
    path = tmp_path / "model.keras"
    model.save(path)
    whole, expected = path.read_bytes(), state(model)
    rng = np.random.default_rng(0)
    harmless = 0
    for at, bit in zip(rng.integers(0, len(whole), 1000), rng.integers(0, 8, 1000)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(bit)
        path.write_bytes(damaged)
        try:
            loaded = alk.load_training_model(path)
        except ValueError as error:
            assert "truncated, damaged" in str(error)
        else:
            harmless += 1  # Dates and the like in the headers of the archive.
            for found, wanted in zip(state(loaded), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)
    assert harmless < 50


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_training_model_cut_short_is_refused(part, tmp_path):
    model, _ = trained()
    path = tmp_path / "model.keras"
    model.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"truncated, damaged.*model\.keras"):
        alk.load_training_model(path)


@contextlib.contextmanager
def mounted(folder, options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


SMALL, LARGE = 1, 30_000  # Units: some 30 kB and 1 MB of weights and slots.


def save(model, packed, path):
    model.save(path)


def export(model, packed, path):
    alk.export_inference_model(model, path)


def checkpoint(model, packed, path):
    saving = alk.callbacks.CheckpointAndResume(path, delete_checkpoint=False)
    # From scratch: that of the former model is no start for this one.
    saving.resume = lambda model: 0
    model.fit(packed, verbose=0, callbacks=[saving])


# h5py cannot close the file that it could not write.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system of Linux")
@pytest.mark.parametrize("write", [save, export, checkpoint])
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_what_a_disk_does_not_take_leaves_the_former_file(write, trouble, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    path = pathlib.Path(folder, "model.keras")
    with mounted(folder, "size=400k"):
        write(*trained(SMALL), path)
        whole = path.read_bytes()
        if trouble == "read-only":
            command = ["mount", "-o", "remount,ro", str(folder)]
            subprocess.run(command, check=True)
        with pytest.raises((OSError, RuntimeError), match=r"(?i)space|read-only|unable"):
            write(*trained(LARGE), path)
        assert path.read_bytes() == whole
        assert os.listdir(folder) == ["model.keras"]
