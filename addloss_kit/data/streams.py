"""Streams of batches, each batch checked on its way to the model.

A stream stays what it is: a `tf.data.Dataset` a `tf.data.Dataset`, a `PyDataset` a
`PyDataset`. What can be told from shapes and dtypes is told at once; values are checked
batch by batch, in the input pipeline.
"""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit.data.batch_check import BatchCheck
from addloss_kit.data.rows import Rows


def is_stream(x: Any) -> bool:
    """Whether `x` is a dataset, loader or generator, not arrays."""
    if isinstance(x, Rows):
        return True
    if isinstance(x, (Mapping, Sequence)) or x is None or hasattr(x, "shape"):
        return False
    return hasattr(x, "__iter__") or hasattr(x, "__getitem__")


def check_stream(stream: Any, check: BatchCheck) -> Any:
    """The stream, with every batch checked.

    Args:
        stream: A `tf.data.Dataset`, `keras.utils.PyDataset`, generator, torch
            `DataLoader` or Grain dataset.
        check: The check.

    Raises:
        ValueError: If the specification of a `tf.data.Dataset` shows that a batch does
            not fit.
        TypeError: If it is none of these.
    """
    if hasattr(stream, "element_spec"):
        from addloss_kit.data.checked_dataset import check_tf_dataset

        return check_tf_dataset(stream, check)
    if isinstance(stream, keras.utils.PyDataset):
        return ChangedPyDataset(stream, check)
    if isinstance(stream, types.GeneratorType):
        return (check(batch, number) for number, batch in enumerate(stream))
    if comes_from(stream, "torch.utils.data"):
        # A copy: the caller's own stays as it is. Batches are collated where they are
        # loaded, in worker processes if there are some.
        checked = copy.copy(stream)
        checked.collate_fn = _Collated(stream.collate_fn, check)
        return checked
    if comes_from(stream, "grain") and hasattr(stream, "map"):
        return stream.map(check)
    raise TypeError(
        f"`{check.stream}` takes arrays, a `tf.data.Dataset`, `keras.utils.PyDataset`, "
        "generator, torch `DataLoader` or Grain dataset. Yield the batches from a "
        f"generator. {received(type=type(stream).__name__)}"
    )


@contextlib.contextmanager
def telling(*checks: BatchCheck | None) -> Iterator[None]:
    """Raise what a check found, not what an input pipeline made of it."""
    try:
        yield
    except Exception as error:
        for check in checks:
            if check is not None and check.error is not None:
                if error is check.error:
                    raise
                raise check.error from error
        raise


class ChangedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are changed, or checked.

    Args:
        dataset: The `PyDataset`.
        change: Takes a batch and its number, and returns the batch.
    """

    def __init__(self, dataset: Any, change: Callable[[Any, int], Any]) -> None:
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset, self.change = dataset, change

    @property
    def num_batches(self) -> Any:
        return self.dataset.num_batches

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.change(self.dataset[index], index)

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()


class _Collated:
    """A `collate_fn` whose batches are checked; a class, so that workers can have it."""

    def __init__(self, collate: Callable[[Any], Any], check: BatchCheck) -> None:
        self.collate, self.check = collate, check

    def __call__(self, rows: Any) -> Any:
        import torch

        batch = self.check(self.collate(rows))
        return keras.tree.map_structure(torch.as_tensor, batch)


def comes_from(stream: Any, package: str) -> bool:
    """Whether a class of `stream` is the package's."""
    return any(parent.__module__.startswith(package) for parent in type(stream).__mro__)
