"""Trains on 400 MB of rows on disk, and prints by how many MB its memory grew at most.

    python tests/workers/train_from_disk.py FOLDER KIND

KIND is `memmap` or `parquet`.
"""

import gc
import pathlib
import sys
import threading
import time

import keras
import numpy as np

import addloss_kit as alk

FEATURES, ROWS, BATCH = 256, 400_000, 2048


def resident_mb():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def write_memmap(path, rows):
    shape = (rows, FEATURES)
    x = np.lib.format.open_memmap(path, mode="w+", dtype="float32", shape=shape)
    for first in range(0, rows, 10_000):
        x[first : first + 10_000] = first % 7


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    group = np.arange(5_000)
    writer = None
    for first in range(0, rows, len(group)):
        values = np.full(len(group), first % 7, "float32")
        columns = {str(k): values for k in range(FEATURES)}
        table = pyarrow.table({**columns, "y": 0 * values, "group": group % 2})
        if writer is None:
            # As they are, so that the file is as large as the rows.
            options = {"compression": "none", "use_dictionary": False}
            writer = pyarrow.parquet.ParquetWriter(path, table.schema, **options)
        writer.write_table(table)
    writer.close()


def feed(model, kind, path, rows):
    """Arguments of `fit` and `evaluate`."""
    if kind == "memmap":
        y, ids = np.zeros((rows, 1), "float32"), (np.arange(rows) % 2).astype("int32")
        mapped = np.load(path, mmap_mode="r")
        packed = alk.pack_inputs(model, mapped, y, group_ids=ids)
        return {"x": packed, "batch_size": BATCH, "verbose": 0}
    x = [str(k) for k in range(FEATURES)]
    columns = {"x": x, "y": "y", "group_ids": "group"}
    data = alk.parquet_dataset(path, model, BATCH, columns=columns, shuffle_rows=10_000)
    return {"x": data, "verbose": 0}


def main(folder, kind):
    few, path = pathlib.Path(folder) / "few", pathlib.Path(folder) / "rows"
    write = {"memmap": write_memmap, "parquet": write_parquet}[kind]
    write(few, 20_000)
    write(path, ROWS)
    assert path.stat().st_size > ROWS * FEATURES * 4
    inputs = keras.Input((FEATURES,), name="x")
    predictor = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    model.compile("sgd")
    # What a first training from such a file costs, however many rows it has.
    model.fit(**feed(model, kind, few, 20_000))
    model.evaluate(**feed(model, kind, few, 20_000))

    gc.collect()
    before, most, is_done = resident_mb(), [0.0], threading.Event()

    def watch():
        while not is_done.is_set():
            most[0] = max(most[0], resident_mb())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model.fit(**feed(model, kind, path, ROWS))
    model.evaluate(**feed(model, kind, path, ROWS))
    is_done.set()
    watcher.join()
    print(round(most[0] - before, 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
