"""InputChecker: what the Inputs of a training model take, and the check of arrays."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from addloss_kit._checks import check_rows, received
from addloss_kit._types import Shape
from addloss_kit.data.class_targets import other_form
from addloss_kit.data.conversion import (
    array_of,
    check_fits_on_jax,
    check_same_index,
    string_tensor,
)
from addloss_kit.data.on_disk import is_on_disk, pieces
from addloss_kit.fields import GROUP_IDS, SAMPLE_WEIGHT, Y_TRUE, Field

# Of a wrong shape, by role.
_REMEDIES = {
    GROUP_IDS: "Pass one id per row, such as `one_hot.argmax(-1)`.",
    SAMPLE_WEIGHT: "Pass one weight per row, or per element of the target.",
}


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What one Input takes.

    Args:
        shape: Its shape, rows first; `None` for any size.
        dtype: Name of its dtype.
        field: What losses and metrics ask of it. A feature has an empty one.
        is_sparse: Whether it takes sparse tensors, which are not looked into.
    """

    shape: Shape
    dtype: str
    field: Field = Field()
    is_sparse: bool = False

    @property
    def must_be_finite(self) -> bool:
        """Whether it holds targets, weights or another argument of a loss."""
        return self.field.role not in ("", GROUP_IDS)

    def check_spec(self, name: str, shape: Shape | None, dtype: str) -> None:
        """Raise unless an array of such a shape and dtype may fit.

        Args:
            name: Name of the Input.
            shape: A shape, rows first, `None` for sizes that are not known; `None` if
                nothing is known of it.
            dtype: Name of a dtype.
        """
        if (dtype == "string") != (self.dtype == "string") or "complex" in dtype:
            wanted = "strings" if self.dtype == "string" else f"real numbers, {self.dtype}"
            raise TypeError(
                f"`{name}` must be {wanted}. Convert it in the dataset's `map` (group "
                f"labels with `encode_groups`). {received(**{f'{name}.dtype': dtype})}"
            )
        if shape is None:
            return
        if self.field.role == SAMPLE_WEIGHT and len(shape) <= len(self.shape):
            # A weight per row or step is repeated.
            sizes = (*shape, *(None,) * (len(self.shape) - len(shape)))
            shape = tuple(None if size == 1 else size for size in sizes)
        _check_shape(name, _fitted(shape, self.shape), self, shape)


class InputChecker:
    """Checks arrays against the Inputs of a training model.

    One checker serves `pack_inputs`, everything that `fit` and its like are fed, and
    every batch of a stream. It holds plain values only, so worker processes can have
    a copy.

    Args:
        specs: `InputSpec`s by Input name, in their order.
    """

    def __init__(self, specs: Mapping[str, InputSpec]) -> None:
        self.specs = dict(specs)

    def by_name(self, x: Any, remedy: str = "") -> dict[str, Any]:
        """Arrays by Input name, from a dict, or from arrays in the order of the Inputs.

        Args:
            x: A dict, a list or tuple, or one array.
            remedy: A further sentence for the message.

        Raises:
            ValueError: If there is not one entry for each Input.
        """
        if isinstance(x, Mapping):
            self._check_names(x, remedy)
            return dict(x)
        flat = list(x) if isinstance(x, (list, tuple)) else [x]
        if len(flat) != len(self.specs):
            raise ValueError(
                f"The model has {len(self.specs)} Inputs, {list(self.specs)}, so it takes "
                f"a dict with that many arrays, from `pack_inputs`. {remedy}"
                f"{received(arrays=len(flat))}"
            )
        return dict(zip(self.specs, flat))

    def check(self, given: Mapping[str, Any], *, is_batch: bool = False) -> dict[str, Any]:
        """The arrays as the Inputs take them.

        Args:
            given: One array, list, table or tensor for each Input, by name.
            is_batch: Whether these are not all rows: a batch may hold nothing but
                weights of 0.

        Returns:
            NumPy arrays in the Inputs' dtypes and shapes; a TensorFlow tensor for an
            Input of strings. An array that fits is not copied. Sparse tensors are
            returned as they are.

        Raises:
            ValueError: If an array has the wrong length or shape, or holds what its
                Input does not take.
            TypeError: If an array cannot be converted to numbers.
        """
        sparse = {name: given[name] for name, spec in self.specs.items() if spec.is_sparse}
        specs = {name: spec for name, spec in self.specs.items() if not spec.is_sparse}
        check_same_index(**{name: given[name] for name in specs})
        arrays: dict[str, Any] = {
            name: _from_disk(name, given[name], spec)
            if is_on_disk(given[name])
            else array_of(name, given[name], spec.dtype)
            for name, spec in specs.items()
        }
        _check_rows(arrays, specs)
        for name, array in arrays.items():
            spec = specs[name]
            fit = _spread if spec.field.role == SAMPLE_WEIGHT else _fit_rank
            arrays[name] = fit(array, spec.shape)
        for name, array in arrays.items():
            _check_shape(name, array.shape, specs[name], array.shape)
            check = _check_values_on_disk if is_on_disk(array) else _check_values
            check(name, array, specs[name], is_batch)
            if specs[name].dtype == "string":
                arrays[name] = string_tensor(array)
        return {**arrays, **sparse}

    def _check_names(self, given: Any, remedy: str) -> None:
        wanted, names = list(self.specs), list(given)
        missing = [name for name in wanted if name not in names]
        unknown = [name for name in names if name not in wanted]
        if missing or unknown:
            parts = [f"`{name}` is missing" for name in missing]
            parts += [f"`{name}` is not one of them" for name in unknown]
            raise ValueError(
                f"The data must have one entry for each Input {wanted}: "
                f"{'; '.join(parts)}. `pack_inputs` names arrays. {remedy}"
                f"{received(keys=names)}"
            )


