"""Bounds on groups' mean errors and on their gap, held by multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from addloss_kit import functional
from addloss_kit._checks import check_number, check_positive, received
from addloss_kit._types import Auto, Config, ErrorLike, Shape, Tensor, Totals
from addloss_kit.functional.groups import extremes
from addloss_kit.losses.group_term import GroupTerm
from addloss_kit.losses.multipliers import Multipliers, positive_part, soft_threshold
from addloss_kit.losses.running_totals import AUTO, RunningTotals, check_momentum


class _Constraint(GroupTerm):
    """What both share: running totals, multipliers, and the verdict."""

    _project = staticmethod(positive_part)

    def __init__(
        self,
        num_groups: int,
        *,
        step_size: float,
        penalty: float,
        momentum: float | Auto,
        tolerance: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_groups, **kwargs)
        check_positive(step_size=step_size, penalty=penalty)
        check_number(low=0.0, tolerance=tolerance)
        self.step_size = float(step_size)
        self.penalty = float(penalty)
        self.momentum = check_momentum(momentum)
        self.tolerance = float(tolerance)

    def build(self, input_shape: Shape | None = None) -> None:
        self.running = RunningTotals(self, self.num_groups, self.momentum)
        self.multipliers = Multipliers(self, self.num_groups, self._project)
        super().build(input_shape)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "step_size": self.step_size,
            "penalty": self.penalty,
            "momentum": self.momentum,
            "tolerance": self.tolerance,
        }


@keras.saving.register_keras_serializable("addloss_kit.losses")
class BoundedGroupLoss(_Constraint):
    r"""Holds the mean error of every group at or below a bound.

    $$\bar e_k \le b_k \text{ for every group } k$$

    Give it beside the loss that is to be minimised under the bounds, with weight
    1: `losses=["mse", BoundedGroupLoss(2, bound=0.3)]`. An augmented Lagrangian
    (see `multipliers.Multipliers`) in units of the bound, so that neither
    `step_size` nor `penalty` depends on the units of the target: after a step
    $\lambda_k \leftarrow [\lambda_k + \eta\,(\hat e_k - b_k)/b_k]_+$, and a
    group that the batch lacks keeps its multiplier. The value in the history is
    that of the Lagrangian's addend; it is negative where a group has come to lie
    below its bound and its multiplier is still on the way down.

    A bound that asks for much of a small group needs a multiplier far above 1, which
    takes long at the default `step_size`: raise that, or give the other losses a
    smaller weight, as only the proportion counts.

    If no model can meet the bounds, the multipliers grow without end while their
    ratios settle on those that make the largest ē_k / b_k smallest: see
    `<name>_multiplier_0` in the history. To minimise that in the first place, use
    `WorstGroup`.

    Args:
        num_groups: Number of groups K; ids lie in `[0, K)`, -1 means no group.
        bound: Positive number in the units of the error, or one per group.
        error: Error of a sample, as in `GroupGap`.
        step_size: η, how far a multiplier moves in a step at a violation of 100 %.
        penalty: c, the force that a violation of 100 % or more has at once.
        momentum: How much of the running totals a step keeps, `"auto"` or in
            `[0, 1)`, as in `GroupGap`; it smooths the penalty's view of ē_k.
        tolerance: By what share a bound may be exceeded and `is_met` still be 1.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history; `"bounded_group_loss"`.

    Call arguments:
        y_true, y_pred: `(batch, …)`, as `error` takes them.
        group_ids: `(batch,)` integers.
        sample_weight: Optional, `(batch,)`; weights per element are averaged.

    In the history, beside the value: `<name>_multiplier_0`, … (of more than ten
    groups `<name>_largest_multiplier`), and `<name>_is_met`, the share of the
    epoch's steps at which the running means kept the bounds. For a verdict on the
    epoch's exact means, also in validation, add `metrics.BoundIsMet`.

    Raises:
        ValueError: If a bound is not positive, or their number is not K.

    Reference:
        Agarwal, Dudík, Wu, "Fair regression", ICML 2019, for the constraint.

    Example:
        >>> bounded = BoundedGroupLoss(2, bound=2.0)
        >>> bounded.bound
        2.0
    """

    def __init__(
        self,
        num_groups: int,
        *,
        bound: float | Sequence[float],
        error: ErrorLike = "squared_error",
        step_size: float = 0.01,
        penalty: float = 1.0,
        momentum: float | Auto = AUTO,
        tolerance: float = 0.02,
        group_ids: str = "group_ids",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_groups,
            error=error,
            step_size=step_size,
            penalty=penalty,
            momentum=momentum,
            tolerance=tolerance,
            group_ids=group_ids,
            **kwargs,
        )
        bounds = np.asarray(bound, "float64")
        fits = bounds.shape in ((), (num_groups,)) and np.all(np.isfinite(bounds))
        if not fits or np.any(bounds <= 0):
            raise ValueError(
                "`bound` must be a positive number, or one per group. "
                f"{received(bound=bound, num_groups=num_groups)}"
            )
        self.bound = bounds.tolist()

    def value(self, totals: Totals, training: bool = False) -> Tensor:
        bound = ops.convert_to_tensor(self.bound, self.compute_dtype)
        if training:
            means, weight = self.running.update(totals)
        else:
            means, weight = self.batch_means(totals)
        present = ops.cast(weight > 0, means.dtype)
        above = (means - bound) * present
        loss = self.multipliers.loss(above, 0.0, present * self.penalty / bound, bound)
        if training:
            excess = self.running.excess(totals, bound)
            self.multipliers.update(excess, 0.0, self.step_size / bound)
        return loss

    def watched(self) -> dict[str, Tensor]:
        means = functional.group_means(self.running.error, self.running.weight)
        is_met = means <= ops.convert_to_tensor(self.bound, means.dtype) * (
            1.0 + self.tolerance
        )
        verdict = ops.cast(ops.all(is_met), means.dtype)
        return {**self.multipliers.shown(), "is_met": verdict}

    def get_config(self) -> Config:
        return {**super().get_config(), "bound": self.bound}


@keras.saving.register_keras_serializable("addloss_kit.losses")
class GroupGapConstraint(_Constraint):
    r"""Holds the gap between any two groups' mean errors at or below a bound.

    $$|\bar e_j - \bar e_k| \le b \text{ for all pairs} \iff
      \text{there is a } t \text{ with } |\bar e_k - t| \le b/2 \text{ for every } k$$

    (from left to right take for $t$ the middle of the largest and the smallest
    mean; from right to left add the two halves up). So the pairs need K
    constraints, not K(K−1)/2, and $t$ is minimised over like any parameter. Both
    sides of a constraint share one signed multiplier $\nu_k$: its positive part
    pushes the group's error down, its negative part up. For two groups
    $\nu_0 = -\nu_1$, whose two parts are the two multipliers of the pair.

    Give it beside the loss that is to be minimised under the bound, with weight
    1: `losses=["mse", GroupGapConstraint(2, bound=0.1)]`. It is an augmented
    Lagrangian as `BoundedGroupLoss` is, in units of the overall mean error. A
    group that the batch lacks keeps its multiplier.

    A negative part makes a group's error *larger*: that closes a gap by levelling
    down. Where that is not wanted, bound the errors with `BoundedGroupLoss`. A gap
    bound is not convex, so another start may end in another optimum.

    Args:
        num_groups: Number of groups K; ids lie in `[0, K)`, -1 means no group.
        bound: Number from 0, in the units of the error. A bound much smaller than
            the standard error of the groups' means cannot be seen in the data.
        error: Error of a sample, as in `GroupGap`.
        step_size: η, how far a multiplier moves in a step at a violation as large as
            the overall mean error.
        penalty: c, the force that such a violation, or a larger one, has at once.
        momentum: How much of the running totals a step keeps, `"auto"` or in
            `[0, 1)`, as in `GroupGap`; it smooths the penalty's view of ē_k.
        tolerance: By what share the bound may be exceeded and `is_met` still be 1.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history; `"group_gap_constraint"`.

    Call arguments:
        y_true, y_pred: `(batch, …)`, as `error` takes them.
        group_ids: `(batch,)` integers.
        sample_weight: Optional, `(batch,)`; weights per element are averaged.

    In the history, beside the value: `<name>_multiplier_0`, … (of more than ten
    groups `<name>_largest_multiplier`), `<name>_gap` (of the running means) and
    `<name>_is_met`, the share of the epoch's steps at which that kept the bound.
    For a verdict on the epoch's exact means, also in validation, add
    `metrics.BoundIsMet`.

    Raises:
        ValueError: If the bound is negative.

    Example:
        >>> GroupGapConstraint(2, bound=0.1).name
        'group_gap_constraint'
    """

    _project = staticmethod(soft_threshold)

    def __init__(
        self,
        num_groups: int,
        *,
        bound: float,
        error: ErrorLike = "squared_error",
        step_size: float = 0.01,
        penalty: float = 1.0,
        momentum: float | Auto = AUTO,
        tolerance: float = 0.02,
        group_ids: str = "group_ids",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_groups,
            error=error,
            step_size=step_size,
            penalty=penalty,
            momentum=momentum,
            tolerance=tolerance,
            group_ids=group_ids,
            **kwargs,
        )
        check_number(low=0.0, bound=bound)
        self.bound = float(bound)

    def build(self, input_shape: Shape | None = None) -> None:
        # t of the formula: what the groups' means are to lie near.
        self.center = self.add_weight(
            name="center",
            shape=(),
            initializer="zeros",
            trainable=False,
        )
        super().build(input_shape)

    def value(self, totals: Totals, training: bool = False) -> Tensor:
        half = 0.5 * self.bound
        if training:
            is_first = self.running.mass <= 0
            means, weight = self.running.update(totals)
        else:
            is_first = True
            means, weight = self.batch_means(totals)
        known = ops.stop_gradient(means)
        present = ops.cast(weight > 0, means.dtype)
        # The overall mean error: the unit of the step and of the penalty.
        unit = ops.divide_no_nan(ops.sum(weight * known), ops.sum(weight))
        penalty = ops.divide_no_nan(self.penalty, unit) * present
        held = ops.convert_to_tensor(self.center)  # JAX: `where` takes no variable
        highest, lowest = extremes(known, weight > 0)
        center = ops.where(is_first, 0.5 * (highest + lowest), held)
        # One Newton step towards the t at which the forces add up to 0, the
        # minimum over t: the slope of their sum is the penalty of the active ones.
        offset = (means - center) * present
        forces = self.multipliers.forces(ops.stop_gradient(offset), half, penalty, unit)
        slope = ops.sum(ops.cast(forces != 0, means.dtype) * penalty)
        center = center + ops.divide_no_nan(ops.sum(present * forces), slope)
        offset = (means - center) * present
        loss = self.multipliers.loss(offset, half, penalty, unit)
        if training:
            self.center.assign(center)
            excess = self.running.excess(totals, center)
            width = half * self.running.presence(totals)
            step = ops.divide_no_nan(self.step_size, unit)
            self.multipliers.update(excess, width, step)
        return loss

    def watched(self) -> dict[str, Tensor]:
        weight = self.running.weight
        means = functional.group_means(self.running.error, weight)
        gap = functional.group_gap(means, weight > 0, distance="absolute", between="range")
        is_met = gap <= self.bound * (1.0 + self.tolerance)
        return {
            **self.multipliers.shown(),
            "gap": gap,
            "is_met": ops.cast(is_met, means.dtype),
        }

    def get_config(self) -> Config:
        return {**super().get_config(), "bound": self.bound}
