"""Running totals of groups: a mean that is smooth, a gradient that is unbiased."""

from __future__ import annotations

import keras
from keras import ops

from addloss_kit import functional
from addloss_kit._checks import check_number, received
from addloss_kit._types import Auto, Shape, Tensor

# How many times the weight that the running totals expect of a group in a batch
# may enter the gradient. Shuffled batches seldom exceed it; but a group that comes
# back after a long absence meets a decayed total, and without a bound its first
# batches would count up to 1 / (1 − momentum) times, which diverges. Tried from 1
# to 100: at 3 the bias is below a tenth of a percent for 2 to 20 groups at batch
# 16 (1 costs 0.5 to 2.5 %), and rows sorted by group still train. A bound by what
# chance allows (expected + 3·√expected + 1 rows) has less bias for 100 groups
# (0.2 % for 0.5 %), but diverged under plain SGD for a group of 0.5 %.
_MAX_FACTOR = 3.0


# The memory of `momentum="auto"`: at step t it keeps (1 + t) / (20 + t), which is a
# memory of a twentieth of the training so far, up to 333 steps. A model changes most
# at the start, where a long memory describes a model that is gone; later the noise of
# small groups is what matters. Tried beside it (docs/studies/networks.md): fixed
# memories, and a Kalman gain a group.
AUTO: Auto = "auto"
_AUTO_SHARE = 20.0
_AUTO_LARGEST = 0.997


def check_momentum(momentum: float | Auto) -> float | Auto:
    """The momentum as a number, or `"auto"`.

    Raises:
        ValueError: If it is neither that word nor in `[0, 1)`.
    """
    if isinstance(momentum, str) and momentum == AUTO:
        return AUTO
    if isinstance(momentum, str):
        raise ValueError(
            '`momentum` must be "auto" or a number in [0, 1). '
            f"{received(momentum=repr(momentum))}"
        )
    check_number(low=0.0, high=1.0, is_high_allowed=False, momentum=momentum)
    return float(momentum)


class RunningTotals:
    """Exponentially decayed totals per row, held as weights of a layer.

    Args:
        layer: The layer that owns the weights, so that they are saved.
        num_groups: Number of groups K.
        momentum: How much of the totals a step keeps, in `(0, 1)`; or `"auto"`, a
            memory that grows with the training.
    """

    def __init__(
        self, layer: keras.layers.Layer, num_groups: int, momentum: float | Auto
    ) -> None:
        self.momentum = momentum

        def zeros(name: str, shape: Shape) -> Tensor:
            return layer.add_weight(
                name=name,
                shape=shape,
                initializer="zeros",
                trainable=False,
            )

        self.error = zeros("running_error", (num_groups,))
        self.weight = zeros("running_weight", (num_groups,))
        # The sum of the decaying factors: the totals are biased towards their
        # start of 0 by just this much.
        self.mass = zeros("running_mass", ())
        self.steps = zeros("running_steps", ()) if momentum == AUTO else None

    def update(self, totals: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Take in a batch.

        Args:
            totals: `error` and `weight` `(num_groups,)`, `rows` scalar: sums
                over the whole batch.

        Returns:
            `(means, weight)`, both `(num_groups,)`: the running mean error of
            each group, whose gradient is that of the batch's error total over
            the weight that a batch of this many rows is expected to have; and
            the running weight, 0 for a group never seen.
        """
        rows, dtype = totals["rows"], self.error.dtype
        keep = self._keep()
        add = 1.0 - keep
        a_row = ops.divide_no_nan(add, ops.cast(rows, dtype))
        news = {
            "error": a_row * ops.stop_gradient(ops.cast(totals["error"], dtype)),
            "weight": a_row * ops.stop_gradient(ops.cast(totals["weight"], dtype)),
            "mass": add,
        }
        values = {}
        for name, new in news.items():
            values[name] = keep * ops.convert_to_tensor(getattr(self, name)) + new
        # A batch without rows says nothing, so nothing decays; and one that overflowed,
        # whose step a loss-scaling optimizer skips, would stay in the totals for good.
        # What follows need not wait for this: the means are the same without rows, and
        # in an overflow the loss is no number either way.
        is_taken = ops.logical_and(rows > 0, ops.isfinite(ops.sum(totals["error"])))
        if self.steps is not None:
            self.steps.assign(self.steps + ops.cast(is_taken, dtype))
        for name, value in values.items():
            held = ops.convert_to_tensor(getattr(self, name))
            getattr(self, name).assign(ops.where(is_taken, value, held))
        means = functional.group_means(values["error"], values["weight"])
        error = totals["error"]
        # The value is the running mean; the gradient that of error / expected.
        slope = ops.divide_no_nan(error - ops.stop_gradient(error), self._expected(totals))
        return means + slope, values["weight"]

    def excess(self, totals: dict[str, Tensor], level: float | Tensor) -> Tensor:
        """How far the batch's errors lie above `level`, for multipliers to add up.

        Call it after `update`. A group that is absent gets 0. Unlike the batch's
        mean error less `level` it is a sum over rows, so its expectation is 0
        exactly where the group's mean over all rows is `level`, however seldom
        the group is in a batch.

        Args:
            totals: As in `update`.
            level: Number or tensor `(num_groups,)`, in the units of the error.

        Returns:
            Tensor `(num_groups,)` in the units of the error, without gradient.
        """
        above = totals["error"] - level * totals["weight"]
        return ops.stop_gradient(ops.divide_no_nan(above, self._expected(totals)))

    def presence(self, totals: dict[str, Tensor]) -> Tensor:
        """Weight of each group in the batch over the weight that was expected.

        Returns:
            Tensor `(num_groups,)`: 0 for an absent group, 1 in expectation.
        """
        return ops.divide_no_nan(totals["weight"], self._expected(totals))

    def _expected(self, totals: dict[str, Tensor]) -> Tensor:
        """The weight of each group that a batch of this many rows should have."""
        weight = totals["weight"]
        share = ops.divide_no_nan(self.weight, self.mass)
        expected = ops.cast(totals["rows"] * share, weight.dtype)
        return ops.maximum(expected, weight / _MAX_FACTOR)

    def _keep(self) -> Tensor:
        """How much of the totals this step keeps."""
        if self.steps is None:
            # Not `cast`: that makes a Python number float32 first.
            return ops.convert_to_tensor(self.momentum, self.error.dtype)
        return ops.minimum((self.steps + 1.0) / (self.steps + _AUTO_SHARE), _AUTO_LARGEST)
