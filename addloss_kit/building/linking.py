"""What feeds each argument of each loss and metric: an Input, a tensor, an output."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import keras

from addloss_kit._checks import did_you_mean, received
from addloss_kit._types import KerasTensor
from addloss_kit.fields import (
    SAMPLE_WEIGHT,
    Y_PRED,
    Y_TRUE,
    Field,
    input_name,
    parse_input_name,
    role_of,
)
from addloss_kit.keras_internals.graph import input_tensors
from addloss_kit.model.bindings import Consumer


@dataclasses.dataclass(frozen=True)
class Use:
    """A term or metric on an output.

    Args:
        consumer: The term, or the metric as a consumer.
        name: Its name, for messages.
        output: Name of the output, `None` where there is only one.
    """

    consumer: Consumer
    name: str
    output: str | None


@dataclasses.dataclass(frozen=True)
class Links:
    """The source of every argument.

    Args:
        sources: For each use, the name of the source of each argument.
        inputs: The new Inputs by name.
        shared: The predictor's Inputs that a use takes, by name.
        tensors: The intermediate tensors that a use takes, by name.
    """

    sources: list[dict[str, str]]
    inputs: dict[str, KerasTensor]
    shared: dict[str, KerasTensor]
    tensors: dict[str, KerasTensor]


@dataclasses.dataclass(frozen=True)
class Supply:
    """The available sources.

    Args:
        outputs: Predictions by name (`"y_pred"`, or `"price_y_pred"`).
        features: The predictor's Inputs by name.
        tensors: Intermediate tensors by argument name.
        overrides: `keras.Input`s by name that replace the default ones.
        with_sample_weight: Whether to feed optional weights.
    """

    outputs: Mapping[str, KerasTensor]
    features: Mapping[str, KerasTensor]
    tensors: Mapping[str, KerasTensor]
    overrides: Mapping[str, KerasTensor]
    with_sample_weight: bool

    def prediction(self, output: str | None) -> KerasTensor:
        """The KerasTensor of an output."""
        return self.outputs[input_name(Y_PRED, output)]

    def field(self, use: Use, argument: str, source: str) -> Field:
        """What the Input `source` must look like for this use."""
        asked = use.consumer.field(argument, self.prediction(use.output))
        if source not in self.overrides:
            return asked
        spec = self.overrides[source]
        return Field(
            shape=tuple(spec.shape[1:]),
            dtype=keras.backend.standardize_dtype(spec.dtype),
            num_groups=asked.num_groups,
            reason="`inputs=`",
        )


def link(uses: Sequence[Use], supply: Supply) -> Links:
    """Find the source of each argument of each use, and create the Inputs needed.

    Args:
        uses: Terms and metrics.
        supply: Predictions, features, intermediate tensors and given Inputs.

    Raises:
        TypeError: If an intermediate tensor is not a KerasTensor.
        ValueError: If one belongs to another graph, a use takes no prediction, two
            uses need the same Input in different shapes, or something is unused.
    """
    _refuse_tensors_of_other_graphs(supply)
    fields: dict[str, Field] = {}
    taken: dict[str, None] = {}  # in order of first use
    sources = []
    for use in uses:
        found = _sources(use, supply)
        sources.append(found)
        for argument, source in found.items():
            taken[source] = None
            known = (*supply.outputs, *supply.tensors, *supply.features)
            if source not in known:
                role = role_of(source, argument, supply.outputs)
                former = fields.get(source, Field(role=role))
                fields[source] = former.merge(supply.field(use, argument, source), source)
    _refuse_unused(fields, taken, supply)
    return Links(
        sources=sources,
        inputs=_new_inputs(fields, supply),
        shared={n: supply.features[n] for n in taken if n in supply.features},
        tensors={n: supply.tensors[n] for n in taken if n in supply.tensors},
    )


def target_field(uses: Sequence[Use], supply: Supply) -> Field:
    """What the terms on one output require of its target."""
    field = Field()
    for use in uses:
        source = _sources(use, supply).get(Y_TRUE)
        if source is not None:
            field = field.merge(supply.field(use, Y_TRUE, source), source)
    return field


def _sources(use: Use, supply: Supply) -> dict[str, str]:
    """The name of the source of each argument of a term or metric."""
    required = use.consumer.required_arguments
    optional = use.consumer.optional_arguments
    sources = {}
    for argument in (*required, *optional):
        source = _source(use.consumer, argument, use.output, supply)
        if argument in required or _is_asked_for(argument, source, supply):
            sources[argument] = source
    if not any(s in supply.outputs or s in supply.tensors for s in sources.values()):
        raise ValueError(
            f"`{use.name}` takes no prediction, so it cannot train anything. Name its "
            "parameters after what they hold: `y_true`, `y_pred`, an Input, or one of "
            f"`tensors=`. {received(parameters=[*required, *optional])}"
        )
    return sources


def _source(consumer: Consumer, argument: str, output: str | None, supply: Supply) -> str:
    own = consumer.source(argument)
    if argument in supply.tensors:
        return argument
    if own == argument and own in supply.outputs:
        return own
    # An output may be called `y`: its target is `y_y_true`.
    outputs = [parse_input_name(name)[1] for name in supply.outputs]
    is_full_name = own not in (Y_TRUE, Y_PRED, SAMPLE_WEIGHT) and any(
        own.startswith(f"{o}_") for o in outputs if o is not None
    )
    if own != argument or is_full_name:
        return own
    return input_name(own, output)


def _is_asked_for(argument: str, source: str, supply: Supply) -> bool:
    if source in supply.outputs or source in supply.tensors:
        return True
    if argument == SAMPLE_WEIGHT:
        return supply.with_sample_weight
    return source in supply.overrides


def _new_inputs(fields: Mapping[str, Field], supply: Supply) -> dict[str, KerasTensor]:
    """Targets first, then weights, then the rest in order of use."""
    order = {Y_TRUE: 0, SAMPLE_WEIGHT: 1}
    made = {}
    for name, field in sorted(fields.items(), key=lambda x: order.get(x[1].role, 2)):
        shape, dtype = field.shape, field.dtype
        if field.role == Y_TRUE:
            of_output = input_name(Y_PRED, parse_input_name(name)[1])
            first = next(iter(supply.outputs))
            prediction = supply.outputs[of_output if of_output in supply.outputs else first]
            shape = tuple(prediction.shape[1:]) if shape is None else shape
            dtype = dtype or keras.backend.standardize_dtype(prediction.dtype)
        if dtype in (None, "float16", "bfloat16"):
            # A target of 10⁵ is infinite in half precision.
            dtype = keras.config.floatx()
        if field.role == SAMPLE_WEIGHT and "float" not in str(dtype):
            raise ValueError(
                f"The weights `{name}` may be fractions, so their Input must be a float. "
                f"Pass `inputs={{'{name}': keras.Input(...)}}` without a `dtype`. "
                f"{received(dtype=dtype)}"
            )
        made[name] = keras.Input(shape=shape or (), dtype=dtype, name=name)
    return made


def _refuse_unused(fields: Iterable[str], taken: Iterable[str], supply: Supply) -> None:
    unknown = sorted(set(supply.overrides) - set(fields) - set(supply.features))
    if unknown:
        raise ValueError(
            f"`inputs=` names {unknown}, which no loss or metric takes. "
            f"Expected some of {sorted(fields)}.{did_you_mean(unknown[0], fields)} "
            f"{received(inputs=sorted(supply.overrides))}"
        )
    unused = sorted(set(supply.tensors) - set(taken))
    if unused:
        raise ValueError(
            f"`tensors=` names {unused}, which no loss takes as an argument. Name it after "
            f"a parameter of the loss.{did_you_mean(unused[0], fields)} "
            f"{received(tensors=sorted(supply.tensors))}"
        )


def _refuse_tensors_of_other_graphs(supply: Supply) -> None:
    known = {id(tensor) for tensor in supply.features.values()}
    for name, tensor in supply.tensors.items():
        if not isinstance(tensor, keras.KerasTensor):
            raise TypeError(
                f"`tensors['{name}']` must be a KerasTensor of the predictor, such as "
                "`predictor.get_layer('its_layer').output`. "
                f"{received(**{name: type(tensor).__name__})}"
            )
        others = [t.name for t in input_tensors([tensor]) if id(t) not in known]
        if others:
            raise ValueError(
                f"`tensors['{name}']` must be computed from the predictor's inputs "
                f"{list(supply.features)}. Take it from the predictor's own graph; a "
                "nested model has a different one. "
                f"{received(**{f'inputs of {name}': others})}"
            )
