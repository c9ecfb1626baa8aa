"""as_metric: resolve a metric, and give it the name used in the history."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from addloss_kit._checks import did_you_mean, received
from addloss_kit._types import KerasTensor
from addloss_kit.fields import Field, snake_case


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
        given = _of_keras(given)
        given = given() if isinstance(given, type) else given
    name = name or getattr(given, "name", None) or given.__name__
    name = name if output is None else prefixed(name, output)
    if not isinstance(given, keras.metrics.Metric):
        return keras.metrics.MeanMetricWrapper(given, name=name)
    if given.name == name:
        return given
    return type(given).from_config({**given.get_config(), "name": name})


def _of_keras(given: Any) -> Any:
    if not isinstance(given, str) and not callable(given):
        raise TypeError(
            "A metric must be a name, a Keras metric or a function. Pass one of them, or a "
            f"list of them. {received(metric=repr(given))}"
        )
    try:
        return keras.metrics.get(given)
    except ValueError:
        raise ValueError(
            "A metric must be a name that `keras.metrics.get` knows, a Keras metric or a "
            f"function. Check the spelling.{did_you_mean(given, _known_names())} "
            f"{received(metric=repr(given))}"
        ) from None


def _known_names() -> list[str]:
    """What Keras calls its metrics."""
    classes = [x for x in vars(keras.metrics).values() if isinstance(x, type)]
    functions = [n for n, x in vars(keras.metrics).items() if inspect.isfunction(x)]
    functions = [n for n in functions if n not in ("get", "serialize", "deserialize")]
    return ["accuracy", *functions, *(snake_case(kind.__name__) for kind in classes)]


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
