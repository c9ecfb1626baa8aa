"""What feeds each argument of each loss and metric: an Input, a tensor, an output."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit.fields import SAMPLE_WEIGHT, Y_PRED, Y_TRUE, Field, input_name, role_of
from addloss_kit.graph import input_tensors
from addloss_kit.losses import LossTerm


class Linker:
    """Finds, for each argument of each loss and metric, what feeds it.

    Args:
        outputs: Predictions by name (`"y_pred"`, or `"price_y_pred"`).
        features: The predictor's Inputs by name.
        tensors: Intermediate tensors by argument name.
        overrides: `keras.Input`s by name that replace the default ones.
        with_sample_weight: Whether optional weights are wanted.
    """

    def __init__(self, outputs, features, tensors, overrides, with_sample_weight):
        self.outputs: dict[str, Any] = outputs
        self.features: dict[str, Any] = features
        self.tensors: dict[str, Any] = tensors
        self.overrides: dict[str, Any] = overrides
        self.with_sample_weight: bool = with_sample_weight
        self.fields: dict[str, Field] = {}
        self.shared: list[str] = []
        self.used_tensors: dict[str, Any] = {}
        self._refuse_tensors_of_other_graphs()
        self._output_names = [n.removesuffix(f"_{Y_PRED}") for n in outputs if n != Y_PRED]

    def _refuse_tensors_of_other_graphs(self) -> None:
        known = {id(tensor) for tensor in self.features.values()}
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, keras.KerasTensor):
                raise TypeError(
                    f"`tensors['{name}']` must be a KerasTensor of the predictor, as "
                    "`predictor.get_layer('its_layer').output`. "
                    f"{received(**{name: type(tensor).__name__})}"
                )
            others = [t.name for t in input_tensors([tensor]) if id(t) not in known]
            if others:
                raise ValueError(
                    f"`tensors['{name}']` must be computed from the predictor's inputs "
                    f"{list(self.features)}. Take it from the predictor's own graph; a "
                    "model within it has another one. "
                    f"{received(**{f'inputs of {name}': others})}"
                )

    def link(self, consumer: Any, output: str | None, name: str) -> dict[str, str]:
        """For each argument of a term or metric, the name of what feeds it."""
        required, optional = _arguments(consumer)
        sources = {}
        for argument in (*required, *optional):
            source = self._source(consumer, argument, output)
            if argument in optional and not self._wants(argument, source):
                continue
            sources[argument] = source
            if source in self.outputs:
                continue
            if source in self.tensors:
                self.used_tensors[source] = self.tensors[source]
                continue
            if source in self.features:
                if source not in self.shared:
                    self.shared.append(source)
                continue
            wish = self._wish(consumer, argument, output, source, name)
            role = role_of(source, argument, self.outputs)
            known = self.fields.get(source, Field(role=role))
            self.fields[source] = known.merge(wish, source)
        if not any(s in self.outputs or s in self.tensors for s in sources.values()):
            raise ValueError(
                f"`{name}` takes no prediction, so nothing can be learnt from it. Name its "
                "parameters after what they hold: `y_true`, `y_pred`, an Input, or one of "
                f"`tensors=`. {received(parameters=[*required, *optional])}"
            )
        return sources

    def _source(self, consumer: Any, argument: str, output: str | None) -> str:
        own = consumer.source(argument) if hasattr(consumer, "source") else argument
        if argument in self.tensors:
            return argument
        if own == argument and own in self.outputs:
            return own
        # An output may be called `y`: its target is `y_y_true`.
        is_full_name = own not in (Y_TRUE, Y_PRED, SAMPLE_WEIGHT) and any(
            own.startswith(f"{o}_") for o in self._output_names
        )
        if own != argument or is_full_name:
            return own
        return input_name(own, output)

    def _wants(self, argument: str, source: str) -> bool:
        if source in self.outputs or source in self.tensors:
            return True
        if argument == SAMPLE_WEIGHT:
            return self.with_sample_weight
        return source in self.overrides

    def _wish(
        self, consumer: Any, argument: str, output: str | None, source: str, name: str
    ) -> Field:
        prediction = self.outputs.get(input_name(Y_PRED, output))
        wish = consumer.field(argument, prediction) if hasattr(consumer, "field") else None
        if wish is None:
            wish = _metric_field(consumer, argument, prediction)
        if source in self.overrides:
            spec = self.overrides[source]
            return Field(
                shape=tuple(spec.shape[1:]),
                dtype=keras.backend.standardize_dtype(spec.dtype),
                num_groups=wish.num_groups,
                reason="`inputs=`",
            )
        return wish

    def create_inputs(self) -> dict[str, Any]:
        """The Inputs that no feature and no tensor stands for, by name."""
        unknown = set(self.overrides) - set(self.fields) - set(self.features)
        if unknown:
            raise ValueError(
                f"`inputs=` names {sorted(unknown)}, which no loss or metric takes. "
                f"Expected some of {sorted(self.fields)}. "
                f"{received(inputs=sorted(self.overrides))}"
            )
        unused = set(self.tensors) - set(self.used_tensors)
        if unused:
            raise ValueError(
                f"`tensors=` names {sorted(unused)}, which no loss takes as an argument. "
                f"{received(tensors=sorted(self.tensors))}"
            )
        order = {Y_TRUE: 0, SAMPLE_WEIGHT: 1}
        made = {}
        for name, field in sorted(
            self.fields.items(), key=lambda item: order.get(item[1].role, 2)
        ):
            shape, dtype = field.shape, field.dtype
            if field.role == Y_TRUE:
                prediction = self.outputs[
                    name.removesuffix(Y_TRUE) + Y_PRED
                    if name.removesuffix(Y_TRUE) + Y_PRED in self.outputs
                    else next(iter(self.outputs))
                ]
                shape = tuple(prediction.shape[1:]) if shape is None else shape
                dtype = dtype or keras.backend.standardize_dtype(prediction.dtype)
            if dtype in (None, "float16", "bfloat16"):
                # A target of 10⁵ is infinite in half precision.
                dtype = keras.config.floatx()
            made[name] = keras.Input(shape=shape or (), dtype=dtype, name=name)
        return made


def _arguments(consumer: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if isinstance(consumer, LossTerm):
        return consumer.required_arguments, consumer.optional_arguments
    parameters = [
        p
        for p in inspect.signature(consumer.update_state).parameters.values()
        if p.name != "mask" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    required = tuple(p.name for p in parameters if p.default is p.empty)
    if Y_PRED not in required:
        raise ValueError(
            "A metric's `update_state` must take `y_true` and `y_pred`. "
            f"{received(metric=consumer.name, parameters=[p.name for p in parameters])}"
        )
    return required, tuple(p.name for p in parameters if p.default is not p.empty)


def _metric_field(metric: Any, argument: str, prediction: Any) -> Field:
    function = getattr(getattr(metric, "_fn", None), "__name__", "")
    kind = f"{type(metric).__name__}{function}".lower()
    if argument == Y_TRUE and "sparse" in kind:
        return Field(shape=tuple(prediction.shape[1:-1]), dtype="int32", reason=metric.name)
    return Field()


def as_metric(given: Any, prediction: Any, output: str | None, target: Field) -> Any:
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


def _accuracy(prediction: Any, target: Field) -> Any:
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
