"""Files are read in blocks beside the compiled loop, and end as step by step."""

import threading

import every_term
import keras
import numpy as np
import pytest
from engines import KERAS_S_OWN

import addloss_kit as alk
from addloss_kit.data import blocks, on_disk
from addloss_kit.model.compiled_loop import Loop

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch has no compiled loop."
)

ROWS, BATCH = 75, 8  # ten batches, the last of three rows
STEPS = 10


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that an epoch has several, each from several pieces of the file."""
    monkeypatch.setattr(blocks, "MAX_BATCHES", 4)
    monkeypatch.setattr(on_disk, "_PIECE_BYTES", 64)
    monkeypatch.setattr("addloss_kit.model.feeding.WORTH_COMPILING", 0)


@pytest.fixture
def steps(monkeypatch):
    """How many steps each run of a compiled loop takes."""
    taken, run = [], Loop.run

    def spy(self, arrays, order, size, first, count, state):
        taken.append(count)
        return run(self, arrays, order, size, first, count, state)

    monkeypatch.setattr(Loop, "run", spy)
    return taken


def build(**compile_arguments):
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="x")
    predictor = keras.Model(x, keras.layers.Dense(1)(x))
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    model.compile(keras.optimizers.Adam(0.01), **compile_arguments)
    return model


def rows(count=ROWS):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype("float32")
    return x, x.sum(1), (np.arange(count) % 5 == 0).astype("int32")


def on_disk_in(folder, model):
    x, y, ids = rows()
    np.save(folder / "x.npy", x)
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    packed = alk.pack_inputs(model, mapped, y, group_ids=ids)
    return alk.make_dataset(packed, BATCH, seed=1)


def parquet_in(folder, model, bad_row=None, **options):
    x, y, ids = rows()
    if bad_row is not None:
        y[bad_row] = np.nan
    table = pyarrow.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y, "g": ids})
    parquet.write_table(table, folder / "rows.parquet", row_group_size=10)
    columns = {"x": ["a", "b", "c"], "y": "y", "group_ids": "g"}
    options = {"columns": columns, "shuffle_rows": 20, "seed": 1, **options}
    return alk.parquet_dataset(folder / "rows.parquet", model, BATCH, **options)


def balanced_in(folder, model):
    return parquet_in(folder, model, balance_groups=True)


@pytest.mark.parametrize("files_in", [on_disk_in, parquet_in, balanced_in])
def test_files_take_the_loop_in_blocks_and_end_as_by_keras(files_in, steps, tmp_path):
    results = []
    for arguments in ({}, KERAS_S_OWN):
        model = build(**arguments)
        data = files_in(tmp_path, model)
        history = model.fit(data, epochs=2, verbose=0).history
        logs = model.evaluate(data, return_dict=True, verbose=0)
        results.append({**history, **logs, **every_term.state(model)})
        if not arguments:  # two epochs and an evaluation
            assert sum(steps) == 3 * STEPS
            assert max(steps) == 4
    assert results[0].keys() == results[1].keys()
    for name, value in results[1].items():
        np.testing.assert_allclose(
            results[0][name], value, rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_arrays_on_disk_by_name_take_it_too(tmp_path, monkeypatch):
    sizes = []

    def run(self, arrays, order, size, first, count, state):
        sizes.extend([size] * count)
        return {"loss": 0.0}, state

    monkeypatch.setattr(Loop, "run", run)  # as to compile it takes seconds
    model = build()
    data = on_disk_in(tmp_path, model).rows.arrays
    model.fit(data, batch_size=BATCH, validation_split=0.2, verbose=0)
    model.evaluate(data, batch_size=25, verbose=0)
    assert sizes == [8] * 7 + [4] + [8, 7] + [25] * 3


@pytest.mark.parametrize("files_in", [on_disk_in, parquet_in])
def test_a_callback_sees_every_batch(files_in, tmp_path):
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    model = build()
    model.fit(files_in(tmp_path, model), callbacks=[callback], verbose=0)
    assert seen == list(range(STEPS))


def test_a_bad_value_read_ahead_is_told_and_the_steps_before_it_count(tmp_path, steps):
    model = build()
    data = parquet_in(tmp_path, model, bad_row=70, shuffle_rows=0)
    before = threading.enumerate()
    with pytest.raises(ValueError, match=r"In row group 7 of .*: `y_true` must be finite"):
        model.fit(data, verbose=0)
    # Of those from before, one may have ended since.
    assert set(threading.enumerate()) <= set(before)
    assert len(steps) > 1 and sum(steps) < STEPS
    by_keras = build(**KERAS_S_OWN)
    x, y, ids = rows()
    packed = alk.pack_inputs(by_keras, x, y, group_ids=ids)
    for first in range(0, sum(steps) * BATCH, BATCH):
        by_keras.train_on_batch({n: a[first : first + BATCH] for n, a in packed.items()})
    wanted = every_term.state(by_keras)
    for name, value in every_term.state(model).items():
        if "running" in name or "kernel" in name or "bias" in name:
            np.testing.assert_allclose(value, wanted[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("files_in", [on_disk_in, parquet_in])
def test_a_step_that_fails_ends_the_reading(files_in, tmp_path, monkeypatch):
    model = build()
    data = files_in(tmp_path, model)

    def fail(*_):
        raise RuntimeError("a failing step")

    monkeypatch.setattr(Loop, "run", fail)
    before = threading.enumerate()
    with pytest.raises(RuntimeError, match="a failing step"):
        model.fit(data, verbose=0)
    # Of those from before, one may have ended since.
    assert set(threading.enumerate()) <= set(before)
