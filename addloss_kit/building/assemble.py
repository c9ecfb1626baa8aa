"""assemble: the model with one endpoint before its outputs."""

from __future__ import annotations

from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit._types import KerasTensor
from addloss_kit.building.broadcasting import refuse_outer_products
from addloss_kit.keras_internals.messages import own_error
from addloss_kit.model.bindings import BoundMetric, BoundTerm
from addloss_kit.model.endpoint import LossEndpoint
from addloss_kit.model.training_model import TrainingModel


def assemble(
    *,
    inputs: list[KerasTensor],
    outputs: Any,
    predictions: list[KerasTensor],
    prediction_names: list[str],
    arguments: dict[str, KerasTensor],
    bound_terms: list[BoundTerm],
    bound_metrics: list[BoundMetric],
    predictor_inputs: Any,
    name: str,
) -> TrainingModel:
    """The model with one endpoint before its outputs.

    Args:
        outputs: The structure of the outputs; its leaves are indices into
            `predictions`.
    """
    _refuse_duplicates([b.name for b in bound_terms], "losses")
    _refuse_duplicates([b.metric.name for b in bound_metrics], "metrics")
    named = {**arguments, **dict(zip(prediction_names, predictions))}
    for bound in bound_terms:
        refuse_outer_products(bound, named)
    is_double = any(
        keras.backend.standardize_dtype(t.dtype) == "float64" for t in predictions
    )
    endpoint = LossEndpoint(
        bound_terms,
        prediction_names,
        dtype="float64" if is_double else keras.config.floatx(),
    )
    try:
        passed = endpoint(predictions, arguments)
    except Exception as error:
        # Keras puts a page around the message of a loss that does not fit.
        raise own_error(error) from None
    return TrainingModel(
        inputs,
        keras.tree.map_structure(lambda position: passed[position], outputs),
        name=name,
        bound_metrics=bound_metrics,
        predictor_inputs=predictor_inputs,
    )


def _refuse_duplicates(names: list[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Two of the {what} are named {twice}. Give each its own `name=`. "
            f"{received(names=names)}"
        )
