"""as_metric: the metric that a person means, under the name that the history shows."""

from __future__ import annotations

from typing import Any

import keras

from addloss_kit._types import KerasTensor
from addloss_kit.fields import Field


def as_metric(
    given: Any, prediction: KerasTensor, output: str | None, target: Field
) -> keras.metrics.Metric:
    """The metric, under the name that the history shows: a string as it was given.

    Args:
        given: What a person has passed: a name, a Keras metric, a function.
        prediction: The KerasTensor that it watches.
        output: Name of the output, `None` where there is only one.
        target: What the losses want the target of this output to be.
    """
    name = given if isinstance(given, str) else None
    if name in ("accuracy", "acc"):
        given = _accuracy(prediction, target)
    if not isinstance(given, keras.metrics.Metric):
        given = keras.metrics.get(given)
        given = given() if isinstance(given, type) else given
    name = name or getattr(given, "name", None) or given.__name__
    name = name if output is None else prefixed(name, output)
    if not isinstance(given, keras.metrics.Metric):
        return keras.metrics.MeanMetricWrapper(given, name=name)
    if given.name == name:
        return given
    return type(given).from_config({**given.get_config(), "name": name})


def _accuracy(prediction: KerasTensor, target: Field) -> keras.metrics.Metric:
    """The accuracy that fits, as Keras's `compile` chooses it: by the shapes."""
    if prediction.shape[-1] == 1:
        return keras.metrics.BinaryAccuracy(name="accuracy")
    shape = tuple(prediction.shape[1:])
    if target.shape in (shape[:-1], (*shape[:-1], 1)):
        return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    return keras.metrics.CategoricalAccuracy(name="accuracy")


def prefixed(name: str, output: str | None) -> str:
    """`name` with the output's name before it, once, where there are several."""
    return name if output is None or name.startswith(f"{output}_") else f"{output}_{name}"
