"""Sums over the processes of `torch.distributed`; the only code that uses it.

Where it is initialized, Keras from 3.16 on trains data-parallel: it wraps the model in
`DistributedDataParallel`, which takes the mean of the processes' gradients, and it sums the
variables of metrics over the processes before it logs them.

Each process computes the loss of all rows, from totals over all rows. The gradient of an
all-reduce is the sum of the processes' gradients, so their mean is that of this loss.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit._types import Tensor


def process_id() -> int:
    """The rank of this process; 0 if there are no others."""
    import torch

    return torch.distributed.get_rank() if _count() > 1 else 0


def wait_for_all() -> None:
    """Return when every process has come here."""
    import torch

    if _count() > 1:
        torch.distributed.barrier()


def is_one_of_several() -> bool:
    """Whether this process must exchange totals with others now.

    Not in a symbolic call, such as Keras's trial call when a model is built: one process
    may build a model alone.

    Raises:
        NotImplementedError: If there are several, but Keras does not train on them.
    """
    if (count := _count()) == 1:
        return False
    if not _keras_trains_on_several():
        raise NotImplementedError(
            "Losses over a batch are not summed over torch's processes: each would "
            "see its own rows only. Train in one process, or use the TensorFlow or JAX "
            "backend for several devices. "
            f"{received(**{'torch.distributed.get_world_size()': count})}"
        )
    distribution = keras.distribution.distribution()
    if not isinstance(distribution, keras.distribution.DataParallel | None):
        raise NotImplementedError(
            "On torch, losses over a batch are summed over processes that each have the "
            "whole model. Set a `keras.distribution.DataParallel`, or none. "
            f"{received(distribution=type(distribution).__name__)}"
        )
    from keras.src.backend.common.symbolic_scope import in_symbolic_scope

    return not in_symbolic_scope()


def sum_over_processes(total: Tensor) -> Tensor:
    """The sum of the processes' tensors of one shape, differentiable."""
    return _all_reduce()(keras.ops.convert_to_tensor(total), _group())


def gather_over_processes(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks, differentiable.

    Args:
        rows: Tensor `(rows, …)`; each process may have another number of them, or none.

    Raises:
        ValueError: In every process, if the other axes differ.
    """
    import torch

    rows = keras.ops.convert_to_tensor(rows)
    rank = torch.distributed.get_rank(_group())
    shapes = rows.new_zeros(
        (torch.distributed.get_world_size(_group()), rows.ndim), dtype=torch.int64
    )
    shapes[rank] = torch.tensor(rows.shape)
    shapes = sum_over_processes(shapes)
    if bool((shapes[:, 1:] != shapes[0, 1:]).any()):
        raise ValueError(
            "Rows of several processes are compared with each other, so their batches "
            "must have one shape, but for the number of rows. Pad all steps to one length. "
            f"{received(shapes=shapes.tolist())}"
        )
    # Processes of unlike numbers of rows cannot gather, but add what each has in its place.
    counts = shapes[:, 0]
    before, after = int(counts[:rank].sum()), int(counts[rank + 1 :].sum())
    others = [rows.new_zeros((count, *rows.shape[1:])) for count in (before, after)]
    return sum_over_processes(torch.cat([others[0], rows, others[1]]))


def _count() -> int:
    """The number of processes that `torch.distributed` has been initialized for."""
    import torch

    processes = torch.distributed
    if not (processes.is_available() and processes.is_initialized()):
        return 1
    return int(processes.get_world_size())


def _keras_trains_on_several() -> bool:
    # From Keras 3.16 on: the method that wraps the model.
    return hasattr(keras.Model, "_initialize_ddp")


def _group() -> Any:
    """The processes over which Keras takes the mean of the gradients; `None` for all."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    return distribution.device_mesh.backend_mesh.get_group(distribution.batch_dim_name)


@functools.cache
def _all_reduce() -> Callable[[Tensor, Any], Tensor]:
    import torch

    # `torch.distributed.nn.functional.all_reduce` is this, but deprecated.
    class AllReduce(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, tensor: Tensor, group: Any) -> Tensor:
            context.group = group
            total = tensor.clone(memory_format=torch.contiguous_format)
            torch.distributed.all_reduce(total, group=group)
            return total

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
            return AllReduce.apply(gradient, context.group), None

    all_reduce: Callable[[Tensor, Any], Tensor] = AllReduce.apply
    return all_reduce
