"""CheckedDataset: a `tf.data.Dataset` whose batches are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from addloss_kit.data.batch_check import BatchCheck
from addloss_kit.data.checking import InputSpec
from addloss_kit.fields import SAMPLE_WEIGHT
from addloss_kit.keras_internals.datasets import SameElements


class CheckedDataset(SameElements):
    """The batches of a dataset, each checked in the pipeline.

    That costs as much as a step or two of a small model in the compiled loop. So whoever
    draws many batches at a time takes them from `unchecked`, and has them checked by
    `check_stack`.

    Args:
        checked: The batches, checked one by one.
        unchecked: The same as they were given, with one dict a batch.
        check: The check.
    """

    def __init__(self, checked: Any, unchecked: Any, check: BatchCheck) -> None:
        self.unchecked, self.check = unchecked, check
        super().__init__(checked)

    def check_stack(
        self, stack: Mapping[str, np.ndarray], rows: np.ndarray, first: int
    ) -> dict[str, np.ndarray]:
        """Check some batches at once.

        Args:
            stack: Arrays `(batches, rows, …)` by Input name, padded with zeros, which no
                Input refuses.
            rows: `(batches, inputs)`, the rows of each batch without padding.
            first: Number of the first batch, for messages.

        Returns:
            Arrays `(batches * rows, …)` as the Inputs take them.

        Raises:
            ValueError, TypeError: As for a batch by itself.
        """
        flat = {name: a.reshape(-1, *a.shape[2:]) for name, a in stack.items()}
        try:
            if (rows != rows[:, :1]).any() or not rows.all():
                raise ValueError("A batch is empty, or its arrays differ in length.")
            return self.check.checker.check(flat, is_batch=True)
        except (TypeError, ValueError):
            for number, counts in enumerate(rows, start=first):  # which one it is
                parts = zip(stack.items(), counts)
                self.check({name: a[number - first, :n] for (name, a), n in parts}, number)
            raise


def check_tf_dataset(dataset: Any, check: BatchCheck) -> Any:
    """The dataset, with every batch checked; see `check_stream`.

    In TensorFlow's own operations; NumPy is asked only where they object.
    """
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

    def named(*batch: Any) -> dict[str, Any]:
        parts = batch if isinstance(dataset.element_spec, tuple) else batch[0]
        return check.checker.by_name(check.parts(parts)[0])

    is_dict = isinstance(dataset.element_spec, Mapping)
    unchecked = dataset if is_dict else dataset.map(named)
    return CheckedDataset(dataset.enumerate().map(checked), unchecked, check)


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
    if isinstance(tensor, tf.Tensor) and tensor.shape.rank == rank - 1:
        return tensor[..., None]
    if isinstance(tensor, tf.Tensor) and tensor.shape.rank == rank + 1:
        return tf.squeeze(tensor, -1)
    return tf.identity(tensor)


def _rows_differ(tensors: Sequence[Any]) -> Any:
    rows = tf.stack([tf.shape(tensor)[0] for tensor in tensors])
    return tf.reduce_any(rows != rows[0]) | (rows[0] == 0)


def _is_bad(spec: InputSpec, tensor: Any) -> Any:
    """Whether NumPy's check would object to the values."""
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
