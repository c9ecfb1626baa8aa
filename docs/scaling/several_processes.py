"""Trains one model on several machines (or processes of one) with the JAX backend.

Write the files once, to a folder that all machines see:

    python several_processes.py write FOLDER

Then run it on each machine with a number of its own, the address being that of machine 0:

    KERAS_BACKEND=jax KERAS_DISTRIBUTION_JOB_ADDRESSES=10.0.0.1:12345 \
    KERAS_DISTRIBUTION_NUM_PROCESSES=2 KERAS_DISTRIBUTION_PROCESS_ID=0 \
    python several_processes.py train FOLDER

Without these variables it trains in one process, to the same numbers. If a process dies,
the others stop with an error: start all of them again, and they go on after the last epoch.
"""

import json
import os
import pathlib
import sys

import keras
import numpy as np

import addloss_kit as alk

FEATURES, ROWS, BATCH, NUM_GROUPS, EPOCHS = 10, 512, 64, 2, 3


def write_files(folder, files=2, row_group_size=32):
    """Rows in Parquet files, shuffled before, as a job of your own would write them."""
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    for number in range(files):
        x = rng.normal(size=(ROWS // files, FEATURES))
        group = rng.integers(0, NUM_GROUPS, size=len(x))
        columns = {f"x{k}": x[:, k] for k in range(FEATURES)}
        columns |= {"group": group, "y": x[:, 0] + group * rng.normal(size=len(x))}
        pyarrow.parquet.write_table(
            pyarrow.table(columns),
            pathlib.Path(folder) / f"{number}.parquet",
            row_group_size=row_group_size,
        )


def train(folder, epochs=EPOCHS, callbacks=()):
    """Trains in all processes together; returns the errors over all rows at the end."""
    import jax

    process, processes = jax.process_index(), jax.process_count()
    keras.utils.set_random_seed(0)  # the same weights everywhere
    # Each process feeds its own rows, so that no machine needs to read them all.
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)
    )
    predictor = keras.Sequential(
        [keras.Input((FEATURES,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    )
    model = alk.build_training_model(
        predictor,
        losses=["mse", alk.losses.GroupGap(NUM_GROUPS, momentum=0.9)],
        metrics=[alk.metrics.GroupError(NUM_GROUPS)],
    )
    model.compile(keras.optimizers.Adam(0.01))

    x = [f"x{k}" for k in range(FEATURES)]
    rows = alk.parquet_dataset(
        sorted(pathlib.Path(folder).glob("*.parquet")),
        model,
        BATCH // processes,
        columns={"x": x, "y": "y", "group_ids": "group"},
        shard=(process, processes),
        # Batches of one size, and as many in each process: all wait for each other.
        drop_remainder=True,
        # In the order of the files, batches have the same rows for any number of processes
        # if a row group fills a process's share. To mix them anew in each epoch, give the
        # size of a buffer; the numbers then depend on the number of processes.
        shuffle_rows=0,
    )
    # All processes read the file when they start; only process 0 writes it.
    saving = alk.callbacks.CheckpointAndResume(
        pathlib.Path(folder) / "training.ckpt", delete_checkpoint=False
    )
    model.fit(rows, epochs=epochs, callbacks=[saving, *callbacks], verbose=0)
    return model.evaluate(rows, verbose=0, return_dict=True)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write_files(sys.argv[2])
    else:
        if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
            keras.distribution.initialize()  # before any computation
        print(json.dumps(train(sys.argv[2])))
