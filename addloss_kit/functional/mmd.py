"""Gap between the groups' distributions of predictions: maximum mean discrepancy."""

from __future__ import annotations

from typing import get_args

from keras import ops

from addloss_kit._checks import (
    check_one_of,
    check_positive,
    check_positive_int,
    check_rows,
)
from addloss_kit._renamed import renamed
from addloss_kit._types import Kernel, Tensor
from addloss_kit.functional.groups import group_segments
from addloss_kit.functional.rows import (
    as_floats,
    steps_that_count,
    without_masked,
)

KERNELS = get_args(Kernel)


@renamed(length="bandwidth")
def group_mmd(
    y_pred: Tensor,
    group_ids: Tensor,
    sample_weight: Tensor | None = None,
    *,
    num_groups: int,
    mask: Tensor | None = None,
    kernel: Kernel = "gaussian",
    bandwidth: float | None = None,
) -> Tensor:
    r"""Squared maximum mean discrepancy between groups, the mean over pairs.

    For groups $j$ and $k$, with $\kappa$ the kernel, the unbiased U-statistic

    $$\widehat{\mathrm{MMD}}^2 = \operatorname*{mean}_{a \ne a' \in j} \kappa(a, a')
      + \operatorname*{mean}_{b \ne b' \in k} \kappa(b, b')
      - 2 \operatorname*{mean}_{a \in j,\, b \in k} \kappa(a, b)$$

    with means weighted by the products of the rows' weights. No row is paired with
    itself, so small batches are not biased upwards: the expectation is the value of
    all rows, and a batch's value may be negative. This holds for a fixed `bandwidth`.

    Args:
        y_pred: Float tensor `(batch,)` or `(batch, …)`; the distance between two
            rows is Euclidean over all their elements.
        group_ids: Integer tensor `(batch,)` in `[0, num_groups)`; a row with any
            other id (by convention -1) is excluded.
        sample_weight: Optional non-negative float tensor `(batch,)`; 1 by default.
        num_groups: Number of groups, at least 1.
        mask: Optional boolean tensor `(batch, …)` of at most the rank of `y_pred`;
            the distance is over the elements where it is true for both rows. A row
            without any is excluded.
        kernel: `"gaussian"`, $\exp(-d^2 / 2\ell^2)$, or `"laplacian"`,
            $\exp(-d / \ell)$, with $d$ the distance between two rows.
        bandwidth: ℓ, in the units of `y_pred`. Defaults to the root mean square
            distance between the batch's rows, without gradient: then the value does
            not depend on units, but slightly on the batch.

    Returns:
        Dimensionless scalar tensor, at most 2; 0 if fewer than two groups have two
        rows with weight. Groups with fewer are excluded. Time and memory are
        O(batch² + num_groups).

    Raises:
        ValueError: If the rows differ in number, or an option is unknown.

    Reference:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test",
        JMLR 13 (2012), equation 3. For training: Prost, Qian, Chen, Chi, Chen,
        Beutel, "Toward a better trade-off between performance and fairness with
        kernel-based distribution matching" (2019).

    Example:
        >>> y_pred, ids = [0.0, 0.0, 9.0, 9.0], [0, 0, 1, 1]
        >>> round(float(group_mmd(y_pred, ids, num_groups=2, bandwidth=1.0)), 4)
        2.0
    """
    check_positive_int(num_groups=num_groups)
    check_one_of(KERNELS, kernel=kernel)
    if bandwidth is not None:
        check_positive(bandwidth=bandwidth)
    y_pred = as_floats(y_pred)
    segments = group_segments(group_ids, num_groups)
    counts = None
    if mask is not None:
        is_counted = steps_that_count(ops.convert_to_tensor(mask), y_pred)
        (y_pred,) = without_masked(is_counted, y_pred)
        counts = _flat(ops.cast(is_counted, y_pred.dtype))
    rows = _flat(y_pred)
    weight = (
        ops.ones_like(rows[:, 0])
        if sample_weight is None
        else ops.cast(ops.convert_to_tensor(sample_weight), rows.dtype)
    )
    check_rows(y_pred=y_pred, group_ids=segments, sample_weight=weight)
    if counts is not None:
        weight = ops.where(ops.any(counts > 0, axis=1), weight, ops.zeros_like(weight))

    weight = weight * ops.cast(segments < num_groups, weight.dtype)

    def group_sums(values: Tensor) -> Tensor:
        return ops.segment_sum(values, segments, num_segments=num_groups + 1)

    # Only ratios of weights matter. The product of two large ones would overflow, and a
    # sum over pairs that is a difference, (Σw)² − Σw², lose what small weights add.
    share = ops.divide_no_nan(weight, ops.take(group_sums(weight), segments))
    has_partner = group_sums(ops.cast(weight > 0, weight.dtype)) > 1.5
    num = ops.sum(ops.cast(has_partner[:num_groups], weight.dtype))
    is_used = ops.cast(ops.take(has_partner, segments), weight.dtype)
    share = is_used * share

    is_same = ops.cast(segments[:, None] == segments[None, :], weight.dtype)
    is_other_row = 1.0 - ops.eye(ops.shape(rows)[0], dtype=weight.dtype)
    is_pair = is_same * is_other_row
    similarity = _similarity(
        rows, counts, is_used * weight, is_other_row, kernel, bandwidth
    )
    pairs = group_sums(share * ops.sum(share[None, :] * is_pair, axis=1))
    within = ops.divide_no_nan(share, ops.take(pairs, segments))
    # Over the n groups: Σ_{j<k} (A_jj + A_kk − 2 A_jk) = (n−1) Σ A_jj − Σ_{j≠k} A_jk,
    # so no pairs of groups are formed, only pairs of rows.
    same = ops.sum(within[:, None] * share[None, :] * similarity * is_pair)
    cross = ops.sum(share[:, None] * share[None, :] * similarity * (1.0 - is_same))
    # One group has no pairs: 0/0.
    return ops.divide_no_nan((num - 1.0) * same - cross, 0.5 * num * (num - 1.0))


def _flat(x: Tensor) -> Tensor:
    return ops.reshape(x, (ops.shape(x)[0], -1))


def _similarity(
    rows: Tensor,
    counts: Tensor | None,
    weight: Tensor,
    is_other_row: Tensor,
    kernel: Kernel,
    bandwidth: float | None,
) -> Tensor:
    """The kernel of every pair of rows, `(batch, batch)`."""
    difference = rows[:, None, :] - rows[None, :, :]
    if counts is not None:
        difference = difference * counts[:, None, :] * counts[None, :, :]
    square = ops.sum(ops.square(difference), axis=-1)
    if bandwidth is None:
        share = ops.divide_no_nan(weight, ops.sum(weight))
        both = share[:, None] * share[None, :] * is_other_row
        mean = ops.divide_no_nan(ops.sum(both * square), ops.sum(both))
        # If all rows are equal, any bandwidth works.
        scale = ops.stop_gradient(ops.where(mean > 0, mean, ops.ones_like(mean)))
    else:
        scale = float(bandwidth) ** 2
    if kernel == "gaussian":
        return ops.exp(-0.5 * square / scale)
    # The slope of the distance is infinite at 0, so use a stand-in there.
    is_apart = square > 0
    ratio = ops.where(is_apart, square / scale, ops.ones_like(square))
    distance = ops.where(is_apart, ops.sqrt(ratio), ops.zeros_like(square))
    return ops.exp(-distance)
