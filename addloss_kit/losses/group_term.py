"""The base of all terms on groups' mean errors: totals and Inputs."""

from __future__ import annotations

from typing import Any

from keras import ops

from addloss_kit import functional
from addloss_kit._checks import warn_of_one_group
from addloss_kit._types import Tensor, Totals
from addloss_kit.losses.loss_term import LossTerm
from addloss_kit.per_group import ErrorPerGroup


class GroupTerm(ErrorPerGroup, LossTerm):
    """A term whose totals are the error and weight totals of each group.

    Args:
        num_groups: Number of groups K.
        **kwargs: Those of `per_group.ErrorPerGroup`: `error`, `group_ids`, `name`.
    """

    # Whether the term compares groups, so that one group makes no sense.
    is_gap = False

    def __init__(self, num_groups: int, **kwargs: Any) -> None:
        super().__init__(num_groups, **kwargs)
        if self.is_gap:
            warn_of_one_group(type(self).__name__, num_groups)

    def totals(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        group_ids: Tensor,
        sample_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        error, weight = self.error.per_row(y_true, y_pred, mask, sample_weight)
        errors, weights = functional.group_totals(
            error, group_ids, weight, num_groups=self.num_groups
        )
        # Rows without weight are padding: they do not count towards the batch size.
        count = ops.sum(ops.cast(weight > 0, error.dtype))
        return {"error": errors, "weight": weights, "rows": count}

    def batch_means(self, totals: Totals) -> tuple[Tensor, Tensor]:
        """Mean error and weight of each group in the batch."""
        weight = totals["weight"]
        return functional.group_means(totals["error"], weight), weight
