"""How fast files train, over the same rows in memory.

    python tests/benchmarks/files.py [ROUNDS]

prints the steps per second of an epoch from memory (`make_dataset`), from arrays on disk,
from Parquet files and from a stream of `tf.data`, and the median over the rounds of their
ratios to the first. Every round runs each of them once, in an order of its own.
"""

import pathlib
import random
import statistics
import sys
import tempfile
import time

import keras
import numpy as np
import pyarrow
import pyarrow.parquet
import tensorflow as tf

import addloss_kit as alk

ROWS, FEATURES, BATCH, FILES, ROW_GROUP = 1024 * 1024, 10, 1024, 4, 65_536


def build():
    predictor = keras.Sequential(
        [
            keras.Input((FEATURES,), name="x"),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(1),
        ]
    )
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    model.compile("adam")
    return model


def feeds(folder, model):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    ids = (rng.random(ROWS) < 0.3).astype("int32")
    y = (x[:, 0] + ids * x[:, 1]).astype("float32")
    packed = alk.pack_inputs(model, x, y, group_ids=ids)

    np.save(folder / "x.npy", x)
    on_disk = alk.pack_inputs(
        model, np.load(folder / "x.npy", mmap_mode="r"), y, group_ids=ids
    )
    table = {f"x{k}": x[:, k] for k in range(FEATURES)} | {"y": y, "g": ids}
    paths = []
    for number in range(FILES):
        part = slice(number * ROWS // FILES, (number + 1) * ROWS // FILES)
        paths.append(folder / f"{number}.parquet")
        rows = pyarrow.table({name: column[part] for name, column in table.items()})
        pyarrow.parquet.write_table(rows, paths[-1], row_group_size=ROW_GROUP)
    columns = {"x": [f"x{k}" for k in range(FEATURES)], "y": "y", "group_ids": "g"}
    options = {"columns": columns, "shuffle_rows": 2 * ROW_GROUP, "seed": 0}
    stream = tf.data.Dataset.from_tensor_slices((x, y, ids)).batch(BATCH)
    return {
        "memory": alk.make_dataset(packed, BATCH, seed=0),
        "memmap": alk.make_dataset(on_disk, BATCH, seed=0),
        "parquet": alk.parquet_dataset(paths, model, BATCH, **options),
        "parquet, balanced": alk.parquet_dataset(
            paths, model, BATCH, balance_groups=True, **options
        ),
        "tf.data": alk.pack_dataset(model, stream, columns=("x", "y", "group_ids")),
    }


def main(rounds=5):
    with tempfile.TemporaryDirectory() as folder:
        model = build()
        data = feeds(pathlib.Path(folder), model)
        times = {name: [] for name in data}
        for number in range(rounds + 1):  # the first compiles
            for name in random.sample(list(data), len(data)):
                begin = time.perf_counter()
                model.fit(data[name], verbose=0)
                if number:
                    times[name].append(time.perf_counter() - begin)
    for name, seconds in times.items():
        ratios = [one / other for one, other in zip(times["memory"], seconds)]
        rate = ROWS // BATCH / statistics.median(seconds)
        print(f"{name:18} {rate:7.0f} steps/s, {statistics.median(ratios):.2f} of memory")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
