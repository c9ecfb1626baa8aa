"""Walks on a functional graph: what a tensor depends on, and a way around a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from addloss_kit.endpoint import LossEndpoint


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


def bypass(value: Any) -> Any:
    """`value` recomputed from the predictions before any endpoint on its way.

    A value computed from the output of a training model, be it that of an earlier
    call, would keep that model's endpoint in the graph, whose losses would then
    count twice.
    """
    passed = [
        tensor
        for tensor in ancestors([value])
        if isinstance(tensor._keras_history.operation, LossEndpoint)
    ]
    if not passed:
        return value
    before = []
    for tensor in passed:
        endpoint, node_index, position = tensor._keras_history
        predictions = endpoint._inbound_nodes[node_index].arguments.args[0]
        before.append(predictions[position])
    inputs = input_tensors([value])
    return keras.Model([*passed, *inputs], value)([*before, *inputs])
