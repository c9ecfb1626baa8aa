"""The weight of each row's class."""

from __future__ import annotations

from collections.abc import Mapping

from keras import ops

from addloss_kit._types import Tensor


def weight_by_class(
    y_true: Tensor,
    y_pred: Tensor,
    class_weight: Mapping[int, float],
    sample_weight: Tensor | None = None,
) -> Tensor:
    """The weight of each row's class, times the row's own weight.

    Args:
        y_true: Class numbers `(batch, …)` or `(batch, …, 1)`, or one-hot rows of the
            prediction's shape.
        y_pred: `(batch, …, outputs)`.
        class_weight: Weights by class number; 1 for any other.
        sample_weight: Optional, `(batch,)` or with further axes.

    Returns:
        `(batch, …)`; with `sample_weight`, of whichever of the two has more axes.
    """
    if len(y_true.shape) < len(y_pred.shape):
        classes = y_true
    elif y_true.shape[-1] == 1:
        classes = y_true[..., 0]
    else:
        classes = ops.argmax(y_true, axis=-1)
    classes = ops.cast(ops.round(ops.cast(classes, y_pred.dtype)), "int32")
    table = [class_weight.get(number, 1.0) for number in range(max(class_weight) + 1)]
    is_listed = ops.logical_and(classes >= 0, classes < len(table))
    listed = ops.where(is_listed, classes, ops.zeros_like(classes))
    weight = ops.take(ops.convert_to_tensor(table, dtype=y_pred.dtype), listed)
    weight = ops.where(is_listed, weight, ops.ones_like(weight))
    if sample_weight is None:
        return weight
    rank = max(len(weight.shape), len(sample_weight.shape))
    return _with_axes(weight, rank) * _with_axes(sample_weight, rank)


def _with_axes(x: Tensor, rank: int) -> Tensor:
    return ops.reshape(x, (*ops.shape(x), *[1] * (rank - len(x.shape))))
