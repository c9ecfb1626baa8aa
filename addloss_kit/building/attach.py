"""add_loss, add_metric: a scalar of the graph as a loss or metric, as in Keras 2."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras.optimizers.schedules import LearningRateSchedule

from addloss_kit._checks import check_factor, received
from addloss_kit._types import KerasTensor
from addloss_kit.building.assemble import assemble
from addloss_kit.fields import Y_PRED
from addloss_kit.keras_internals.graph import input_tensors
from addloss_kit.losses import SymbolicLoss
from addloss_kit.model.bindings import BoundMetric, BoundTerm
from addloss_kit.model.endpoint import bypass, endpoint_call, find_endpoint
from addloss_kit.model.training_model import TrainingModel


def add_loss(
    model: keras.Model, value: KerasTensor, *, weight: Any = 1.0, name: str | None = None
) -> TrainingModel:
    """Add a scalar of the graph to the loss: Keras 2's `model.add_loss(value)`.

    Args:
        model: A functional model, or the result of an earlier call. It is not
            modified; its layers are shared.
        value: Scalar KerasTensor computed from the model's inputs (with
            `keras.ops` or layers).
        weight: Factor in the total loss.
        name: Key in the history. Defaults to `"loss_1"`, `"loss_2"`, …

    Returns:
        A `TrainingModel` with the same inputs and outputs: use it as `model =
        add_loss(model, value)`.

    Raises:
        TypeError: If `value` is not a KerasTensor.
        ValueError: If it is not a scalar, or needs an Input that the model lacks.

    Keras 3.10 to 3.13 make no model with an Input that nothing uses yet, so compute
    `value` before `keras.Model(...)`, as here.

    Example:
        >>> x, y = keras.Input((3,), name="x"), keras.Input((1,), name="y")
        >>> y_pred = keras.layers.Dense(1)(x)
        >>> value = keras.ops.mean(keras.ops.square(y - y_pred))
        >>> model = add_loss(keras.Model([x, y], y_pred), value)
        >>> model.compile("adam")
    """
    if not isinstance(weight, LearningRateSchedule):
        check_factor(weight=weight)
        weight = float(weight)
    return _attach(model, value, name, weight, "loss")


def add_metric(model: keras.Model, value: KerasTensor, *, name: str) -> TrainingModel:
    """Monitor a scalar of the graph: Keras 2's `model.add_metric(value)`.

    Args:
        model: A functional model, or the result of an earlier call.
        value: Scalar KerasTensor computed from the model's inputs.
        name: Key in the history, which holds the mean over the epoch's rows.

    Returns:
        A `TrainingModel` with the same inputs and outputs.

    Raises:
        TypeError: If `value` is not a KerasTensor.
        ValueError: If it is not a scalar, or needs an Input that the model lacks.
    """
    if name is None:
        raise ValueError(
            f"A metric needs a `name`, its key in the history. {received(name=None)}"
        )
    return _attach(model, value, name, None, "metric")


def _attach(
    model: keras.Model,
    value: KerasTensor,
    name: str | None,
    weight: Any,
    kind: Literal["loss", "metric"],
) -> TrainingModel:
    if not isinstance(value, keras.KerasTensor):
        raise TypeError(
            "`value` must be a KerasTensor, computed from the model's inputs with "
            "`keras.ops` or layers (wrap raw TensorFlow calls in a layer, or pass a "
            "function to `build_training_model`). "
            f"{received(value=type(value).__name__)}"
        )
    if len(value.shape) != 0:
        raise ValueError(
            f"A {kind} must be a scalar. Reduce it, e.g. with `keras.ops.mean(value)`. "
            f"{received(**{'value.shape': tuple(value.shape)})}"
        )
    is_sequential = isinstance(model, keras.Sequential)
    # Keras 3.15 raises where there are none.
    if is_sequential and not getattr(model, "outputs", None):
        raise ValueError(
            "A Sequential must be built, so that it has an output. Start it with "
            f"`keras.Input(shape)`. {received(model=model.name)}"
        )
    if not getattr(model, "outputs", None):
        raise TypeError(
            "`model` must be a functional model, made with `keras.Model(inputs, outputs)`; "
            "a subclassed model can call `self.add_loss` in its `call`. "
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
        bound_terms = endpoint.loss_weights.bound_terms(endpoint.bound_terms)
        bound_metrics = list(model.bound_metrics)
        predictor_inputs = model.predictor_inputs
    known = {id(tensor) for tensor in model.inputs}
    lacking = [t.name for t in input_tensors([value]) if id(t) not in known]
    if lacking:
        outputs = "outputs[0]" if len(predictions) == 1 else "output"
        raise ValueError(
            f"The {kind} needs the Inputs {lacking}, which the model lacks. Build it with "
            f"them: `keras.Model([*model.inputs, {', '.join(lacking)}], model.{outputs})`. "
            f"{received(inputs=[t.name for t in model.inputs])}"
        )
    taken = {bound.name for bound in bound_terms}
    if name is None:
        number = 1 + sum(isinstance(b.term, SymbolicLoss) for b in bound_terms)
        name = f"{kind}_{number}"
    if not isinstance(name, str) or "/" in name:
        raise ValueError(
            f"`name` must be text without `/`, a key of the history. {received(name=name)}"
        )
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
        outputs=0
        if is_sequential  # It has no `output` until it is called as a layer.
        else keras.tree.pack_sequence_as(model.output, list(range(len(model.outputs)))),
        predictions=predictions,
        prediction_names=names,
        arguments={**arguments, source: value},
        bound_terms=bound_terms,
        bound_metrics=bound_metrics,
        predictor_inputs=predictor_inputs,
        name=model.name,
    )
