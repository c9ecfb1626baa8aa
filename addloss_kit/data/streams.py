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
import numpy as np

from addloss_kit._checks import received
from addloss_kit.data.checking import InputChecker, InputSpec
from addloss_kit.fields import SAMPLE_WEIGHT


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
        return _check_tf_dataset(stream, check)
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


# tf.data --------------------------------------------------------------------------


def _check_tf_dataset(dataset: Any, check: BatchCheck) -> Any:
    """Checks in TensorFlow's own operations; NumPy is asked only where they object."""
    import tensorflow as tf

    x, _ = check.parts(dataset.element_spec)
    inputs = check.checker.specs
    dense = {
        name: found
        for name, found in check.checker.by_name(x).items()
        if isinstance(found, tf.TensorSpec)
    }
    for name, found in dense.items():
        shape = None if found.shape.rank is None else tuple(found.shape)
        inputs[name].check_spec(name, shape, found.dtype.name)
    if not isinstance(dataset, tf.data.Dataset):
        return dataset  # distributed already; its batches are elsewhere
    is_as_given = all(_is_as_given(inputs[name], found) for name, found in dense.items())
    dtypes = [_numpy_dtype(inputs[name].dtype) for name in dense]

    def explain(number: Any, *arrays: Any) -> int:
        check(dict(zip(dense, arrays)), int(number))
        return 0

    def convert(number: Any, *arrays: Any) -> list[np.ndarray]:
        converted = check(dict(zip(dense, arrays)), int(number))[0]
        return [np.asarray(converted[name]) for name in dense]

    @tf.autograph.experimental.do_not_convert  # which takes longer than many batches
    def checked(number: Any, batch: Any) -> Any:
        x, rest = check.parts(batch)
        named = check.checker.by_name(x)
        given = [number, *(named[name] for name in dense)]
        if is_as_given:
            is_bad = [_rows_differ(given[1:])]
            is_bad += [_is_bad(inputs[name], named[name]) for name in dense]
            told = tf.cond(
                tf.reduce_any(tf.stack(is_bad)),
                lambda: tf.numpy_function(explain, given, tf.int64),
                lambda: tf.constant(0, tf.int64),
            )
            with tf.control_dependencies([told]):
                fitted = {
                    name: _of_rank(value, len(inputs[name].shape))
                    for name, value in named.items()
                }
                return (fitted, *rest)
        converted = tf.numpy_function(convert, given, dtypes)
        for name, value in zip(dense, converted):
            value.set_shape(inputs[name].shape)
            named[name] = value
        return (named, *rest)

    return dataset.enumerate().map(checked)


def _numpy_dtype(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype


def _is_as_given(spec: InputSpec, found: Any) -> bool:
    """Whether Keras takes such a tensor as it is, without a loss of digits or a repeat."""
    if found.shape.rank is None:
        return False
    kinds = {"string": "string", "bool": "bool"}
    if spec.dtype in kinds:
        return bool(found.dtype.name == kinds[spec.dtype])
    if "int" in spec.dtype and not (found.dtype.is_integer or found.dtype.is_bool):
        return False
    if spec.field.role != SAMPLE_WEIGHT:
        return True
    sizes = tuple(found.shape)[1:]
    return len(sizes) == len(spec.shape) - 1 and None not in sizes


def _of_rank(tensor: Any, rank: int) -> Any:
    """`(rows,)` as `(rows, 1)` or the reverse, if the Input needs it.

    Keras would do so too, but later: its step, traced for batches of both ranks, takes
    tensors of any rank in the end, which no model does.
    """
    import tensorflow as tf

    if isinstance(tensor, tf.Tensor) and tensor.shape.rank == rank - 1:
        return tensor[..., None]
    if isinstance(tensor, tf.Tensor) and tensor.shape.rank == rank + 1:
        return tf.squeeze(tensor, -1)
    return tf.identity(tensor)


def _rows_differ(tensors: Sequence[Any]) -> Any:
    import tensorflow as tf

    rows = tf.stack([tf.shape(tensor)[0] for tensor in tensors])
    return tf.reduce_any(rows != rows[0]) | (rows[0] == 0)


def _is_bad(spec: InputSpec, tensor: Any) -> Any:
    """Whether NumPy's check would object to the values."""
    import tensorflow as tf

    field = spec.field
    if tensor.dtype in (tf.string, tf.bool):
        return tf.constant(False)
    if "int" in spec.dtype:
        values = tf.cast(tensor, tf.int64)
        limits = np.iinfo(spec.dtype)
        low, high = max(limits.min, -(2**63)), min(limits.max, 2**63 - 1)
        if field.num_groups is not None:
            low, high = -1, field.num_groups - 1
        elif field.num_classes is not None:
            low, high = 0, field.num_classes - 1
        is_outside = (values < low) | (values > high)
        if field.ignore_class is not None:
            is_outside &= values != field.ignore_class
        return tf.reduce_any(is_outside)
    values = tf.cast(tensor, spec.dtype)
    is_lost = ~tf.math.is_finite(values)
    if not spec.must_be_finite:
        if not tensor.dtype.is_floating:
            return tf.constant(False)
        is_lost &= tf.math.is_finite(tensor)  # a feature may be infinite, but not become it
    if field.role == SAMPLE_WEIGHT:
        is_lost |= values < 0
    bad = tf.reduce_any(is_lost)
    if field.num_classes is not None or field.num_groups is not None:
        lowest = -1 if field.num_groups is not None else 0
        limit = field.num_groups or field.num_classes
        bad |= tf.reduce_any((values < lowest) | (values >= limit))
    return bad
