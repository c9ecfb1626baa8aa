"""Walks on a functional graph: what a tensor depends on, and a way around a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from addloss_kit.endpoint import LossEndpoint, endpoint_call


def ancestors(tensors: Iterable[Any]) -> Iterator[Any]:
    """Every KerasTensor that the given ones are computed from, and themselves."""
    stack, seen = list(tensors), set()
    while stack:
        tensor = stack.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        yield tensor
        operation, node_index, _ = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        stack.extend(node.input_tensors)


def input_tensors(tensors: Iterable[Any]) -> list[Any]:
    """The Inputs that the given tensors are computed from."""
    return [
        tensor
        for tensor in ancestors(tensors)
        if isinstance(tensor._keras_history.operation, keras.layers.InputLayer)
    ]


def output_names(outputs: Any) -> list[str]:
    """A name for each tensor of a structure of outputs, in flattened order.

    The keys of a dict, else the names of the layers they come from; `output_0`,
    `output_1`, … where these are not one for each.
    """
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, Mapping):
        # Keras flattens a dict by sorted keys.
        names = [str(key) for key in sorted(outputs)]
    else:
        names = [tensor._keras_history.operation.name for tensor in flat]
    if len(set(names)) < len(flat):
        names = [f"output_{i}" for i in range(len(flat))]
    return names


def bypass(value: Any, model: keras.Model) -> Any:
    """`value` recomputed from the predictions before the model's endpoint.

    A value computed from `model.output` would keep the old endpoint in the graph,
    whose losses would then count twice.
    """
    passed = [
        tensor
        for tensor in ancestors([value])
        if isinstance(tensor._keras_history.operation, LossEndpoint)
    ]
    if not passed:
        return value
    predictions, _ = endpoint_call(model)
    around = keras.Model([*model.outputs, *model.inputs], value)
    return around([*predictions, *model.inputs])
