"""WorstGroup: group DRO, the loss of the worst group."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from addloss_kit._checks import check_positive, received
from addloss_kit._types import Auto, Config, ErrorLike, Shape, Tensor, Totals
from addloss_kit.losses.group_term import GroupTerm
from addloss_kit.losses.multipliers import shown_by_group
from addloss_kit.losses.running_totals import AUTO, RunningTotals, check_momentum

# How far a log weight moves per step at an error of twice the overall mean.
_RELATIVE_STEP = 0.01


@keras.saving.register_keras_serializable("addloss_kit.losses")
class WorstGroup(GroupTerm):
    r"""Minimises the largest of the groups' mean errors (group DRO).

    $$\sum_k q_k \bar e_k, \qquad q_k \propto q_k \exp(\eta\,\bar e_k)$$

    The weights q shift towards the groups with the largest error; at convergence, no
    model has a smaller worst-group error. It is a complete loss: use it alone, or
    with others if the average should count, too.

    The published algorithm takes ē_k from the batch, and does not change q_k if the
    group is missing from the batch; so a group that is in one batch of three gets a
    third of the steps that it should, and small groups lose. Here the step of q_k is
    the batch's error total minus its expectation under Σ q ē, over the group's
    *expected* weight: 0 for an absent group, and unbiased however small the group.
    If every batch has every group in equal numbers, both are the same. The gradient
    flows through the same totals, as in `GroupGap`.

    Args:
        num_groups: Number of groups K; ids lie in `[0, K)`, -1 means no group.
        error: Error of a sample, as in `GroupGap`.
        step_size: η, per unit of the error; or `"auto"`, 0.01 over the overall mean
            error of the running totals, which works for targets in any units.
        momentum: How much of the running totals a step keeps, `"auto"` or in
            `[0, 1)`, as in `GroupGap`.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history; `"worst_group"`.

    Call arguments:
        y_true, y_pred: `(batch, …)`, as `error` takes them.
        group_ids: `(batch,)` integers.
        sample_weight: Optional, `(batch,)`; weights per element are averaged.

    Returns:
        Scalar in the units of the error: in training from the running means,
        otherwise from the batch with the current q. A group that has never been seen
        does not contribute.

    The history also has the q_k as `<name>_weight_0`, … (with more than ten groups,
    `<name>_largest_weight`).

    Reference:
        Sagawa, Koh, Hashimoto, Liang, "Distributionally robust neural networks
        for group shifts", ICLR 2020, algorithm 1.

    Example:
        >>> worst = WorstGroup(2)
        >>> float(worst([[0.0], [0.0]], [[1.0], [3.0]], [0, 1]))
        5.0
    """

    def __init__(
        self,
        num_groups: int,
        *,
        step_size: float | Auto = AUTO,
        error: ErrorLike = "squared_error",
        momentum: float | Auto = AUTO,
        group_ids: str = "group_ids",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_groups, error=error, group_ids=group_ids, **kwargs)
        if isinstance(step_size, str) and step_size != AUTO:
            raise ValueError(
                '`step_size` must be "auto" or a positive number. '
                f"{received(step_size=repr(step_size))}"
            )
        if step_size != AUTO:
            check_positive(step_size=step_size)
            step_size = float(step_size)
        self.step_size = step_size
        self.momentum = check_momentum(momentum)

    def build(self, input_shape: Shape | None = None) -> None:
        self.running = RunningTotals(self, self.num_groups, self.momentum)
        self.log_weights = self.add_weight(
            name="log_weights",
            shape=(self.num_groups,),
            initializer="zeros",
            trainable=False,
        )
        super().build(input_shape)

    def value(self, totals: Totals, training: bool = False) -> Tensor:
        if not training:
            means, weight = self.batch_means(totals)
            return ops.sum(self._weights(weight > 0) * means)
        means, weight = self.running.update(totals)
        is_seen = weight > 0
        # A common level cancels in q, but not in its noise. At the solution every group
        # has this level.
        level = ops.sum(self._weights(is_seen) * means)
        step = self.running.excess(totals, level)
        if self.step_size == AUTO:
            unit = ops.divide_no_nan(ops.sum(weight * means), ops.sum(weight))
            step = ops.divide_no_nan(_RELATIVE_STEP * step, unit)
        else:
            step = self.step_size * step
        held = ops.convert_to_tensor(self.log_weights)
        moved = held + step
        # A loss-scaling optimizer skips the step of a batch that overflowed, and so do q.
        is_taken = ops.all(ops.isfinite(step))
        self.log_weights.assign(ops.where(is_taken, moved - ops.max(moved), held))
        return ops.sum(self._weights(is_seen) * means)

    def _weights(self, is_counted: Tensor) -> Tensor:
        """The q_k over the groups that count, summing to 1 (or 0 if none counts)."""
        counted = ops.cast(is_counted, self.compute_dtype)
        # Subtract the largest that counts: the exponentials cannot all vanish.
        held = ops.convert_to_tensor(self.log_weights)  # JAX: `where` takes no variable
        logs = held - ops.max(ops.where(is_counted, held, ops.full_like(held, -1e30)))
        raw = counted * ops.exp(ops.minimum(logs, 0.0))
        return ops.stop_gradient(ops.divide_no_nan(raw, ops.sum(raw)))

    def watched(self) -> dict[str, Tensor]:
        return shown_by_group("weight", self._weights(self.running.weight > 0))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "step_size": self.step_size,
            "momentum": self.momentum,
        }
