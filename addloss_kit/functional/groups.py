"""Errors of groups: additive totals → means → gap.

Totals of batches, time steps and replicas add up; means and gaps do not. Time and
memory are O(batch + num_groups) throughout.
"""

from __future__ import annotations

from typing import get_args

import keras
from keras import ops

from addloss_kit._checks import (
    check_one_of,
    check_positive_int,
    check_rows,
    check_same_shape,
    received,
)
from addloss_kit._types import Between, Distance, Tensor
from addloss_kit.functional.rows import as_floats

DISTANCES = get_args(Distance)
BETWEEN = get_args(Between)


def group_totals(
    error: Tensor,
    group_ids: Tensor,
    sample_weight: Tensor | None = None,
    *,
    num_groups: int,
) -> tuple[Tensor, Tensor]:
    r"""Weighted error and weight of each group, which add up over batches.

    $$E_k = \textstyle\sum_{i: g_i = k} w_i e_i, \qquad N_k = \sum_{i: g_i = k} w_i$$

    Args:
        error: Float tensor `(batch,)`, the error of each sample.
        group_ids: Integer tensor `(batch,)` in `[0, num_groups)`; a row with any
            other id (by convention -1) belongs to no group and is excluded.
        sample_weight: Optional non-negative float tensor `(batch,)`; 1 by default.
        num_groups: Number of groups, at least 1.

    Returns:
        `(error_totals, weight_totals)`, two tensors `(num_groups,)`; 0 for an
        absent group.

    Raises:
        ValueError: If the tensors are not of rank 1 with the same number of rows.

    Example:
        >>> errors, weights = group_totals([1.0, 2.0, 4.0], [0, 1, 1], num_groups=2)
        >>> [float(e) for e in errors], [float(w) for w in weights]
        ([1.0, 6.0], [1.0, 2.0])
    """
    check_positive_int(num_groups=num_groups)
    error = as_floats(error)
    group_ids = ops.convert_to_tensor(group_ids)
    weight = (
        ops.ones_like(error)
        if sample_weight is None
        else ops.cast(ops.convert_to_tensor(sample_weight), error.dtype)
    )
    check_rows(error=error, group_ids=group_ids, sample_weight=weight)
    for name, tensor in (("error", error), ("group_ids", group_ids)):
        if len(tensor.shape) != 1:
            raise ValueError(
                f"`{name}` must have one number per row, shape (batch,). "
                f"Received: {name}.shape={tuple(tensor.shape)}."
            )
    segments = group_segments(group_ids, num_groups)
    # Two sums of vectors are faster than one sum of pairs, on the CPU.
    errors = ops.segment_sum(weight * error, segments, num_segments=num_groups + 1)
    weights = ops.segment_sum(weight, segments, num_segments=num_groups + 1)
    return errors[:num_groups], weights[:num_groups]


def group_segments(group_ids: Tensor, num_groups: int) -> Tensor:
    """The ids as int32, and `num_groups` for every row without a group.

    Backends disagree on out-of-range segment ids, so these rows are summed in an extra
    segment, which is dropped.
    """
    ids = ops.convert_to_tensor(group_ids)
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if "float" in dtype:
        # Half an id is no id.
        is_known = ops.logical_and(ops.floor(ids) == ids, ids < float(num_groups))
        ids = ops.where(ops.logical_and(is_known, ids >= 0), ids, -ops.ones_like(ids))
    elif dtype in ("int64", "uint32", "uint64"):
        # They may exceed int32, where 2³² would be 0.
        ids = ops.cast(ids, "int64")
        ids = ops.where(ids < num_groups, ids, -ops.ones_like(ids))
        ids = ops.maximum(ids, -ops.ones_like(ids))
    ids = ops.cast(ids, "int32")
    is_known = ops.logical_and(ids >= 0, ids < num_groups)
    return ops.where(is_known, ids, ops.full_like(ids, num_groups))


