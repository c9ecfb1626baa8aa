"""build_training_model: from a predictor to a TrainingModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from addloss_kit import losses as losses_module
from addloss_kit._checks import check_factor, did_you_mean, received
from addloss_kit._types import KerasTensor
from addloss_kit.building.assemble import assemble
from addloss_kit.building.class_weights import class_weights, weights_of_uses
from addloss_kit.building.linking import Supply, Use, link, target_field
from addloss_kit.building.predictor_graph import predictor_graph
from addloss_kit.building.resolve_metric import as_metric, prefixed
from addloss_kit.fields import Y_PRED, input_name
from addloss_kit.losses import LossTerm
from addloss_kit.model.bindings import BoundMetric, BoundTerm, consumer_of
from addloss_kit.model.training_model import TrainingModel


def build_training_model(
    predictor: keras.Model,
    losses: Any,
    *,
    loss_weights: Any = None,
    metrics: Any = None,
    sample_weight: bool = False,
    class_weight: Mapping[Any, Any] | None = None,
    inputs: Mapping[str, KerasTensor] | None = None,
    tensors: Mapping[str, KerasTensor] | None = None,
    name: str | None = None,
) -> TrainingModel:
    """A model that trains `predictor` on losses with any number of arguments.

    The result shares the predictor's layers. Every argument of a loss except
    `y_pred` becomes an Input of the same name (`y_true`, `sample_weight`,
    `group_ids`, …). With several outputs, the name is prefixed with the output's
    name, except for `group_ids`, which all outputs share.

    Args:
        predictor: Any built Keras model: functional, Sequential, or subclassed
            and called once.
        losses: One loss or a list. For several outputs a dict by output name, or
            a list with one entry (a loss, a list, or `None`) per output. A loss
            is a Keras name, class or object; a `LossTerm`; or a function whose
            parameters name what it needs. A parameter such as `demand_y_pred`
            names another output's prediction. One with a default keeps it: it gets an
            Input only if `inputs=` has it.
        loss_weights: Factors of the terms: one, or the structure of `losses`, or a
            dict by term name. Each is a number or a
            `keras.optimizers.schedules.LearningRateSchedule`. Defaults to 1.
        metrics: Metrics, in the structure of `losses`: Keras names, objects and
            functions, or metrics from `addloss_kit.metrics`.
        sample_weight: Whether to add the Input `sample_weight` for the losses and
            metrics for which it is optional. It is one weight per row, unless a
            `Weighted…` term gives it the target's shape.
        class_weight: Weights by number of the class, `{0: 1.0, 1: 5.0}`; with several
            outputs, a dict of such dicts by output name. The losses of that output that
            take its target multiply the row's weight by that of its class, in training
            and evaluation; a class that is not named has weight 1. Targets are class
            numbers, or one-hot rows.
        inputs: `keras.Input`s by Input name, to override the default shape or
            dtype: of targets, weights, ids and other arguments of losses, and of the
            features of a subclassed predictor.
        tensors: Intermediate tensors of the predictor by argument name, for
            losses that take them.
        name: Name of the model. Defaults to the predictor's plus `_training`.

    Returns:
        A `TrainingModel`, not yet compiled.

    Raises:
        TypeError: If a loss is not valid.
        ValueError: If a name is used twice, an output is unknown, or two losses
            need the same Input in different shapes.

    Example:
        >>> predictor = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model = build_training_model(predictor, "mse", sample_weight=True)
        >>> [tensor.name for tensor in model.inputs][1:]
        ['y_true', 'sample_weight']
    """
    # `None`, 0, 1 and NumPy's booleans say it, too.
    is_said = np.ndim(sample_weight) == 0 and sample_weight in (True, False, None)
    if not is_said:
        raise TypeError(
            "`sample_weight` must say whether there are weights, `True` or `False`. Pass "
            f"the weights themselves to `pack_inputs`. "
            f"{received(sample_weight=type(sample_weight).__name__)}"
        )
    own_inputs = dict(inputs or {})
    graph = predictor_graph(predictor, own_inputs)
    outputs = graph.outputs
    output_names = [None] if len(outputs) == 1 else list(outputs)
    chosen = _per_output(losses, output_names, "losses")
    weights = _per_output(loss_weights, output_names, "loss_weights")
    watched = _per_output(metrics, output_names, "metrics")
    by_class = class_weights(class_weight, output_names)

    supply = Supply(
        outputs={input_name(Y_PRED, o): t for o, t in zip(output_names, outputs.values())},
        features={tensor.name: tensor for tensor in graph.inputs},
        tensors=dict(tensors or {}),
        overrides=own_inputs,
        with_sample_weight=bool(sample_weight),
    )
    terms: list[tuple[LossTerm, Any, Use]] = []
    watching: list[tuple[keras.metrics.Metric, Use]] = []
    seen: set[int] = set()
    for output in output_names:
        made = [_own_copy(losses_module.get(x), seen) for x in chosen[output]]
        uses = [Use(term, term.name, output) for term in made]
        factors = _factors(weights[output], [term.name for term in made])
        terms += zip(made, factors, uses)
        if watched[output]:
            target = target_field(uses, supply)
        for given in watched[output]:
            metric = as_metric(given, supply.prediction(output), output, target)
            watching.append((metric, Use(consumer_of(metric), metric.name, output)))
    if not terms:
        raise ValueError(
            f"At least one loss is needed. Pass it as `losses`. {received(losses=losses)}"
        )
    if all(isinstance(factor, float) and factor == 0 for _, factor, _ in terms):
        raise ValueError(
            "`loss_weights` must not be 0 for all losses, which would train nothing. Give "
            f"one a weight. {received(loss_weights=loss_weights)}"
        )
    links = link([*(use for *_, use in terms), *(use for _, use in watching)], supply)
    of_terms, of_metrics = links.sources[: len(terms)], links.sources[len(terms) :]
    own_uses = [use for *_, use in terms]
    class_weight_of = weights_of_uses(by_class, own_uses, of_terms, supply)
    return assemble(
        inputs=[*graph.inputs, *links.inputs.values()],
        outputs=graph.structure,
        predictions=list(supply.outputs.values()),
        prediction_names=list(supply.outputs),
        arguments={**links.shared, **links.inputs, **links.tensors},
        bound_terms=[
            BoundTerm(term, prefixed(term.name, use.output), factor, sources, weights)
            for (term, factor, use), sources, weights in zip(
                terms, of_terms, class_weight_of
            )
        ],
        bound_metrics=[
            BoundMetric(metric, sources)
            for (metric, _), sources in zip(watching, of_metrics)
        ],
        predictor_inputs=graph.input_structure,
        name=name or f"{predictor.name}_training",
    )


def _per_output(
    given: Any, outputs: Sequence[str | None], what: str
) -> dict[str | None, Any]:
    """`{output: list}` from any structure that the caller may pass."""
    if list(outputs) == [None]:
        if isinstance(given, Mapping) and what != "loss_weights":
            raise ValueError(
                f"`{what}` by output name needs a predictor with several outputs. Pass one "
                f"or a list. {received(**{what: sorted(map(str, given))})}"
            )
        return {None: given if isinstance(given, Mapping) else _as_list(given)}
    if given is None:
        return {o: [] for o in outputs}
    if isinstance(given, Mapping):
        unknown = [key for key in given if key not in outputs]
        if unknown:
            raise ValueError(
                f"`{what}` names {unknown}, but the predictor's outputs are {outputs}."
                f"{did_you_mean(unknown[0], map(str, outputs))} "
                f"{received(**{what: list(given)})}"
            )
        return {
            o: given[o] if isinstance(given.get(o), Mapping) else _as_list(given.get(o))
            for o in outputs
        }
    listed = _as_list(given)
    if len(listed) != len(outputs):
        raise ValueError(
            f"`{what}` must have one entry per output, or be a dict by output name. "
            f"{received(**{what: len(listed), 'outputs': outputs})}"
        )
    return {o: _as_list(entry) for o, entry in zip(outputs, listed)}


def _as_list(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _factors(given: Any, names: list[str]) -> list[Any]:
    """One factor per term, from a list or a dict by name."""
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(
                f"`loss_weights` names {unknown}, but the losses are {names}."
                f"{did_you_mean(unknown[0], names)} To weight classes or rows use "
                f"`sample_weight`. {received(loss_weights=dict(given))}"
            )
        given = [given.get(name, 1.0) for name in names]
    if not given:
        given = [1.0] * len(names)
    if len(given) != len(names):
        raise ValueError(
            "`loss_weights` must have one number per loss. "
            f"{received(loss_weights=given, losses=names)}"
        )
    factors = []
    for factor in given:
        if not isinstance(factor, LearningRateSchedule):
            check_factor(loss_weights=factor)
            factor = float(factor)
        factors.append(factor)
    return factors


def _own_copy(term: LossTerm, seen: set[int]) -> LossTerm:
    """The term itself, or a fresh copy if its state belongs to another use."""
    is_used = id(term) in seen or bool(term.variables)
    seen.add(id(term))
    return type(term).from_config(term.get_config()) if is_used else term
