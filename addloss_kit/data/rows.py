"""Rows: arrays in memory, cut into batches, in an order that repeats."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from addloss_kit.data.aligned import aligned_copy, as_aligned, tensor_of
from addloss_kit.data.blocks import batches_per_block
from addloss_kit.data.on_disk import any_on_disk, take
from addloss_kit.data.shuffling import shuffle


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
        order: Maps `[seed, epoch]` to at least `drawn` row numbers: a NumPy array to an
            array, a TensorFlow tensor to a tensor, of the same values.
        seed: Makes the order reproducible.
        is_lent: Whether the arrays stay as they are for as long as the rows are used, so
            that a backend may compute in their memory. Else they are copied: the caller
            may change them.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        batch_size: int,
        steps: int,
        drawn: int,
        order: Callable[[Any], Any],
        seed: int,
        is_lent: bool = False,
    ) -> None:
        self.arrays = dict(arrays)
        self._is_lent = is_lent
        self.batch_size = batch_size
        self.steps = steps
        self.drawn = drawn
        self.order = order
        # A TensorFlow variable once a pipeline reads it.
        self._seed_and_epoch: Any = np.array([seed, 0], "int64")
        # An order drawn ahead, and its seed and epoch.
        self._ahead: tuple[np.ndarray, Any] | None = None

    @property
    def seed(self) -> int:
        """What makes the order reproducible, with the epoch; may be set between epochs."""
        return int(np.asarray(self._seed_and_epoch)[0])

    @seed.setter
    def seed(self, seed: int) -> None:
        self._assign(seed, self.epoch)

    @property
    def epoch(self) -> int:
        """The number of the next epoch, from 0; may be set."""
        return int(np.asarray(self._seed_and_epoch)[1])

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._assign(self.seed, epoch)

    def _assign(self, seed: int, epoch: int) -> None:
        both = np.array([seed, epoch], "int64")
        if isinstance(self._seed_and_epoch, np.ndarray):
            self._seed_and_epoch = both
        else:
            self._seed_and_epoch.assign(both)

    def as_variable(self) -> Any:
        """`[seed, epoch]` as a TensorFlow variable: a pipeline that was traced reads it."""
        import tensorflow as tf

        if isinstance(self._seed_and_epoch, np.ndarray):
            with tf.device("/CPU:0"):
                self._seed_and_epoch = tf.Variable(self._seed_and_epoch, trainable=False)
        return self._seed_and_epoch

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
        return {name: native(array) for name, array in take(self.arrays, rows).items()}

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """The rows of the next epoch, some batches at a time; counts the epoch."""
        order = np.asarray(self.draw_epoch())
        row_bytes = sum(array[:1].nbytes for array in self.arrays.values())
        step = self.batch_size * batches_per_block(self.batch_size * row_bytes)
        for first in range(0, self.drawn, step):
            yield self._read(order[first : first + step])

    def aligned_arrays(self) -> dict[str, np.ndarray]:
        """The arrays, copied the first time where they are not lent, or do not suit.

        Their addresses suit TensorFlow, and JAX on a CPU, which take them without
        another copy.
        """
        aligned = as_aligned if self._is_lent else aligned_copy
        self.arrays = {name: aligned(array) for name, array in self.arrays.items()}
        self._is_lent = True
        return self.arrays

    @functools.cached_property
    def tensors(self) -> dict[str, Any]:
        """The arrays as TensorFlow tensors in the memory of the host."""
        return {name: tensor_of(array) for name, array in self.aligned_arrays().items()}

    def draw_epoch(self) -> Any:
        """The order of the next epoch, `(drawn,)`; counts the epoch."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or not np.array_equal(ahead[0], self._seed_and_epoch):
            ahead = self._draw()
        self.epoch += 1
        return ahead[1]

    def draw_ahead(self) -> None:
        """Draw the order of the next epoch already, while something else computes."""
        self._ahead = self._draw()

    def _draw(self) -> tuple[np.ndarray, Any]:
        """Seed and epoch, and the order that they make."""
        seed_and_epoch = np.array(self._seed_and_epoch)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.device("/CPU:0"):
                order = self.order(tf.constant(seed_and_epoch))[: self.drawn]
        else:
            order = self.order(seed_and_epoch)[: self.drawn]
        return seed_and_epoch, order


def native(array: np.ndarray) -> np.ndarray:
    """In the machine's byte order, the only one that backends know."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_given(count: int) -> Callable[[Any], Any]:
    """The rows in the given order, in every epoch."""

    def order(seed: Any) -> Any:
        if isinstance(seed, np.ndarray):
            return np.arange(count, dtype=index_type(count))
        import tensorflow as tf

        return tf.range(count, dtype=index_type(count))

    return order


def shuffled(count: int) -> Callable[[Any], Any]:
    """All rows, shuffled anew for each epoch."""

    def order(seed: Any) -> Any:
        if isinstance(seed, np.ndarray):
            return shuffle(np.arange(count, dtype=index_type(count)), seed)
        import tensorflow as tf

        rows = tf.range(count, dtype=index_type(count))
        return tf.random.experimental.stateless_shuffle(rows, seed)

    return order


def index_type(count: int) -> str:
    """The type of the numbers of so many rows."""
    # Half the memory of the order of many rows.
    return "int32" if count <= np.iinfo("int32").max else "int64"