def group_means(error_totals: Tensor, weight_totals: Tensor) -> Tensor:
    """Mean error of each group.

    Args:
        error_totals: Float tensor `(num_groups,)`.
        weight_totals: Float tensor `(num_groups,)`.

    Returns:
        Tensor `(num_groups,)` in the units of the error; 0 for an absent group
        (its weight is 0).

    Raises:
        ValueError: If the two have different shapes.

    Example:
        >>> [float(m) for m in group_means([1.0, 6.0, 0.0], [1.0, 2.0, 0.0])]
        [1.0, 3.0, 0.0]
    """
    error_totals = as_floats(error_totals)
    weights = ops.cast(ops.convert_to_tensor(weight_totals), error_totals.dtype)
    check_same_shape(error_totals=error_totals, weight_totals=weights)
    return ops.divide_no_nan(error_totals, weights)


def group_gap(
    means: Tensor,
    is_present: Tensor | None = None,
    *,
    distance: Distance = "squared",
    between: Between = "pairs",
    shares: Tensor | None = None,
) -> Tensor:
    r"""How far apart the groups' mean errors are.

    With $\bar e_k$ the mean error of group $k$, over the present groups:
    `"pairs"` is the mean over all pairs of $(\bar e_j - \bar e_k)^2$ or
    $|\bar e_j - \bar e_k|$; `"range"` takes only the pair with the largest and the
    smallest mean; `"overall"` is the mean over groups of the distance between a
    group and the overall mean. For two groups `"pairs"` and `"range"` are both
    $(\bar e_0 - \bar e_1)^2$ or $|\bar e_0 - \bar e_1|$.

    Args:
        means: Float tensor `(num_groups,)`.
        is_present: Optional boolean tensor `(num_groups,)`; absent groups are
            excluded. By default all are present.
        distance: `"squared"` or `"absolute"`.
        between: `"pairs"`, `"range"` or `"overall"`.
        shares: For `"overall"`: non-negative float tensor `(num_groups,)`, the
            weight of each group in the overall mean, such as its weight total.
            Equal by default.

    Returns:
        Scalar tensor in the units of the error, squared if `distance` is; 0 if
        fewer than two groups are present. The cost is O(num_groups), or
        O(num_groups · log(num_groups)) for absolute pairs, which sort.

    Raises:
        ValueError: If an option is none of those above, or the shapes differ.

    Example:
        >>> float(group_gap([1.0, 3.0])), float(group_gap([1.0, 3.0], distance="absolute"))
        (4.0, 2.0)
    """
    return gap_and_slopes(
        means, is_present, distance=distance, between=between, shares=shares
    )[0]


def group_gap_slopes(
    means: Tensor,
    is_present: Tensor | None = None,
    *,
    distance: Distance = "squared",
    between: Between = "pairs",
    shares: Tensor | None = None,
) -> Tensor:
    r"""Derivative of `group_gap` with respect to each group's mean error.

    $$\partial\,\mathrm{gap} / \partial \bar e_k$$

    For two groups and the squared distance it is $\pm 2(\bar e_0 - \bar e_1)$.

    Args:
        means, is_present, distance, between, shares: As in `group_gap`.

    Returns:
        Tensor `(num_groups,)`: dimensionless for the absolute distance, in the units
        of the error for the squared one; 0 for an absent group, and all 0 if fewer
        than two are present. The slopes sum to 0. Where means coincide, the absolute
        distance has a kink, and this is one of its subgradients.

    Raises:
        ValueError: If an option is none of those above, or the shapes differ.

    Example:
        >>> [float(slope) for slope in group_gap_slopes([1.0, 3.0])]
        [-4.0, 4.0]
    """
    return gap_and_slopes(
        means, is_present, distance=distance, between=between, shares=shares
    )[1]


