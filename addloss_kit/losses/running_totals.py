"""Running totals of groups: a mean that is smooth, a gradient that is unbiased."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from addloss_kit import functional

# A batch holds more of a group than `expected + 3·√expected + 1` rows about once in
# a thousand batches, if the rows are shuffled. So what exceeds it is no chance but
# order (rows sorted by group): the group comes back after a long absence, its
# running total has decayed, and unbounded its first batches would count up to
# 1 / (1 − momentum) times, which diverges.
_DEVIATIONS = 3.0


class RunningTotals:
    """Exponentially decayed totals per row, held as weights of a layer.

    Args:
        layer: The layer that owns the weights, so that they are saved.
        num_groups: Number of groups K.
        momentum: How much of the totals a step keeps, in `(0, 1)`.
    """

    def __init__(self, layer: keras.layers.Layer, num_groups: int, momentum: float):
        self.momentum = momentum

        def zeros(name: str, shape: tuple) -> Any:
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

    def update(self, totals: dict) -> tuple[Any, Any]:
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
        rows = totals["rows"]
        # A batch without rows says nothing, so nothing decays.
        keep = ops.where(rows > 0, self.momentum, 1.0)
        keep = ops.cast(keep, self.error.dtype)
        values = {
            "error": self._decay(
                self.error, ops.divide_no_nan(totals["error"], rows), keep
            ),
            "weight": self._decay(
                self.weight, ops.divide_no_nan(totals["weight"], rows), keep
            ),
            "mass": self._decay(self.mass, ops.ones_like(rows), keep),
        }
        for name, value in values.items():
            getattr(self, name).assign(value)
        means = functional.group_means(values["error"], values["weight"])
        error = totals["error"]
        # The value is the running mean; the gradient that of error / expected.
        slope = ops.divide_no_nan(error - ops.stop_gradient(error), self._expected(totals))
        return means + slope, values["weight"]

    def excess(self, totals: dict, level: Any) -> Any:
        """How far the batch's errors lie above `level`, for multipliers to add up.

        Call it after `update`. Unlike the batch's mean error less `level` it is
        linear in the batch: its expectation is that of all rows, however seldom a
        group is in a batch, and it is 0 for a group that is absent.

        Args:
            totals: As in `update`.
            level: Number or tensor `(num_groups,)`, in the units of the error.

        Returns:
            Tensor `(num_groups,)` in the units of the error, without gradient.
        """
        above = totals["error"] - level * totals["weight"]
        return ops.stop_gradient(ops.divide_no_nan(above, self._expected(totals)))

    def presence(self, totals: dict) -> Any:
        """Weight of each group in the batch over the weight that was expected.

        Returns:
            Tensor `(num_groups,)`: 0 for an absent group, 1 in expectation.
        """
        return ops.divide_no_nan(totals["weight"], self._expected(totals))

    def _expected(self, totals: dict) -> Any:
        """The weight of each group that a batch of this many rows should have."""
        rows, weight = totals["rows"], totals["weight"]
        expected = rows * ops.divide_no_nan(self.weight, self.mass)
        expected = ops.cast(expected, weight.dtype)
        row_weight = ops.divide_no_nan(ops.sum(weight), rows)
        spread = ops.sqrt(expected * row_weight)
        plausible = expected + _DEVIATIONS * spread + row_weight
        surplus = ops.divide_no_nan(weight, plausible)
        return ops.stop_gradient(expected * ops.maximum(surplus, 1.0))

    @staticmethod
    def _decay(variable: Any, news: Any, keep: Any) -> Any:
        news = ops.stop_gradient(ops.cast(news, variable.dtype))
        return keep * variable + (1.0 - keep) * news
