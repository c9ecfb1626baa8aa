"""Bounds on groups' mean errors and on their gap, enforced by multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from addloss_kit import functional
from addloss_kit._checks import (
    as_bounds,
    as_held_array,
    check_number,
    check_positive,
    received,
)
from addloss_kit._types import Auto, Config, ErrorLike, Shape, Tensor, Totals
from addloss_kit.functional.groups import extremes
from addloss_kit.losses.group_term import GroupTerm
from addloss_kit.losses.multipliers import Multipliers, positive_part, soft_threshold
from addloss_kit.losses.running_totals import AUTO, RunningTotals, check_momentum


class _Constraint(GroupTerm):
    """The base of both: running totals, multipliers, and whether the bound is met."""

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
    r"""Keeps the mean error of every group at or below a bound.

    $$\bar e_k \le b_k \text{ for every group } k$$

    Use it with weight 1, together with the loss to minimise subject to the bounds:
    `losses=["mse", BoundedGroupLoss(2, bound=0.3)]`. It is an augmented Lagrangian
    (see `multipliers.Multipliers`) in units of the bound, so neither `step_size`
    nor `penalty` depends on the units of the target: after a step
    $\lambda_k \leftarrow [\lambda_k + \eta\,(\hat e_k - b_k)/b_k]_+$, and a
    group missing from the batch keeps its multiplier. The logged value is this
    term of the Lagrangian; it is negative while a group is below its bound and its
    multiplier is still decreasing.

    A tight bound on a small group needs a multiplier far above 1, which takes long
    at the default `step_size`: increase it, or give the other losses a smaller
    weight, because only the ratio matters.

    If no model can meet the bounds, the multipliers grow without bound, while their
    ratios converge to those that minimise the largest ē_k / b_k: see
    `<name>_multiplier_0` in the history. To minimise that directly, use
    `WorstGroup`.

    Args:
        num_groups: Number of groups K; ids lie in `[0, K)`, -1 means no group.
        bound: Positive number in the units of the error, or one per group.
        error: Error of a sample, as in `GroupGap`.
        step_size: η, how far a multiplier moves per step at a violation of 100 %.
        penalty: c, the immediate force at a violation of 100 % or more.
        momentum: How much of the running totals a step keeps, `"auto"` or in
            `[0, 1)`, as in `GroupGap`; it smooths the ē_k used by the penalty.
        tolerance: Fraction by which a bound may be exceeded with `is_met` still 1.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history; `"bounded_group_loss"`.

    Call arguments:
        y_true, y_pred: `(batch, …)`, as `error` takes them.
        group_ids: `(batch,)` integers.
        sample_weight: Optional, `(batch,)`; weights per element are averaged.

    The history also has `<name>_multiplier_0`, … (with more than ten groups,
    `<name>_largest_multiplier`), and `<name>_is_met`, the fraction of the epoch's
    steps at which the running means met the bounds: a verdict on the training rows.
    To check the epoch's exact means, also in validation, add `metrics.BoundIsMet`;
    what holds on rows to come, `GroupReport.certify` says.

    Raises:
        ValueError: If a bound is not positive, or there are not K of them.

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
        bounds = as_bounds(bound)
        held = as_held_array(bounds)  # 1e-50 is 0 in float32, 1e39 infinite.
        fits = bounds.shape in ((), (num_groups,)) and np.all(np.isfinite(held))
        if not fits or np.any(held <= 0):
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
    r"""Keeps the gap between any two groups' mean errors at or below a bound.

    $$|\bar e_j - \bar e_k| \le b \text{ for all pairs} \iff
      \text{there is a } t \text{ with } |\bar e_k - t| \le b/2 \text{ for every } k$$

    (left to right: let $t$ be the midpoint between the largest and the smallest
    mean; right to left: add the two halves). So all pairs need only K constraints,
    not K(K−1)/2, and $t$ is minimised over like any parameter. Both sides of a
    constraint share one signed multiplier $\nu_k$: its positive part pushes the
    group's error down, its negative part up. For two groups $\nu_0 = -\nu_1$,
    whose two parts are the two multipliers of the pair.

    Use it with weight 1, together with the loss to minimise subject to the bound:
    `losses=["mse", GroupGapConstraint(2, bound=0.1)]`. Like `BoundedGroupLoss`, it
    is an augmented Lagrangian, in units of the overall mean error. A group missing
    from the batch keeps its multiplier.

    A negative part makes a group's error *larger*, which closes the gap by levelling
    down. To avoid that, bound the errors with `BoundedGroupLoss`. A bound on the gap
    is not convex, so different starts may end in different optima.

    Args:
        num_groups: Number of groups K, from 2; ids lie in `[0, K)`, -1 means no group.
        bound: Number of at least 0, in the units of the error. The data cannot
            resolve a bound much smaller than the standard error of the groups' means.
        error: Error of a sample, as in `GroupGap`.
        step_size: η, how far a multiplier moves per step at a violation as large as
            the overall mean error.
        penalty: c, the immediate force at such a violation, or a larger one.
        momentum: How much of the running totals a step keeps, `"auto"` or in
            `[0, 1)`, as in `GroupGap`; it smooths the ē_k used by the penalty.
        tolerance: Fraction by which the bound may be exceeded with `is_met` still 1.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history; `"group_gap_constraint"`.

    Call arguments:
        y_true, y_pred: `(batch, …)`, as `error` takes them.
        group_ids: `(batch,)` integers.
        sample_weight: Optional, `(batch,)`; weights per element are averaged.

    The history also has `<name>_multiplier_0`, … (with more than ten groups,
    `<name>_largest_multiplier`), `<name>_gap` (of the running means) and
    `<name>_is_met`, the fraction of the epoch's steps at which that gap met the
    bound: a verdict on the training rows. To check the epoch's exact means, also in
    validation, add `metrics.BoundIsMet`; what holds on rows to come,
    `GroupReport.certify` says.

    Raises:
        ValueError: If the bound is negative.

    Example:
        >>> GroupGapConstraint(2, bound=0.1).name
        'group_gap_constraint'
    """

    _project = staticmethod(soft_threshold)
    is_gap = True

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
        # t in the formula: the center of the groups' means.
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
        # One Newton step towards the minimum over t, where the forces sum to 0. The
        # slope of that sum is the penalty of the active ones.
        offset = (means - center) * present
        forces = self.multipliers.forces(ops.stop_gradient(offset), half, penalty, unit)
        slope = ops.sum(ops.cast(forces != 0, means.dtype) * penalty)
        center = center + ops.divide_no_nan(ops.sum(present * forces), slope)
        offset = (means - center) * present
        loss = self.multipliers.loss(offset, half, penalty, unit)
        if training:
            # Not after a batch that overflowed, whose step the optimizer skips.
            self.center.assign(ops.where(ops.isfinite(center), center, held))
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
