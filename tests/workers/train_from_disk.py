"""Trains on rows on disk, and prints in MB its memory at most, and by how much it grew: all
of it, and what the system cannot take back.

    python tests/workers/train_from_disk.py FOLDER KIND [ROWS] [BATCH]

KIND is `memmap`, `stream` (a `tf.data.Dataset` that reads one) or `parquet`. 400,000 rows,
unless more are asked for, have 400 MB.
"""

import gc
import pathlib
import sys
import threading
import time

import keras
import numpy as np

import addloss_kit as alk

FEATURES = 256


def resident_mb():
    """All, and all but pages of files, of which the system maps more than are read."""
    _, resident, shared = map(int, pathlib.Path("/proc/self/statm").read_text().split()[:3])
    return np.array([resident, resident - shared]) * 4096 / 2**20


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


def stream(packed, batch):
    import tensorflow as tf

    rows = len(next(iter(packed.values())))

    def batches():
        for first in range(0, rows, batch):
            yield {name: np.array(a[first : first + batch]) for name, a in packed.items()}

    signature = {n: tf.TensorSpec((None, *a.shape[1:]), a.dtype) for n, a in packed.items()}
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(-(-rows // batch)))


def feed(model, kind, path, rows, batch):
    """Arguments of `fit` and `evaluate`."""
    if kind != "parquet":
        y, ids = np.zeros((rows, 1), "float32"), (np.arange(rows) % 2).astype("int32")
        mapped = np.load(path, mmap_mode="r")
        packed = alk.pack_inputs(model, mapped, y, group_ids=ids)
        if kind == "stream":
            return {"x": stream(packed, batch), "verbose": 0}
        return {"x": packed, "batch_size": batch, "verbose": 0}
    x = [str(k) for k in range(FEATURES)]
    columns = {"x": x, "y": "y", "group_ids": "group"}
    data = alk.parquet_dataset(path, model, batch, columns=columns, shuffle_rows=10_000)
    return {"x": data, "verbose": 0}


def main(folder, kind, rows=400_000, batch=2048):
    rows, batch = int(rows), int(batch)
    few, path = pathlib.Path(folder) / "few", pathlib.Path(folder) / "rows"
    write = write_parquet if kind == "parquet" else write_memmap
    write(few, 20_000)
    write(path, rows)
    assert path.stat().st_size > rows * FEATURES * 4
    inputs = keras.Input((FEATURES,), name="x")
    # It takes longer than to read the rows: what is read ahead must wait.
    hidden = keras.layers.Dense(128, "relu")(inputs)
    predictor = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    model.compile("sgd")
    # What a first training from such a file costs, however many rows it has.
    model.fit(**feed(model, kind, few, 20_000, batch))
    model.evaluate(**feed(model, kind, few, 20_000, batch))

    gc.collect()
    before = most = resident_mb()
    is_done = threading.Event()

    def watch():
        nonlocal most
        while not is_done.is_set():
            most = np.maximum(most, resident_mb())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model.fit(**feed(model, kind, path, rows, batch))
    model.evaluate(**feed(model, kind, path, rows, batch))
    is_done.set()
    watcher.join()
    print(most[0].round(1), *(most - before).round(1))


if __name__ == "__main__":
    main(*sys.argv[1:])
