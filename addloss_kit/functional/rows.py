"""How a weight is aligned with values of another rank: one rule for the whole kit."""

from __future__ import annotations

import keras
from keras import ops

from addloss_kit._renamed import renamed
from addloss_kit._types import Tensor
from addloss_kit.keras_internals.masks import mask_of


@renamed(weight="sample_weight")
def align_weight(
    sample_weight: Tensor, values: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Bring `sample_weight` to the rank of `values`, matching leading axes.

    A weight with fewer axes than the values is broadcast along the missing ones: a
    weight per row applies to every step and element of the row. A weight with more
    axes is averaged over the extra ones: weights per element weight the row's loss
    by their mean. Masked steps do not count in that mean.

    Args:
        sample_weight: Tensor `(batch,)`, `(batch, time)`, `(batch, time, outputs)`, …
        values: Tensor of the target rank.
        mask: Optional boolean tensor `(batch, …)`; where it is false, a weight does
            not count in a mean.

    Returns:
        Tensor with the rank of `values`, in their dtype or `keras.config.floatx()` if
        that is wider; 0 where a mean has no weight that counts.

    Example:
        >>> weight, mask = ops.array([[1.0, 3.0, 99.0]]), ops.array([[True, True, False]])
        >>> float(align_weight(weight, ops.zeros(1), mask)[0])
        2.0
    """
    values = ops.convert_to_tensor(values)
    weight = ops.cast(ops.convert_to_tensor(sample_weight), at_least_floatx(values))
    rank, wanted = len(weight.shape), len(values.shape)
    if rank > wanted:
        axes = tuple(range(wanted, rank))
        if mask is None or len(mask.shape) <= wanted:
            return ops.mean(weight, axis=axes)
        counts = steps_that_count(mask, weight)
        kept = ops.where(counts, weight, ops.zeros_like(weight))
        number = ops.sum(ops.cast(counts, weight.dtype), axis=axes)
        return ops.divide_no_nan(ops.sum(kept, axis=axes), number)
    for _ in range(wanted - rank):
        weight = ops.expand_dims(weight, -1)
    return weight


def at_least_floatx(tensor: Tensor) -> str:
    """The dtype to compute in: the tensor's own, or `keras.config.floatx()` if wider.

    Integers and booleans would truncate fractions, and half precision overflows in
    sums.
    """
    widths = {"float16": 1, "bfloat16": 1, "float32": 2, "float64": 3}
    own, least = keras.backend.standardize_dtype(tensor.dtype), keras.config.floatx()
    return own if widths.get(own, 0) > widths[least] else str(least)


def as_floats(values: Tensor) -> Tensor:
    """Any array as a float tensor in which a fraction or a large sum is not lost."""
    tensor = ops.convert_to_tensor(values)
    return ops.cast(tensor, at_least_floatx(tensor))


def steps_that_count(mask: Tensor, values: Tensor) -> Tensor:
    """A mask with the shape of `values`, as booleans.

    Args:
        mask: Tensor `(batch, …)`, true where a step counts. If it has more axes than
            the values, a value counts if any of its steps does.
        values: Tensor `(batch, …)`.
    """
    mask = ops.cast(mask, "bool")
    rank, wanted = len(mask.shape), len(values.shape)
    if rank > wanted:
        mask = ops.any(mask, axis=tuple(range(wanted, rank)))
    for _ in range(wanted - rank):
        mask = ops.expand_dims(mask, -1)
    return ops.logical_and(mask, ops.ones_like(values, dtype="bool"))


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


def without_masked(mask: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors with 0 at masked steps: nothing there counts, not even infinity."""
    if mask is None:
        return tensors
    return tuple(
        ops.where(steps_that_count(mask, tensor), tensor, ops.zeros_like(tensor))
        for tensor in tensors
    )


def row_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of each row over its other axes.

    Args:
        values: Tensor `(batch, …)`.
        mask: Optional boolean tensor `(batch, …)`; where it is false, the value does
            not count.

    Returns:
        Tensor `(batch,)`; 0 for a fully masked row.
    """
    values = as_floats(values)
    axes = tuple(range(1, len(values.shape)))
    if mask is None:
        return ops.mean(values, axis=axes) if axes else values
    counts = steps_that_count(mask, values)
    # Not a product: a masked step may be infinite.
    kept = ops.where(counts, values, ops.zeros_like(values))
    if not axes:
        return kept
    number = ops.sum(ops.cast(counts, values.dtype), axis=axes)
    return ops.divide_no_nan(ops.sum(kept, axis=axes), number)


def last_axis_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean over the last axis, if there is one besides the rows.

    Args:
        values: Tensor `(batch, …, outputs)`.
        mask: Optional boolean tensor `(batch, …)`. If it has the rank of `values`,
            only the elements where it is true count.
    """
    if len(values.shape) < 2:
        return values
    if mask is None or len(mask.shape) < len(values.shape):
        return ops.mean(values, axis=-1)
    counts = ops.cast(steps_that_count(mask, values), values.dtype)
    total = ops.sum(counts * values, axis=-1)
    return ops.divide_no_nan(total, ops.sum(counts, axis=-1))


def row_weight(weight: Tensor | None, rows: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weight of each row: the mean over its steps and elements that count.

    Args:
        weight: Tensor `(batch, …)`; `None` for 1.
        rows: Tensor `(batch,)`.
        mask: Optional boolean tensor `(batch, …)`.

    Returns:
        Tensor `(batch,)`; 0 for a fully masked row, which counts nowhere.
    """
    ones = ops.ones_like(rows)
    weight = ones if weight is None else align_weight(weight, ones, mask)
    if mask is None:
        return weight
    return ops.where(steps_that_count(mask, ones), weight, ops.zeros_like(weight))
