"""A term or a metric together with the source of each of its arguments."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit._types import Config, KerasTensor, Tensor
from addloss_kit.fields import SAMPLE_WEIGHT, Y_PRED, Y_TRUE, Field
from addloss_kit.functional.class_weights import weight_by_class
from addloss_kit.functional.rows import align_weight, own_mask
from addloss_kit.keras_internals.wrapped import function_name
from addloss_kit.losses import LossTerm
from addloss_kit.serialization import serialize_object


@runtime_checkable
class Consumer(Protocol):
    """Anything whose arguments are fed by Inputs: all terms, and the kit's metrics.

    `KerasMetricConsumer` adapts a Keras metric.
    """

    @property
    def required_arguments(self) -> tuple[str, ...]:
        """Arguments without a default."""

    @property
    def optional_arguments(self) -> tuple[str, ...]:
        """Arguments with a default."""

    def accepts(self, argument: str) -> bool:
        """Whether there is an argument of that name."""

    def source(self, argument: str) -> str:
        """The name of the source of `argument`."""

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        """What the Input of `argument` must look like."""


class KerasMetricConsumer:
    """A metric that does not declare Inputs: from Keras, or custom.

    Args:
        metric: The metric; the parameters of its `update_state` are the arguments.

    Raises:
        ValueError: If it does not take `y_pred`.
    """

    def __init__(self, metric: keras.metrics.Metric) -> None:
        self.metric = metric
        self._parameters = [
            p
            for p in inspect.signature(metric.update_state).parameters.values()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if Y_PRED not in self.required_arguments:
            names = [p.name for p in self._parameters]
            raise ValueError(
                "A metric's `update_state` must take `y_true` and `y_pred`. "
                f"{received(metric=metric.name, parameters=names)}"
            )

    @property
    def required_arguments(self) -> tuple[str, ...]:
        """Parameters of `update_state` without a default."""
        return tuple(p.name for p in self._parameters if p.default is p.empty)

    @property
    def optional_arguments(self) -> tuple[str, ...]:
        """Parameters of `update_state` with a default."""
        given = [p for p in self._parameters if p.default is not p.empty]
        return tuple(p.name for p in given if p.name != "mask")

    def accepts(self, argument: str) -> bool:
        """Whether `update_state` has a parameter of that name."""
        return any(p.name == argument for p in self._parameters)

    def source(self, argument: str) -> str:
        """The argument's own name."""
        return argument

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        """Class indices, without the class axis, for the target of a sparse metric."""
        kind = f"{type(self.metric).__name__}{function_name(self.metric)}".lower()
        if argument == Y_TRUE and "sparse" in kind:
            shape = tuple(prediction.shape[1:-1])
            return Field(shape=shape, dtype="int32", reason=self.metric.name)
        return Field()


def consumer_of(metric: keras.metrics.Metric) -> Consumer:
    """The metric itself if it declares its Inputs, else an adapter."""
    return metric if isinstance(metric, Consumer) else KerasMetricConsumer(metric)


@dataclasses.dataclass
class BoundTerm:
    """A term together with where its arguments come from.

    Args:
        term: The term.
        name: Key in the history.
        weight: Factor in the total loss, a number or a schedule of it; `None` if the
            value is only watched.
        sources: For each argument of the term, the name of the prediction, Input
            or intermediate tensor that feeds it.
        class_weight: Factors of the rows' weights by class of `y_true`, or `None`.
    """

    term: LossTerm
    name: str
    weight: Any
    sources: dict[str, str]
    class_weight: Mapping[int, float] | None = None

    def weigh_classes(self, arguments: dict[str, Tensor]) -> None:
        """Multiply the weights among the term's arguments by those of the classes."""
        if self.class_weight is not None:
            arguments[SAMPLE_WEIGHT] = weight_by_class(
                arguments[Y_TRUE],
                arguments[Y_PRED],
                self.class_weight,
                arguments.get(SAMPLE_WEIGHT),
            )

    def get_config(self) -> Config:
        # JSON has no numbers as keys.
        pairs = None if self.class_weight is None else list(self.class_weight.items())
        return {
            "class_weight": pairs,
            "term": serialize_object(self.term),
            "name": self.name,
            "weight": self.weight
            if isinstance(self.weight, (int, float, type(None)))
            else serialize_object(self.weight),
            "sources": self.sources,
        }

    @classmethod
    def from_config(cls, config: Config) -> BoundTerm:
        term = keras.saving.deserialize_keras_object(config["term"])
        weight = config["weight"]
        if isinstance(weight, dict):
            weight = keras.saving.deserialize_keras_object(weight)
        pairs = config.get("class_weight")
        class_weight = None if pairs is None else {int(k): float(w) for k, w in pairs}
        own = {"term": term, "weight": weight, "class_weight": class_weight}
        return cls(**{**config, **own})


@dataclasses.dataclass
class BoundMetric:
    """A metric together with where the arguments of its `update_state` come from.

    Args:
        metric: The metric; its name is the key in the history.
        sources: For each argument, the name of the prediction or Input.
    """

    metric: keras.metrics.Metric
    sources: dict[str, str]

    @property
    def consumer(self) -> Consumer:
        """The metric, or an adapter around it."""
        return consumer_of(self.metric)

    def update(self, named: Mapping[str, Tensor]) -> None:
        """Feed the metric a batch of tensors by name."""
        given = {argument: named[source] for argument, source in self.sources.items()}
        mask = own_mask(given[Y_PRED]) if Y_PRED in given else None
        consumer = self.consumer
        if mask is not None and consumer.accepts("mask"):
            given["mask"] = mask
        elif isinstance(consumer, KerasMetricConsumer):
            _align_weight(given, mask, consumer.accepts(SAMPLE_WEIGHT))
        self.metric.update_state(**given)

    def get_config(self) -> Config:
        return {"metric": serialize_object(self.metric), "sources": self.sources}

    @classmethod
    def from_config(cls, config: Config | BoundMetric) -> BoundMetric:
        if isinstance(config, BoundMetric):
            return config
        metric = keras.saving.deserialize_keras_object(config["metric"])
        return cls(metric, dict(config["sources"]))


def _align_weight(
    given: dict[str, Tensor], mask: Tensor | None, takes_weight: bool
) -> None:
    """Bring a weight to the rank that a Keras metric expects, 0 at masked steps.

    Only Keras's means of a function apply a mask by themselves; its other metrics
    ignore it, but take a weight.
    """
    y_pred, y_true = given[Y_PRED], given.get(Y_TRUE)
    weight = given.get(SAMPLE_WEIGHT)
    if weight is not None and len(weight.shape) >= len(y_pred.shape) > 1:
        is_per_element = y_true is None or len(y_true.shape) == len(y_pred.shape)
        weight = align_weight(weight, y_pred[..., 0] if is_per_element else y_true, mask)
    if mask is not None and takes_weight:
        # A Keras metric multiplies the two without broadcasting.
        steps = ops.ones_like(mask, dtype=keras.config.floatx())
        weight = steps if weight is None else align_weight(weight, steps) * steps
        weight = ops.where(mask, weight, ops.zeros_like(weight))
    if weight is not None:
        given[SAMPLE_WEIGHT] = weight