def _from_disk(name: str, array: np.ndarray, spec: InputSpec) -> np.ndarray:
    """The array left on disk where its dtype fits, else its conversion, in memory."""
    wanted = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    if array.dtype == wanted and array.flags.c_contiguous:
        return np.asarray(array)
    if spec.dtype == "string" or array.dtype.kind not in "iufb" or array.ndim == 0:
        return array_of(name, array, spec.dtype)
    converted = np.empty(array.shape, wanted)
    for first, rows in pieces(array):
        with _counted_from(first, rows):
            converted[first : first + len(rows)] = array_of(name, rows, spec.dtype)
    return converted


def _check_values_on_disk(
    name: str, array: np.ndarray, spec: InputSpec, is_batch: bool
) -> None:
    is_any = False
    for first, rows in pieces(array):
        with _counted_from(first, rows):
            _check_values(name, rows, spec, is_batch=True)
        is_any = is_any or (spec.field.role == SAMPLE_WEIGHT and bool(rows.any()))
    if spec.field.role == SAMPLE_WEIGHT and not is_any and not is_batch:
        _check_values(name, np.broadcast_to(array[:1], array.shape), spec, False)


@contextlib.contextmanager
def _counted_from(first: int, rows: np.ndarray) -> Iterator[None]:
    """Let a message say which rows it counts."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if first == 0:
            raise
        raise type(error)(
            f"In rows {first} to {first + len(rows) - 1}, counted from the first of them: "
            f"{error}"
        ) from None


def _check_rows(packed: Mapping[str, np.ndarray], specs: Mapping[str, InputSpec]) -> None:
    rows = next(iter(packed.values())).shape[:1]
    for name, array in packed.items():
        if array.ndim == 0:
            raise ValueError(
                f"`{name}` must have one entry per row. Repeat it for each row. "
                f"{received(**{f'{name}.shape': array.shape})}"
            )
        is_weight = specs[name].field.role == SAMPLE_WEIGHT
        if is_weight and array.shape == specs[name].shape[1:] != rows:
            raise ValueError(
                f"`{name}` must have one row per row of `{next(iter(packed))}`. Weights of "
                "the outputs, for all rows, go to the loss: `WeightedMSE(weights=[...])`. "
                f"{received(**{f'{name}.shape': array.shape, 'rows': rows[0]})}"
            )
    check_rows(**packed)
    if next(iter(packed.values())).shape[0] == 0:
        raise ValueError(f"There must be at least one row. {received(rows=0)}")


def _spread(weight: np.ndarray, spec: Shape) -> np.ndarray:
    """A weight per row or step, broadcast over the extra axes of the Input."""
    if weight.ndim > 1 and weight.ndim == len(spec) + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    missing = len(spec) - weight.ndim
    if missing <= 0 and weight.shape[1:] == tuple(spec[1:]):
        return weight
    known = [size for size in spec[1:] if size is not None]
    if len(known) < len(spec) - 1:
        return weight if missing <= 0 else weight.reshape(weight.shape + (1,) * missing)
    expanded = weight.reshape(weight.shape + (1,) * max(missing, 0))
    try:
        spread = np.broadcast_to(expanded, (weight.shape[0], *known))
    except ValueError:
        return weight  # The shape check reports the error.
    return np.ascontiguousarray(spread)


def _fit_rank(array: np.ndarray, spec: Shape) -> np.ndarray:
    """`(rows,)` to `(rows, 1)` or the reverse, if the Input needs it, as Keras does."""
    shape = _fitted(array.shape, spec)
    return array if shape == array.shape else array.reshape(shape)


def _fitted(shape: Shape, spec: Shape) -> Shape:
    if len(shape) == len(spec) - 1 and spec[-1] == 1:
        return (*shape, 1)
    if len(shape) == len(spec) + 1 and shape[-1] == 1:
        return tuple(shape[:-1])
    return tuple(shape)


def _check_shape(name: str, shape: Shape, spec: InputSpec, given: Shape) -> None:
    wanted = tuple(spec.shape)
    fits = len(shape) == len(wanted) and all(
        want is None or have is None or have == want
        for have, want in zip(shape[1:], wanted[1:])
    )
    if not fits:
        remedy = other_form(tuple(given), wanted, spec.field) or (
            _REMEDIES.get(spec.field.role)
            or f"Reshape it, or pass `inputs={{'{name}': keras.Input(...)}}` to "
            "`build_training_model`."
        )
        raise ValueError(
            f"`{name}` must have shape {wanted}, rows first. {remedy} "
            f"{received(**{f'{name}.shape': tuple(given)})}"
        )


def _check_values(name: str, array: np.ndarray, spec: InputSpec, is_batch: bool) -> None:
    check_fits_on_jax(name, array)
    field = spec.field
    if field.num_groups is not None:
        is_outside = (array < -1) | (array >= field.num_groups)
        if is_outside.any():
            row = int(np.argwhere(is_outside)[0][0])
            raise ValueError(
                f"`{name}` must lie in [0, {field.num_groups}) for num_groups="
                f"{field.num_groups}, or be -1 for no group. "
                f"Received: {int(is_outside.sum())} ids outside, the first being "
                f"{array[row]} at row {row}."
            )
        return
    if field.num_classes is not None and array.dtype.kind in "iuf":
        is_outside = (array < 0) | (array >= field.num_classes)
        if field.ignore_class is not None:
            is_outside &= array != field.ignore_class
        if is_outside.any():
            at = tuple(np.argwhere(is_outside)[0])
            raise ValueError(
                f"`{name}` must hold classes in [0, {field.num_classes}), as many as the "
                "prediction has. Number them from 0; to leave a row out, give it a class "
                "and a `sample_weight` of 0, or construct the loss with `ignore_class=`. "
                f"Received: {int(is_outside.sum())} classes outside, the "
                f"first being {array[at]} at row {at[0]}."
            )
    if not spec.must_be_finite or array.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # Half the time, without an array of its own; a sum that overflows decides nothing.
        is_clear = np.isfinite(array.sum())
    if not is_clear and (is_bad := ~np.isfinite(array)).any():
        at = tuple(np.argwhere(is_bad)[0])
        remedy = "Drop the rows without a value, or put 0 there with a `sample_weight` of 0"
        if field.role not in (Y_TRUE, SAMPLE_WEIGHT) and np.isinf(array[at]):
            remedy = "Put a large number in the place of infinity"
        raise ValueError(
            f"`{name}` must be finite. {remedy}. Received: {int(is_bad.sum())} others, "
            f"the first being {array[at]} at row {at[0]}."
        )
    if field.role == SAMPLE_WEIGHT and not is_batch and not array.any():
        raise ValueError(
            f"`{name}` must not be 0 for all rows, which would train nothing. Give some "
            f"rows a weight. {received(**{f'max({name})': 0.0, 'rows': array.shape[0]})}"
        )
    if field.role == SAMPLE_WEIGHT and (array < 0).any():
        at = tuple(np.argwhere(array < 0)[0])
        raise ValueError(
            f"`{name}` must be at least 0. Received: {int((array < 0).sum())} negative "
            f"weights, the first being {array[at]:g} at row {at[0]}."
        )
