"""Exports over a former export, is killed on the way, and says what is left.

    python tests/workers/export_and_be_killed.py FOLDER NAME FORMAT KILLS SEED

NAME is the file or directory in FOLDER. SIGKILL comes KILLS times, at moments drawn
from SEED within the usual time of an export. Prints a line for each: `former` if the
former export lies there untouched, `new` if the new one does and predicts, else what
is wrong; then a last line with the names that lie beside it.

A process of its own that forks the exports: a kill must not end the test.
"""

import hashlib
import os
import pathlib
import random
import signal
import sys
import time

import keras
import numpy as np

import addloss_kit as alk


def export(path, name, bias, begun):
    predictor = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, bias_initializer=bias)]
    )
    model = alk.build_training_model(predictor, "mse")
    os.write(begun, b".")
    alk.export_inference_model(model, path, format=name)


def predict(path, name, begun):
    """Ends well if what lies at the path predicts for a row of zeros its bias of 1."""
    if name == "keras":
        loaded = keras.saving.load_model(path)
    else:
        import tensorflow as tf

        archive = tf.saved_model.load(str(path))
        loaded = archive.serve
    np.testing.assert_array_equal(np.asarray(loaded(np.zeros((1, 3), "float32"))), [[1.0]])


def fork(work, *arguments):
    heard, begun = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(*arguments, begun)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.close(begun)
    os.read(heard, 1)
    os.close(heard)
    return child


def digest(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    parts = [str(f).encode() + f.read_bytes() for f in files if f.is_file()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def main(path, name, kills, seed):
    moments = random.Random(seed)
    child = fork(export, path, name, "zeros")
    start = time.monotonic()
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("The export without a kill failed.")
    duration = time.monotonic() - start
    former = digest(path)
    for _ in range(kills):
        child = fork(export, path, name, "ones")
        time.sleep(moments.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if digest(path) == former:
            print("former")
        elif os.waitpid(fork(predict, path, name), 0)[1] == 0:
            print("new")
            former = digest(path)
        else:
            print("neither the former export nor the new one")
    print(sorted(entry.name for entry in path.parent.iterdir() if entry != path))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1], sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:6]))
