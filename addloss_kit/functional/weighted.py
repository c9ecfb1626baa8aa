"""Errors weighted per sample and per output."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from keras import ops

from addloss_kit._checks import check_one_of, check_same_shape, received
from addloss_kit._types import Over, Tensor
from addloss_kit.functional.rows import as_floats, at_least_floatx

OVER = get_args(Over)


def squared_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    r"""Squared error of each sample, averaged over its outputs.

    $$e_i = \frac1d \sum_j (y_{ij} - \hat y_{ij})^2$$

    Args:
        y_true: Float tensor `(batch,)` or `(batch, …)`.
        y_pred: Float tensor of the same shape.

    Returns:
        Tensor `(batch,)`, in the squared units of `y_true`.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> [round(float(e), 2) for e in squared_error([0.0, 0.3], [0.1, 0.2])]
        [0.01, 0.01]
    """
    y_true, y_pred = _as_floats(y_true, y_pred)
    check_same_shape(y_true=y_true, y_pred=y_pred)
    error = ops.square(y_true - y_pred)
    axes = tuple(range(1, len(error.shape)))
    return ops.mean(error, axis=axes) if axes else error


def weighted_mse(y_true: Tensor, y_pred: Tensor, sample_weight: Tensor) -> Tensor:
    r"""Weighted mean of the squared error.

    $$\textstyle\sum_i w_i (y_i - \hat y_i)^2 \,/\, \sum_i w_i$$

    Args:
        y_true: Float tensor `(batch, outputs)`.
        y_pred: Float tensor `(batch, outputs)`.
        sample_weight: Non-negative float tensor `(batch, outputs)`, or
            `(outputs,)`: then the denominator counts each weight **once**, not
            once per row, so the value grows with the batch. For a mean over rows,
            repeat it for every row.

    Returns:
        Scalar tensor in the squared units of `y_true`; 0 if the weights sum to 0.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> y_true = [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
        >>> y_pred = [[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]
        >>> round(float(weighted_mse(y_true, y_pred, [0.25, 0.5, 1.0, 0.75])), 6)
        0.8
    """
    return ops.divide_no_nan(*weighted_mse_totals(y_true, y_pred, sample_weight))


def weighted_mse_totals(
    y_true: Tensor, y_pred: Tensor, sample_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The additive pair of `weighted_mse`."""
    y_true, y_pred, sample_weight = _as_floats(y_true, y_pred, sample_weight)
    check_same_shape(y_true=y_true, y_pred=y_pred)
    if tuple(sample_weight.shape) != tuple(y_true.shape[1:]):
        check_same_shape(y_true=y_true, sample_weight=sample_weight)
    # The weights are summed as given, so a shared vector is counted once.
    return ops.sum(sample_weight * ops.square(y_true - y_pred)), ops.sum(sample_weight)


def weighted_rmse(
    y_true: Tensor, y_pred: Tensor, sample_weight: Tensor, *, over: Over = "batch"
) -> Tensor:
    r"""Root of the weight-averaged squared error.

    $$\sqrt{\textstyle\sum_i w_i (y_i - \hat y_i)^2 \,/\, \sum_i w_i}$$

    With equal weights it is the RMSE. Do not confuse it with
    `weighted_residual_norm`, which divides by the sum of the weights outside the
    root.

    Args:
        y_true: Float tensor `(batch, outputs)`, or of any rank from 1.
        y_pred: Float tensor of the same shape.
        sample_weight: Non-negative float tensor of the same shape. Only its
            ratios matter: scaling every weight leaves the result unchanged.
        over: `"batch"`: one root over all rows and outputs. `"sample"`: a root
            per row over its outputs, then the mean over the rows with nonzero
            weight.

    Returns:
        Scalar tensor in the units of `y_true`; 0 if the weights sum to 0. The
        gradient is 0, not NaN, at a perfect fit.

    Raises:
        ValueError: If the three shapes are not the same.

    Example:
        >>> float(weighted_rmse([[0.0, 0.0]], [[3.0, 3.0]], [[1.0, 5.0]]))
        3.0
    """
    totals = rmse_totals(y_true, y_pred, sample_weight, over=over)
    return finish_rmse(totals, over=over)


def rmse_totals(
    y_true: Tensor, y_pred: Tensor, sample_weight: Tensor, *, over: Over
) -> tuple[Tensor, Tensor]:
    """The additive pair of `weighted_rmse`; see `finish_rmse`."""
    return _root_totals(y_true, y_pred, sample_weight, over, _root_mean_square)


def finish_rmse(totals: tuple[Tensor, Tensor], *, over: Over) -> Tensor:
    """`weighted_rmse` from its totals, which may be sums over batches."""
    mean = ops.divide_no_nan(*totals)
    return safe_sqrt(mean) if over == "batch" else mean


def weighted_residual_norm(
    y_true: Tensor, y_pred: Tensor, sample_weight: Tensor, *, over: Over = "batch"
) -> Tensor:
    r"""Weighted 2-norm of the residuals over the sum of the weights.

    $$\sqrt{\textstyle\sum_i w_i (y_i - \hat y_i)^2} \,/\, \sum_i w_i$$

    Not an RMSE: weights four times as large halve it, and ten times as much data
    divides it by about √10.

    Args:
        y_true: Float tensor `(batch, outputs)`, or of any rank from 1.
        y_pred: Float tensor of the same shape.
        sample_weight: Non-negative float tensor of the same shape.
        over: `"batch"`: one norm over all rows and outputs. `"sample"`: a norm
            per row over its outputs, then the mean over the rows with nonzero
            weight.

    Returns:
        Scalar tensor in the units of `y_true` over the square root of the weight's;
        0 if the weights sum to 0. The gradient is 0, not NaN, at a perfect fit.

    Raises:
        ValueError: If the three shapes are not the same.

    Example:
        >>> float(weighted_residual_norm([[0.0, 0.0]], [[3.0, 4.0]], [[1.0, 1.0]]))
        2.5
    """
    totals = residual_norm_totals(y_true, y_pred, sample_weight, over=over)
    return finish_residual_norm(totals, over=over)


def residual_norm_totals(
    y_true: Tensor, y_pred: Tensor, sample_weight: Tensor, *, over: Over
) -> tuple[Tensor, Tensor]:
    """The additive pair of `weighted_residual_norm`; see `finish_residual_norm`."""
    return _root_totals(y_true, y_pred, sample_weight, over, _norm_over_weight)


def finish_residual_norm(totals: tuple[Tensor, Tensor], *, over: Over) -> Tensor:
    """`weighted_residual_norm` from its totals, which may be sums over batches."""
    if over == "batch":
        return _norm_over_weight(*totals)
    return ops.divide_no_nan(*totals)


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0, not infinite.

    Args:
        x: Non-negative float tensor.

    Returns:
        Tensor of the same shape; 0 where `x` is 0 or below.
    """
    x = as_floats(x)
    # The slope of sqrt is infinite at 0, so take the root of a stand-in there.
    is_positive = x > 0
    root = ops.sqrt(ops.where(is_positive, x, ops.ones_like(x)))
    return ops.where(is_positive, root, ops.zeros_like(x))


def _root_mean_square(squares: Tensor, weight: Tensor) -> Tensor:
    return safe_sqrt(ops.divide_no_nan(squares, weight))


def _norm_over_weight(squares: Tensor, weight: Tensor) -> Tensor:
    return ops.divide_no_nan(safe_sqrt(squares), weight)


def _root_totals(
    y_true: Tensor,
    y_pred: Tensor,
    sample_weight: Tensor,
    over: Over,
    per_row: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    check_one_of(OVER, over=over)
    y_true, y_pred, sample_weight = _as_floats(y_true, y_pred, sample_weight)
    check_same_shape(y_true=y_true, y_pred=y_pred, sample_weight=sample_weight)
    squares = sample_weight * ops.square(y_true - y_pred)
    if over == "batch":
        return ops.sum(squares), ops.sum(sample_weight)
    axes = tuple(range(1, len(squares.shape)))
    row_weight = ops.sum(sample_weight, axis=axes)
    rows = per_row(ops.sum(squares, axis=axes), row_weight)
    return ops.sum(rows), ops.sum(ops.cast(row_weight > 0, rows.dtype))


def _as_floats(y_true: Tensor, y_pred: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Tensors cast to the float dtype of `y_pred`, or to `floatx` if that is wider."""
    y_pred = ops.convert_to_tensor(y_pred)
    if "float" not in str(y_pred.dtype):
        raise TypeError(
            "`y_pred` must be a float tensor. Convert it, e.g. with `keras.ops.cast`. "
            f"{received(**{'y_pred.dtype': y_pred.dtype})}"
        )
    dtype = at_least_floatx(y_pred)
    return tuple(
        ops.cast(ops.convert_to_tensor(x), dtype) for x in (y_true, y_pred, *others)
    )
