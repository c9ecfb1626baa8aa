"""Datasets that the kit makes have no thread of TensorFlow's that tunes them.

The end of an iterator may wait for that thread, for up to a minute.
"""

import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit.model.executions import nothing

ARRAYS = {"x": np.zeros((6, 2), "float32"), "y_true": np.zeros((6, 1), "float32")}


def parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = folder / "rows.parquet"
    parquet.write_table(pyarrow.table({"a": np.zeros(6), "b": np.zeros(6)}), path)
    model = alk.build_training_model(linear(1), "mse")
    return alk.parquet_dataset(path, model, 2, columns={"x": ["a"], "y": "b"})


class Batches:
    def __iter__(self):
        return iter([(ARRAYS["x"][:2], ARRAYS["y_true"][:2])] * 3)


def packed(folder):
    model = alk.build_training_model(linear(2), "mse")
    return alk.pack_dataset(model, Batches(), columns=("x", "y"))


MADE = {
    "make_dataset": lambda folder: alk.make_dataset(ARRAYS, 2),
    "parquet_dataset": parquet,
    "pack_dataset": packed,
}
if keras.backend.backend() == "tensorflow":  # Elsewhere it is no dataset.
    MADE["for a compiled loop"] = lambda folder: nothing()


@pytest.mark.parametrize("name", MADE)
def test_it_has_none(name, tmp_path):
    assert MADE[name](tmp_path).options().autotune.enabled is False
