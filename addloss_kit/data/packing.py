"""pack_inputs: check arrays of any kind, and turn them into the dict that `fit` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from addloss_kit._checks import check_rows, received
from addloss_kit._types import ArrayLike, Shape
from addloss_kit.data.conversion import as_number_array, check_same_index
from addloss_kit.fields import (
    GROUP_IDS,
    SAMPLE_WEIGHT,
    Y_TRUE,
    Field,
    parse_input_name,
)


def pack_inputs(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    group_ids: ArrayLike | None = None,
    **extra: ArrayLike,
) -> dict[str, np.ndarray]:
    """Check arrays and name them after the Inputs of a training model.

    Values are checked here, once and in NumPy, so that training steps need not.

    Args:
        model: A `TrainingModel`.
        x: Features `(rows, …)`: an array, list, DataFrame or tensor; with several
            feature Inputs, a dict by name, or a list in their order.
        y: Targets, one row per row of `x`; with several outputs, a dict by output
            name.
        sample_weight: Finite weights of at least 0: one per row, or with further
            axes of the target. A weight per row is broadcast if the Input takes one
            per element. With several outputs, a dict by output name.
        group_ids: Integers in `[0, num_groups)`, -1 for "no group". Convert other
            labels with `encode_groups`.
        **extra: Other Inputs by name, such as `delta=` of a loss
            `f(y_true, y_pred, delta)`, or `sex=` of `GroupGap(2, group_ids="sex")`.

    Returns:
        A dict of NumPy arrays by Input name, in the Inputs' dtypes; a TensorFlow
        tensor for an Input of strings.

    Raises:
        ValueError: If an array is missing, unknown to the model, has the wrong
            length or shape, is not finite, has ids or classes out of range, masked
            entries, or numbers that do not fit; or if two pandas objects have
            different indexes.
        TypeError: If an array cannot be converted to numbers.

    Example:
        >>> import addloss_kit as alk, keras
        >>> x = keras.Input((2,), name="x")
        >>> predictor = keras.Model(x, keras.layers.Dense(1)(x))
        >>> model = alk.build_training_model(predictor, "mse")
        >>> packed = pack_inputs(model, [[1, 2], [3, 4]], [5, 6])
        >>> {name: array.shape for name, array in packed.items()}
        {'x': (2, 2), 'y_true': (2, 1)}
    """
    fields: dict[str, Field] = model.training_fields
    specs = {tensor.name: tensor for tensor in model.inputs}
    given: dict[str, Any] = {}
    _take_by_output(given, y, Y_TRUE, specs, "y")
    _take_by_output(given, sample_weight, SAMPLE_WEIGHT, specs, "sample_weight")
    if group_ids is not None:
        extra[GROUP_IDS] = group_ids
    for name, value in extra.items():
        if name not in specs:
            raise ValueError(
                f"The model has no Input `{name}`. Its Inputs are {list(specs)}. "
                f"{received(**{name: type(value).__name__})}"
            )
        _give(given, name, value)
    _take_features(given, x, model.feature_names, specs)
    missing = [name for name in specs if name not in given]
    if missing:
        raise ValueError(
            f"The model also needs {missing}. Pass {_how_to_pass(missing)}. "
            f"{received(inputs=sorted(given))}"
        )
    check_same_index(**{name: given[name] for name in specs})
    packed = {
        name: _as_array(name, given[name], specs[name], fields.get(name)) for name in specs
    }
    _check_rows(packed)
    for name, array in packed.items():
        if fields.get(name, Field()).role == SAMPLE_WEIGHT:
            packed[name] = _spread(array, specs[name].shape)
        else:
            packed[name] = _fit_rank(array, specs[name].shape)
    for name, array in packed.items():
        _check_shape(name, array, specs[name].shape)
        _check_values(name, array, fields.get(name, Field()))
        if specs[name].dtype == "string":
            packed[name] = _as_string_tensor(array)
    return packed


def _take_features(
    given: dict[str, Any], x: Any, features: list[str], specs: Mapping[str, Any]
) -> None:
    if isinstance(x, Mapping):
        unknown = [name for name in x if name not in specs]
        if unknown:
            raise ValueError(
                f"`x` names {unknown}, but the model's features are {features}. "
                f"{received(x=list(x))}"
            )
        for name, value in x.items():
            _give(given, name, value)
        return
    features = [name for name in features if name not in given]
    # A list may hold the Inputs in their order, as in `fit`, or rows.
    rest = [name for name in specs if name not in given]
    is_list = isinstance(x, (list, tuple)) and all(hasattr(part, "shape") for part in x)
    if is_list and len(rest) > 1 and len(x) == len(rest):
        given.update(zip(rest, x))
    elif len(features) == 1:
        given[features[0]] = x
    elif isinstance(x, (list, tuple)) and len(x) == len(features):
        given.update(zip(features, x))
    else:
        raise ValueError(
            f"`x` must be a dict by name, or a list of {len(features)} arrays, for "
            f"the features {features}. {received(x=type(x).__name__)}"
        )


def _take_by_output(
    given: dict[str, Any], value: Any, role: str, specs: Mapping[str, Any], argument: str
) -> None:
    if value is None:
        return
    known = [n for n in specs if parse_input_name(n)[0] == role]
    outputs = [parse_input_name(n)[1] for n in known]
    if not isinstance(value, Mapping):
        if not known:
            remedy = (
                "Build it with `sample_weight=True`, or omit the weights."
                if role == SAMPLE_WEIGHT
                else "Omit it."
            )
            raise ValueError(
                f"The model has no Input for `{argument}`. {remedy} "
                f"{received(inputs=list(specs))}"
            )
        if len(known) > 1 and isinstance(value, (list, tuple)) and len(value) == len(known):
            for name, array in zip(known, value):
                _give(given, name, array)
            return
        if len(known) > 1:
            raise ValueError(
                f"`{argument}` must be a dict by output name, for {outputs}. "
                f"{received(**{argument: type(value).__name__})}"
            )
        _give(given, known[0], value)
        return
    for output, array in value.items():
        name = output if output in known else f"{output}_{role}"
        if name not in known:
            raise ValueError(
                f"`{argument}` names `{output}`, but the model expects {outputs}. "
                f"{received(**{argument: list(value)})}"
            )
        _give(given, name, array)


def _give(given: dict[str, Any], name: str, value: Any) -> None:
    if name in given:
        raise ValueError(
            f"Input `{name}` is given twice. Give it once. {received(inputs=sorted(given))}"
        )
    given[name] = value


def _how_to_pass(names: list[str]) -> str:
    ways = []
    for name in names:
        role, output = parse_input_name(name)
        argument = {Y_TRUE: "y"}.get(role, role)
        if output is not None and role in (Y_TRUE, SAMPLE_WEIGHT):
            ways.append(f"`{argument}={{'{output}': ...}}`")
        else:
            ways.append(f"`{argument if output is None else name}=`")
    return ", ".join(ways)


def _as_array(name: str, value: Any, spec: Any, field: Field | None) -> np.ndarray:
    dtype = str(spec.dtype)
    if hasattr(value, "detach"):  # a torch tensor that may need a gradient
        value = value.detach().cpu()
    if dtype == "string":
        return _as_strings(name, value)
    array = as_number_array(name, value, dtype)
    wanted = np.dtype("float32" if dtype == "bfloat16" else dtype)
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
        converted = array.astype(wanted, copy=False)
    if wanted.kind == "f" and array.dtype.kind in "iuf":
        is_lost = np.isfinite(array) & ~np.isfinite(converted)
        _check_fits(name, array, is_lost, dtype, "Scale it down")
    return np.asarray(converted, order="C")


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
    strings = np.asarray(value).astype(object)
    others = [value for value in strings.flat if not isinstance(value, (str, bytes))]
    if others:
        raise TypeError(
            f"`{name}` must be strings. Convert it, e.g. with `.astype(str)`, and fill in "
            f"missing values. Received: {len(others)} others, the first {others[0]!r}."
        )
    return strings


def _as_string_tensor(array: np.ndarray) -> Any:
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


def _check_rows(packed: Mapping[str, np.ndarray]) -> None:
    for name, array in packed.items():
        if array.ndim == 0:
            raise ValueError(
                f"`{name}` must have one entry per row. Repeat it for each row. "
                f"{received(**{f'{name}.shape': array.shape})}"
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
    if array.ndim == len(spec) - 1 and spec[-1] == 1:
        return array[..., None]
    if array.ndim == len(spec) + 1 and array.shape[-1] == 1:
        return array[..., 0]
    return array


def _check_shape(name: str, array: np.ndarray, spec: Shape) -> None:
    fits = array.ndim == len(spec) and all(
        want is None or have == want for have, want in zip(array.shape[1:], spec[1:])
    )
    if not fits:
        raise ValueError(
            f"`{name}` must have shape {tuple(spec)}, rows first. Reshape it, or pass "
            f"`inputs={{'{name}': keras.Input(...)}}` to `build_training_model`. "
            f"{received(**{f'{name}.shape': array.shape})}"
        )


def _check_values(name: str, array: np.ndarray, field: Field) -> None:
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
    if field.role not in (Y_TRUE, SAMPLE_WEIGHT) or array.dtype.kind != "f":
        return
    is_bad = ~np.isfinite(array)
    if is_bad.any():
        at = tuple(np.argwhere(is_bad)[0])
        raise ValueError(
            f"`{name}` must be finite. Drop the rows without a value, or put 0 there "
            f"with a `sample_weight` of 0. Received: {int(is_bad.sum())} others, the first "
            f"being {array[at]} at row {at[0]}."
        )
    if field.role == SAMPLE_WEIGHT and not array.any():
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
