"""How a weight is aligned with values of another rank: one rule for the whole kit."""

from __future__ import annotations

from keras import ops

from addloss_kit._types import Tensor
from addloss_kit.keras_internals.masks import mask_of


def align_weight(weight: Tensor, values: Tensor) -> Tensor:
    """Bring `weight` to the rank of `values`, matching leading axes.

    A weight with fewer axes than the values is broadcast along the missing ones: a
    weight per row applies to every step and element of the row. A weight with more
    axes is averaged over the extra ones: weights per element weight the row's loss
    by their mean.

    Args:
        weight: Tensor `(batch,)`, `(batch, time)`, `(batch, time, outputs)`, …
        values: Tensor of the target rank.

    Returns:
        Tensor with the rank and dtype of `values`.
    """
    weight = ops.cast(weight, values.dtype)
    rank, wanted = len(weight.shape), len(values.shape)
    if rank > wanted:
        return ops.mean(weight, axis=tuple(range(wanted, rank)))
    for _ in range(wanted - rank):
        weight = ops.expand_dims(weight, -1)
    return weight


def own_mask(values: Tensor, mask: Tensor | None = None) -> Tensor | None:
    """The Keras mask of a tensor, combined with another one.

    Keras layers mask the padded steps of their output, and Keras losses the values
    that do not count, such as those of `ignore_class`.

    Args:
        values: Tensor `(batch, …)`.
        mask: Boolean tensor or `None`.

    Returns:
        Boolean tensor, true where both are true; `None` if there is neither.
    """
    own = mask_of(values)
    if own is None or mask is None:
        return mask if own is None else own
    return ops.logical_and(own, mask)


def row_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of each row over its other axes.

    Args:
        values: Tensor `(batch, …)`.
        mask: Optional boolean tensor `(batch, …)` of at most the rank of
            `values`; where it is false, the value does not count.

    Returns:
        Tensor `(batch,)`; 0 for a fully masked row.
    """
    axes = tuple(range(1, len(values.shape)))
    if not axes:
        return values if mask is None else values * ops.cast(mask, values.dtype)
    if mask is None:
        return ops.mean(values, axis=axes)
    weight = align_weight(mask, values) * ops.ones_like(values)
    return ops.divide_no_nan(
        ops.sum(weight * values, axis=axes), ops.sum(weight, axis=axes)
    )
