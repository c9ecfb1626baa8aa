"""What NumPy and pandas would silently convert or pair up."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import received


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
