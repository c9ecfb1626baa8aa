"""as_metric: resolve a metric, and give it the name used in the history."""

from __future__ import annotations

from typing import Any

import keras

from addloss_kit._types import KerasTensor
from addloss_kit.fields import Field


def as_metric(
    given: Any, prediction: KerasTensor, output: str | None, target: Field
) -> keras.metrics.Metric:
    """The metric, under its name in the history; a string keeps its spelling.

    Args:
        given: A name, a Keras metric, or a function.
        prediction: The KerasTensor that it measures.
        output: Name of the output, `None` if there is only one.
        target: What the losses require of the target of this output.
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
    """The accuracy that Keras's `compile` would choose, from the shapes."""
    if prediction.shape[-1] == 1:
        return keras.metrics.BinaryAccuracy(name="accuracy")
    shape = tuple(prediction.shape[1:])
    if target.shape in (shape[:-1], (*shape[:-1], 1)):
        return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    return keras.metrics.CategoricalAccuracy(name="accuracy")


def prefixed(name: str, output: str | None) -> str:
    """`name`, prefixed once with the output's name if there are several outputs."""
    return name if output is None or name.startswith(f"{output}_") else f"{output}_{name}"
