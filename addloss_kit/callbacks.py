"""CheckpointAndResume: weights, optimizer, epoch and row order, written in one move."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit._types import Path
from addloss_kit.atomic import replacing
from addloss_kit.data.rows import Rows
from addloss_kit.keras_internals.replicas import is_first_process, wait_for_all_processes

_WEIGHTS, _TRAINING = "model.weights.h5", "training.json"


class CheckpointAndResume(keras.callbacks.Callback):
    """Saves a training after each epoch, and resumes it from there.

    Build and compile the model as before and call the same `fit`: if the file exists,
    training continues after the last epoch that was saved, bit for bit as if it had
    never stopped. Weights, states of losses, optimizer, random generators, the number
    of the epoch and the seed of the row order are one file, which replaces the former
    one in one step: a process that is killed at any moment leaves a whole file.
    (`keras.callbacks.BackupAndRestore` writes two files, one after the other.) A file
    that was damaged is refused, by its checksums.

    The order of the rows is resumed where `fit` shuffles by itself: a dict or
    `make_dataset`, on TensorFlow and JAX. A generator or another `tf.data.Dataset`
    must start at the epoch by itself. Other callbacks, such as `EarlyStopping`, start
    anew.

    Of several processes, on JAX or torch, the first one writes; all of them read, when
    they start.

    Args:
        filepath: Where to write, such as `"training.ckpt"`.
        delete_checkpoint: Whether to delete the file after the last epoch, so that the
            next `fit` starts anew, as `BackupAndRestore` does.

    Raises:
        OSError: In `fit`, if the file cannot be read or written; the former one is
            unchanged.
        ValueError: In `fit`, if the file is of another model.

    Example:
        >>> import addloss_kit as alk, keras, numpy as np, tempfile
        >>> predictor = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model = alk.build_training_model(predictor, "mse")
        >>> model.compile("adam")
        >>> data = alk.pack_inputs(model, np.ones((8, 2)), np.ones(8))
        >>> path = tempfile.mkdtemp() + "/training.ckpt"
        >>> saving = CheckpointAndResume(path, delete_checkpoint=False)
        >>> model.fit(data, epochs=2, callbacks=[saving], verbose=0).epoch
        [0, 1]
        >>> model.fit(data, epochs=3, callbacks=[saving], verbose=0).epoch
        [2]
    """

    def __init__(self, filepath: Path, *, delete_checkpoint: bool = True) -> None:
        super().__init__()
        self.path = pathlib.Path(os.fspath(filepath))
        if self.path.is_dir():
            raise ValueError(
                "`filepath` must be a file, such as 'training.ckpt'. "
                f"{received(filepath=filepath)}"
            )
        self.delete_checkpoint = delete_checkpoint
        self.rows: Rows | None = None
        self._seed: int | None = None

    def resume(self, model: Any) -> int:
        """Give a compiled model the saved state; `TrainingModel.fit` calls it.

        Returns:
            The epoch to start with: 0 if there is no file.
        """
        self._seed = None
        if not self.path.exists():
            return 0
        with tempfile.TemporaryDirectory() as folder:
            try:
                with zipfile.ZipFile(self.path) as archive:
                    # Reads each member to its end, which compares the checksums.
                    training = json.loads(archive.read(_TRAINING))
                    weights = pathlib.Path(archive.extract(_WEIGHTS, folder))
                epoch, self._seed = int(training["epochs"]), training["seed"]
            except Exception as error:  # zipfile raises many kinds
                raise OSError(
                    "The checkpoint could not be read: it is truncated, damaged or not "
                    "one of `CheckpointAndResume`. Delete it to start anew. "
                    f"{received(filepath=self.path)} {error}"
                ) from error
            try:
                model.load_weights(weights)
            except Exception as error:
                raise ValueError(
                    "The checkpoint is of another model. Build and compile the model as "
                    "it was, or delete the file to start anew. "
                    f"{received(filepath=self.path)} {error}"
                ) from error
        return epoch

    def follow(self, rows: Rows | None) -> None:
        """Save the seed of these rows' order, and give them that of the file."""
        self.rows = rows
        if rows is not None and self._seed is not None:
            rows.seed = self._seed

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if is_first_process():
            self._write(epoch)
        # Else another could call `fit` again, and resume from the file before this one.
        wait_for_all_processes()

    def _write(self, epoch: int) -> None:
        seed = self.rows.seed if self.rows is not None else None
        training = {"epochs": epoch + 1, "seed": seed}
        try:
            with replacing(self.path) as place:
                weights = place.with_name(_WEIGHTS)
                self.model.save_weights(weights)
                with zipfile.ZipFile(place, "w") as archive:
                    archive.write(weights, _WEIGHTS)
                    archive.writestr(_TRAINING, json.dumps(training))
                weights.unlink()
        except OSError as error:
            former = (
                "The former one is unchanged" if self.path.exists() else "There is none"
            )
            raise OSError(
                f"The checkpoint of epoch {epoch} could not be written. {former}. "
                f"{received(filepath=self.path)} {error}"
            ) from error

    def on_train_end(self, logs: Any = None) -> None:
        if self.delete_checkpoint and is_first_process():
            self.path.unlink(missing_ok=True)
        wait_for_all_processes()


def resumed(model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `fit` with the epoch that a `CheckpointAndResume` starts with."""
    arguments = dict(arguments)
    for callback in _ours(arguments):
        epoch = callback.resume(model)
        if epoch:
            arguments["initial_epoch"] = epoch
    return arguments


def follow_rows(arguments: Mapping[str, Any], rows: Rows | None) -> None:
    """Tell each `CheckpointAndResume` of a `fit` whose order to save."""
    for callback in _ours(arguments):
        callback.follow(rows)


def _ours(arguments: Mapping[str, Any]) -> list[CheckpointAndResume]:
    given = arguments.get("callbacks")
    given = getattr(given, "callbacks", given)
    return [c for c in keras.tree.flatten(given) if isinstance(c, CheckpointAndResume)]
