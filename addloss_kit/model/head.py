"""The head of a training model: its last layers, and what is computed from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import received
from addloss_kit._types import KerasTensor, Tensor
from addloss_kit.keras_internals.graph import (
    ancestors,
    call_arguments,
    call_outputs,
    in_order,
    input_tensors,
    operands,
    producer,
)
from addloss_kit.keras_internals.masks import mask_of
from addloss_kit.model.bindings import BoundTerm
from addloss_kit.model.derivative import Derivative
from addloss_kit.model.endpoint import LossEndpoint, endpoint_call, mask_name
from addloss_kit.model.training_model import TrainingModel


@dataclasses.dataclass(frozen=True)
class Head:
    """The part of a model's graph that depends on its last layers.

    Args:
        computed: Whatever is computed by the last layers and from their outputs, each
            tensor after those that it needs.
        fed: By name, what that and the losses take besides: features, targets, ids, masks.
    """

    computed: list[KerasTensor]
    fed: dict[str, KerasTensor]

    def arrays(self, rows: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
        """What is fed, of these rows; the features as the predictor computes them."""
        features = {name: t for name, t in self.fed.items() if not _is_input(t)}
        arrays = {name: rows[name] for name in self.fed if name not in features}
        if features:
            inputs = {t.name: t for t in input_tensors(features.values())}
            body = keras.Model(inputs, features)
            given = {name: rows[name] for name in inputs}
            arrays |= body.predict(given, batch_size=batch_size, verbose=0)
        return {name: _no_half(array) for name, array in arrays.items()}


def find_head(model: TrainingModel) -> Head:
    """The head of a model.

    Its last layers are those nearest to a prediction that have trainable weights.

    Raises:
        ValueError: If no prediction comes from a layer with weights, or these weights
            cannot be trained by themselves.
    """
    predictions, arguments = _endpoint_arguments(model)
    last = {id(producer(t)): producer(t) for p in predictions for t in _last(p)}
    if not last:
        raise ValueError(
            "A prediction must come from a layer with trainable weights. Set "
            f"`layer.trainable = True`. {received(model=model.name)}"
        )
    computed: dict[int, KerasTensor] = {}
    needed = [*predictions, *arguments.values()]
    rows = model.inputs[0].shape[:1]
    for tensor in in_order(needed):
        if (
            not _is_input(tensor)
            and (
                id(producer(tensor)) in last
                or isinstance(producer(tensor), Derivative)  # runs the whole predictor
                or tensor.shape[:1] != rows  # of the batch as a whole, not of its rows
                or any(id(t) in computed for t in operands(tensor))
            )
        ):
            computed[id(tensor)] = tensor
    taken = [*needed, *(t for tensor in computed.values() for t in operands(tensor))]
    outside = {id(t): t for t in taken if id(t) not in computed}
    _check_alone(list(last.values()), list(computed.values()), list(outside.values()))
    fed = {
        t.name if _is_input(t) else f"last_layer_input_{k}": t
        for k, t in enumerate(outside.values())
    }
    return Head(list(computed.values()), fed)


def build_head(model: TrainingModel, head: Head) -> TrainingModel:
    """A model of the head, with the layers' own weights and new state of the losses."""
    inputs = {
        name: keras.Input(
            batch_shape=(None, *tensor.shape[1:]),
            dtype=_full(tensor.dtype),
            name=name,
            sparse=tensor.sparse,
        )
        for name, tensor in head.fed.items()
    }
    predictions, arguments = _endpoint_arguments(model)
    needed = [*predictions, *arguments.values()]
    fed = {id(tensor) for tensor in head.fed.values()}
    wanted = list({id(t): t for t in needed if id(t) not in fed}.values())
    outputs = _LastLayers(head, wanted)(list(inputs.values()))
    known = {id(head.fed[name]): tensor for name, tensor in inputs.items()}
    known |= {id(old): new for old, new in zip(wanted, outputs)}
    own = model.endpoint
    terms = [_renewed(b) for b in own.loss_weights.bound_terms(own.bound_terms)]
    endpoint = LossEndpoint(terms, own.prediction_names, dtype=own.dtype_policy)
    passed = endpoint(_mapped(predictions, known), _mapped(arguments, known))
    return TrainingModel(list(inputs.values()), passed, name=f"{model.name}_last_layer")


