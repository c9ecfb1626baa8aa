"""Detect losses in which `(batch,)` and `(batch, 1)` broadcast, before training."""

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
    """Refuse a loss in which broadcasting pairs every row with every other.

    `(batch,)` and `(batch, 1)` broadcast to `(batch, batch)`, and the mean of that looks
    like a valid loss. Symbolic shapes reveal it: an axis of length 1 becomes as long as
    the batch. Intended pairs, as in `d[:, None] - d[None, :]`, look different.

    Args:
        bound: The term. Only functions and symbolic values are checked; functions in
            backend code, which do not take KerasTensors, cannot be.
        named: The symbolic arguments, by source.

    Raises:
        ValueError: If broadcasting pairs rows.
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
                f"`{bound.name}` compares every row with every other: a tensor of shape "
                f"(batch,), computed from {names}, is broadcast with one of shape "
                "(batch, 1). Index the column as `x[:, 0]`, or pass "
                "`inputs={'" + names[0] + "': "
                "keras.Input((1,))}`. If you do want pairs of rows, write "
                f"`a[:, None] - a[None, :]`. {received(operation=producer(tensor).name)}"
            )


def _trial(bound: BoundTerm, named: Mapping[str, KerasTensor]) -> KerasTensor | None:
    """The function applied to fresh Inputs; `None` if it does not accept them."""
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
        # The real call reports the error, if it is one.
        return None
    return value if isinstance(value, keras.KerasTensor) else None
