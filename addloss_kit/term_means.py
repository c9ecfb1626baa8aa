"""What the history shows of the terms: means over the rows of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class TermMeans(keras.metrics.Metric):
    """Means of the terms' values over the rows seen.

    One metric for all of them: a `keras.metrics.Mean` each cost 4 % of a small
    model's step.

    Args:
        names: Keys in the history.
        name: Name of the metric.
    """

    def __init__(self, names: Sequence[str], *, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.names = list(names)
        # The values times rows, then the rows.
        self.totals = self.add_variable((len(self.names) + 1,), "zeros", name="totals")

    def update_state(self, values: Sequence[Any], rows: Any) -> None:
        """Add the values of a batch of that many rows."""
        ones = ops.ones((), self.dtype)
        all_values = [*(ops.cast(value, self.dtype) for value in values), ones]
        self.totals.assign_add(ops.cast(rows, self.dtype) * ops.stack(all_values))

    def result(self) -> dict:
        *totals, rows = ops.unstack(ops.convert_to_tensor(self.totals))
        means = [ops.divide_no_nan(total, rows) for total in totals]
        return dict(zip(self.names, means))
