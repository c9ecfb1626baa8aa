"""build_training_model, add_loss, add_metric: from a predictor to a TrainingModel."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from addloss_kit import losses as losses_module
from addloss_kit._checks import check_number, received
from addloss_kit.endpoint import BoundTerm, LossEndpoint, endpoint_call, find_endpoint
from addloss_kit.fields import SAMPLE_WEIGHT, Y_PRED, Y_TRUE, Field, input_name, role_of
from addloss_kit.graph import bypass, input_tensors, output_names
from addloss_kit.losses import LossTerm, SymbolicLoss
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
    graph = _predictor_graph(predictor, own_inputs)
    outputs = graph.outputs
    output_names = [None] if len(outputs) == 1 else list(outputs)
    chosen = _per_output(losses, output_names, "losses")
    weights = _per_output(loss_weights, output_names, "loss_weights")
    watched = _per_output(metrics, output_names, "metrics")

    linker = _Linker(
        outputs={_prefixed(Y_PRED, o): t for o, t in zip(output_names, outputs.values())},
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
                BoundTerm(term, _prefixed(term.name, output), factor, sources)
            )
        for given in watched[output]:
            metric = _as_metric(
                given, outputs[output or next(iter(outputs))], output, chosen
            )
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


class _Graph:
    """A predictor as symbolic inputs and outputs, in its own structures."""

    def __init__(self, inputs: Any, outputs: Any):
        self.inputs = keras.tree.flatten(inputs)
        for tensor in self.inputs:
            tensor.name = tensor._keras_history.operation.name
        self.input_structure = keras.tree.map_structure(lambda t: t.name, inputs)
        flat = keras.tree.flatten(outputs)
        positions = iter(range(len(flat)))
        self.structure = keras.tree.map_structure(lambda _: next(positions), outputs)
        self.outputs = dict(zip(output_names(outputs), flat))


def _predictor_graph(predictor: Any, overrides: dict) -> _Graph:
    if not isinstance(predictor, keras.Model):
        raise TypeError(
            "`predictor` must be a Keras model. "
            f"{received(predictor=type(predictor).__name__)}"
        )
    if find_endpoint(predictor) is not None:
        raise ValueError(
            "`predictor` carries losses already. Take the predictor out first, with "
            "`export_inference_model(model)`, or add to it with `add_loss`. "
            f"{received(predictor=predictor.name)}"
        )
    if not predictor.built:
        raise ValueError(
            "`predictor` must be built, so that its shapes are known. Begin it with "
            f"`keras.Input(shape)`, or call it once. {received(predictor=predictor.name)}"
        )
    if isinstance(predictor, keras.Sequential) and predictor.inputs:
        inputs, outputs = predictor.inputs[0], predictor.outputs[0]
    elif getattr(predictor, "inputs", None):
        inputs, outputs = predictor.input, predictor.output
    else:
        inputs = _inputs_of_subclassed(predictor, overrides)
        outputs = predictor(inputs)
    return _Graph(inputs, outputs)


def _inputs_of_subclassed(predictor: Any, overrides: dict) -> Any:
    config = predictor.get_build_config() or {}
    shape = config.get("input_shape")
    if shape is None:
        given = {k: v for k, v in overrides.items() if isinstance(v, keras.KerasTensor)}
        if "x" in given:
            return keras.Input(
                batch_shape=given["x"].shape, dtype=given["x"].dtype, name="x"
            )
        raise ValueError(
            "The input shape of the predictor is not known. Call it once on a batch, or "
            "pass `inputs={'x': keras.Input(shape)}`. "
            f"{received(predictor=predictor.name)}"
        )

    def make(name: str, shape: Any) -> Any:
        if name in overrides:
            spec = overrides[name]
            return keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=name)
        return keras.Input(batch_shape=(None, *shape[1:]), name=name)

    if isinstance(shape, Mapping):
        return {name: make(name, s) for name, s in shape.items()}
    if shape and isinstance(shape[0], (tuple, list)):
        return [make(f"x_{i}", s) for i, s in enumerate(shape)]
    return make("x", tuple(shape))


class _Linker:
    """Finds, for each argument of each loss and metric, what feeds it."""

    def __init__(self, outputs, features, tensors, overrides, with_sample_weight):
        self.outputs: dict[str, Any] = outputs
        self.features: dict[str, Any] = features
        self.tensors: dict[str, Any] = tensors
        self.overrides: dict[str, Any] = overrides
        self.with_sample_weight: bool = with_sample_weight
        self.fields: dict[str, Field] = {}
        self.shared: list[str] = []
        self.used_tensors: dict[str, Any] = {}
        self._output_names = [n.removesuffix(f"_{Y_PRED}") for n in outputs if n != Y_PRED]

    def link(self, consumer: Any, output: str | None, name: str) -> dict[str, str]:
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
        is_full_name = any(own.startswith(f"{o}_") for o in self._output_names)
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
        prediction = self.outputs.get(_prefixed(Y_PRED, output))
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


def _as_metric(given: Any, prediction: Any, output: str | None, losses: dict) -> Any:
    """The metric, under the name that the history shows: a string as it was given."""
    name = given if isinstance(given, str) else None
    if name in ("accuracy", "acc"):
        given = _accuracy(prediction, losses[output])
    if not isinstance(given, keras.metrics.Metric):
        given = keras.metrics.get(given)
        given = given() if isinstance(given, type) else given
    name = name or getattr(given, "name", None) or given.__name__
    name = name if output is None else _prefixed(name, output)
    if not isinstance(given, keras.metrics.Metric):
        return keras.metrics.MeanMetricWrapper(given, name=name)
    if given.name == name:
        return given
    return type(given).from_config({**given.get_config(), "name": name})


def _accuracy(prediction: Any, losses: Sequence) -> Any:
    """The accuracy that fits, as Keras's `compile` chooses it."""
    if prediction.shape[-1] == 1:
        return keras.metrics.BinaryAccuracy(name="accuracy")
    names = " ".join(str(getattr(x, "name", x)) for x in losses).lower()
    if "sparse" in names:
        return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    return keras.metrics.CategoricalAccuracy(name="accuracy")


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


def _prefixed(name: str, output: str | None) -> str:
    return name if output is None or name.startswith(f"{output}_") else f"{output}_{name}"


def _refuse_duplicates(names: list[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Two of the {what} are named {twice}. Give each a `name=` of its own. "
            f"{received(names=names)}"
        )
