"""Sums across replicas; the only code that knows of `tf.distribute`.

On JAX, `keras.distribution` gives global semantics by itself: a sum over the batch
axis is the sum over all devices. So only TensorFlow needs anything here.
"""

from __future__ import annotations

from typing import Any

import keras


def sum_over_replicas(totals: Any) -> Any:
    """Add up a nest of additive tensors over the replicas in sync.

    Args:
        totals: Nest (tuple, list, dict) of tensors that are sums over the rows
            of this replica's share of the batch.

    Returns:
        The same nest with the sums over the whole batch. The gradient is exact:
        each replica receives that of its own rows.
    """
    if keras.backend.backend() != "tensorflow":
        return totals
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return totals
    flat = tf.nest.flatten(totals)
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    return tf.nest.pack_sequence_as(totals, summed)
