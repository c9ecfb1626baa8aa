"""Sums across replicas; the only code that uses `tf.distribute`.

On JAX, `keras.distribution` has global semantics: a sum over the batch axis is the sum
over all devices. So only TensorFlow and torch need anything here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from addloss_kit._types import Tensor, Totals
from addloss_kit.keras_internals import torch_processes
from addloss_kit.keras_internals.graph import all_layers


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """In which a model is built on the devices of another one."""
    if keras.backend.backend() == "tensorflow":
        scope: contextlib.AbstractContextManager[Any] = model.distribute_strategy.scope()
        return scope
    return contextlib.nullcontext()


def sum_over_replicas(totals: Totals) -> Totals:
    """Sum a nest of additive tensors over the replicas in sync.

    Args:
        totals: Nest (tuple, list, dict) of tensors that are sums over the rows
            of this replica's share of the batch.

    Returns:
        The same nest with the sums over the whole batch. The gradient is exact:
        each replica receives the gradient of its own rows.

    Raises:
        NotImplementedError: On torch, if there are several processes, but Keras does not
            train on them.
    """
    if _is_torch():
        if not torch_processes.is_one_of_several():
            return totals
        total: Totals = keras.tree.map_structure(torch_processes.sum_over_processes, totals)
        return total
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
        NotImplementedError: As in `sum_over_replicas`.
        ValueError: On torch, if the processes' tensors differ in another axis.
    """
    if _is_torch():
        if not torch_processes.is_one_of_several():
            return tensors
        return keras.tree.map_structure(torch_processes.gather_over_processes, tensors)
    if (context := _replica_context()) is None:
        return tensors
    import tensorflow as tf

    flat = tf.nest.flatten(tensors)
    gathered = [context.all_gather(tensor, axis=0) for tensor in flat]
    return tf.nest.pack_sequence_as(tensors, gathered)


def _replica_context() -> Any:
    """The context of this replica; `None` if there are no others to wait for."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    is_alone = context is None or context.num_replicas_in_sync == 1
    return None if is_alone else context


def _is_torch() -> bool:
    return bool(keras.backend.backend() == "torch")


def is_first_process() -> bool:
    """Whether this is the process that writes files, of those that train together."""
    if _is_torch():
        return torch_processes.process_id() == 0
    if keras.backend.backend() != "jax":
        return True
    import jax

    return bool(jax.process_index() == 0)


def wait_for_all_processes() -> None:
    """Return when every process that trains has come here, so that all see its files."""
    if _is_torch():
        torch_processes.wait_for_all()
    if keras.backend.backend() != "jax":
        return
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("addloss_kit")


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
