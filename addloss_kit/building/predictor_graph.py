"""predictor_graph: any Keras model as symbolic inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit._types import KerasTensor, Shape
from addloss_kit.keras_internals.graph import give_layer_names, output_names
from addloss_kit.model.endpoint import find_endpoint


class PredictorGraph:
    """A predictor's symbolic inputs and outputs, in their original structure."""

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self.inputs = keras.tree.flatten(inputs)
        give_layer_names(inputs)
        self.input_structure = keras.tree.map_structure(lambda t: t.name, inputs)
        flat = keras.tree.flatten(outputs)
        # Not by counting in `map_structure`: on torch it visits a dict in insertion order,
        # whereas `flatten` sorts the keys.
        self.structure = keras.tree.pack_sequence_as(outputs, list(range(len(flat))))
        self.outputs = dict(zip(output_names(outputs), flat))


def predictor_graph(predictor: Any, overrides: Mapping[str, KerasTensor]) -> PredictorGraph:
    """The graph of any built Keras model.

    Args:
        predictor: Functional, Sequential, or subclassed and called once.
        overrides: `keras.Input`s by name, for the features of a subclassed model.

    Raises:
        TypeError: If it is not a Keras model.
        ValueError: If it is not built, already has losses, or `overrides` names a
            feature of a functional model, which has its own Inputs.
    """
    if not isinstance(predictor, keras.Model):
        raise TypeError(
            "`predictor` must be a Keras model. Put a layer into one: "
            "`keras.Sequential([keras.Input(shape), layer])`. "
            f"{received(predictor=type(predictor).__name__)}"
        )
    for name, spec in overrides.items():
        if not isinstance(spec, keras.KerasTensor):
            raise TypeError(
                f"`inputs['{name}']` must be a `keras.Input`. Pass "
                f"`inputs={{'{name}': keras.Input(shape)}}`. "
                f"{received(**{name: type(spec).__name__})}"
            )
    if find_endpoint(predictor) is not None:
        raise ValueError(
            "`predictor` already has losses. Extract the predictor first, with "
            "`export_inference_model(model)`, or add more losses with `add_loss`. "
            f"{received(predictor=predictor.name)}"
        )
    if not predictor.built:
        raise ValueError(
            "`predictor` must be built, so that its shapes are known. Start it with "
            f"`keras.Input(shape)`, or call it once. {received(predictor=predictor.name)}"
        )
    if isinstance(predictor, keras.Sequential) and predictor.inputs:
        graph = PredictorGraph(predictor.inputs[0], predictor.outputs[0])
    elif getattr(predictor, "inputs", None):
        graph = PredictorGraph(predictor.input, predictor.output)
    else:
        inputs = _inputs_of_subclassed(predictor, overrides)
        return PredictorGraph(inputs, predictor(inputs))
    features = [tensor.name for tensor in graph.inputs]
    ignored = sorted(set(overrides) & set(features))
    if ignored:
        raise ValueError(
            f"`inputs=` would ignore {ignored}: the features of a functional predictor are "
            "its own Inputs. Change them there; `inputs=` may hold targets, weights, ids "
            f"and other arguments of losses. {received(inputs=sorted(overrides))}"
        )
    return graph


def _inputs_of_subclassed(predictor: Any, overrides: Mapping[str, KerasTensor]) -> Any:
    config = predictor.get_build_config() or {}
    shape = config.get("input_shape")
    if shape is None:
        given = {k: v for k, v in overrides.items() if isinstance(v, keras.KerasTensor)}
        if "x" in given:
            return keras.Input(
                batch_shape=given["x"].shape, dtype=given["x"].dtype, name="x"
            )
        raise ValueError(
            "The input shape of the predictor is unknown. Call it once on a batch, or "
            "pass `inputs={'x': keras.Input(shape)}`. "
            f"{received(predictor=predictor.name)}"
        )

    def make(name: str, shape: Shape) -> KerasTensor:
        if name in overrides:
            spec = overrides[name]
            return keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=name)
        return keras.Input(batch_shape=(None, *shape[1:]), name=name)

    if isinstance(shape, Mapping):
        return {name: make(name, s) for name, s in shape.items()}
    if shape and isinstance(shape[0], (tuple, list)):
        return [make(f"x_{i}", s) for i, s in enumerate(shape)]
    return make("x", tuple(shape))
