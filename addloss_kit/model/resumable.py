"""ResumableModel: saves atomically, with everything needed to resume training."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping, MutableMapping
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit._types import Path
from addloss_kit.atomic import replacing
from addloss_kit.keras_internals.replicas import scope_of, undistributed

# Prefix of the entries that hold the states of random generators.
_SEED = "seed_state_"


class ResumableModel(keras.Model):
    """A model that loses at most one epoch if its process is killed.

    `save` and `save_weights` write to a temporary file and move it into place, so
    `ModelCheckpoint` and `BackupAndRestore` never leave half a file. They also save
    the states of the random generators, which Keras does not, so that dropout
    continues as it would have.
    """

    def save(self, filepath: Path, overwrite: bool = True, **kwargs: Any) -> None:
        self.build_optimizer()
        with undistributed(), _whole(filepath, overwrite, kwargs) as place:
            super().save(place, overwrite, **kwargs)

    def save_weights(self, filepath: Path, overwrite: bool = True, **kwargs: Any) -> None:
        self.build_optimizer()
        with undistributed(), _whole(filepath, overwrite, kwargs) as place:
            super().save_weights(place, overwrite, **kwargs)

    def load_weights(self, filepath: Path, *args: Any, **kwargs: Any) -> None:
        self.build_optimizer()
        try:
            super().load_weights(filepath, *args, **kwargs)
        except OSError as error:
            # `BackupAndRestore` falls back to its other copy on an `OSError`.
            raise OSError(
                "The weights could not be loaded: the file is truncated, damaged or not a "
                f"Keras file. {received(filepath=filepath)} {error}"
            ) from error

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        super().save_own_variables(store)
        for number, state in enumerate(self._seed_states()):
            store[f"{_SEED}{number}"] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        stored = {name: store[name] for name in store.keys()}
        states = self._seed_states()
        for number, state in enumerate(states):
            # Absent from the predictor's files.
            if (value := stored.pop(f"{_SEED}{number}", None)) is not None:
                state.assign(value)
        super().load_own_variables(stored)

    def build_optimizer(self) -> None:
        """Create the optimizer's state, if it does not exist yet."""
        # Keras creates it only in `fit`, and does not save or load it before that.
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            with scope_of(self):
                optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        # TensorFlow traces a function twice if its first trace makes variables.
        self.build_optimizer()
        return super().make_train_function(force)

    def _seed_states(self) -> list[Any]:
        """The variables of neither weights nor metrics, in a fixed order."""
        known = {id(variable) for variable in (*self.weights, *self.metrics_variables)}
        return [variable for variable in self.variables if id(variable) not in known]


def _whole(
    filepath: Any, overwrite: bool, options: Mapping[str, Any]
) -> contextlib.AbstractContextManager[Any]:
    """Where to write the replacement of `filepath`; itself if it cannot be moved."""
    is_path = isinstance(filepath, (str, os.PathLike))
    if not is_path or not overwrite or options or "://" in os.fspath(filepath):
        return contextlib.nullcontext(filepath)
    return replacing(pathlib.Path(filepath).resolve())
