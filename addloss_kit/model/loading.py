"""load_training_model: load a saved training model, or raise an error naming the file."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from addloss_kit._checks import as_path, received
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


def load_training_model(
    filepath: Path, custom_objects: Mapping[str, Any] | None = None
) -> TrainingModel:
    """Load a training model from a `.keras` file, compiled as before.

    Like `keras.saving.load_model` in safe mode: no code from the file is run, and
    `Lambda` layers and pickled objects are rejected. Custom layers and losses must
    be registered with Keras, and their modules imported, beforehand; or be given.

    Args:
        filepath: What `model.save` or `keras.callbacks.ModelCheckpoint` wrote.
        custom_objects: Classes and functions by the names under which they were
            registered, such as `{"your_package>your_loss": your_loss}`.

    Returns:
        The model with its losses and their state, metrics, optimizer, and the states
        of its random generators.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, damaged or malicious, holds another kind
            of model, or needs a class or function that is not registered.

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
    path = as_path(filepath=filepath)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"`filepath` must be a file that `save` wrote. {received(filepath=path)}"
        )
    try:
        _check_sums(path)
        model = keras.saving.load_model(
            path, custom_objects=dict(custom_objects or {}), safe_mode=True
        )
    except _DAMAGED as error:
        needed = list(dict.fromkeys(_objects(path)))
        known = custom_objects or {}
        missing = [n for n in needed if n not in known and not _is_registered(n)]
        if missing:
            names = ", ".join(f"'{n}': {n.split('>')[-1]}" for n in missing)
            raise ValueError(
                f"The file could not be loaded, as it needs {missing}, which nothing has "
                "registered here. Import the modules that define them, or pass "
                f"`custom_objects={{{names}}}`. {received(filepath=path)}"
            ) from error
        raise ValueError(
            "The file could not be loaded: it is truncated, damaged, not a Keras file, or "
            "holds something unsafe, such as a `Lambda`. Load another copy, or define "
            "a registered layer instead of the `Lambda` and save again. "
            f"{received(filepath=path)} {type(error).__name__}: {_first_line(error)}"
        ) from error
    if not isinstance(model, TrainingModel):
        raise ValueError(
            "The file must hold a training model. Load another kind of model with "
            "`keras.saving.load_model`. "
            f"{received(filepath=path, model=type(model).__name__)}"
        )
    return model


def _check_sums(path: str) -> None:
    """Raise `BadZipFile` if a member's contents do not match their checksum.

    Keras reads weights in parts, never to the end, where the checksum is compared: one
    bit that flipped on the disk would be another weight, silently.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"Bad checksum of '{damaged}'.")


def _objects(path: str) -> Iterator[str]:
    """The registered names of all custom classes and functions in a `.keras` file."""
    try:
        with zipfile.ZipFile(path) as file:
            config = json.loads(file.read("config.json"))
    except (*_DAMAGED, RecursionError):
        return
    stack = [config]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            if part.get("class_name") == "function":
                name = part.get("config")
            else:
                name = part.get("registered_name")
            if isinstance(name, str) and ">" in name:
                yield name
            # From the front, so that layers come in their order.
            stack.extend(reversed(list(part.values())))
        elif isinstance(part, list):
            stack.extend(reversed(part))


def _is_registered(name: str) -> bool:
    return keras.saving.get_registered_object(name) is not None


def _first_line(error: BaseException) -> str:
    # Keras adds the whole config.
    return (str(error).strip().splitlines() or [""])[0][:300]
