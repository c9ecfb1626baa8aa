"""GroupDistributionGap: make the groups' predictions similar, not their errors."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from addloss_kit import functional
from addloss_kit._checks import check_one_of, check_positive, warn_of_one_group
from addloss_kit._renamed import renamed
from addloss_kit._types import Config, Kernel, Tensor
from addloss_kit.functional.mmd import KERNELS
from addloss_kit.functional.rows import row_weight, steps_that_count
from addloss_kit.keras_internals.replicas import gather_over_replicas
from addloss_kit.losses.loss_term import LossTerm
from addloss_kit.per_group import PerGroup


@keras.saving.register_keras_serializable("addloss_kit.losses")
@renamed(length="bandwidth")
class GroupDistributionGap(PerGroup, LossTerm):
    r"""How far apart the distributions of the groups' predictions are (MMD²).

    It takes no target: it makes predictions reveal as little as possible about the
    group, whatever the errors (demographic parity). Give rows that it should not
    compare the id -1: if only the rows with `y_true == 0` are in groups, it equalises
    false positive rates, and so on.

    The estimate is the unbiased U-statistic of the batch (see
    `functional.group_mmd`), so it needs no running state: on average over the
    batches its gradient is that of all rows, at any batch size, and a group with
    fewer than two rows in the batch contributes nothing. It may be negative. With
    `make_dataset(balance_groups=True)` no group is ever absent.

    Args:
        num_groups: Number of groups K, from 2; ids lie in `[0, K)`, -1 means no group.
        kernel: `"gaussian"` or `"laplacian"`.
        bandwidth: Bandwidth of the kernel in the units of the prediction; if it is
            much shorter than the distance between two groups, there is no gradient.
            Defaults to the root mean square distance between the batch's rows.
        group_ids: Name of the Input that holds the ids, if a model has more than one
            group attribute.
        name: Key in the history; `"group_distribution_gap"`.

    Call arguments:
        y_pred: `(batch, …)`. Two rows are compared on the steps that are masked in
            neither.
        group_ids: `(batch,)` integers.
        sample_weight: Optional, `(batch,)`; weights per element are averaged.

    Returns:
        Dimensionless scalar, the mean over pairs of present groups. Time and memory
        are O(batch² + K).

    Example:
        >>> gap = GroupDistributionGap(2, bandwidth=1.0)
        >>> round(float(gap([[0.0], [0.0], [9.0], [9.0]], [0, 0, 1, 1])), 4)
        2.0
    """

    def __init__(
        self,
        num_groups: int,
        *,
        kernel: Kernel = "gaussian",
        bandwidth: float | None = None,
        group_ids: str = "group_ids",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_groups, group_ids=group_ids, **kwargs)
        warn_of_one_group(type(self).__name__, num_groups)
        check_one_of(KERNELS, kernel=kernel)
        if bandwidth is not None:
            check_positive(bandwidth=bandwidth)
        self.kernel = kernel
        self.bandwidth = None if bandwidth is None else float(bandwidth)

    def totals(
        self,
        y_pred: Tensor,
        group_ids: Tensor,
        sample_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        ids = ops.reshape(group_ids, (-1,))
        weight = row_weight(sample_weight, ops.cast(ids, y_pred.dtype), mask)
        # Sums over pairs of rows do not add up over replicas, so the rows are gathered,
        # and every replica computes the whole batch's value.
        tensors = [y_pred, ids, weight]
        if mask is not None:
            tensors.append(ops.cast(steps_that_count(mask, y_pred), y_pred.dtype))
        y_pred, ids, weight, *masks = gather_over_replicas(tensors)
        value = functional.group_mmd(
            y_pred,
            ids,
            weight,
            mask=masks[0] if masks else None,
            num_groups=self.num_groups,
            kernel=self.kernel,
            bandwidth=self.bandwidth,
        )
        return value, ops.ones_like(value)

    def get_config(self) -> Config:
        own = {"kernel": self.kernel, "bandwidth": self.bandwidth}
        return {**super().get_config(), **own}
