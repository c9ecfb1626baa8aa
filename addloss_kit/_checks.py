"""Checks of shapes and values, and the common form of error messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from addloss_kit._types import Shape, Tensor


def received(**culprits: Any) -> str:
    """The end of every message: `Received: name=value, name=value.`"""
    return "Received: " + ", ".join(f"{k}={v}" for k, v in culprits.items()) + "."


def check_same_shape(**tensors: Tensor) -> None:
    """Raise unless every tensor has the shape of the first one.

    Args:
        **tensors: Tensors by their names in the message. An unknown dimension
            (`None`) matches any other.

    Raises:
        ValueError: If two shapes differ.
    """
    (first_name, first), *others = tensors.items()
    for name, tensor in others:
        if not _shapes_fit(tuple(first.shape), tuple(tensor.shape)):
            shapes = {f"{first_name}.shape": tuple(first.shape)}
            shapes[f"{name}.shape"] = tuple(tensor.shape)
            raise ValueError(
                f"`{name}` must have the shape of `{first_name}`. Reshape it, or "
                f"repeat it if it is shared. {received(**shapes)}"
            )


def check_rows(**tensors: Tensor) -> None:
    """Raise unless every tensor has as many rows as the first one."""
    (first_name, first), *others = tensors.items()
    for name, tensor in others:
        if not _shapes_fit(tuple(first.shape[:1]), tuple(tensor.shape[:1])):
            shapes = {f"{name}.shape": tuple(tensor.shape)}
            shapes[f"{first_name}.shape"] = tuple(first.shape)
            raise ValueError(
                f"`{name}` must have one row per row of `{first_name}`. "
                f"{received(**shapes)}"
            )


def check_positive_int(**numbers: Any) -> None:
    """Raise unless every value is a whole number of at least 1, Python's or NumPy's."""
    for name, number in numbers.items():
        is_whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
        if not is_whole or number < 1:
            error = ValueError if is_whole else TypeError
            raise error(
                f"`{name}` must be a whole number of at least 1. "
                f"{received(**{name: repr(number)})}"
            )


def check_one_of(choices: Iterable[Any], **values: Any) -> None:
    """Raise unless every value is one of `choices`."""
    allowed = list(choices)
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected one of {allowed}. "
                f"{received(**{name: repr(value)})}"
            )


def check_number(
    *,
    low: float = float("-inf"),
    high: float = float("inf"),
    is_low_allowed: bool = True,
    is_high_allowed: bool = True,
    **numbers: Any,
) -> None:
    """Raise unless every value is a finite number in `[low, high]`.

    It must lie there as the tensors hold it, too: 0.99999999 is 1 in float32.
    """
    for name, number in numbers.items():
        value = _as_float(name, number)
        held = as_held(value)
        fits = low <= value <= high and abs(value) < float("inf")
        fits = fits and (is_low_allowed or min(value, held) > low)
        fits = fits and (is_high_allowed or max(value, held) < high)
        if not fits:
            left = "[" if is_low_allowed and low > float("-inf") else "("
            right = "]" if is_high_allowed and high < float("inf") else ")"
            is_rounded = low < value < high and abs(value) < float("inf")
            how = f" in {keras.config.floatx()}" if is_rounded else ""
            raise ValueError(
                f"`{name}` must lie in {left}{low:g}, {high:g}{right}{how}. "
                f"{received(**{name: repr(number)})}"
            )


def check_positive(*, is_infinity_allowed: bool = False, **numbers: Any) -> None:
    """Raise unless every value is a number above 0."""
    for name, number in numbers.items():
        value = _as_float(name, number)
        # NaN is not above 0 either, and 1e-50 is 0 in float32, 1e39 infinite.
        held = as_held(value)
        if not held > 0 or (held == float("inf") and not is_infinity_allowed):
            kind = (
                "positive, or infinity for no limit"
                if is_infinity_allowed
                else "positive and finite"
            )
            raise ValueError(f"`{name}` must be {kind}. {received(**{name: repr(number)})}")


def as_held(number: float) -> float:
    """A number as a tensor of `keras.config.floatx()` holds it."""
    dtype = np.float64 if keras.config.floatx() == "float64" else np.float32
    with np.errstate(over="ignore", under="ignore"):
        return float(dtype(number))


def _as_float(name: str, number: Any) -> float:
    try:
        return float(number)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be a number. {received(**{name: repr(number)})}"
        ) from None


def _shapes_fit(a: Shape, b: Shape) -> bool:
    return len(a) == len(b) and all(i is None or j is None or i == j for i, j in zip(a, b))
