"""The compiled loop over data that come some batches at a time, in blocks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeGuard

import keras
import numpy as np

from addloss_kit.data.blocks import BLOCK_BYTES, MAX_BATCHES, batches_per_block
from addloss_kit.model.checked_feeds import DEFAULT_BATCH_SIZE
from addloss_kit.model.compiled_loop import Loop
from addloss_kit.model.executions import Executions, wait

# No Input has a name with spaces.
_ROWS, _PER_BLOCK = "number of rows", "batches per block"


class InBlocks(Protocol):
    """Rows in files, read some batches at a time."""

    batch_size: int

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """The rows of the next epoch, as checked arrays of whole batches.

        Only the last batch of all may be short.
        """


@dataclasses.dataclass(frozen=True)
class Block:
    """Some batches as one array per Input.

    Args:
        arrays: Arrays by Input name, `width` rows for each batch.
        sizes: Rows of each batch; what is behind them is padding.
        width: Rows from one batch to the next.
    """

    arrays: Mapping[str, np.ndarray]
    sizes: np.ndarray
    width: int


class BlockExecutions(Executions):
    """Runs the epochs over files or a `tf.data.Dataset`, each epoch in one execution.

    The next block is drawn while the loop runs over one. Batches of one size, and a short
    last one, compile once each.

    Args:
        loop: The compiled loop.
        data: A `tf.data.Dataset` of one dict a batch, or of a tuple that holds it; or
            files that are read in blocks.
        steps: Batches of an epoch; `None` if unknown.
    """

    def __init__(self, loop: Loop, data: Any, steps: float | None) -> None:
        self.loop = loop
        self.progress = None
        self.total_steps = steps
        self.steps = 1
        self._blocks = _FileBlocks(data) if is_in_blocks(data) else _StreamBlocks(data)
        self._position = 0
        self._rows = 0
        self._orders: dict[tuple[int, int], Any] = {}

    @property
    def calls_per_epoch(self) -> int:
        """An epoch is one execution."""
        return 1

    def restart(self) -> None:
        """Begin an epoch."""
        self._position = 0

    def last_step(self, call: int) -> int:
        """Number of the last batch of the epoch, from 0."""
        return self._position - 1

    def run(self, state: Any = None) -> tuple[Any, Any]:
        """One epoch; `(logs, state)`, the state on JAX only."""
        logs: Any = {}
        # What reads ahead ends here, also where a step fails.
        with contextlib.closing(self._blocks.draw()) as blocks:
            for block in blocks:
                former = logs
                logs, state = self._run_block(block, state)
                # JAX computes later, and would hold as many blocks as it has fallen behind.
                wait(former)
                if self.progress is not None:
                    self.progress(self._position - 1, logs)
        if self._position == 0:
            raise ValueError("The dataset must hold a batch. Received: 0 batches.")
        return logs, state

    def _run_block(self, block: Block, state: Any) -> tuple[Any, Any]:
        logs: Any = {}
        arrays, sizes, first = self._placed(block.arrays), block.sizes, 0
        while first < len(sizes):
            size = int(sizes[first])
            others = np.flatnonzero(sizes[first:] != size)
            count = int(others[0]) if len(others) else len(sizes) - first
            logs, state = self._run(arrays, first, size, count, block.width, state)
            first += count
            self._position += count
        return logs, state

    def _run(
        self,
        arrays: dict[str, Any],
        first: int,
        size: int,
        count: int,
        width: int,
        state: Any,
    ) -> tuple[Any, Any]:
        """`count` batches of `size` rows, of batches padded to `width`."""
        if size == width:
            order = self._order(0, self._rows)
            return self.loop.run(arrays, order, size, first, count, state)
        logs: Any = {}
        for number in range(first, first + count):  # a short batch has padding behind it
            order = self._order(number * width, size)
            logs, state = self.loop.run(arrays, order, size, 0, 1, state)
        return logs, state

    def _placed(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Arrays `(rows, …)` on the device, filled up to the rows of the largest block.

        All blocks then have one shape, so the loop compiles once.
        """
        placed = {}
        for name, array in arrays.items():
            self._rows = max(self._rows, len(array))
            missing = [(0, self._rows - len(array))] + [(0, 0)] * (array.ndim - 1)
            filled = np.pad(array, missing) if missing[0][1] else array
            placed[name] = self.loop.place_tensor(filled)
        return placed

    def _order(self, first: int, rows: int) -> Any:
        key = (first, rows)
        if key not in self._orders:
            order = np.arange(first, first + rows, dtype="int32")
            self._orders[key] = self.loop.place_tensor(order)
        return self._orders[key]