def _endpoint_arguments(
    model: TrainingModel,
) -> tuple[list[KerasTensor], dict[str, KerasTensor]]:
    """Predictions, and all else that the endpoint takes, with their masks by name.

    In the model a mask comes along with its prediction, which the head is not fed.
    """
    predictions, arguments = endpoint_call(model)
    masks = zip(model.endpoint.prediction_names, map(mask_of, predictions))
    found = {mask_name(name): mask for name, mask in masks if mask is not None}
    return predictions, {**found, **arguments}


class _LastLayers(keras.layers.Layer):
    """Computes the head from what it is fed, by the model's own layers.

    Calling them in a graph of their own would leave a node of it in each, for good.
    """

    def __init__(self, head: Head, outputs: Sequence[KerasTensor]) -> None:
        super().__init__(autocast=False)
        called = [producer(tensor) for tensor in head.computed]
        # Tracked: their weights and losses.
        self.parts = [op for op in called if isinstance(op, keras.layers.Layer)]
        object.__setattr__(self, "_graph", (head, list(outputs)))
        self.built = True

    def call(self, fed: Sequence[Tensor], training: bool | None = None) -> list[Tensor]:
        head, outputs = self._graph
        known = {id(old): new for old, new in zip(head.fed.values(), fed)}
        for tensor in head.computed:
            if id(tensor) not in known:
                arguments, options = _mapped(call_arguments(tensor), known)
                if "training" in options:  # as it was when the graph was made
                    options["training"] = training
                returned = keras.tree.flatten(producer(tensor)(*arguments, **options))
                known |= dict(zip(map(id, call_outputs(tensor)), returned))
        return [known[id(tensor)] for tensor in outputs]


def _last(prediction: KerasTensor) -> list[KerasTensor]:
    """The outputs of the nearest layers with trainable weights that feed no other one."""
    found, stack, seen = [], [prediction], set()
    while stack:
        tensor = stack.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if _trained(producer(tensor)):
            found.append(tensor)
        else:
            stack.extend(operands(tensor))
    # In a residual block the shorter way leads to an earlier layer.
    earlier = {id(t) for tensor in found for t in ancestors(operands(tensor))}
    return [tensor for tensor in found if id(tensor) not in earlier]


def _check_alone(
    layers: Sequence[Any], computed: Sequence[KerasTensor], outside: Sequence[KerasTensor]
) -> None:
    """Raise unless training these layers leaves all others and the features alone."""
    if models := [layer.name for layer in layers if isinstance(layer, keras.Model)]:
        raise ValueError(
            "The last layer must be visible, but it is inside another model. Build the "
            "predictor from layers, or call the inner model's layers one by one. "
            f"{received(model=models[0])}"
        )
    own = {id(weight) for layer in layers for weight in layer.trainable_weights}
    others = [producer(t) for t in computed if not any(producer(t) is x for x in layers)]
    others = [op.name for op in others if _trained(op)]
    before = [producer(t) for t in ancestors(outside)]
    others += [op.name for op in before if own & {id(w) for w in _trained(op)}]
    if others:
        raise ValueError(
            "The last layers must be trainable by themselves, but layers before them share "
            "their weights, or other layers with weights follow. Set `trainable = False` "
            "on those that are to stay. "
            f"{received(last=[layer.name for layer in layers], others=others)}"
        )


def _trained(operation: Any) -> list[Any]:
    is_layer = isinstance(operation, keras.layers.Layer)
    return list(operation.trainable_weights) if is_layer else []


def _renewed(bound: BoundTerm) -> BoundTerm:
    """The term, with state of its own if it has any."""
    term = bound.term
    if not term.variables:
        return bound  # A function need not be registered.
    return dataclasses.replace(bound, term=type(term).from_config(term.get_config()))


def _mapped(arguments: Any, known: Mapping[int, Any]) -> Any:
    """The arguments of a call with other tensors in place of the graph's."""
    return keras.tree.map_structure(
        lambda x: known[id(x)] if isinstance(x, keras.KerasTensor) else x, arguments
    )


def _is_input(tensor: KerasTensor) -> bool:
    return isinstance(producer(tensor), keras.layers.InputLayer)


def _full(dtype: str) -> str:
    """Half precision is held in full between the two models, which changes no value."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _no_half(array: Any) -> Any:
    is_array = isinstance(array, np.ndarray)
    name = array.dtype.name if is_array else ""
    return array.astype(_full(name)) if name in ("float16", "bfloat16") else array
