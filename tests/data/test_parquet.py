"""Parquet files train as the same rows in memory do."""

import builtins

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.losses import GroupGap

pytest.importorskip("pyarrow")

ROWS, BATCH = 60, 8
COLUMNS = {"x": ["a", "b"], "y": "y", "sample_weight": "w", "group_ids": "sex"}
NAMES = ["f", "m"]


@pytest.fixture
def table(rng):
    import pandas

    sex = np.array([*"fm"], object)[rng.integers(0, 2, ROWS)]
    sex[::7] = None
    return pandas.DataFrame(
        {
            "a": np.arange(ROWS, dtype="float64"),
            "b": rng.normal(size=ROWS),
            "y": rng.normal(size=ROWS),
            "w": rng.uniform(0.5, 2, ROWS),
            "sex": sex,
        }
    )


def write(folder, table, files=3, row_group_size=5):
    paths = []
    for number, rows in enumerate(np.array_split(np.arange(len(table)), files)):
        paths.append(folder / f"{number}.parquet")
        table.iloc[rows].to_parquet(paths[-1], row_group_size=row_group_size)
    return paths


def build():
    keras.utils.set_random_seed(3)
    x = keras.Input((2,), name="x")
    model = alk.build_training_model(
        keras.Model(x, keras.layers.Dense(1)(x)),
        ["mse", GroupGap(2)],
        sample_weight=True,
        metrics=[alk.metrics.GroupError(2)],
    )
    model.compile(keras.optimizers.SGD(1e-4))
    return model


def read(paths, model, **options):
    options = {"columns": COLUMNS, "group_names": NAMES, "seed": 1, **options}
    return alk.parquet_dataset(paths, model, BATCH, **options)


def rows_of(dataset):
    return np.concatenate([np.asarray(batch["x"])[:, 0] for batch in dataset])


def test_an_epoch_has_the_rows_of_the_files_and_its_totals(table, tmp_path):
    model = build()
    ids, _ = alk.encode_groups(table["sex"], group_names=NAMES)
    packed = alk.pack_inputs(
        model, table[["a", "b"]], table["y"], sample_weight=table["w"], group_ids=ids
    )
    in_order = read(write(tmp_path, table), model, shuffle_rows=0)
    for name, array in packed.items():
        found = np.concatenate([np.asarray(batch[name]) for batch in in_order])
        np.testing.assert_array_equal(found, array)
    expected = model.evaluate(packed, batch_size=BATCH, verbose=0, return_dict=True)
    found = model.evaluate(in_order, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    shuffled = read(write(tmp_path, table), model, shuffle_rows=20)
    found = model.evaluate(shuffled, verbose=0, return_dict=True)
    assert found["mse"] == pytest.approx(expected["mse"], rel=1e-5)
    exact = [key for key in expected if key.startswith("group_error")]
    for key in exact:
        assert found[key] == pytest.approx(expected[key], rel=1e-5)


@pytest.mark.parametrize("shuffle_rows", [1, 20, 1000])
def test_the_order_is_a_function_of_seed_and_epoch(shuffle_rows, table, tmp_path):
    paths, model = write(tmp_path, table), build()
    dataset = read(paths, model, shuffle_rows=shuffle_rows)
    epochs = [rows_of(dataset) for _ in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(ROWS))
    assert not np.array_equal(epochs[0], epochs[1])
    again = read(paths, model, shuffle_rows=shuffle_rows)
    again.set_epoch(2)
    np.testing.assert_array_equal(rows_of(again), epochs[2])
    other = read(paths, model, shuffle_rows=shuffle_rows, seed=2)
    assert not np.array_equal(rows_of(other), epochs[0])


def test_the_buffer_mixes_row_groups(table, tmp_path):
    order = rows_of(read(write(tmp_path, table), build(), shuffle_rows=20))
    assert len(set(order[:BATCH] // 5)) > 2


@pytest.mark.parametrize("drop_remainder", [False, True])
def test_shards_read_disjoint_row_groups(drop_remainder, table, tmp_path):
    paths, model = write(tmp_path, table), build()
    options = {"drop_remainder": drop_remainder}
    shards = [read(paths, model, shard=(index, 3), **options) for index in range(3)]
    rows = np.concatenate([rows_of(shard) for shard in shards])
    assert len(set(rows)) == len(rows) == (48 if drop_remainder else ROWS)
    assert [int(shard.cardinality()) for shard in shards] == [2 + (not drop_remainder)] * 3


def test_a_training_that_goes_on_is_the_one_that_was_not_interrupted(table, tmp_path):
    paths = write(tmp_path, table)

    def weights(model):
        return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]

    whole = build()
    whole.fit(read(paths, whole), epochs=4, verbose=0)
    first = build()
    first.fit(read(paths, first), epochs=2, verbose=0)
    first.save(tmp_path / "model.keras")
    second = alk.load_training_model(tmp_path / "model.keras")
    second.fit(read(paths, second), epochs=4, initial_epoch=2, verbose=0)
    for mine, other in zip(weights(second), weights(whole), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("y", np.nan, r"In row group \d of .*parquet: `y_true` must be finite"),
        ("w", -1.0, r"In row group \d of .*parquet: `sample_weight` must be at least 0"),
        ("sex", "x", r"In row group \d of .*parquet: .*'x'"),
    ],
)
def test_a_bad_value_is_told_with_its_file_and_row_group(
    column, value, message, table, tmp_path
):
    table.loc[ROWS - 2, column] = value
    model = build()
    with pytest.raises(ValueError, match=message):
        model.fit(read(write(tmp_path, table), model), verbose=0)


def test_a_file_that_is_written_anew_is_read_anew(tmp_path, table):
    (path,) = write(tmp_path, table, files=1)
    data = read([path], build(), shuffle_rows=0)
    before = next(data.blocks())["x"]
    # Other columns in front, so another footer.
    moved = table.assign(a=table["a"] + 100.0)[["sex", "w", "y", "b", "a"]]
    write(tmp_path, moved, files=1)
    after = next(data.blocks())["x"]
    np.testing.assert_array_equal(after, before + [100.0, 0.0])


def test_a_block_of_wide_batches_has_few_of_them(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows, features = 4_000, 500  # a batch of 400 rows has 0.8 MB
    table = {str(k): np.zeros(2 * rows, "float32") for k in range(features)}
    names = list(table)
    table["y"] = table["0"]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=rows)
    x = keras.Input((features,), name="x")
    model = alk.build_training_model(keras.Model(x, keras.layers.Dense(1)(x)), "mse")
    columns = {"x": names, "y": "y"}
    data = alk.parquet_dataset(path, model, 400, columns=columns, shuffle_rows=rows)
    sizes = [sum(array.nbytes for array in block.values()) for block in data.blocks()]
    assert sum(sizes) == 2 * rows * (features + 1) * 4
    assert max(sizes) <= 8 << 20


def test_without_pyarrow_it_says_what_to_install(table, tmp_path, monkeypatch):
    paths, model = write(tmp_path, table), build()
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'addloss_kit\[parquet\]'"):
        read(paths, model)
