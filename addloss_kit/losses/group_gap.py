"""GroupGap: the gap between groups' mean errors, from running totals."""

from __future__ import annotations

from typing import Any, get_args

import keras
from keras import ops

from addloss_kit._checks import check_one_of, check_positive
from addloss_kit._types import (
    AbsentGroup,
    Auto,
    Between,
    Config,
    Distance,
    ErrorLike,
    Push,
    Shape,
    Tensor,
    Totals,
)
from addloss_kit.functional.groups import BETWEEN, DISTANCES, gap_and_slopes
from addloss_kit.losses.forces import PUSHES, limited_slopes
from addloss_kit.losses.group_term import GroupTerm
from addloss_kit.losses.running_totals import AUTO, RunningTotals, check_momentum


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

    The value is always the gap; its *force* is limited. Without a limit, a large gap,
    a large loss weight or a mean that lags behind the model pulls so hard that the
    loss rises instead of falling. So the force on a group's mean, which is the term's
    factor in the total loss times the derivative of the gap, is capped at `max_force`:
    1 is what a loss of weight 1 exerts on all rows together. (Beyond that, the squared
    gap trains like the absolute one.) A force that makes a group's error larger is also
    capped at eight times the group's share of the rows. If the optimum needs more,
    training ends with a larger gap than the loss weight implies: increase `max_force`.

    Outside training (`evaluate`, `validation_data`) the value is the plug-in of
    the batch at hand; for the exact gap over an epoch use `metrics.GroupGap`.

    Args:
        num_groups: Number of groups K, from 2; ids lie in `[0, K)`, -1 means no group.
        error: Error of a sample: `"squared_error"`, `"absolute_error"`, or any
            Keras loss by name, class or object.
        distance: `"squared"` or `"absolute"`.
        between: `"pairs"` (mean over pairs), `"range"` (largest less smallest)
            or `"overall"` (each to the overall mean); see `functional.group_gap`.
        momentum: How much of the running totals a step keeps. `"auto"` remembers
            about a twentieth of the training so far, up to 333 steps; a number in
            `[0, 1)` about `1 / (1 - momentum)` steps. 0 is the plug-in: the gap of
            the batch alone.
        max_force: Largest force on a group's mean error, positive, without unit;
            `float("inf")` for none, as the first release had.
        push: `"both"`, or `"down"` to close the gap by making errors smaller only:
            nothing then pushes the error of a better-off group up (levelling down).
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

    is_gap = True

    def __init__(
        self,
        num_groups: int,
        *,
        error: ErrorLike = "squared_error",
        distance: Distance = "squared",
        between: Between = "pairs",
        momentum: float | Auto = AUTO,
        max_force: float = 1.0,
        push: Push = "both",
        absent_group: AbsentGroup = "skip",
        group_ids: str = "group_ids",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_groups, error=error, group_ids=group_ids, **kwargs)
        check_one_of(DISTANCES, distance=distance)
        check_one_of(BETWEEN, between=between)
        check_one_of(get_args(AbsentGroup), absent_group=absent_group)
        check_one_of(PUSHES, push=push)
        check_positive(max_force=max_force, is_infinity_allowed=True)
        self.distance = distance
        self.between = between
        self.momentum = check_momentum(momentum)
        self.max_force = float(max_force)
        self.push = push
        self.absent_group = absent_group
        self.running: RunningTotals | None = None

    def build(self, input_shape: Shape | None = None) -> None:
        if self.momentum != 0:
            self.running = RunningTotals(self, self.num_groups, self.momentum)
        super().build(input_shape)

    def value(
        self, totals: Totals, training: bool = False, loss_weight: float | Tensor = 1.0
    ) -> Tensor:
        if training and self.running is not None:
            means, weight = self.running.update(totals)
        else:
            means, weight = self.batch_means(totals)
        is_present = weight > 0
        if self.absent_group == "zero_error" and not (training and self.running):
            is_present = ops.ones_like(is_present)
        known = ops.stop_gradient(means)
        gap, slopes = gap_and_slopes(
            known,
            is_present,
            distance=self.distance,
            between=self.between,
            shares=weight,
        )
        slopes = limited_slopes(
            slopes,
            ops.divide_no_nan(weight, ops.sum(weight)),
            loss_weight,
            max_force=self.max_force,
            push=self.push,
        )
        # The value is the gap; the gradient that of the limited force.
        return gap + ops.sum(slopes * (means - known))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "distance": self.distance,
            "between": self.between,
            "momentum": self.momentum,
            "max_force": self.max_force,
            "push": self.push,
            "absent_group": self.absent_group,
        }

    @classmethod
    def from_config(cls, config: Config) -> Any:
        # A model that the first release saved goes on as it began: without a limit.
        return super().from_config({"max_force": float("inf"), **config})
