"""Traversal of a functional graph: where a tensor comes from.

Only `KerasTensor._keras_history` and `Operation._inbound_nodes` hold that;
`Model.layers` and `Layer.input` know only a layer's first call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from addloss_kit._types import KerasTensor


def producer(tensor: KerasTensor) -> Any:
    """The operation or layer that a KerasTensor comes from."""
    return tensor._keras_history.operation


def position(tensor: KerasTensor) -> int:
    """Which of its producer's outputs a KerasTensor is."""
    index: int = tensor._keras_history.tensor_index
    return index


def operands(tensor: KerasTensor) -> list[KerasTensor]:
    """The KerasTensors that a tensor's producer was called with."""
    return list(_node(tensor).input_tensors)


def call_arguments(tensor: KerasTensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the call that a tensor comes from."""
    arguments = _node(tensor).arguments
    return arguments.args, arguments.kwargs


def call_outputs(tensor: KerasTensor) -> list[KerasTensor]:
    """All KerasTensors that the call returned which a tensor comes from."""
    return list(_node(tensor).output_tensors)


def _node(tensor: KerasTensor) -> Any:
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]


def ancestors(tensors: Iterable[KerasTensor]) -> Iterator[KerasTensor]:
    """The given KerasTensors and every one that they are computed from."""
    stack, seen = list(tensors), set()
    while stack:
        tensor = stack.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        yield tensor
        stack.extend(operands(tensor))


def in_order(tensors: Iterable[KerasTensor]) -> list[KerasTensor]:
    """The same, each after those that it is computed from."""
    done: dict[int, KerasTensor] = {}
    # Without recursion: a deep network has more layers than Python has stack frames.
    stack = list(tensors)
    while stack:
        waiting = [t for t in operands(stack[-1]) if id(t) not in done]
        if waiting:
            stack.extend(waiting)
        else:
            tensor = stack.pop()
            done[id(tensor)] = tensor
    return list(done.values())


def input_tensors(tensors: Iterable[KerasTensor]) -> list[KerasTensor]:
    """The Inputs that the given tensors are computed from."""
    return [
        tensor
        for tensor in ancestors(tensors)
        if isinstance(producer(tensor), keras.layers.InputLayer)
    ]


def give_layer_names(inputs: Any) -> None:
    """Rename Inputs after their layers.

    An unnamed Input has two names: the tensor's, by which data are fed, and the
    layer's, which is the only one that survives a reload.
    """
    for tensor in keras.tree.flatten(inputs):
        tensor.name = producer(tensor).name


def output_names(outputs: Any) -> list[str]:
    """A name for each tensor of a structure of outputs, in flattened order.

    The keys of a dict, otherwise the names of the layers they come from, or
    `output_0`, `output_1`, … if those are not unique.
    """
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, Mapping):
        # Keras flattens a dict by sorted keys.
        names = [str(key) for key in sorted(outputs)]
    else:
        names = [producer(tensor).name for tensor in flat]
    if len(set(names)) < len(flat):
        names = [f"output_{i}" for i in range(len(flat))]
    return names


def all_layers(model: keras.Model) -> list[Any]:
    """All layers of a model, including nested ones, and the model itself.

    `Model.layers` stops at the first level.
    """
    return list(model._flatten_layers())
