"""ResumableModel: what it saves is whole, and is all that training needs to go on."""

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

# Of the entries that hold the states of random generators.
_SEED = "seed_state_"


class ResumableModel(keras.Model):
    """A model that a kill at any moment costs no more than an epoch.

    `save` and `save_weights` write beside the file and move it into place, so that
    `ModelCheckpoint` and `BackupAndRestore` never leave half a file; and they save
    the states of the random generators too, which Keras leaves out, so that dropout
    goes on as it would have.
    """

    def save(self, filepath: Path, overwrite: bool = True, **kwargs: Any) -> None:
        self.build_optimizer()
        with _whole(filepath, overwrite, kwargs) as place:
            super().save(place, overwrite, **kwargs)

    def save_weights(self, filepath: Path, overwrite: bool = True, **kwargs: Any) -> None:
        self.build_optimizer()
        with _whole(filepath, overwrite, kwargs) as place:
            super().save_weights(place, overwrite, **kwargs)

    def load_weights(self, filepath: Path, *args: Any, **kwargs: Any) -> None:
        self.build_optimizer()
        try:
            super().load_weights(filepath, *args, **kwargs)
        except OSError as error:
            # `BackupAndRestore` waits for an `OSError` to turn to its other copy.
            raise OSError(
                "The weights could not be loaded: the file is cut off, damaged or not of "
                f"Keras. {received(filepath=filepath)} {error}"
            ) from error

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        super().save_own_variables(store)
        for number, state in enumerate(self._seed_states()):
            store[f"{_SEED}{number}"] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        stored = {name: store[name] for name in store.keys()}
        states = self._seed_states()
        for number, state in enumerate(states):
            # Absent in a file that came from the predictor.
            if (value := stored.pop(f"{_SEED}{number}", None)) is not None:
                state.assign(value)
        super().load_own_variables(stored)

    def build_optimizer(self) -> None:
        """Make the optimizer's state, if that is not done yet."""
        # Keras builds it in `fit` only, and skips the state of one that is not built.
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)

    def _seed_states(self) -> list[Any]:
        """The variables that are neither weights nor of metrics, in a fixed order."""
        known = {id(variable) for variable in (*self.weights, *self.metrics_variables)}
        return [variable for variable in self.variables if id(variable) not in known]


def _whole(
    filepath: Any, overwrite: bool, options: Mapping[str, Any]
) -> contextlib.AbstractContextManager[Any]:
    """Where to write what shall replace `filepath`; itself where no move can."""
    is_path = isinstance(filepath, (str, os.PathLike))
    if not is_path or not overwrite or options or "://" in os.fspath(filepath):
        return contextlib.nullcontext(filepath)
    return replacing(pathlib.Path(filepath).resolve())
