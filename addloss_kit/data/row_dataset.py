"""RowDataset: rows in memory, or on disk, as a `tf.data.Dataset` whose order can be set."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from addloss_kit.data.blocks import block_bounds
from addloss_kit.data.rows import Rows, index_type
from addloss_kit.keras_internals.datasets import SameElements, without_tuning

# How much is gathered at once: enough to make the call cheap, too little to be a second
# copy of the data, or to leave the processor's cache.
_BLOCK_BYTES = 4 << 20
_MAX_BLOCK = 64

# Operations that return a plain dataset, whose order and rows `fit` does not know.
_LOSING = (
    "batch cache concatenate enumerate filter flat_map interleave map padded_batch "
    "prefetch ragged_batch rebatch repeat shard shuffle skip take take_while unbatch "
    "window"
).split()


class RowDataset(SameElements):
    """Batches of rows in memory: what `make_dataset` returns.

    It is a `tf.data.Dataset` like any other, with one dict per batch. With it,
    `TrainingModel.fit` can do more: set the epoch, which determines the order, and run
    many steps as one compiled loop over `rows`. An operation such as `map` or
    `prefetch` returns a plain dataset, which cannot do that, and warns.

    Args:
        rows: The rows, with their order.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        super().__init__(without_tuning(_batches(rows)))

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of this epoch, counted from 0."""
        self.rows.epoch = epoch


def _warn_of_loss(name: str) -> Any:
    operation = getattr(tf.data.Dataset, name)

    def losing(self: RowDataset, *args: Any, **kwargs: Any) -> Any:
        # TensorFlow's own call, as to share rows out to devices, is not the user's.
        frame = inspect.currentframe()
        caller = frame.f_back.f_globals if frame and frame.f_back else {}
        if caller.get("__name__", "").startswith("tensorflow."):
            return operation(self, *args, **kwargs)
        warnings.warn(
            f"`{name}` makes a plain `tf.data.Dataset` of what `make_dataset` returned: "
            "`fit` can then neither resume its order nor run it as a compiled loop. "
            "Change the arrays before `make_dataset`, or pass the dataset as it is.",
            stacklevel=2,
        )
        return operation(self, *args, **kwargs)

    losing.__doc__ = f"As `tf.data.Dataset.{name}`: a plain dataset, with a warning."
    return losing


for _name in _LOSING:
    if hasattr(tf.data.Dataset, _name):
        setattr(RowDataset, _name, _warn_of_loss(_name))


def _batches(rows: Rows) -> Any:
    """The pipeline: it gathers several batches at once, then slices them.

    Most of the cost of a dataset's element is the call of the function that makes it.
    """
    batch_size, steps, full = rows.batch_size, rows.steps, rows.full_steps
    row_bytes = sum(array[:1].nbytes for array in rows.arrays.values())
    most = max(1, _BLOCK_BYTES // max(1, batch_size * row_bytes))
    # A static batch size wherever there is one: XLA then compiles once. JAX compiles by
    # the arrays themselves; there Keras from 3.16 on would batch batches of a static size
    # and draw them ahead.
    is_even = full == steps and keras.backend.backend() != "jax"
    options = tf.data.Options()
    # TensorFlow would put a `prefetch` at the end by itself.
    options.experimental_optimization.inject_prefetch = False
    dtype = index_type(len(next(iter(rows.arrays.values()))))
    seed_and_epoch = rows.as_variable()  # made here, not where it is traced
    if not rows.is_on_disk:
        _ = rows.tensors  # outside the graph, which would hold them as constants

    @tf.autograph.experimental.do_not_convert  # which takes half a second
    def gather(carried: Any, block: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        # What the scan carries is the order of the pass, drawn at its first block.
        order = tf.cond(
            block["low"] == 0,
            lambda: tf.cast(rows.order(seed_and_epoch.read_value())[: rows.drawn], dtype),
            lambda: carried,
        )
        order.set_shape((rows.drawn,))
        # The epoch counts once its last batch is drawn: a look at the first batch, or an
        # iterator that Keras makes and does not use, must not change the next order. For
        # the same reason nothing is drawn ahead (`prefetch`).
        tf.cond(block["is_last"], lambda: seed_and_epoch.assign_add([0, 1]).op, tf.no_op)
        chosen = order[block["low"] * batch_size : block["high"] * batch_size]
        # The last batch may be short; then the size of a batch is not static.
        is_short = block["low"] >= full
        size = batch_size if is_even else tf.where(is_short, tf.size(chosen), batch_size)
        chosen = tf.reshape(chosen, (-1, size))
        return order, rows.take(chosen)

    per_block = min(_MAX_BLOCK, most)
    low, high = np.array(block_bounds(steps, per_block)).T
    schedule = {"low": low, "high": high, "is_last": high == steps}
    with tf.device("/CPU:0"):
        blocks = tf.data.Dataset.from_tensor_slices(schedule)
        # Of the order's shape and type, or the function would be traced twice.
        batches = blocks.scan(tf.zeros((rows.drawn,), dtype), gather).unbatch()
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).with_options(
        options
    )
