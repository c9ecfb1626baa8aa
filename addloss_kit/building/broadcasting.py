"""Told before training: a number per row that meets a column of predictions."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from addloss_kit._checks import received
from addloss_kit._types import KerasTensor
from addloss_kit.keras_internals.graph import (
    ancestors,
    input_tensors,
    operands,
    producer,
)
from addloss_kit.losses import FunctionLoss, SymbolicLoss
from addloss_kit.model.bindings import BoundTerm


def refuse_outer_products(bound: BoundTerm, named: Mapping[str, KerasTensor]) -> None:
    """Refuse a loss in which broadcasting pairs each row with all others.

    `(batch,)` and `(batch, 1)` broadcast to `(batch, batch)`, and a mean over that is a
    number like any other. The shapes tell it while the graph is symbolic: an axis of
    length 1 becomes one of the length of the batch. Pairs that are meant, as
    `d[:, None] - d[None, :]`, do not look like that.

    Args:
        bound: The term. Only functions and symbolic values are looked at; a function
            that takes no KerasTensors, as one in the backend's own code, cannot be.
        named: The symbolic arguments by source.

    Raises:
        ValueError: If the loss does so.
    """
    if isinstance(bound.term, SymbolicLoss):
        value = named[bound.sources["value"]]
    elif isinstance(bound.term, FunctionLoss):
        value = _trial(bound, named)
    else:
        return
    for tensor in ancestors([] if value is None else [value]):
        met = operands(tensor)
        vectors = [t for t in met if tuple(t.shape) == (None,)]
        columns = [t for t in met if len(t.shape) == 2 and t.shape[1] == 1]
        if vectors and columns and tuple(tensor.shape) == (None, None):
            names = [t.name for t in input_tensors(vectors)]
            raise ValueError(
                f"`{bound.name}` compares each row with all others: a tensor of shape "
                f"(batch,), computed from {names}, meets one of (batch, 1). Take the "
                "column as `x[:, 0]`, or pass `inputs={'" + names[0] + "': "
                "keras.Input((1,))}`. Where pairs of rows are meant, write "
                f"`a[:, None] - a[None, :]`. {received(operation=producer(tensor).name)}"
            )


def _trial(bound: BoundTerm, named: Mapping[str, KerasTensor]) -> KerasTensor | None:
    """What the function makes of Inputs of its own; `None` if it cannot."""
    given = {
        argument: keras.Input(
            batch_shape=tuple(named[source].shape),
            dtype=named[source].dtype,
            name=argument,
        )
        for argument, source in bound.sources.items()
    }
    try:
        value = bound.term.call_function(given)
    except Exception:
        # What is wrong with it, if anything is, the real call says.
        return None
    return value if isinstance(value, keras.KerasTensor) else None
