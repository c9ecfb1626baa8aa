"""GroupGap: the gap between groups' mean errors, from running totals."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from addloss_kit import functional
from addloss_kit._checks import check_number, check_one_of
from addloss_kit.functional.groups import BETWEEN, DISTANCES
from addloss_kit.losses.group_term import GroupTerm
from addloss_kit.losses.running_totals import RunningTotals


@keras.saving.register_keras_serializable("addloss_kit.losses")
class GroupGap(GroupTerm):
    r"""How far the mean errors of the groups lie apart.

    $$\bar e_k = \frac{\sum_{i: g_i = k} w_i e_i}{\sum_{i: g_i = k} w_i}, \qquad
      \text{for two groups } (\bar e_0 - \bar e_1)^2 \text{ or } |\bar e_0 - \bar e_1|$$

    The squared gap of a small batch is biased upwards by the variance of its
    means, so training on it ends elsewhere than training on all rows at once.
    This term holds running totals of each group instead: the gap is that of the
    running means, and its gradient flows through the batch's error totals over
    the running weight totals, which is linear in the batch and so unbiased at
    any batch size. A group that the batch lacks keeps its running mean.

    Outside training (`evaluate`, `validation_data`) the value is the plug-in of
    the batch at hand; for the exact gap over an epoch use `metrics.GroupGap`.

    Args:
        num_groups: Number of groups K; ids lie in `[0, K)`, -1 means no group.
        error: Error of a sample: `"squared_error"`, `"absolute_error"`, or any
            Keras loss by name, class or object.
        distance: `"squared"` or `"absolute"`.
        between: `"pairs"` (mean over pairs), `"range"` (largest less smallest)
            or `"overall"` (each to the overall mean); see `functional.group_gap`.
        momentum: How much of the running totals a step keeps, in `[0, 1)`; they
            remember about `1 / (1 - momentum)` steps. 0 is the plug-in: the gap
            of the batch alone.
        absent_group: With `momentum=0` and in evaluation, what a group without
            rows does: `"skip"` leaves it out; `"zero_error"` takes its error as
            0, which punishes the other groups.
        group_ids: Name of the Input that holds the ids, where a model has more
            than one group attribute.
        name: Key in the history; `"group_gap"`.

    Call arguments:
        y_true, y_pred: `(batch, …)`, as `error` takes them.
        group_ids: `(batch,)` integers.
        sample_weight: Optional, `(batch,)`; weights per element are averaged.

    Reference:
        Wang, Fang, Liu, "Stochastic compositional gradient descent",
        Math. Program. 161 (2017), for the running inner mean.

    Example:
        >>> gap = GroupGap(2, momentum=0.0, distance="absolute")
        >>> float(gap([[0.0], [0.0]], [[1.0], [3.0]], [0, 1]))
        8.0
    """

    def __init__(
        self,
        num_groups: int,
        *,
        error: Any = "squared_error",
        distance: str = "squared",
        between: str = "pairs",
        momentum: float = 0.99,
        absent_group: str = "skip",
        group_ids: str = "group_ids",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_groups, error=error, group_ids=group_ids, **kwargs)
        check_one_of(DISTANCES, distance=distance)
        check_one_of(BETWEEN, between=between)
        check_one_of(("skip", "zero_error"), absent_group=absent_group)
        check_number(low=0.0, high=1.0, is_high_allowed=False, momentum=momentum)
        self.distance = distance
        self.between = between
        self.momentum = float(momentum)
        self.absent_group = absent_group
        self.running: RunningTotals | None = None

    def build(self, input_shape: Any = None) -> None:
        if self.momentum > 0:
            self.running = RunningTotals(self, self.num_groups, self.momentum)
        super().build(input_shape)

    def value(self, totals: Any, training: bool = False) -> Any:
        if training and self.running is not None:
            means, weight = self.running.update(totals)
        else:
            means, weight = self.batch_means(totals)
        is_present = weight > 0
        if self.absent_group == "zero_error" and not (training and self.running):
            is_present = ops.ones_like(is_present)
        return functional.group_gap(
            means,
            is_present,
            distance=self.distance,
            between=self.between,
            shares=weight,
        )

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "distance": self.distance,
            "between": self.between,
            "momentum": self.momentum,
            "absent_group": self.absent_group,
        }
