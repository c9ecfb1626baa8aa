"""Arrays in the dtypes of the Inputs, and what NumPy and pandas would silently convert."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import received
from addloss_kit.data.aligned import aligned_copy


def as_number_array(name: str, value: Any, dtype: str) -> np.ndarray:
    """A NumPy array of numbers; a missing entry of an object array becomes NaN.

    Args:
        name: The array's name in messages.
        value: A list, array, table or tensor.
        dtype: What it is for, in messages.

    Raises:
        ValueError: If entries of a masked array are masked.
        TypeError: If it holds anything but real numbers.
    """
    refuse_masked(name, value)
    try:
        array = np.asarray(value)
        if array.dtype == object:
            array = _from_objects(array)
    except (ValueError, TypeError) as error:
        raise TypeError(_needs_numbers(name, dtype, name, _shown(value))) from error
    if array.dtype.kind in "USMm":
        raise TypeError(_needs_numbers(name, dtype, f"{name}.dtype", array.dtype))
    if array.dtype.kind == "c":
        raise TypeError(
            f"`{name}` must be real numbers, {dtype}. Take their real part or their "
            f"magnitude. {received(**{f'{name}.dtype': array.dtype})}"
        )
    return array


def array_of(name: str, value: Any, dtype: str) -> np.ndarray:
    """A NumPy array of the dtype of an Input; of strings, one of objects.

    Args:
        name: The array's name in messages.
        value: A list, array, table or tensor.
        dtype: Name of the dtype.

    Raises:
        ValueError: If a number does not fit, or entries are masked.
        TypeError: If it holds anything but real numbers, or strings.
    """
    if hasattr(value, "detach"):  # a torch tensor that may need a gradient
        value = value.detach().cpu()
    if dtype == "string":
        return _as_strings(name, value)
    array = as_number_array(name, value, dtype)
    wanted = np.dtype("float32" if dtype == "bfloat16" else dtype)
    if array.dtype == wanted:  # so no value can get lost
        return np.asarray(array, order="C")
    if wanted.kind in "iu" and array.dtype.kind == "f":
        _check_whole(name, array)
    if wanted.kind == "b":
        is_lost = (array != 0) & (array != 1)
        _check_fits(name, array, is_lost, dtype, "Compare with a threshold")
    if wanted.kind in "iu" and array.dtype.kind in "iuf":
        limits = np.iinfo(wanted)
        # Their successors are powers of 2, which floats hold exactly.
        is_float = array.dtype.kind == "f"
        high = array >= float(limits.max + 1) if is_float else array > limits.max
        _check_fits(name, array, (array < limits.min) | high, dtype, "Check its values")
    with np.errstate(over="ignore"):  # The check below has a better message.
        # So aligned, `fit` need not copy it again.
        converted = aligned_copy(array, wanted)
    if wanted.kind == "f" and array.dtype.kind in "iuf":
        is_lost = np.isfinite(array) & ~np.isfinite(converted)
        _check_fits(name, array, is_lost, dtype, "Scale it down")
    return converted


def check_fits_on_jax(name: str, array: np.ndarray) -> None:
    """Raise where JAX, which computes with 32 bits by default, would wrap numbers.

    Raises:
        ValueError: If a number does not fit.
    """
    is_wide = array.dtype.kind in "iuf" and array.dtype.itemsize == 8
    if not is_wide or keras.backend.backend() != "jax":
        return
    import jax

    computed = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))
    with np.errstate(over="ignore"):
        converted = array.astype(computed, copy=False)
    is_float = array.dtype.kind == "f"
    lost = np.isfinite(array) & ~np.isfinite(converted) if is_float else converted != array
    if np.any(lost):
        at = tuple(np.argwhere(lost)[0])
        raise ValueError(
            f"`{name}` does not fit into {computed}, with which JAX computes in place of "
            f"{array.dtype}. Scale it down, or start Python with `JAX_ENABLE_X64=1`. "
            f"Received: {int(np.sum(lost))} numbers outside, the first being {array[at]} "
            f"at row {at[0]}."
        )


def check_same_index(**values: Any) -> None:
    """Raise unless all pandas objects have the same index.

    Rows are paired by position: two tables in different orders would be mixed up.

    Raises:
        ValueError: If two indexes differ.
    """
    tables = {name: value for name, value in values.items() if _is_pandas(value)}
    if not tables:
        return
    (first_name, first), *others = tables.items()
    for name, table in others:
        # Different lengths are refused elsewhere, by the number of rows.
        if len(table.index) != len(first.index) or table.index.equals(first.index):
            continue
        is_other = [a != b for a, b in zip(first.index, table.index)]
        row = is_other.index(True) if True in is_other else 0
        raise ValueError(
            f"`{name}` and `{first_name}` must have the same index, as rows are paired by "
            f"position. If they are in the same order, call `.reset_index(drop=True)` on "
            f"both; if not, `{name}.reindex({first_name}.index)`. "
            f"{received(row=row, **{first_name: first.index[row], name: table.index[row]})}"
        )


def _is_pandas(value: Any) -> bool:
    # pandas may not be installed.
    return hasattr(value, "iloc") and hasattr(getattr(value, "index", None), "equals")


def refuse_masked(name: str, value: Any) -> None:
    """Raise if entries are masked: `np.asarray` drops the mask and keeps their values.

    Raises:
        ValueError: With the first row that is.
    """
    if not isinstance(value, np.ma.MaskedArray):
        return
    is_masked = np.ma.getmaskarray(value)
    if is_masked.any():
        row = int(np.argwhere(is_masked)[0][0]) if is_masked.ndim else 0
        raise ValueError(
            f"`{name}` must have no masked entries, whose values NumPy would reveal. Drop "
            "the rows, or fill them with `.filled(value)`. Received: "
            f"{int(is_masked.sum())} masked entries, the first at row {row}."
        )


def _from_objects(array: np.ndarray) -> np.ndarray:
    """Numbers from an object array, as whole numbers if all of them are."""
    entries = [np.nan if is_missing(entry) else entry for entry in array.flat]
    for entry in entries:
        is_number = isinstance(entry, (numbers.Real, np.bool_))
        # `Decimal` is a number, but not a `Real`.
        if not is_number and not hasattr(entry, "as_integer_ratio"):
            raise TypeError(f"{entry!r} is not a number.")
    if all(isinstance(entry, numbers.Integral) for entry in entries):
        try:
            return np.array(entries, "int64").reshape(array.shape)
        except OverflowError:
            pass
    return np.array(entries, "float64").reshape(array.shape)


def is_missing(value: Any) -> bool:
    """Whether a label or number is `None`, NaN, `pandas.NA` or NaT."""
    # pandas.NA has no truth value, and pandas may not be installed.
    if value is None or value is np.ma.masked or type(value).__name__ == "NAType":
        return True
    return (
        isinstance(value, (float, np.floating, np.datetime64))
        and value != value
        or (type(value).__name__ == "NaTType")
    )


def columns_of(labels: Mapping[Any, Any]) -> dict[str, Any]:
    """Columns by the names that messages give them."""
    return {f"column {name} of labels": column for name, column in labels.items()}


def _needs_numbers(name: str, dtype: str, culprit: str, value: Any) -> str:
    return (
        f"`{name}` must be numbers, {dtype}. Encode labels first (group labels with "
        f"`ids, names = encode_groups(labels)`). {received(**{culprit: value})}"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _check_fits(
    name: str, array: np.ndarray, is_lost: np.ndarray, dtype: str, remedy: str
) -> None:
    if np.any(is_lost):
        at = tuple(np.argwhere(is_lost)[0])
        row = f" at row {at[0]}" if at else ""
        raise ValueError(
            f"`{name}` does not fit into {dtype}. {remedy}, or give the Input a wider "
            f"dtype: `inputs={{'{name}': keras.Input(..., dtype=...)}}`. Received: "
            f"{int(np.sum(is_lost))} numbers outside, the first being {array[at]}{row}."
        )


def _as_strings(name: str, value: Any) -> np.ndarray:
    refuse_masked(name, value)
    strings = np.asarray(value).astype(object)
    others = [value for value in strings.flat if not isinstance(value, (str, bytes))]
    if others:
        raise TypeError(
            f"`{name}` must be strings. Convert it, e.g. with `.astype(str)`, and fill in "
            f"missing values. Received: {len(others)} others, the first {others[0]!r}."
        )
    return strings


def string_tensor(array: np.ndarray) -> Any:
    """Strings as Keras takes them: it does not accept NumPy's."""
    import tensorflow as tf

    return tf.constant(array, dtype=tf.string)


def _check_whole(name: str, array: np.ndarray) -> None:
    is_whole = np.isfinite(array) & (
        np.floor(np.where(np.isfinite(array), array, 0)) == array
    )
    if not is_whole.all():
        row = tuple(np.argwhere(~is_whole)[0])
        raise ValueError(
            f"`{name}` must be whole numbers. Round them if that is intended. "
            f"Received: {int((~is_whole).sum())} others, the first being {array[row]:g} "
            f"at row {row[0]}."
        )
