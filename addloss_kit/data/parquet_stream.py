"""ParquetDataset: row groups as a `tf.data.Dataset` whose epoch can be set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from addloss_kit.data.balanced_groups import BalancedGroups
from addloss_kit.data.row_groups import Arrays, ShuffledGroups
from addloss_kit.keras_internals.datasets import SameElements

# Batches that are handed to TensorFlow at once; fewer where they have so many bytes, of
# which several copies are in memory.
_STACKED = 32
_STACK_BYTES = 8 << 20


class ParquetDataset(SameElements):
    """Batches from Parquet files: what `parquet_dataset` makes.

    Its `stacks` are the same batches, some at a time: `(batches, rows, …)`.

    Args:
        groups: The batches of any epoch.
    """

    def __init__(self, groups: ShuffledGroups | BalancedGroups) -> None:
        self.epoch = 0
        # Told of what goes wrong while reading, as `tf.data` has errors of its own.
        self.check: Any = None
        self.groups = groups
        first = groups.reader.read(groups.groups[0])
        signature = {
            name: tf.TensorSpec((None, None, *array.shape[1:]), array.dtype)
            for name, array in first.items()
        }
        self.stacks = tf.data.Dataset.from_generator(
            self._stacks, output_signature=signature
        )
        counted = tf.data.experimental.assert_cardinality(groups.steps)
        super().__init__(self.stacks.unbatch().apply(counted))

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of this epoch, counted from 0."""
        self.epoch = int(epoch)

    def _stacks(self) -> Iterator[Arrays]:
        """Some batches at a time: handing one to TensorFlow costs as much as a step."""
        try:
            epoch = self.epoch
            stack: list[Arrays] = []
            for number, batch in enumerate(self.groups.batches(epoch), start=1):
                is_last = number == self.groups.steps
                # The last batch may be short, and must not be drawn before its turn.
                if stack and (is_last or _is_full(stack)):
                    yield _stacked(stack)
                    stack = []
                stack.append(batch)
            self.epoch = epoch + 1
            yield _stacked(stack)
        except Exception as error:
            if self.check is not None:
                self.check.error = error
            raise


def _is_full(batches: list[Arrays]) -> bool:
    size = sum(array.nbytes for array in batches[0].values())
    return len(batches) == _STACKED or (len(batches) + 1) * size > _STACK_BYTES


def _stacked(batches: list[Arrays]) -> Arrays:
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
