"""Refuse, before the first step, what Keras would silently ignore or misread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from addloss_kit._checks import check_rows, received
from addloss_kit.fields import SAMPLE_WEIGHT


def is_stream(x: Any) -> bool:
    """Whether `x` is a dataset or generator, not arrays."""
    if isinstance(x, (Mapping, Sequence)) or x is None or hasattr(x, "shape"):
        return False
    return hasattr(x, "__iter__") or hasattr(x, "__getitem__")


def refuse_ignored(model: keras.Model, method: str, given: Mapping[str, Any]) -> None:
    """Refuse data and arguments that Keras would ignore.

    Args:
        model: A `TrainingModel`.
        method: Name of the calling method, for the message.
        given: Its arguments by name.

    Raises:
        ValueError: If a weight or target is not part of the dict, an entry is missing
            or unknown, or the rows differ in number.
        TypeError: If an entry is not an array.
    """
    x, y = given.get("x"), given.get("y")
    if model.loss is None:
        for name, remedy in (
            (SAMPLE_WEIGHT, "Pass `sample_weight=` to `pack_inputs`."),
            ("class_weight", "Give each row its class's weight as `sample_weight`."),
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
    if is_stream(x):
        _check_stream(model, method, x)
    elif x is not None:
        check_arrays(model, x, "")


def refuse_validation(model: keras.Model, validation_data: Any) -> None:
    """The same for `fit(validation_data=...)`, in any form that Keras accepts."""
    if validation_data is None:
        return
    if isinstance(validation_data, Mapping) or is_stream(validation_data):
        validation_data = (validation_data,)
    names = ("x", "y", SAMPLE_WEIGHT)
    refuse_ignored(model, "validation_data", dict(zip(names, validation_data)))


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


def check_arrays(model: keras.Model, x: Any, remedy: str) -> None:
    """Raise unless `x` holds one array for each Input, all with the same rows.

    Args:
        model: A `TrainingModel`.
        x: A dict by name, or arrays in the order of the Inputs.
        remedy: An extra sentence for the message.
    """
    if isinstance(x, Mapping):
        _check_names(model, x, remedy)
        arrays = {name: x[name] for name in x}
    else:
        flat = list(x) if isinstance(x, (list, tuple)) else [x]
        if len(flat) != len(model.inputs):
            names = [tensor.name for tensor in model.inputs]
            raise ValueError(
                f"The model has {len(names)} Inputs, {names}, so it takes a dict with "
                f"that many arrays, from `pack_inputs`. {remedy}"
                f"{received(arrays=len(flat))}"
            )
        arrays = {t.name: value for t, value in zip(model.inputs, flat)}
    for name, array in arrays.items():
        shape = getattr(array, "shape", None)
        if shape is None or str(getattr(array, "dtype", "")) == "object":
            raise TypeError(
                f"`{name}` must be an array. Convert it, or use `pack_inputs`, which "
                f"does so. {received(**{name: type(array).__name__})}"
            )
    check_rows(**arrays)


def _check_stream(model: keras.Model, method: str, x: Any) -> None:
    spec = getattr(x, "element_spec", None)
    if spec is None:
        return
    if isinstance(spec, tuple):
        if model.loss is None and any(part is not None for part in spec[1:]):
            raise ValueError(
                f"`{method}` would ignore the second part of the dataset's tuples, "
                "because the target is an Input of the model. Yield dicts, as "
                f"`make_dataset(pack_inputs(...))` does. {received(element_spec=spec)}"
            )
        spec = spec[0]
    if isinstance(spec, Mapping):
        _check_names(model, spec)


def _check_names(model: keras.Model, names: Iterable[str], remedy: str = "") -> None:
    wanted = [tensor.name for tensor in model.inputs]
    given = list(names)
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if missing or unknown:
        parts = [f"`{name}` is missing" for name in missing]
        parts += [f"`{name}` is not one of them" for name in unknown]
        raise ValueError(
            f"The data must have one entry for each Input {wanted}: "
            f"{'; '.join(parts)}. {remedy}{received(keys=given)}"
        )
