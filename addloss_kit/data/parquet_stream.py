"""ParquetDataset: row groups as a `tf.data.Dataset` whose epoch can be set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from addloss_kit.data.balanced_groups import BalancedGroups
from addloss_kit.data.row_groups import Arrays, ShuffledGroups
from addloss_kit.keras_internals.datasets import SameElements


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
        signature = {
            name: tf.TensorSpec((None, *array.shape[1:]), array.dtype)
            for name, array in groups.reader.read(groups.groups[0]).items()
        }
        dataset = tf.data.Dataset.from_generator(self._batches, output_signature=signature)
        counted = tf.data.experimental.assert_cardinality(groups.steps)
        super().__init__(dataset.apply(counted))

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of this epoch, counted from 0."""
        self.epoch = int(epoch)

    def _batches(self) -> Iterator[Arrays]:
        try:
            epoch = self.epoch
            for number, batch in enumerate(self.groups.batches(epoch), start=1):
                if number == self.groups.steps:
                    self.epoch = epoch + 1
                yield batch
        except Exception as error:
            if self.check is not None:
                self.check.error = error
            raise
