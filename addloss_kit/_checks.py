"""Checks of shapes and values, and the common form of error messages."""

from __future__ import annotations

import difflib
import operator
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from addloss_kit._types import Shape, Tensor

F = TypeVar("F", bound=Callable[..., Any])


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


def check_positive_int(*, least: int = 1, **numbers: Any) -> None:
    """Raise unless every value is a whole number of at least `least`.

    Python's, NumPy's, and an array of one such number count.
    """
    for name, number in numbers.items():
        is_whole = _is_whole(number)
        if not is_whole or operator.index(number) < least:
            error = ValueError if is_whole else TypeError
            raise error(
                f"`{name}` must be a whole number of at least {least}. "
                f"{received(**{name: repr(number)})}"
            )


def _is_whole(number: Any) -> bool:
    if isinstance(number, (bool, np.bool_)):
        return False
    try:
        operator.index(number)
    except TypeError:
        return False
    return True


def warn_of_one_group(owner: str, num_groups: int) -> None:
    """Tell that what compares groups is 0 if there is only one."""
    if num_groups < 2:
        warnings.warn(
            f"`{owner}` compares groups, so with one group it is always 0. Pass the number "
            f"of groups in all data, or omit it. {received(num_groups=num_groups)}",
            stacklevel=4,
        )


def check_one_of(choices: Iterable[Any], **values: Any) -> None:
    """Raise unless every value is one of `choices`."""
    allowed = list(choices)
    for name, value in values.items():
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected one of {allowed}."
                f"{did_you_mean(value, allowed)} {received(**{name: repr(value)})}"
            )


def check_name(**names: Any) -> None:
    """Raise unless every value is a name, such as that of an Input."""
    for argument, name in names.items():
        if not isinstance(name, str) or not name:
            raise TypeError(
                f"`{argument}` must be the name of an Input. Pass arrays to `pack_inputs`. "
                f"{received(**{argument: type(name).__name__})}"
            )


def as_path(**paths: Any) -> str:
    """The one path, as text."""
    ((name, path),) = paths.items()
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(
            f"`{name}` must be a path. Pass text or a `pathlib.Path`. "
            f"{received(**{name: type(path).__name__})}"
        ) from None


def check_unique(**names: Sequence[str]) -> None:
    """Raise if a name stands in a list twice, where one would hide the other."""
    for argument, given in names.items():
        twice = sorted({name for name in given if list(given).count(name) > 1})
        if twice:
            raise ValueError(
                f"`{argument}` must differ from one another. Rename one of each pair. "
                f"{received(twice=twice)}"
            )


def as_bounds(bound: Any) -> np.ndarray:
    """A bound, or one per group, as float64.

    Raises:
        TypeError: If it holds no numbers.
    """
    try:
        array = np.asarray(bound)
        if array.dtype.kind not in "iuf":
            raise TypeError
        return array.astype("float64")
    except (TypeError, ValueError):
        raise TypeError(
            f"`bound` must be a number, or one per group. {received(bound=repr(bound))}"
        ) from None


def did_you_mean(given: Any, known: Iterable[str]) -> str:
    """` Did you mean ...?` with the names closest to a misspelled one, or nothing.

    Example:
        >>> did_you_mean("huber_loss", ["huber", "hinge"])
        ' Did you mean `huber`?'
        >>> did_you_mean("wasserstein", ["huber", "hinge"])
        ''
    """
    if not isinstance(given, str):
        return ""
    names = {_plain(name): name for name in known}
    plain = _plain(given)
    close = difflib.get_close_matches(plain, names, n=3, cutoff=0.75)
    best = [name for name in names if _plain_stem(name) == _plain_stem(plain)]
    found = list(dict.fromkeys(names[name] for name in [*best, *close]))[:3]
    if not found:
        return ""
    return f" Did you mean {' or '.join(f'`{name}`' for name in found)}?"


def _plain(name: str) -> str:
    """A name without what people spell in more than one way."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _plain_stem(name: str) -> str:
    for ending in ("loss", "error"):
        name = name.removesuffix(ending)
    return name


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
        fits = low <= value <= high and abs(held) < float("inf")
        fits = fits and (is_low_allowed or min(value, held) > low)
        fits = fits and (is_high_allowed or max(value, held) < high)
        if not fits:
            left = "[" if is_low_allowed and low > float("-inf") else "("
            right = "]" if is_high_allowed and high < float("inf") else ")"
            is_rounded = low < value < high and abs(value) < float("inf")
            how = f" in {keras.config.floatx()}" if is_rounded else ""
            is_anything = low == float("-inf") and high == float("inf")
            what = "be finite" if is_anything else f"lie in {left}{low:g}, {high:g}{right}"
            raise ValueError(
                f"`{name}` must {what}{how}. {received(**{name: repr(number)})}"
            )


def check_factor(**factors: Any) -> None:
    """Raise unless factors of terms are finite. True and False switch a term on and off."""
    for name, factor in factors.items():
        is_switch = isinstance(factor, (bool, np.bool_))
        number: dict[str, Any] = {name: int(factor) if is_switch else factor}
        check_number(**number)


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
    return float(as_held_array(np.asarray(number, "float64")))


def as_held_array(numbers: np.ndarray) -> np.ndarray:
    """Numbers as a tensor of `keras.config.floatx()` holds them."""
    dtype = "float64" if keras.config.floatx() == "float64" else "float32"
    with np.errstate(over="ignore", under="ignore"):
        return numbers.astype(dtype)


def as_verbosity(verbose: Any) -> int:
    """`verbose` of Keras's `fit` as its progress bar takes it, which shows nothing else."""
    if verbose not in (0, 1, 2, "auto"):
        raise ValueError(
            f"`verbose` must be 0, 1, 2 or 'auto'. {received(verbose=repr(verbose))}"
        )
    return 1 if verbose == "auto" else int(verbose)


def _as_float(name: str, number: Any) -> float:
    try:
        # `float` would read the text "0.5", and True as 1.
        is_no_number = isinstance(number, (str, bytes, bool, np.bool_))
        return float("no number" if is_no_number else number)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be a number. {received(**{name: repr(number)})}"
        ) from None


def named(public: str) -> Callable[[F], F]:
    """A private function whose wrong calls Python reports by the name that users typed.

    Example:
        >>> @named("fit_all")
        ... def _fit(rows): ...
        >>> _fit()
        Traceback (most recent call last):
        TypeError: fit_all() missing 1 required positional argument: 'rows'
    """

    def rename(function: F) -> F:
        function.__qualname__ = public
        return function

    return rename


def _shapes_fit(a: Shape, b: Shape) -> bool:
    return len(a) == len(b) and all(i is None or j is None or i == j for i, j in zip(a, b))
