"""Verify that an exported predictor predicts the same as the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import received
from addloss_kit._types import Tensor
from addloss_kit.exporting.formats import is_half, pack

# Rows of a random sample, and the length of a variable axis: long enough for the
# strides of a deep convolutional network.
_ROWS, _OPEN_LENGTH = 4, 32
# Half precision rounds at 1e-3, and files for other runtimes compute in single.
_HALF_TOLERANCE = 1e-2


def check_predictions(
    actual: list[Tensor],
    expected: list[np.ndarray],
    model: keras.Model,
    rows: Mapping[str, np.ndarray],
    tolerance: float,
) -> None:
    """Raise unless the written file predicts the same as the model.

    Args:
        actual: The predictions of the written file.
        expected: The predictions of the model.
        model: The model.
        rows: The features, by Input name.
        tolerance: Fraction of the largest prediction by which they may differ.

    Raises:
        RuntimeError: If they differ by more.
    """
    tolerance = _HALF_TOLERANCE if is_half(model) else tolerance
    difference = _largest_difference(expected, [_as_numpy(x) for x in actual])
    if difference <= tolerance:
        return
    if _largest_difference(expected, predictions(model, rows)) > tolerance:
        raise RuntimeError(
            "The model's own predictions differ from call to call, so a file cannot be "
            "compared with it. Remove the random layer, or omit `filepath` and call "
            "`save` or `export` on the returned model."
        )
    raise RuntimeError(
        "The written file and the model in memory predict different values; they may "
        f"differ by {tolerance:g} of the largest prediction. "
        f"{received(difference=f'{difference:.2g}')}"
    )


def predictions(model: keras.Model, rows: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The model's predictions for named arrays, flat."""
    predicted = model(pack(rows, model), training=False)
    return [_as_numpy(x) for x in keras.tree.flatten(predicted)]


def _largest_difference(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """As a fraction of the output's largest prediction; infinite if shapes differ."""
    if [x.shape for x in expected] != [x.shape for x in actual]:
        return np.inf
    return max(_difference(one, other) for one, other in zip(expected, actual))


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    if one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, other) else np.inf
    one, other = one.astype("float64"), other.astype("float64")
    # Equal non-finite values count as the same: a random 0 may go into a logarithm.
    is_same = (one == other) | (np.isnan(one) & np.isnan(other))
    if is_same.all():
        return 0.0
    if not np.isfinite(one[~is_same]).all() or not np.isfinite(other[~is_same]).all():
        return np.inf
    largest = np.abs(one[np.isfinite(one)]).max()
    return float(np.abs(one - other)[~is_same].max() / max(largest, 1e-30))


def _as_numpy(x: Tensor) -> np.ndarray:
    array = x if isinstance(x, np.ndarray) else keras.ops.convert_to_numpy(x)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def draw_rows(model: keras.Model) -> dict[str, np.ndarray]:
    """A few rows for each Input: normal numbers, ids 0 and 1, the string `"a"`."""
    rng = np.random.default_rng(0)
    rows = {}
    for tensor in model.inputs:
        shape = (tensor.shape[0] or _ROWS, *(n or _OPEN_LENGTH for n in tensor.shape[1:]))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype == "string":
            rows[tensor.name] = np.full(shape, "a", object)
        elif "float" in dtype:
            rows[tensor.name] = rng.normal(size=shape).astype(_numpy_dtype(dtype))
        else:
            # Valid ids for any vocabulary.
            rows[tensor.name] = rng.integers(0, 2, shape).astype(dtype)
    return rows


def name_rows(sample: Any, model: keras.Model) -> dict[str, np.ndarray]:
    """Features in the model's input structure, by Input name."""
    names = [tensor.name for tensor in model.inputs]
    is_one = not isinstance(model.input, (Mapping, list, tuple))
    if is_one and isinstance(sample, Mapping) and set(sample) != set(names):
        raise ValueError(
            f"`sample` names {list(sample)}, but the features are {names}. Use their "
            f"names, or pass the array alone. {received(sample=list(sample))}"
        )
    if isinstance(sample, Mapping) and set(sample) == set(names):
        arrays = [sample[name] for name in names]
    else:
        arrays = keras.tree.flatten(sample)
    if len(arrays) != len(names):
        raise ValueError(
            f"`sample` must hold one array for each of the features {names}. "
            f"{received(arrays=len(arrays))}"
        )
    dtypes = [keras.backend.standardize_dtype(t.dtype) for t in model.inputs]
    rows = {
        name: np.asarray(array, _numpy_dtype(dtype))
        for name, array, dtype in zip(names, arrays, dtypes)
    }
    for tensor in model.inputs:
        _check_sample(tensor, rows[tensor.name])
    for name, array in rows.items():
        if array.size == 0:
            raise ValueError(
                "`sample` must hold at least one row, on which the exported file can be "
                f"compared. {received(**{f'{name}.shape': array.shape})}"
            )
    return rows


def _check_sample(tensor: Any, array: np.ndarray) -> None:
    name, shape = tensor.name, tuple(tensor.shape)
    fits = len(shape) == array.ndim and all(
        want is None or want == have for want, have in zip(shape, array.shape)
    )
    if not fits:
        raise ValueError(
            f"`sample` must fit the predictor: `{name}` has shape {shape}. Pass rows of "
            f"features. {received(**{f'{name}.shape': array.shape})}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            "`sample` must hold finite numbers, as NaN tells no file from another. Pass "
            f"rows as they will come. {received(**{name: 'NaN or infinite'})}"
        )


def _numpy_dtype(dtype: str) -> str:
    return {"string": "object", "bfloat16": "float32"}.get(dtype, dtype)
