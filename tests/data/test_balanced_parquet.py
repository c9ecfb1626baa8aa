"""Batches from Parquet files that are balanced by group, as those of arrays are."""

import collections

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.losses import GroupGap

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS, BATCH = 240, 12
COLUMNS = {"x": ["a", "b"], "y": "y", "sample_weight": "w", "group_ids": "g"}
STEPS = ROWS // BATCH


@pytest.fixture
def rows(rng):
    ids = rng.choice([0, 0, 0, 0, 0, 1, 1, 2, -1], ROWS)
    return {
        "a": np.arange(ROWS, dtype="float32"),
        "b": rng.normal(size=ROWS),
        "y": rng.normal(size=ROWS),
        "w": rng.uniform(0.5, 2, ROWS).astype("float32"),
        "g": ids,
    }


def write(folder, rows):
    paths = []
    for number, part in enumerate(np.array_split(np.arange(ROWS), 3)):
        paths.append(folder / f"{number}.parquet")
        table = pyarrow.table({name: array[part] for name, array in rows.items()})
        parquet.write_table(table, paths[-1], row_group_size=20)
    return paths


@pytest.fixture(scope="module")
def model():
    x = keras.Input((2,), name="x")
    predictor = keras.Model(x, keras.layers.Dense(1)(x))
    model = alk.build_training_model(predictor, ["mse", GroupGap(3)], sample_weight=True)
    model.compile("sgd")
    return model


def read(paths, model, **options):
    options = {"columns": COLUMNS, "seed": 1, "balance_groups": True, **options}
    return alk.parquet_dataset(paths, model, BATCH, **options)


def taken(dataset):
    """The batches, as `(number of the row, id)` and weights."""
    return [
        (
            np.asarray(batch["x"])[:, 0].astype(int),
            np.asarray(batch["group_ids"]).reshape(-1),
            np.asarray(batch["sample_weight"]).reshape(-1),
        )
        for batch in dataset
    ]


# All groups fit into the buffer; some do; none does; files in their order.
BUFFERS = [1000, 100, 12, 0]


@pytest.mark.parametrize("shuffle_rows", BUFFERS)
def test_every_batch_has_the_rows_by_group_of_make_dataset(
    shuffle_rows, rows, model, tmp_path
):
    packed = alk.pack_inputs(
        model,
        np.stack([rows["a"], rows["b"]], axis=1),
        rows["y"],
        sample_weight=rows["w"],
        group_ids=rows["g"],
    )
    shares = [3.0, 2.0, 1.0]
    options = {"balance_groups": shares, "undo_weights": True, "seed": 1}
    in_memory = taken(alk.make_dataset(packed, BATCH, **options))
    paths = write(tmp_path, rows)
    found = taken(read(paths, model, shuffle_rows=shuffle_rows, **options))
    assert len(found) == len(in_memory) == STEPS
    expected = collections.Counter(in_memory[0][1].tolist())
    for number, ids, weight in found:
        assert collections.Counter(ids.tolist()) == expected
        np.testing.assert_array_equal(ids, rows["g"][number])
        factor = weight / rows["w"][number]
        for k in expected:
            share = np.mean(rows["g"] == k) / (expected[k] / BATCH)
            np.testing.assert_allclose(factor[ids == k], share, rtol=1e-5)


@pytest.mark.parametrize("shuffle_rows", BUFFERS)
def test_no_row_comes_again_before_all_of_its_group_had_their_turn(
    shuffle_rows, rows, model, tmp_path
):
    data = read(write(tmp_path, rows), model, shuffle_rows=shuffle_rows)
    epochs = [taken(data), taken(data)]
    for batches in epochs:
        number = np.concatenate([batch[0] for batch in batches])
        for k in (-1, 0, 1, 2):
            of_group = number[rows["g"][number] == k]
            size = int(np.sum(rows["g"] == k))
            for first in range(0, len(of_group), size):
                turn = of_group[first : first + size]
                assert len(set(turn)) == len(turn)
    same = all(np.array_equal(a[0], b[0]) for a, b in zip(*epochs, strict=True))
    assert same == (shuffle_rows == 0)


def test_the_order_is_a_function_of_seed_and_epoch(rows, model, tmp_path):
    paths = write(tmp_path, rows)
    data = read(paths, model, shuffle_rows=100)
    epochs = [taken(data) for _ in range(3)]
    again = read(paths, model, shuffle_rows=100)
    again.set_epoch(2)
    for mine, other in zip(taken(again), epochs[2], strict=True):
        np.testing.assert_array_equal(mine[0], other[0])


def test_sizes_that_are_counted_or_given_make_the_same_batches(rows, model, tmp_path):
    paths = write(tmp_path, rows)
    sizes = dict(collections.Counter(rows["g"].tolist()))
    counted = taken(read(paths, model, shuffle_rows=1000))
    given = taken(read(paths, model, shuffle_rows=1000, group_sizes=sizes))
    for mine, other in zip(counted, given, strict=True):
        np.testing.assert_array_equal(mine[0], other[0])


@pytest.mark.parametrize("kind", ["ids", "labels"])
def test_files_sorted_by_group_are_counted_from_their_statistics(
    kind, rows, model, tmp_path, monkeypatch, capsys
):
    ids = np.repeat([0, 1, 2], ROWS // 3)
    labels = np.array(["a", "b", "c"])[ids]
    paths = write(tmp_path, {**rows, "g": ids if kind == "ids" else labels})
    names = None if kind == "ids" else ["a", "b", "c"]
    read_row_group, whole = parquet.ParquetFile.read_row_group, []

    def spy(self, number, columns=None, **options):
        assert columns != ["g"], "the column was read"
        whole.append(number)
        return read_row_group(self, number, columns=columns, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", spy)
    data = read(paths, model, shuffle_rows=0, group_names=names)
    assert "12/12" in capsys.readouterr().out
    del whole[:]
    for _, found, _ in taken(data):
        assert collections.Counter(found.tolist()) == {0: 4, 1: 4, 2: 4}
    assert len(whole) == 12  # each row group was read once


BAD = [
    ({"group_sizes": {0: 1}}, ValueError, "must add up to the rows.*rows=240"),
    ({"group_sizes": [1, 2]}, TypeError, "`group_sizes` must be a dict"),
    ({"group_ids": "sex"}, ValueError, "needs the column of the ids.*'sex'"),
    ({"balance_groups": [1, 2]}, ValueError, "one share for each group in the data"),
    ({"balance_groups": False, "undo_weights": True}, ValueError, "need `balance_groups`"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_what_does_not_fit_is_refused_at_once(
    options, error, message, rows, model, tmp_path
):
    with pytest.raises(error, match=message):
        read(write(tmp_path, rows), model, **options)


def test_a_group_that_no_row_has_is_told(rows, model, tmp_path):
    sizes = dict(collections.Counter(np.where(rows["g"] == 2, 1, rows["g"]).tolist()))
    sizes[0], sizes[2] = sizes[0] - 50, 50
    ids = np.where(rows["g"] == 2, 1, rows["g"])
    data = read(
        write(tmp_path, {**rows, "g": ids}), model, group_sizes=sizes, shuffle_rows=12
    )
    with pytest.raises(ValueError, match="names the id 2, which no row has"):
        model.fit(data, verbose=0)


def test_ids_that_are_not_whole_are_told_with_their_file(rows, model, tmp_path):
    ids = np.where(np.arange(ROWS) == ROWS - 1, np.nan, rows["g"])
    with pytest.raises(ValueError, match=r"In row group \d of .*2\.parquet: `group_ids`"):
        read(write(tmp_path, {**rows, "g": ids}), model)
