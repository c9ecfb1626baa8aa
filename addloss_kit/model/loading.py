"""load_training_model: load a saved training model, or raise an error naming the file."""

from __future__ import annotations

import os
import zipfile
import zlib

import keras

from addloss_kit._checks import received
from addloss_kit._types import Path
from addloss_kit.model.training_model import TrainingModel

# What Keras, zip and HDF5 raise for damaged or foreign contents. `RuntimeError` and
# its `NotImplementedError` come from damaged flags that are read as encryption or a
# later version of zip.
_DAMAGED = (
    AttributeError,
    EOFError,
    KeyError,
    IndexError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_training_model(filepath: Path) -> TrainingModel:
    """Load a training model from a `.keras` file, compiled as before.

    Like `keras.saving.load_model` in safe mode: no code from the file is run, and
    `Lambda` layers and pickled objects are rejected. Custom layers and losses must
    be registered with Keras, and their modules imported, beforehand.

    Args:
        filepath: What `model.save` or `keras.callbacks.ModelCheckpoint` wrote.

    Returns:
        The model with its losses and their state, metrics, optimizer, and the states
        of its random generators.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, damaged or malicious, or holds another
            kind of model.

    Example:
        >>> import addloss_kit as alk, pathlib, tempfile
        >>> predictor = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model = alk.build_training_model(predictor, "mse")
        >>> model.compile("adam")
        >>> rows = alk.pack_inputs(model, [[1.0, 2.0]], [3.0])
        >>> history = model.fit(rows, verbose=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(pathlib.Path(folder, "training.keras"))
        ...     again = load_training_model(pathlib.Path(folder, "training.keras"))
        >>> [tensor.name for tensor in again.inputs] == [t.name for t in model.inputs]
        True
    """
    path = os.fspath(filepath)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"`filepath` must be a file that `save` wrote. {received(filepath=path)}"
        )
    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except _DAMAGED as error:
        raise ValueError(
            "The file could not be loaded: it is truncated, damaged, not a Keras file, or "
            "needs something unsafe or unknown. Load another copy, or import the "
            f"modules that its layers and losses need. {received(filepath=path)} "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, TrainingModel):
        raise ValueError(
            "The file must hold a training model. Load another kind of model with "
            "`keras.saving.load_model`. "
            f"{received(filepath=path, model=type(model).__name__)}"
        )
    return model
