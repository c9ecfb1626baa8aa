"""Extract the predictor: the graph before the endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from addloss_kit._checks import did_you_mean, received
from addloss_kit._types import KerasTensor
from addloss_kit.fields import TRAINING_ONLY_ROLES, has_training_only_name
from addloss_kit.keras_internals.graph import input_tensors, output_names
from addloss_kit.model.endpoint import endpoint_call
from addloss_kit.model.training_model import TrainingModel


def cut_predictor(training_model: Any, outputs: Sequence[str] | None) -> keras.Model:
    """The model from features to predictions, sharing the layers.

    Args:
        training_model: A `TrainingModel`.
        outputs: Names of the outputs to keep. Defaults to all.

    Raises:
        ValueError: If it is not a `TrainingModel`, an output is unknown, or a
            prediction depends on a training-only Input.
    """
    if not isinstance(training_model, TrainingModel):
        raise ValueError(
            "`training_model` must have losses in its graph. Pass the model that "
            "`build_training_model` or `add_loss` returned. "
            f"{received(training_model=type(training_model).__name__)}"
        )
    predictions, _ = endpoint_call(training_model)
    structure = keras.tree.pack_sequence_as(training_model.output, predictions)
    if outputs is not None:
        structure = _chosen(structure, [outputs] if isinstance(outputs, str) else outputs)
    needed = {id(tensor) for tensor in input_tensors(keras.tree.flatten(structure))}
    features = [tensor for tensor in training_model.inputs if id(tensor) in needed]
    _refuse_training_only(features, training_model)
    inputs: Any = features[0] if len(features) == 1 else features
    if training_model.predictor_inputs is not None:
        kept = training_model.inputs if outputs is None else features
        by_name = {tensor.name: tensor for tensor in kept}
        inputs = _in_structure(training_model.predictor_inputs, by_name)
    name = training_model.name.removesuffix("_training")
    return keras.Model(inputs, structure, name=name)


def _chosen(structure: Any, outputs: Sequence[str]) -> Any:
    by_name = dict(zip(output_names(structure), keras.tree.flatten(structure)))
    unknown = [name for name in outputs if name not in by_name]
    if unknown or not outputs:
        raise ValueError(
            f"`outputs` must name some of the model's outputs, {list(by_name)}."
            f"{did_you_mean((unknown or [''])[0], by_name)} "
            f"{received(outputs=list(outputs))}"
        )
    if isinstance(structure, Mapping):
        return {name: by_name[name] for name in outputs}
    chosen = [by_name[name] for name in outputs]
    return chosen[0] if len(chosen) == 1 else chosen


def _in_structure(names: Any, tensors: Mapping[str, KerasTensor]) -> Any:
    """Tensors in the structure of their names, without names that have no tensor.

    Uses plain containers: Keras replaces those of attributes by its own types, and
    then warns that the data have a different structure.
    """
    if isinstance(names, Mapping):
        parts = {key: _in_structure(value, tensors) for key, value in names.items()}
        return {key: part for key, part in parts.items() if part is not None} or None
    if isinstance(names, (list, tuple)):
        kind = tuple if isinstance(names, tuple) else list
        found = [_in_structure(value, tensors) for value in names]
        return kind(part for part in found if part is not None) or None
    return tensors.get(names)


def _refuse_training_only(
    features: Sequence[KerasTensor], training_model: TrainingModel
) -> None:
    roles = {n: field.role for n, field in training_model.training_fields.items()}
    for tensor in features:
        is_training_only = roles.get(tensor.name) in TRAINING_ONLY_ROLES
        if is_training_only or has_training_only_name(tensor.name):
            raise ValueError(
                f"The prediction depends on the training-only Input `{tensor.name}`, so it "
                "cannot be exported. Remove it from the predictor's features. "
                f"{received(inputs=[t.name for t in training_model.inputs])}"
            )
