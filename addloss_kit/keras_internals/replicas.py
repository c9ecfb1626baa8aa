"""Sums across replicas; the only code that uses `tf.distribute`.

On JAX, `keras.distribution` has global semantics: a sum over the batch axis is the sum
over all devices. So only TensorFlow needs anything here. On torch, Keras from 3.16 on
trains data-parallel wherever `torch.distributed` is initialized; that is refused, because
each process would see the groups of its own rows only.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit._types import Tensor, Totals
from addloss_kit.keras_internals.graph import all_layers


def sum_over_replicas(totals: Totals) -> Totals:
    """Sum a nest of additive tensors over the replicas in sync.

    Args:
        totals: Nest (tuple, list, dict) of tensors that are sums over the rows
            of this replica's share of the batch.

    Returns:
        The same nest with the sums over the whole batch. The gradient is exact:
        each replica receives the gradient of its own rows.

    Raises:
        NotImplementedError: On torch, if several processes train together.
    """
    if (context := _replica_context()) is None:
        return totals
    import tensorflow as tf

    flat = tf.nest.flatten(totals)
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    return tf.nest.pack_sequence_as(totals, summed)


def gather_over_replicas(tensors: Any) -> Any:
    """Gather the rows of all replicas on each one, for what is not additive.

    Args:
        tensors: Nest of tensors `(batch, …)`, of this replica's rows.

    Returns:
        The same nest with the rows of the whole batch. The gradient is exact: each
        replica receives the gradient of its own rows, summed over the replicas.

    Raises:
        NotImplementedError: On torch, if several processes train together.
    """
    if (context := _replica_context()) is None:
        return tensors
    import tensorflow as tf

    flat = tf.nest.flatten(tensors)
    gathered = [context.all_gather(tensor, axis=0) for tensor in flat]
    return tf.nest.pack_sequence_as(tensors, gathered)


def _replica_context() -> Any:
    """The context of this replica; `None` if there are no others to wait for."""
    if keras.backend.backend() == "torch":
        _refuse_torch_processes()
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    is_alone = context is None or context.num_replicas_in_sync == 1
    return None if is_alone else context


def _refuse_torch_processes() -> None:
    import torch

    processes = torch.distributed
    if not (processes.is_available() and processes.is_initialized()):
        return
    if (count := processes.get_world_size()) > 1:
        raise NotImplementedError(
            "Losses over a batch are not summed over torch's processes: each would "
            "see its own rows only. Train in one process, or use the TensorFlow or JAX "
            "backend for several devices. "
            f"{received(**{'torch.distributed.get_world_size()': count})}"
        )


def is_first_process() -> bool:
    """Whether this is the process that writes files, of those that train together."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return bool(jax.process_index() == 0)


@contextlib.contextmanager
def undistributed() -> Iterator[None]:
    """No `keras.distribution`, for what one of several processes does alone.

    Keras makes an optimizer of its own while it saves a model, whose variables are compared
    between the processes: one that saves alone would wait for the others.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        yield
        return
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def unscale_loss(loss: Tensor) -> Tensor:
    """The loss to log, from the value that a replica's `compute_loss` returns.

    Keras divides that value by the number of replicas, because it sums their gradients.

    Args:
        loss: Scalar tensor.
    """
    if keras.backend.backend() != "tensorflow":
        return loss
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss * replicas


class ReplicaLosses(threading.local):
    """The losses that a layer has added, kept separate for each replica.

    `tf.distribute.MirroredStrategy` runs one thread per replica over the same
    layers, one at a time; whenever a thread needs the others (an all-reduce, a
    weight update, a synchronised BatchNormalization), it waits and the next one
    runs. Keras keeps a layer's losses in one list, `Layer._losses`, so after such
    a switch a replica would clear another's losses and read the wrong ones: on 2
    replicas the logged loss was 1.5 times its value, and activity regularisers
    lost their gradient. With one list per thread, a replica sees only the losses
    that it added. It supports what Keras does with the list: extending, copying
    by slice, clearing.
    """

    def __init__(self) -> None:  # runs in each thread that touches the object
        self._losses: list[Tensor] = []

    def extend(self, losses: Iterable[Tensor]) -> None:
        self._losses.extend(losses)

    def clear(self) -> None:
        self._losses.clear()

    def __getitem__(self, index: Any) -> Any:
        return self._losses[index]


def separate_losses(model: keras.Model) -> None:
    """Keep the layers' losses separate if replicas share the layers.

    Args:
        model: A model, created in the scope of its strategy.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return
    for layer in all_layers(model):
        # Bypasses Keras's `__setattr__`, which would copy it into a list.
        object.__setattr__(layer, "_losses", ReplicaLosses())
