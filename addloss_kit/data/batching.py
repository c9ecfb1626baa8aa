"""make_dataset: a fast in-memory dataset of dicts."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np

from addloss_kit._checks import check_positive_int, received


def make_dataset(
    inputs: Mapping[str, Any],
    batch_size: int,
    *,
    shuffle: bool = True,
    drop_remainder: bool = False,
    seed: int | None = None,
) -> Any:
    """A `tf.data.Dataset` over arrays in memory, one dict a batch.

    The rows of an epoch are permuted at once and gathered batch by batch, in the
    graph: one copy of the data, no Python between steps. Together with
    `compile(steps_per_execution=...)` it is the fastest way to train a small model.

    Args:
        inputs: Arrays by Input name, from `pack_inputs`.
        batch_size: Rows per batch, from 1.
        shuffle: Whether each epoch has an order of its own. Group losses need it:
            see `losses.GroupGap`.
        drop_remainder: Whether to leave out a last batch of fewer rows.
        seed: Makes the order a function of seed and epoch; by chance if none.

    Returns:
        A dataset of known cardinality for `fit(dataset, y=None)`.

    Raises:
        ValueError: If the arrays differ in rows, or there are fewer rows than a
            batch with `drop_remainder`.

    Example:
        >>> data = make_dataset({"x": np.arange(5.0)}, 2, shuffle=False)
        >>> [batch["x"].numpy().tolist() for batch in data]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """
    import tensorflow as tf

    check_positive_int(batch_size=batch_size)
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    rows = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(
            "All arrays must have the same number of rows. "
            f"{received(**{f'{k}.shape[0]': v for k, v in rows.items()})}"
        )
    count = next(iter(rows.values()))
    steps = count // batch_size if drop_remainder else -(-count // batch_size)
    if steps == 0:
        raise ValueError(
            "There must be at least one full batch. Make `batch_size` smaller, or pass "
            f"`drop_remainder=False`. {received(rows=count, batch_size=batch_size)}"
        )
    tensors = {name: tf.constant(array) for name, array in arrays.items()}
    order = tf.data.Dataset.range(count)
    if shuffle:
        # A whole permutation an epoch, drawn anew (or from seed and epoch).
        order = order.shuffle(count, seed=seed, reshuffle_each_iteration=True)
    batches = order.batch(batch_size, drop_remainder=drop_remainder)
    return batches.map(
        lambda ids: {name: tf.gather(tensor, ids) for name, tensor in tensors.items()},
        num_parallel_calls=1,
        deterministic=True,
    ).prefetch(tf.data.AUTOTUNE)
