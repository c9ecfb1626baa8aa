"""`class_weight` of the builder: checked, by output, for the losses that take it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from addloss_kit._checks import check_number, did_you_mean, received
from addloss_kit.building.linking import Supply, Use
from addloss_kit.fields import SAMPLE_WEIGHT, Y_PRED, Y_TRUE


def class_weights(
    given: Mapping[Any, Any] | None, outputs: Sequence[str | None]
) -> dict[str | None, dict[int, float]]:
    """The weights of the classes of each output that has some.

    Args:
        given: By class; with several outputs, by output name and class.
        outputs: Names of the outputs; `[None]` if there is one.

    Raises:
        TypeError: If it is no dict, or a class is no whole number.
        ValueError: If an output is unknown, or a weight is negative or not finite.
    """
    if given is None:
        return {}
    _check_dict(given)
    if list(outputs) == [None]:
        return {None: _checked(given)}
    for name, weights in given.items():
        if name not in outputs:
            raise ValueError(
                f"`class_weight` must be a dict by output name, one of {list(outputs)}, of "
                f"weights by class.{did_you_mean(name, map(str, outputs))} "
                f"{received(class_weight=dict(given))}"
            )
        _check_dict(weights)
    return {name: _checked(weights) for name, weights in given.items()}


def weights_of_uses(
    weights: Mapping[str | None, dict[int, float]],
    uses: Sequence[Use],
    sources: Sequence[Mapping[str, str]],
    supply: Supply,
) -> list[dict[int, float] | None]:
    """For each use, the weights of its output's classes, if it takes the target.

    Args:
        weights: From `class_weights`.
        uses: The losses.
        sources: The source of each argument of each of them.
        supply: The predictions.

    Raises:
        ValueError: If no loss of an output takes its target, or the output has no such
            class.
    """
    chosen: list[dict[int, float] | None] = []
    for use, source in zip(uses, sources):
        takes_them = {Y_TRUE, Y_PRED} <= set(source) and use.consumer.accepts(SAMPLE_WEIGHT)
        chosen.append(weights.get(use.output) if takes_them else None)
    for output, of_output in weights.items():
        if not any(use.output == output and w for use, w in zip(uses, chosen)):
            raise ValueError(
                f"`class_weight` of the output `{output or Y_PRED}` would have no effect: "
                "none of its losses takes `y_true`, `y_pred` and a weight. Omit it. "
                f"{received(losses=[use.name for use in uses])}"
            )
        width = supply.prediction(output).shape[-1]
        # One output tells two classes apart.
        classes = 2 if width == 1 else width
        if classes is not None and max(of_output) >= classes:
            raise ValueError(
                f"`class_weight` must name classes in [0, {classes}), as the output has "
                f"{classes} of them. {received(class_weight=of_output)}"
            )
    return chosen


def _check_dict(given: Any) -> None:
    if not isinstance(given, Mapping) or not given:
        raise TypeError(
            "`class_weight` must be a dict of weights by class, such as {0: 1.0, 1: 5.0}. "
            f"{received(class_weight=repr(given))}"
        )


def _checked(given: Mapping[Any, Any]) -> dict[int, float]:
    weights = {}
    for number, weight in given.items():
        try:
            number = operator.index(number)
        except TypeError:
            raise TypeError(
                "`class_weight` must have the numbers of the classes as keys, from 0. "
                f"{received(class_weight=dict(given))}"
            ) from None
        if number < 0:
            raise ValueError(
                "`class_weight` must have the numbers of the classes as keys, from 0. "
                f"{received(class_weight=dict(given))}"
            )
        check_number(low=0.0, **{f"class_weight[{number}]": weight})
        weights[number] = float(weight)
    return weights
