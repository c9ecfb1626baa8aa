"""make_dataset: a fast in-memory dataset of dicts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import check_positive_int, received
from addloss_kit.data.balancing import BalancedPlan
from addloss_kit.fields import GROUP_IDS

# Of the batches that are gathered at once: enough to make the call cheap, few enough
# to hold next to no second copy of the data, and to stay in the processor's cache.
_BLOCK_BYTES = 4 << 20
_MAX_BLOCK = 64
# What goes with a block: how many batches it holds, and whether it is the last of a pass
# and of an execution.
_TOLD = ("count", "is_last", "is_end")


def make_dataset(
    inputs: Mapping[str, Any],
    batch_size: int,
    *,
    shuffle: bool = True,
    balance_groups: bool | Sequence[float] | Mapping[int, float] = False,
    undo_weights: bool = False,
    group_ids: str = GROUP_IDS,
    drop_remainder: bool = False,
    seed: int | None = None,
) -> Any:
    """A `tf.data.Dataset` over arrays in memory, one dict a batch.

    The rows of an epoch are permuted at once, and gathered in the graph, some batches
    at a time: one copy of the data, no Python between steps. The fastest way to train
    a small model is this dataset together with `compile(steps_per_execution=256,
    jit_compile=True)`: then `fit` and `evaluate` run the steps of an execution as one
    compiled loop, with TensorFlow or JAX (where `jit_compile` need not be given).

    The order is a function of `seed` and the epoch. The dataset counts its complete
    passes; `TrainingModel.fit` sets the count when it begins at a later epoch, by
    `initial_epoch=` or `keras.callbacks.BackupAndRestore`, so that a training that
    was killed goes on with the order that it would have had. Elsewhere call
    `dataset.set_epoch(k)`.

    With `balance_groups` each batch holds a fixed number of rows of each group. Every
    pass draws the rows of a group anew, and none a second time before all of the
    group have had their turn. A pass has as many steps as without, all of full size.

    Args:
        inputs: Arrays by Input name, from `pack_inputs`.
        batch_size: Rows per batch, from 1.
        shuffle: Whether each epoch has an order of its own. Group losses need it:
            see `losses.GroupGap`.
        balance_groups: `True` for equal shares of all groups in every batch; or the
            shares themselves, by id, as a sequence or dict: positive, only their
            ratios matter. A share is rounded to whole rows, at least one. Rows
            without a group (id -1) keep the share that they have in the data.
        undo_weights: With `balance_groups`, whether to multiply the sample weights
            by a group's share of the data over its share of the batches: means over
            all rows are then what they are without balancing. The factors of a batch
            average to 1. It needs an entry `sample_weight` (or `<output>_sample_weight`):
            build the model with `sample_weight=True` and pack weights of 1.
        group_ids: Name of the entry that holds the ids.
        drop_remainder: Whether to leave out a last batch of fewer rows.
        seed: Makes the order repeat. If none, drawn from NumPy's global generator,
            which `keras.utils.set_random_seed` sets.

    Returns:
        A dataset of known cardinality for `fit(dataset, y=None)`.

    Raises:
        ValueError: If the arrays differ in rows, there are fewer rows than a batch
            with `drop_remainder`, a batch is too small to hold every group, or
            `inputs` lacks the ids or the weights that are asked for.

    Example:
        >>> data = make_dataset({"x": np.arange(5.0)}, 2, shuffle=False)
        >>> [batch["x"].numpy().tolist() for batch in data]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
        >>> rare = {"group_ids": np.array([0, 0, 0, 0, 0, 1])}
        >>> data = make_dataset(rare, 2, balance_groups=True)
        >>> [sorted(batch["group_ids"].numpy().tolist()) for batch in data]
        [[0, 1], [0, 1], [0, 1]]
    """
    check_positive_int(batch_size=batch_size)
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    count = _rows(arrays)
    is_balanced = not (isinstance(balance_groups, bool) and not balance_groups)
    if undo_weights and not is_balanced:
        raise ValueError(
            "`undo_weights` undoes `balance_groups`, so it needs it. Pass both or none. "
            f"{received(undo_weights=undo_weights, balance_groups=balance_groups)}"
        )
    if is_balanced and not shuffle:
        raise ValueError(
            "`balance_groups` draws rows by chance. Leave `shuffle` at True. "
            f"{received(shuffle=shuffle)}"
        )
    steps = count // batch_size if drop_remainder else -(-count // batch_size)
    if steps == 0:
        raise ValueError(
            "There must be at least one full batch. Make `batch_size` smaller, or pass "
            f"`drop_remainder=False`. {received(rows=count, batch_size=batch_size)}"
        )
    if seed is None:
        seed = int(np.random.randint(2**31))
    if is_balanced:
        plan = BalancedPlan(arrays, group_ids, balance_groups, batch_size, steps)
        if undo_weights:
            arrays = plan.undo(arrays)
        return _dataset(arrays, batch_size, steps, steps * batch_size, plan.order, seed)
    drawn = steps * batch_size if drop_remainder else count
    order = _shuffled(count) if shuffle else _as_given(count)
    return _dataset(arrays, batch_size, steps, drawn, order, seed)


class FollowEpoch(keras.callbacks.Callback):
    """Gives a dataset the epoch at which `fit` begins, if that is not the first.

    A `fit` from epoch 0 goes on from where the dataset stands, so that two calls
    in a row do not see the same order.
    """

    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self.dataset = dataset
        self.is_set = False

    def on_train_begin(self, logs: Any = None) -> None:
        self.is_set = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch > 0 and not self.is_set:
            self.dataset.set_epoch(epoch)
        self.is_set = True


def _dataset(
    arrays: Mapping[str, np.ndarray],
    batch_size: int,
    steps: int,
    drawn: int,
    order: Any,
    seed: int,
) -> Any:
    """Batches of the rows `order((seed, epoch))[:drawn]`."""
    import tensorflow as tf

    # Blocks of batches are gathered at once and then sliced: of the time of an element
    # of a dataset most is that of calling the function that makes it.
    row_bytes = sum(array[:1].nbytes for array in arrays.values())
    most = max(1, _BLOCK_BYTES // max(1, batch_size * row_bytes))
    full = drawn // batch_size
    # A static batch size wherever there is one: XLA then compiles once.
    is_even = full == steps
    options = tf.data.Options()
    # TensorFlow would put a `prefetch` at the end by itself.
    options.experimental_optimization.inject_prefetch = False
    # On the CPU, where the input pipeline runs, also where there is an accelerator.
    with tf.device("/CPU:0"):
        tensors = {name: tf.constant(array) for name, array in arrays.items()}
        passes = tf.Variable(0, dtype=tf.int64, trainable=False)

    def draw(number: Any) -> Any:
        return order(tf.stack([tf.constant(seed, tf.int64), number]))

    def gather(carried: tuple, block: Mapping[str, Any]) -> tuple[tuple, dict]:
        # What the scan carries is the pass and its order, drawn at the first block.
        number, rows = carried
        is_first = block["low"] == 0
        following = tf.where(number < 0, passes.read_value(), number + 1)
        number = tf.where(is_first, following, number)
        rows = tf.cond(is_first, lambda: draw(number), lambda: rows)
        rows.set_shape((None,))
        tf.cond(block["is_counted"], lambda: passes.assign_add(1).op, tf.no_op)
        chosen = rows[block["low"] * batch_size : block["high"] * batch_size]
        # The last batch may be short; then the size of a batch is not static.
        is_short = block["low"] >= full
        size = batch_size if is_even else tf.where(is_short, tf.size(chosen), batch_size)
        missing = block["width"] * tf.cast(size, tf.int64) - tf.size(chosen, tf.int64)
        chosen = tf.reshape(tf.pad(chosen, [[0, missing]]), (-1, size))
        batches = {name: tf.gather(t, chosen) for name, t in tensors.items()}
        return (number, rows), batches

    def gathered(schedule: Any) -> Any:
        with tf.device("/CPU:0"):
            nothing = (tf.constant(-1, tf.int64), tf.zeros((0,), tf.int64))
            return schedule.scan(nothing, gather)

    def blocks(steps_per_execution: int) -> Any:
        schedule = _schedule_executions(steps, full, steps_per_execution, most)
        repeated = tf.data.Dataset.from_tensor_slices(schedule).repeat()
        told = repeated.map(lambda block: {name: block[name] for name in _TOLD})
        both = tf.data.Dataset.zip((gathered(repeated), told))
        return both.with_options(options)

    # The last batch is a block of its own. The pass counts when it is drawn, not before:
    # a look at the first batch, or an iterator that Keras makes and then does not use,
    # must not change the order of the next epoch. For the same reason nothing is drawn
    # ahead (`prefetch`), which was no faster either.
    per_block = min(_MAX_BLOCK, most)
    bounds = np.append(np.arange(0, steps - 1, per_block), [steps - 1, steps])
    schedule = tf.data.Dataset.from_tensor_slices(_schedule(bounds))
    batches = gathered(schedule).unbatch()
    counted = batches.apply(tf.data.experimental.assert_cardinality(steps))
    dataset = counted.with_options(options)
    # The first is for everybody, the others are for `compiled_loop`.
    dataset.set_epoch = passes.assign
    dataset.blocks = functools.cache(blocks)
    dataset.count_pass = lambda: passes.assign_add(1)
    return dataset


def _schedule(bounds: np.ndarray) -> dict[str, np.ndarray]:
    """Blocks from one bound to the next, in batches, each with room for what it holds."""
    low, high = bounds[:-1], bounds[1:]
    is_last = high == bounds[-1]
    return {"low": low, "high": high, "width": high - low, "is_counted": is_last}


def _schedule_executions(
    steps: int, full: int, per_execution: int, most: int
) -> dict[str, np.ndarray]:
    """Blocks that fill executions of so many steps, one after the other.

    An execution takes one block, or some where that would be too large. Blocks of
    full batches all have the same room, though the last may hold fewer, so that
    their loop is compiled once; a short batch is a block of its own. Who trains on
    them counts the passes, as Keras on JAX may draw a block ahead.
    """
    parts = -(-per_execution // most)
    width = -(-per_execution // parts)
    starts = np.arange(0, steps, per_execution)[:, None]
    bounds = starts + np.arange(0, per_execution, width)
    bounds = np.unique(np.minimum(np.append(bounds, [full, steps]), steps))
    schedule = _schedule(bounds)
    low, high, is_last = schedule["low"], schedule["high"], schedule["is_counted"]
    return {
        "low": low,
        "high": high,
        "width": np.where(low < full, min(width, max(full, 1)), 1),
        "is_counted": np.zeros(len(low), bool),
        "count": high - low,
        "is_last": is_last,
        "is_end": (high % per_execution == 0) | is_last,
    }


def _as_given(count: int) -> Any:
    import tensorflow as tf

    return lambda seed: tf.range(count, dtype=tf.int64)


def _shuffled(count: int) -> Any:
    import tensorflow as tf

    def order(seed: Any) -> Any:
        rows = tf.range(count, dtype=tf.int64)
        return tf.random.experimental.stateless_shuffle(rows, seed)

    return order


def _rows(arrays: Mapping[str, np.ndarray]) -> int:
    rows = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(
            "All arrays must have the same number of rows. "
            f"{received(**{f'{k}.shape[0]': v for k, v in rows.items()})}"
        )
    return next(iter(rows.values()))
