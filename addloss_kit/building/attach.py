"""add_loss, add_metric: a scalar of the graph as a term, as Keras 2 took it."""

from __future__ import annotations

from typing import Literal

import keras

from addloss_kit._checks import check_number, received
from addloss_kit._types import KerasTensor
from addloss_kit.building.assemble import assemble
from addloss_kit.fields import Y_PRED
from addloss_kit.keras_internals.graph import input_tensors
from addloss_kit.losses import SymbolicLoss
from addloss_kit.model.bindings import BoundMetric, BoundTerm
from addloss_kit.model.endpoint import bypass, endpoint_call, find_endpoint
from addloss_kit.model.training_model import TrainingModel


def add_loss(
    model: keras.Model, value: KerasTensor, *, weight: float = 1.0, name: str | None = None
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


def add_metric(model: keras.Model, value: KerasTensor, *, name: str) -> TrainingModel:
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
    model: keras.Model,
    value: KerasTensor,
    name: str | None,
    weight: float | None,
    kind: Literal["loss", "metric"],
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
    predictions: list[KerasTensor] = model.outputs
    arguments: dict[str, KerasTensor] = {}
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
    return assemble(
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
