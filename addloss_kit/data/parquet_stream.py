"""ParquetDataset: row groups as a `tf.data.Dataset` whose epoch can be set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from addloss_kit.data.balanced_groups import BalancedGroups
from addloss_kit.data.blocks import batches_per_block, block_bounds
from addloss_kit.data.row_groups import Arrays, ShuffledGroups, rows_in
from addloss_kit.keras_internals.datasets import SameElements, without_tuning


class ParquetDataset(SameElements):
    """Batches from Parquet files: what `parquet_dataset` makes.

    Args:
        groups: The batches of any epoch.
    """

    def __init__(self, groups: ShuffledGroups | BalancedGroups) -> None:
        self.epoch = 0
        # Told of what goes wrong while reading, as `tf.data` has errors of its own.
        self.check: Any = None
        self.groups = groups
        self.batch_size = groups.batch_size
        first = groups.reader.read(groups.groups[0])
        signature = {
            name: tf.TensorSpec((None, None, *array.shape[1:]), array.dtype)
            for name, array in first.items()
        }
        row_bytes = sum(array[:1].nbytes for array in first.values())
        self._per_block = batches_per_block(groups.batch_size * row_bytes)
        stacks = tf.data.Dataset.from_generator(self._stacks, output_signature=signature)
        counted = tf.data.experimental.assert_cardinality(groups.steps)
        super().__init__(without_tuning(stacks.unbatch().apply(counted)))

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of this epoch, counted from 0."""
        self.epoch = int(epoch)

    def blocks(self) -> Iterator[Arrays]:
        """The rows of the next epoch, some batches at a time; counts the epoch."""
        try:
            epoch, count = self.epoch, len(block_bounds(self.groups.steps, self._per_block))
            blocks = self.groups.blocks(epoch, self._per_block)
            for number, block in enumerate(blocks, start=1):
                if number == count:
                    self.epoch = epoch + 1
                yield block
        except Exception as error:
            if self.check is not None:
                self.check.error = error
            raise

    def _stacks(self) -> Iterator[Arrays]:
        """Some batches at a time: handing one to TensorFlow costs as much as a step."""
        for block in self.blocks():
            size = min(rows_in(block), self.batch_size)
            yield {name: a.reshape(-1, size, *a.shape[1:]) for name, a in block.items()}
