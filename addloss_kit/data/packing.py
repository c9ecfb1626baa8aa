"""pack_inputs: check arrays of any kind, and turn them into the dict that `fit` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from addloss_kit._checks import did_you_mean, received
from addloss_kit._types import ArrayLike
from addloss_kit.data.checking import InputChecker
from addloss_kit.fields import GROUP_IDS, SAMPLE_WEIGHT, Y_TRUE, parse_input_name


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
        tensor for an Input of strings. An array that fits as it is is not copied.

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
    checker = checker_of(model)
    if group_ids is not None:
        extra[GROUP_IDS] = group_ids
    return checker.check(by_input_name(model, x, y, sample_weight, extra))


def checker_of(model: Any) -> InputChecker:
    """What the model's Inputs take.

    Raises:
        TypeError: If it is no training model.
    """
    checker = getattr(model, "input_checker", None)
    if not isinstance(checker, InputChecker):
        raise TypeError(
            "`model` must be a training model. Pass what `build_training_model` or "
            f"`add_loss` returned. {received(model=type(model).__name__)}"
        )
    return checker


def by_input_name(
    model: Any, x: Any, y: Any, sample_weight: Any, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of `pack_inputs` by Input name, without a look at their values.

    Arrays, tensors and their specifications are all named alike.

    Raises:
        ValueError: If one is missing, given twice, or unknown to the model.
    """
    specs = model.input_checker.specs
    given: dict[str, Any] = {}
    _take_by_output(given, y, Y_TRUE, specs, "y")
    _take_by_output(given, sample_weight, SAMPLE_WEIGHT, specs, "sample_weight")
    for name, value in extra.items():
        if name not in specs:
            raise ValueError(
                f"The model has no Input `{name}`. Its Inputs are {list(specs)}."
                f"{did_you_mean(name, [n for n in specs if n not in {**extra, **given}])} "
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
    return given


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
                else "It feeds one that is named `y_true`. Pass targets by the name of "
                "their Input, or omit them."
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