def can_run_in_blocks(dataset: Any) -> bool:
    """Whether batches of this dataset can be stacked: dense numbers of known shapes."""
    dataset = getattr(dataset, "unchecked", dataset)
    spec = getattr(dataset, "element_spec", None)
    if spec is None or keras.backend.backend() not in ("tensorflow", "jax"):
        return False
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset) or steps_of(dataset) == float("inf"):
        return False
    spec = spec[0] if isinstance(spec, tuple) and len(spec) == 1 else spec
    return isinstance(spec, Mapping) and all(
        isinstance(part, tf.TensorSpec)
        and part.dtype != tf.string
        and part.shape.rank
        and None not in part.shape[1:]
        for part in spec.values()
    )


def steps_of(dataset: Any) -> float | None:
    """Batches of an epoch: `None` if unknown, infinity if endless."""
    cardinality = int(dataset.cardinality())
    return {-1: float("inf"), -2: None}.get(cardinality, cardinality)


def rows_of_a_batch(dataset: Any) -> int:
    """As the dataset says, or Keras's default."""
    sizes = [part.shape[0] for part in keras.tree.flatten(dataset.element_spec)]
    return max(size or DEFAULT_BATCH_SIZE for size in sizes)


def is_in_blocks(data: Any) -> TypeGuard[InBlocks]:
    """Whether data are read in blocks: a `parquet_dataset`, or rows on disk."""
    return callable(getattr(data, "blocks", None))


class _FileBlocks:
    """Blocks of files, the next one read in a thread of its own.

    Not by `tf.data`, which copies every array on its way out of Python.
    """

    def __init__(self, data: InBlocks) -> None:
        self.data = data

    def draw(self) -> Generator[Block, None, None]:
        """The blocks of an epoch."""
        blocks = self.data.blocks()
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(next, blocks, None)
            while (arrays := coming.result()) is not None:
                coming = thread.submit(next, blocks, None)
                yield _of_batches(arrays, self.data.batch_size)


class _StreamBlocks:
    """Blocks of a `tf.data.Dataset`: batches padded to the rows of the largest, checked."""

    def __init__(self, dataset: Any) -> None:
        self.check = getattr(dataset, "check_stack", _flat)
        self.stacks = _stacks(dataset)

    def draw(self) -> Generator[Block, None, None]:
        """The blocks of an epoch."""
        position = 0
        for tensors in self.stacks:
            stack = {name: np.asarray(tensor) for name, tensor in tensors.items()}
            rows = stack.pop(_ROWS)
            stack.pop(_PER_BLOCK, None)
            width = next(iter(stack.values())).shape[1]
            yield Block(self.check(stack, rows, position), rows[:, 0], width)
            position += len(rows)


def _of_batches(arrays: Mapping[str, np.ndarray], batch_size: int) -> Block:
    rows = len(next(iter(arrays.values())))
    sizes = np.full(-(-rows // batch_size), batch_size)
    sizes[-1] -= sizes.sum() - rows
    return Block(arrays, sizes, batch_size)


def _flat(
    stack: Mapping[str, np.ndarray], rows: np.ndarray, first: int
) -> dict[str, np.ndarray]:
    """Arrays `(batches, rows, …)` as `(batches * rows, …)`, where nothing is checked."""
    return {name: a.reshape(-1, *a.shape[2:]) for name, a in stack.items()}


def _stacks(dataset: Any) -> Any:
    """Stacks of batches, with the rows of each batch: `(batches, inputs)`."""
    import tensorflow as tf

    def sized(*stack: Any) -> dict[str, Any]:
        named = dict(stack[0])
        shape = tf.shape(next(iter(named.values())))
        return {**named, _ROWS: tf.fill((shape[0], 1), shape[1])}

    @tf.autograph.experimental.do_not_convert
    def counted(per_block: Any, *batch: Any) -> tuple[Any, dict[str, Any]]:
        named = dict(batch[0])
        rows = tf.stack([tf.shape(tensor)[0] for tensor in named.values()])
        # The first batch tells how many make a block, as by `batches_per_block`.
        batch_bytes = tf.cast(tf.reduce_max(rows), tf.int64) * row_bytes
        fitting = BLOCK_BYTES // tf.maximum(batch_bytes, 1)
        fitting = tf.clip_by_value(fitting, 1, MAX_BATCHES)
        per_block = tf.where(per_block > 0, per_block, fitting)
        return per_block, {**named, _ROWS: rows, _PER_BLOCK: per_block}

    dataset = getattr(dataset, "unchecked", dataset)
    parts = keras.tree.flatten(dataset.element_spec)
    row_bytes = sum(p.dtype.size * int(np.prod(p.shape[1:], dtype=int)) for p in parts)
    sizes = {part.shape[0] for part in parts}
    if len(sizes) == 1 and None not in sizes:
        per_block = batches_per_block(rows_of_a_batch(dataset) * row_bytes)
        # All have the same rows; to count them would take longer than to stack them.
        return dataset.batch(per_block).map(sized).prefetch(1)
    blocks = dataset.scan(tf.zeros((), tf.int64), counted).group_by_window(
        lambda batch: batch[_PER_BLOCK],
        lambda per_block, window: window.padded_batch(per_block),
        window_size_func=lambda per_block: per_block,
    )
    return blocks.prefetch(1)
