"""Trains once in peace and once between kills, and keeps what both end with.

    python tests/workers/train_and_be_killed.py FOLDER FEED CALLBACK EPOCHS KILLS SEED

FEED is `arrays` (unshuffled), `dataset` (`make_dataset` with a seed), `parquet`, or
`balanced` (`parquet_dataset`, with groups in balance), CALLBACK
`checkpoint` (`ModelCheckpoint`, resumed by hand), `backup` (`BackupAndRestore`) or
`own` (`CheckpointAndResume`).
KILLS is how many times SIGKILL ends the second training, at moments drawn
from SEED, within the first half of its usual time after its first epoch began.
`peace` and `war` in FOLDER then each hold `final.npz`, every variable of the model and
its optimizer, and `epochs.jsonl`, a line for each epoch that came to its end. The last
line printed is the number of kills.

A process of its own that forks the trainings: a kill must not end the test, and one
import of TensorFlow serves them all.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time

import keras
import numpy as np

import addloss_kit as alk


def train(folder, feed, callback, epochs, begun):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 3)).astype("float32")
    ids = rng.integers(0, 2, 160)
    y = x[:, 0] + 0.5 * ids + 0.1 * rng.normal(size=160)

    inputs = keras.Input((3,), name="x")
    hidden = keras.layers.Dense(8, "relu")(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Dropout(0.2)(hidden)
    predictor = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2), alk.losses.GroupGapConstraint(2, bound=0.05)],
        metrics=[alk.metrics.GroupError(2)],
    )
    model.compile(keras.optimizers.Adam(0.01))
    packed = alk.pack_inputs(model, x, y, group_ids=ids)
    data, options = packed, {"batch_size": 16, "shuffle": False}
    if feed == "dataset":
        data, options = alk.make_dataset(packed, 16, seed=3), {}
    elif feed in ("parquet", "balanced"):
        data, options = from_files(folder, model, x, y, ids, feed == "balanced"), {}

    callbacks = [Log(folder / "epochs.jsonl", begun)]
    first = 0
    if callback == "backup":
        callbacks.append(keras.callbacks.BackupAndRestore(folder / "backup"))
    elif callback == "own":
        callbacks.append(alk.callbacks.CheckpointAndResume(folder / "training.ckpt"))
    elif callback == "checkpoint":
        saved = sorted(folder.glob("[0-9]*.keras"))
        if saved:
            model = keras.saving.load_model(saved[-1])
            first = int(saved[-1].stem)
        callbacks.append(keras.callbacks.ModelCheckpoint(folder / "{epoch:04d}.keras"))
    model.fit(
        data,
        epochs=epochs,
        initial_epoch=first,
        callbacks=callbacks,
        verbose=0,
        **options,
    )
    variables = [*model.variables, *model.optimizer.variables]
    final = [keras.ops.convert_to_numpy(variable) for variable in variables]
    np.savez(folder / "part.npz", *final)
    os.replace(folder / "part.npz", folder / "final.npz")


def from_files(folder, model, x, y, ids, is_balanced):
    import pyarrow
    import pyarrow.parquet

    path = folder / "rows.parquet"
    if not path.exists():  # before the first epoch, when nobody kills
        table = pyarrow.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y, "g": ids})
        pyarrow.parquet.write_table(table, path, row_group_size=20)
    columns = {"x": ["a", "b", "c"], "y": "y", "group_ids": "g"}
    return alk.parquet_dataset(
        path,
        model,
        16,
        columns=columns,
        shuffle_rows=60,
        balance_groups=is_balanced,
        seed=3,
    )


class Log(keras.callbacks.Callback):
    def __init__(self, path, begun):
        super().__init__()
        self.path, self.begun = path, begun

    def on_epoch_begin(self, epoch, logs=None):
        os.write(self.begun, b".")

    def on_epoch_end(self, epoch, logs=None):
        line = json.dumps([epoch, {name: float(value) for name, value in logs.items()}])
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode() + b"\n")


def fork(folder, feed, callback, epochs):
    """Begin a training; return its process and when its first epoch began."""
    heard, begun = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            train(folder, feed, callback, epochs, begun)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.close(begun)
    os.read(heard, 1)
    os.close(heard)
    return child, time.monotonic()


def main(folder, feed, callback, epochs, kills, seed):
    moments = random.Random(seed)
    for name in ("peace", "war"):
        (folder / name).mkdir()
    child, start = fork(folder / "peace", feed, None, epochs)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("The uninterrupted training failed.")
    duration = time.monotonic() - start

    killed = 0
    while not (folder / "war" / "final.npz").exists():
        child, _ = fork(folder / "war", feed, callback, epochs)
        if killed < kills:
            time.sleep(moments.uniform(0, duration / 2))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        killed += os.WIFSIGNALED(status)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
            sys.exit("The resumed training failed.")
    print(killed)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:7]))
