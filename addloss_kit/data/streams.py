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
from addloss_kit.data.checking import InputChecker


def is_stream(x: Any) -> bool:
    """Whether `x` is a dataset, loader or generator, not arrays."""
    if isinstance(x, (Mapping, Sequence)) or x is None or hasattr(x, "shape"):
        return False
    return hasattr(x, "__iter__") or hasattr(x, "__getitem__")


class BatchCheck:
    """Checks the batches of one stream.

    Args:
        checker: What the Inputs take.
        stream: Name of the stream in messages, such as `fit`.
        has_targets: Whether a batch is `(x, y)`, for a model compiled with a `loss`.
    """

    def __init__(self, checker: InputChecker, stream: str, has_targets: bool) -> None:
        self.checker, self.stream, self.has_targets = checker, stream, has_targets
        self.error: Exception | None = None  # input pipelines turn it into their own

    def __call__(self, batch: Any, number: int | None = None) -> tuple[Any, ...]:
        """A batch as Keras takes it, a tuple whose first part is a dict.

        Args:
            batch: As the stream yields it.
            number: Its number, from 0, for messages.
        """
        try:
            x, rest = self.parts(batch)
            return (self.checker.check(self.checker.by_name(x), is_batch=True), *rest)
        except (TypeError, ValueError) as error:
            where = f"batch {number}" if number is not None else "a batch"
            self.error = type(error)(f"In {where} of `{self.stream}`: {error}")
            raise self.error from None

    def parts(self, batch: Any) -> tuple[Any, tuple[Any, ...]]:
        """The Inputs' part of a batch, or of its specification, and the rest."""
        if not isinstance(batch, tuple):
            return batch, ()
        x, rest = batch[0], batch[1:]
        if not self.has_targets:
            if any(part is not None for part in rest):
                raise ValueError(
                    f"`{self.stream}` would ignore all but the first part of the tuples, "
                    "because targets and weights are Inputs of the model. Yield dicts "
                    f"with the keys {list(self.checker.specs)}, as "
                    "`make_dataset(pack_inputs(...))` does, or give the columns' names: "
                    f"`pack_dataset(model, stream, columns=...)`. "
                    f"{received(parts=len(batch))}"
                )
            rest = ()
        return x, rest


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
        return CheckedPyDataset(stream, check)
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


class CheckedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are checked.

    Args:
        dataset: The `PyDataset`.
        check: The check.
    """

    def __init__(self, dataset: Any, check: BatchCheck) -> None:
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset, self.check = dataset, check

    @property
    def num_batches(self) -> Any:
        return self.dataset.num_batches

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.check(self.dataset[index], index)

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