def gap_and_slopes(
    means: Tensor,
    is_present: Tensor | None = None,
    *,
    distance: Distance = "squared",
    between: Between = "pairs",
    shares: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`group_gap` and `group_gap_slopes`, which have most of their work in common."""
    means, is_present, shares = _checked(means, is_present, distance, between, shares)
    present = ops.cast(is_present, means.dtype)
    count = ops.sum(present)
    if between == "range":
        highest, lowest = extremes(means, is_present)
        spread = highest - lowest
        is_high = present * _flag(means >= highest, means)
        is_low = present * _flag(means <= lowest, means)
        slopes = ops.divide_no_nan(is_high, ops.sum(is_high))
        slopes = slopes - ops.divide_no_nan(is_low, ops.sum(is_low))
        if distance == "absolute":
            return spread, slopes
        return ops.square(spread), 2.0 * spread * slopes
    if between == "overall":
        shares = present if shares is None else present * shares
        shares = ops.divide_no_nan(shares, ops.sum(shares))
        offset = means - ops.sum(shares * means)
        far, slopes = (
            (ops.square(offset), 2.0 * offset)
            if distance == "squared"
            else (ops.abs(offset), ops.sign(offset))
        )
        gap = ops.divide_no_nan(ops.sum(present * far), count)
        slopes = ops.divide_no_nan(present * slopes, count)
        return gap, slopes - shares * ops.sum(slopes)
    if distance == "squared":
        # Σ_{j<k} (m_j − m_k)² = n·Σ (m_k − m̄)², so no pairs are formed.
        center = ops.divide_no_nan(ops.sum(present * means), count)
        offset = present * (means - center)
        per_pair = ops.divide_no_nan(2.0, count - 1.0)
        return per_pair * ops.sum(ops.square(offset)), 2.0 * per_pair * offset
    # Σ_{j<k} |m_j − m_k| = Σ_i (2i − n + 1)·m_(i) over the sorted means; each group's
    # slope is the factor of its rank.
    order = ops.argsort(ops.where(is_present, means, _largest(means)))
    per_pair = ops.divide_no_nan(2.0, count * (count - 1.0))
    rank = ops.cast(ops.argsort(order), means.dtype)
    slopes = per_pair * present * (2.0 * rank - count + 1.0)
    return ops.sum(slopes * means), slopes


def _checked(
    means: Tensor,
    is_present: Tensor | None,
    distance: Distance,
    between: Between,
    shares: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors of `group_gap`, converted, all `(num_groups,)`."""
    check_one_of(DISTANCES, distance=distance)
    check_one_of(BETWEEN, between=between)
    means = as_floats(means)
    if len(means.shape) != 1:
        raise ValueError(
            "`means` must have one number per group, shape (num_groups,). Take them from "
            f"`group_means`. {received(**{'means.shape': tuple(means.shape)})}"
        )
    if is_present is None:
        is_present = ops.ones_like(means, dtype="bool")
    is_present = ops.cast(ops.convert_to_tensor(is_present), "bool")
    check_same_shape(means=means, is_present=is_present)
    if shares is not None:
        shares = ops.cast(ops.convert_to_tensor(shares), means.dtype)
        check_same_shape(means=means, shares=shares)
    return means, is_present, shares


def extremes(means: Tensor, is_present: Tensor) -> tuple[Tensor, Tensor]:
    """The largest and smallest mean of the present groups; 0 and 0 if none is present."""
    is_any = ops.any(is_present)
    highest = ops.max(ops.where(is_present, means, -_largest(means)))
    lowest = ops.min(ops.where(is_present, means, _largest(means)))
    zero = ops.zeros_like(highest)
    return ops.where(is_any, highest, zero), ops.where(is_any, lowest, zero)


def _largest(means: Tensor) -> Tensor:
    """A number above every mean, but finite, so that it can be subtracted."""
    return ops.full_like(means, 1e30)


def _flag(condition: Tensor, like: Tensor) -> Tensor:
    return ops.cast(condition, like.dtype)
