"""Arrays on disk are checked, shuffled, balanced and resumed as arrays in memory are."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.data import on_disk
from addloss_kit.losses import GroupGap

ROWS, BATCH = 50, 8


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """So that there are several in these arrays."""
    monkeypatch.setattr(on_disk, "_PIECE_BYTES", 64)


def build():
    keras.utils.set_random_seed(3)
    x = keras.Input((2,), name="x")
    model = alk.build_training_model(
        keras.Model(x, keras.layers.Dense(1)(x)), ["mse", GroupGap(2)], sample_weight=True
    )
    model.compile("sgd")
    return model


@pytest.fixture
def arrays(rng):
    return {
        "x": rng.normal(size=(ROWS, 2)).astype("float32"),
        "y": rng.normal(size=ROWS).astype("float32"),
        "sample_weight": rng.uniform(0.5, 2, ROWS).astype("float32"),
        "group_ids": (np.arange(ROWS) % 5 == 0).astype("int32"),
    }


def on_disk_in(folder, arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in arrays}


def weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


def test_pack_inputs_leaves_them_where_they_are(arrays, tmp_path):
    packed = alk.pack_inputs(build(), **on_disk_in(tmp_path, arrays))
    assert all(map(on_disk.is_on_disk, packed.values()))
    for name, array in alk.pack_inputs(build(), **arrays).items():
        np.testing.assert_array_equal(packed[name], array)
        assert packed[name].dtype == array.dtype


def test_another_dtype_is_converted_piece_by_piece(arrays, tmp_path):
    wide = {**arrays, "x": arrays["x"].astype("float64"), "y": arrays["y"].astype(">f4")}
    packed = alk.pack_inputs(build(), **on_disk_in(tmp_path, wide))
    np.testing.assert_array_equal(packed["x"], arrays["x"])
    np.testing.assert_array_equal(packed["y_true"][:, 0], arrays["y"])
    assert not on_disk.is_on_disk(packed["x"])


BAD = {
    "x": (1e300, "float64", "`x` does not fit"),
    "y": (np.nan, "float32", "`y_true` must be finite"),
    "sample_weight": (-1.0, "float32", "`sample_weight` must be at least 0"),
    "group_ids": (2, "int32", r"`group_ids` must lie in \[0, 2\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_in_any_piece_is_refused_with_its_row(name, arrays, tmp_path):
    value, dtype, message = BAD[name]
    array = arrays[name].astype(dtype)
    array[41] = value
    maps = on_disk_in(tmp_path, {**arrays, name: array})
    with pytest.raises(ValueError, match=message) as caught:
        alk.pack_inputs(build(), **maps)
    first = int(str(caught.value).split("In rows ")[1].split()[0])
    row = int(str(caught.value).split("at row ")[1].rstrip("."))
    assert first + row == 41


def test_weights_of_0_in_one_piece_are_fine_but_not_in_all(arrays, tmp_path):
    weight = arrays["sample_weight"]
    weight[:40] = 0
    alk.pack_inputs(build(), **on_disk_in(tmp_path, arrays))
    maps = on_disk_in(tmp_path, {**arrays, "sample_weight": 0 * weight})
    with pytest.raises(ValueError, match="must not be 0 for all rows.*rows=50"):
        alk.pack_inputs(build(), **maps)


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"balance_groups": True},
                                     {"balance_groups": True, "undo_weights": True},
                                     {"drop_remainder": True}], ids=str)  # fmt: skip
def test_the_batches_are_those_of_the_same_rows_in_memory(options, arrays, tmp_path):
    packed = alk.pack_inputs(build(), **arrays)
    maps = alk.pack_inputs(build(), **on_disk_in(tmp_path, arrays))
    in_memory = alk.make_dataset(packed, BATCH, seed=5, **options)
    mapped = alk.make_dataset(maps, BATCH, seed=5, **options)
    assert mapped.element_spec == in_memory.element_spec
    for epoch in (0, 1, 4):
        in_memory.set_epoch(epoch)
        mapped.set_epoch(epoch)
        for mine, other in zip(mapped, in_memory, strict=True):
            for name, values in other.items():
                np.testing.assert_array_equal(mine[name], values)


@pytest.mark.parametrize("kind", ["a dict", "make_dataset"])
def test_training_and_evaluation_are_those_of_arrays_in_memory(kind, arrays, tmp_path):
    def run(given):
        model = build()
        data = alk.pack_inputs(model, **given)
        keras.utils.set_random_seed(1)
        feed, size = data, BATCH
        if kind == "make_dataset":
            feed, size = alk.make_dataset(data, BATCH, seed=1), None
        history = model.fit(
            feed, batch_size=size, epochs=3, validation_data=data, verbose=0
        ).history
        totals = model.evaluate(data, batch_size=BATCH, verbose=0)
        return weights(model), history, totals, model.predict(data, verbose=0)

    maps, memory = run(on_disk_in(tmp_path, arrays)), run(arrays)
    is_same_order = keras.backend.backend() == "tensorflow" or kind == "make_dataset"
    if not is_same_order:  # Keras shuffles arrays in memory with its own generator
        return
    for mine, other in zip(maps[0], memory[0], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    for key, values in memory[1].items():
        np.testing.assert_allclose(maps[1][key], values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps[2], memory[2], rtol=1e-4)
    np.testing.assert_allclose(maps[3], memory[3], rtol=1e-4, atol=1e-5)


def test_validation_split_takes_the_last_rows(arrays, tmp_path):
    model = build()
    maps = alk.pack_inputs(model, **on_disk_in(tmp_path, arrays))
    history = model.fit(maps, validation_split=0.2, batch_size=BATCH, verbose=0).history
    last = {name: array[40:] for name, array in alk.pack_inputs(model, **arrays).items()}
    expected = model.evaluate(last, batch_size=BATCH, verbose=0, return_dict=True)
    assert history["val_loss"][0] == pytest.approx(expected["loss"], rel=1e-4)


def test_a_copy_on_write_map_keeps_its_changes(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((100, 2), "float32"))
    array = np.load(tmp_path / "a.npy", mmap_mode="c")
    array[90] = 7.0
    assert sum(float(piece.sum()) for _, piece in on_disk.pieces(array)) == 14.0
    taken = on_disk.take({"a": array}, np.array([90, 0]))
    np.testing.assert_array_equal(taken["a"], [[7, 7], [0, 0]])


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
@pytest.mark.parametrize("kind", ["memmap", "stream", "parquet"])
def test_the_memory_of_a_training_on_400_mb_stays_bounded(kind, tmp_path):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    script = pathlib.Path(__file__).parents[1] / "workers" / "train_from_disk.py"
    command = [sys.executable, script, tmp_path, kind]
    # One heap: else glibc keeps what was freed for each thread that there has been.
    heap = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=heap)
    assert done.returncode == 0, done.stderr[-2000:]
    _, grown, held = map(float, done.stdout.split())
    assert held < 150, f"{held} MB"
    # With pages of the file: pieces of 32 MB, and what the system maps around them. What a
    # stream maps is its author's.
    assert grown < 300 or kind == "stream", f"{grown} MB"
