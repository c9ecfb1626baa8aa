"""Refuse, before the first step, what Keras would silently ignore or misread."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit.data.streams import is_stream
from addloss_kit.fields import SAMPLE_WEIGHT


def refuse_ignored(model: keras.Model, method: str, given: Mapping[str, Any]) -> None:
    """Refuse data and arguments that Keras would ignore.

    Args:
        model: A `TrainingModel`.
        method: Name of the calling method, for the message.
        given: Its arguments by name.

    Raises:
        ValueError: If a weight or target is not part of the dict.
    """
    x, y = given.get("x"), given.get("y")
    if model.loss is None:
        for name, remedy in (
            (SAMPLE_WEIGHT, "Pass `sample_weight=` to `pack_inputs`."),
            ("class_weight", "Pass `class_weight=` to `build_training_model`."),
        ):
            if given.get(name) is not None:
                raise ValueError(
                    f"`{method}` would ignore `{name}=`, because the losses are in the "
                    f"graph. {remedy} {received(**{name: type(given[name]).__name__})}"
                )
        if y is not None:
            raise ValueError(
                f"`{method}` would ignore `y=`, because the target is an Input of the "
                "model. Put it into the dict: `pack_inputs(model, x, y)`, then "
                f"`y=None`. {received(y=type(y).__name__)}"
            )
    elif y is None and not is_stream(x):
        raise ValueError(
            "`compile(loss=...)` needs `y`, but the losses are in the graph. Call "
            f"`compile` without `loss=`. {received(loss=model.loss, y=None)}"
        )


def refuse_validation(model: keras.Model, validation_data: Any) -> None:
    """The same for `fit(validation_data=...)`, in any form that Keras accepts."""
    if validation_data is None:
        return
    if isinstance(validation_data, Mapping) or is_stream(validation_data):
        validation_data = (validation_data,)
    names = ("x", "y", SAMPLE_WEIGHT)
    refuse_ignored(model, "validation_data", dict(zip(names, validation_data)))


def warn_of_batch_size(method: str, given: Mapping[str, Any]) -> None:
    """Tell that a number of rows per batch changes nothing: a stream has its own.

    Keras ignores it without a word, so that code which passes it is left to run.

    Args:
        method: Name of the calling method, for the message.
        given: Its arguments by name.
    """
    validation = given.get("validation_data")
    others = validation[0] if isinstance(validation, (list, tuple)) else validation
    is_for_others = others is not None and not is_stream(others)
    is_for_others = is_for_others and given.get("validation_batch_size") is None
    for name, x, is_used in (
        ("batch_size", given.get("x"), is_for_others),
        ("validation_batch_size", others, False),
    ):
        if given.get(name) is not None and is_stream(x) and not is_used:
            warnings.warn(
                f"`{method}` ignores `{name}`, because a stream has batches of its own. "
                "Set the size where the stream is made, such as by `make_dataset`. "
                f"{received(**{name: given[name]})}",
                stacklevel=3,
            )


def refuse_unsavable(model: keras.Model, callbacks: Any) -> None:
    """Refuse, before the first step, a checkpoint that would not load.

    Args:
        model: A `TrainingModel`.
        callbacks: As in `fit`.

    Raises:
        ValueError: If a `ModelCheckpoint` saves the whole model, and a loss or metric is
            not registered with Keras.
    """
    given = getattr(callbacks, "callbacks", callbacks)
    given = given if isinstance(given, (list, tuple)) else [given]
    checkpoints = [x for x in given if isinstance(x, keras.callbacks.ModelCheckpoint)]
    if any(not checkpoint.save_weights_only for checkpoint in checkpoints):
        model.endpoint.get_config()
        for bound in model.bound_metrics:
            bound.get_config()
