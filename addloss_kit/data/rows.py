"""Rows: arrays in memory, cut into batches, in an order that repeats."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from addloss_kit.data.blocks import batches_per_block
from addloss_kit.data.on_disk import any_on_disk, take


class Rows:
    """Arrays, in memory or on disk, and the order in which an epoch takes their rows.

    The order is a function of the seed and the epoch, so a training run that was
    killed resumes it.

    Args:
        arrays: Arrays by Input name, all of the same number of rows.
        batch_size: Rows per batch.
        steps: Batches per epoch.
        drawn: Rows per epoch; the last batch is shorter if `batch_size` does not
            divide this.
        order: Maps `(seed, epoch)`, a TensorFlow tensor, to at least `drawn` row
            numbers.
        seed: Makes the order reproducible.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        batch_size: int,
        steps: int,
        drawn: int,
        order: Callable[[Any], Any],
        seed: int,
    ) -> None:
        self.arrays = dict(arrays)
        self.batch_size = batch_size
        self.steps = steps
        self.drawn = drawn
        self.order = order
        self._first_seed = seed

    @property
    def seed(self) -> int:
        """What makes the order reproducible, with the epoch; may be set between epochs."""
        return int(self._seed.read_value())

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed.assign(seed)

    @functools.cached_property
    def _seed(self) -> Any:
        """A variable, like `epoch`: a pipeline that was traced reads it, too."""
        import tensorflow as tf

        with tf.device("/CPU:0"):
            return tf.Variable(self._first_seed, dtype=tf.int64, trainable=False)

    @property
    def full_steps(self) -> int:
        """Batches of `batch_size` rows; a short one may follow."""
        return self.drawn // self.batch_size

    @functools.cached_property
    def is_on_disk(self) -> bool:
        """Whether an array is, so that rows are gathered from there, block by block."""
        return any_on_disk(self.arrays)

    def take(self, rows: Any) -> dict[str, Any]:
        """Tensors of some rows, in TensorFlow's graph.

        Args:
            rows: Their numbers, a TensorFlow tensor of any shape.
        """
        import tensorflow as tf

        if not self.is_on_disk:
            return {name: tf.gather(t, rows) for name, t in self.tensors.items()}
        names = list(self.arrays)
        dtypes = [self.arrays[name].dtype.newbyteorder("=") for name in names]

        def read(numbers: Any) -> list[np.ndarray]:
            found = self._read(np.asarray(numbers).reshape(-1))
            return [found[n].reshape(numbers.shape + found[n].shape[1:]) for n in names]

        taken = tf.numpy_function(read, [rows], [tf.as_dtype(dtype) for dtype in dtypes])
        for name, tensor in zip(names, taken):
            tensor.set_shape(tuple(rows.shape) + self.arrays[name].shape[1:])
        return dict(zip(names, taken))

    def _read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = take(self.arrays, rows)
        # TensorFlow knows no byte order but the machine's.
        return {
            n: a.astype(a.dtype.newbyteorder("="), copy=False) for n, a in found.items()
        }

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """The rows of the next epoch, some batches at a time; counts the epoch."""
        order = np.asarray(self.draw_epoch())
        row_bytes = sum(array[:1].nbytes for array in self.arrays.values())
        step = self.batch_size * batches_per_block(self.batch_size * row_bytes)
        for first in range(0, self.drawn, step):
            yield self._read(order[first : first + step])

    @functools.cached_property
    def tensors(self) -> dict[str, Any]:
        """The arrays as TensorFlow tensors in the memory of the host."""
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            # Under a device scope TensorFlow would make a second copy.
            return {n: tf.convert_to_tensor(array) for n, array in self.arrays.items()}
        # Where the input pipeline runs.
        with tf.device("/CPU:0"):
            return {n: tf.constant(array) for n, array in self.arrays.items()}

    @functools.cached_property
    def epoch(self) -> Any:
        """The number of the next epoch, as a variable that a pipeline can read."""
        import tensorflow as tf

        with tf.device("/CPU:0"):
            return tf.Variable(0, dtype=tf.int64, trainable=False)

    def draw(self, epoch: Any) -> Any:
        """The order of an epoch, a TensorFlow tensor of row numbers."""
        import tensorflow as tf

        seed = tf.stack([self._seed.read_value(), tf.cast(epoch, tf.int64)])
        return self.order(seed)

    def draw_epoch(self) -> Any:
        """The order of the next epoch, `(drawn,)`; counts the epoch."""
        import tensorflow as tf

        with tf.device("/CPU:0"):
            rows = self.draw(self.epoch.read_value())[: self.drawn]
            self.epoch.assign_add(1)
        return rows


def as_given(count: int) -> Callable[[Any], Any]:
    """The rows in the given order, in every epoch."""
    import tensorflow as tf

    return lambda seed: tf.range(count, dtype=_index_type(count))


def shuffled(count: int) -> Callable[[Any], Any]:
    """All rows, shuffled anew for each epoch."""
    import tensorflow as tf

    def order(seed: Any) -> Any:
        rows = tf.range(count, dtype=_index_type(count))
        return tf.random.experimental.stateless_shuffle(rows, seed)

    return order


def _index_type(count: int) -> str:
    # Half the memory of the order of many rows.
    return "int32" if count <= np.iinfo("int32").max else "int64"
