"""build_training_model, add_loss, add_metric: from a predictor to a TrainingModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from addloss_kit import losses as losses_module
from addloss_kit._checks import check_number, received
from addloss_kit.endpoint import BoundTerm, LossEndpoint, endpoint_call, find_endpoint
from addloss_kit.fields import Y_PRED, Y_TRUE, Field, input_name
from addloss_kit.graph import bypass, input_tensors
from addloss_kit.linking import Linker, as_metric, prefixed
from addloss_kit.losses import LossTerm, SymbolicLoss
from addloss_kit.pairing import refuse_outer_products
from addloss_kit.predictor_graph import predictor_graph
from addloss_kit.training_model import BoundMetric, TrainingModel


def build_training_model(
    predictor: keras.Model,
    losses: Any,
    *,
    loss_weights: Any = None,
    metrics: Any = None,
    sample_weight: bool = False,
    inputs: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> TrainingModel:
    """A model that trains `predictor` on losses with any number of arguments.

    The result shares the predictor's layers. Every argument of a loss but
    `y_pred` becomes an Input of the argument's name (`y_true`, `sample_weight`,
    `group_ids`, …); with several outputs the output's name goes before it, but
    for `group_ids`, which all share.

    Args:
        predictor: Any built Keras model: functional, Sequential, or subclassed
            and called once.
        losses: One loss or a list. For several outputs a dict by output name, or
            a list with one entry (a loss, a list, or `None`) per output. A loss
            is a Keras name, class or object; a `LossTerm`; or a function, each
            parameter of which names what it needs. A parameter such as
            `demand_y_pred` names another output's prediction.
        loss_weights: Factors of the terms: a number, or of the structure of
            `losses`; or a dict by the terms' names. 1 if none.
        metrics: Metrics of the structure of `losses`: Keras names, objects and
            functions, or those of `addloss_kit.metrics`.
        sample_weight: Whether to add the Input `sample_weight` for the losses and
            metrics that can do without it. It is one weight a row, unless a
            `Weighted…` term gives it the target's shape.
        inputs: `keras.Input`s by Input name, where the default shape or dtype
            does not fit; the shapes of a subclassed predictor's features too.
        tensors: Intermediate tensors of the predictor by argument name, for
            losses that take them.
        name: Name of the model; the predictor's with `_training` if none.

    Returns:
        A `TrainingModel`, not yet compiled.

    Raises:
        TypeError: If a loss is nothing that can be one.
        ValueError: If a name is taken twice, an output is unknown, or two losses
            want the same Input in different shapes.

    Example:
        >>> predictor = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model = build_training_model(predictor, "mse", sample_weight=True)
        >>> [tensor.name for tensor in model.inputs][1:]
        ['y_true', 'sample_weight']
    """
    own_inputs = dict(inputs or {})
    graph = predictor_graph(predictor, own_inputs)
    outputs = graph.outputs
    output_names = [None] if len(outputs) == 1 else list(outputs)
    chosen = _per_output(losses, output_names, "losses")
    weights = _per_output(loss_weights, output_names, "loss_weights")
    watched = _per_output(metrics, output_names, "metrics")

    linker = Linker(
        outputs={input_name(Y_PRED, o): t for o, t in zip(output_names, outputs.values())},
        features={tensor.name: tensor for tensor in graph.inputs},
        tensors=dict(tensors or {}),
        overrides=own_inputs,
        with_sample_weight=sample_weight,
    )
    bound_terms: list[BoundTerm] = []
    bound_metrics: list[BoundMetric] = []
    seen: set[int] = set()
    for output in output_names:
        terms = [_own_copy(losses_module.get(x), seen) for x in chosen[output]]
        factors = _factors(weights[output], [t.name for t in terms])
        for term, factor in zip(terms, factors):
            sources = linker.link(term, output, term.name)
            bound_terms.append(
                BoundTerm(term, prefixed(term.name, output), factor, sources)
            )
        target = linker.fields.get(input_name(Y_TRUE, output), Field())
        for given in watched[output]:
            prediction = outputs[output or next(iter(outputs))]
            metric = as_metric(given, prediction, output, target)
            sources = linker.link(metric, output, metric.name)
            bound_metrics.append(BoundMetric(metric, sources))
    if not any(bound.weight is not None for bound in bound_terms):
        raise ValueError(
            f"At least one loss is needed. Pass it as `losses`. {received(losses=losses)}"
        )
    extra = linker.create_inputs()
    return _assemble(
        inputs=[*graph.inputs, *extra.values()],
        outputs=graph.structure,
        predictions=list(linker.outputs.values()),
        prediction_names=list(linker.outputs),
        arguments={
            **{n: linker.features[n] for n in linker.shared},
            **extra,
            **linker.used_tensors,
        },
        bound_terms=bound_terms,
        bound_metrics=bound_metrics,
        predictor_inputs=graph.input_structure,
        name=name or f"{predictor.name}_training",
    )


def add_loss(
    model: keras.Model, value: Any, *, weight: float = 1.0, name: str | None = None
) -> TrainingModel:
    """Add a scalar of the graph to the loss: Keras 2's `model.add_loss(value)`.

    Args:
        model: A functional model, or what an earlier call returned. It stays as
            it is; its layers are shared.
        value: Scalar KerasTensor computed from the model's inputs (with
            `keras.ops`, or by layers).
        weight: Factor in the total loss.
        name: Key in the history; `"loss_1"`, `"loss_2"`, … if none.

    Returns:
        A `TrainingModel` of the same inputs and outputs; `model = add_loss(model,
        value)` is the one line to change.

    Raises:
        TypeError: If `value` is not a KerasTensor.
        ValueError: If it is not a scalar, or needs an Input that the model lacks.

    Example:
        >>> x, y = keras.Input((3,), name="x"), keras.Input((1,), name="y")
        >>> y_pred = keras.layers.Dense(1)(x)
        >>> model = keras.Model([x, y], y_pred)
        >>> model = add_loss(model, keras.ops.mean(keras.ops.square(y - y_pred)))
        >>> model.compile("adam")
    """
    check_number(weight=weight)
    return _attach(model, value, name, float(weight), "loss")


def add_metric(model: keras.Model, value: Any, *, name: str) -> TrainingModel:
    """Watch a scalar of the graph: Keras 2's `model.add_metric(value)`.

    Args:
        model: A functional model, or what an earlier call returned.
        value: Scalar KerasTensor computed from the model's inputs.
        name: Key in the history; the mean over the epoch's rows.

    Returns:
        A `TrainingModel` of the same inputs and outputs.

    Raises:
        TypeError: If `value` is not a KerasTensor.
        ValueError: If it is not a scalar, or needs an Input that the model lacks.
    """
    return _attach(model, value, name, None, "metric")


def _attach(
    model: Any, value: Any, name: str | None, weight: float | None, kind: str
) -> TrainingModel:
    if not isinstance(value, keras.KerasTensor):
        raise TypeError(
            "`value` must be a KerasTensor, computed from the model's inputs with "
            "`keras.ops` or by layers (a raw TensorFlow call on a KerasTensor needs a "
            "layer around it; or pass a function to `build_training_model`). "
            f"{received(value=type(value).__name__)}"
        )
    if len(value.shape) != 0:
        raise ValueError(
            f"A {kind} must be a scalar. Reduce it, as with `keras.ops.mean(value)`. "
            f"{received(**{'value.shape': tuple(value.shape)})}"
        )
    if not getattr(model, "outputs", None):
        raise TypeError(
            "`model` must be a functional model, as `keras.Model(inputs, outputs)` makes "
            "it; a model with a `call` of its own can call `self.add_loss` there. "
            f"{received(model=type(model).__name__)}"
        )
    value = bypass(value)
    endpoint = find_endpoint(model)
    predictions: list = model.outputs
    arguments: dict = {}
    bound_terms: list[BoundTerm] = []
    bound_metrics: list[BoundMetric] = []
    predictor_inputs = None
    if endpoint is not None:
        predictions, arguments = endpoint_call(model)
        bound_terms = list(endpoint.bound_terms)
        bound_metrics = list(model.bound_metrics)
        predictor_inputs = model.predictor_inputs
    known = {id(tensor) for tensor in model.inputs}
    lacking = [t.name for t in input_tensors([value]) if id(t) not in known]
    if lacking:
        raise ValueError(
            f"The {kind} needs the Inputs {lacking}, which the model lacks. Build it with "
            "them: `keras.Model([..., those Inputs], outputs)`. "
            f"{received(inputs=[t.name for t in model.inputs])}"
        )
    taken = {bound.name for bound in bound_terms}
    if name is None:
        number = 1 + sum(isinstance(b.term, SymbolicLoss) for b in bound_terms)
        name = f"{kind}_{number}"
    if name in taken:
        raise ValueError(
            f"The name `{name}` is taken. Pass another `name=`. "
            f"{received(name=name, taken=sorted(taken))}"
        )
    source = f"{name}_value"
    names = [f"y_pred_{i}" for i in range(len(predictions))]
    if endpoint is not None:
        names = endpoint.prediction_names
    sources = {"value": source, Y_PRED: names[0]}
    bound_terms.append(BoundTerm(SymbolicLoss(name=name), name, weight, sources))
    return _assemble(
        inputs=list(model.inputs),
        outputs=keras.tree.pack_sequence_as(model.output, list(range(len(model.outputs)))),
        predictions=predictions,
        prediction_names=names,
        arguments={**arguments, source: value},
        bound_terms=bound_terms,
        bound_metrics=bound_metrics,
        predictor_inputs=predictor_inputs,
        name=model.name,
    )


def _assemble(
    *,
    inputs: list,
    outputs: Any,
    predictions: list,
    prediction_names: list[str],
    arguments: dict,
    bound_terms: list[BoundTerm],
    bound_metrics: list[BoundMetric],
    predictor_inputs: Any,
    name: str,
) -> TrainingModel:
    """The model with one endpoint before its outputs.

    Args:
        outputs: The structure of the outputs, with positions in `predictions` as
            leaves.
    """
    _refuse_duplicates([b.name for b in bound_terms], "losses")
    _refuse_duplicates([b.metric.name for b in bound_metrics], "metrics")
    named = {**arguments, **dict(zip(prediction_names, predictions))}
    for bound in bound_terms:
        refuse_outer_products(bound, named)
    is_double = any(
        keras.backend.standardize_dtype(t.dtype) == "float64" for t in predictions
    )
    endpoint = LossEndpoint(
        bound_terms,
        prediction_names,
        dtype="float64" if is_double else keras.config.floatx(),
    )
    passed = endpoint(predictions, arguments)
    return TrainingModel(
        inputs,
        keras.tree.map_structure(lambda position: passed[position], outputs),
        name=name,
        bound_metrics=bound_metrics,
        predictor_inputs=predictor_inputs,
    )


def _per_output(given: Any, outputs: list, what: str) -> dict:
    """`{output: list}` from whatever structure a person has given."""
    if outputs == [None]:
        if isinstance(given, Mapping) and what == "losses":
            raise ValueError(
                "`losses` by output name needs a predictor with several outputs. "
                f"{received(losses=sorted(given))}"
            )
        return {None: given if isinstance(given, Mapping) else _as_list(given)}
    if given is None:
        return {o: [] for o in outputs}
    if isinstance(given, Mapping):
        unknown = [key for key in given if key not in outputs]
        if unknown:
            raise ValueError(
                f"`{what}` names {unknown}, but the predictor's outputs are {outputs}. "
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


def _as_list(given: Any) -> list:
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _factors(given: Any, names: list[str]) -> list[float]:
    """One factor a term, from a list or a dict by name."""
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(
                f"`loss_weights` names {unknown}, but the losses are {names}. To weigh "
                "classes or rows use `sample_weight`. "
                f"{received(loss_weights=dict(given))}"
            )
        given = [given.get(name, 1.0) for name in names]
    if not given:
        given = [1.0] * len(names)
    if len(given) != len(names):
        raise ValueError(
            "`loss_weights` must have one number per loss. "
            f"{received(loss_weights=given, losses=names)}"
        )
    for factor in given:
        check_number(loss_weights=factor)
    return [float(factor) for factor in given]


def _own_copy(term: LossTerm, seen: set[int]) -> LossTerm:
    """The term itself, or a fresh one where its state belongs to another use."""
    is_used = id(term) in seen or bool(term.variables)
    seen.add(id(term))
    return type(term).from_config(term.get_config()) if is_used else term


def _refuse_duplicates(names: list[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Two of the {what} are named {twice}. Give each a `name=` of its own. "
            f"{received(names=names)}"
        )
