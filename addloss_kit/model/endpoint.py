"""LossEndpoint: the one layer that adds losses, and passes predictions through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from addloss_kit._types import Config, KerasTensor, Tensor
from addloss_kit.fields import Y_PRED
from addloss_kit.keras_internals.graph import (
    call_arguments,
    call_outputs,
    in_order,
    operands,
    producer,
)
from addloss_kit.keras_internals.masks import lost_mask, set_mask
from addloss_kit.model.bindings import BoundTerm
from addloss_kit.model.loss_weights import LossWeights


@keras.saving.register_keras_serializable("addloss_kit")
class LossEndpoint(keras.layers.Layer):
    """Passes the predictions through unchanged and adds the losses.

    A training model has exactly one, just before its outputs. It computes all
    terms of all outputs, so a term may span outputs; the predictor is whatever
    comes before it (`call`'s first argument).

    It computes in float32 under any policy, or in float64 if Keras does: half
    precision overflows at targets of a few hundred.

    Args:
        bound_terms: The terms with their weights and sources.
        prediction_names: A name for each prediction: `"y_pred"`, or
            `"price_y_pred"` if there are several outputs.

    Call arguments:
        predictions: List of tensors `(batch, …)`.
        arguments: Dict of tensors by name of the Input or intermediate tensor; also the
            masks that layers on the way to a prediction have lost, which a symbolic call
            adds by itself.

    Returns:
        The predictions, unchanged.
    """

    def __init__(
        self,
        bound_terms: Sequence[BoundTerm],
        prediction_names: Sequence[str],
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", keras.config.floatx())
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.prediction_names = list(prediction_names)
        self.terms = [bound.term for bound in bound_terms]  # tracked: their state
        self._bound_terms = tuple(bound_terms)
        # Like Keras's `losses`: the values of the last call, by name. The model logs
        # them in `compute_loss`, which runs inside the same trace.
        self._values: dict[str, Tensor] = {}

    @property
    def bound_terms(self) -> tuple[BoundTerm, ...]:
        """The terms with their weights and sources."""
        return self._bound_terms

    @property
    def values(self) -> dict[str, Tensor]:
        """Each term's unweighted value, and its logged state, in the last call."""
        return self._values

    def build(self, input_shape: Any) -> None:
        for term in self.terms:
            if not term.built:
                term.dtype_policy = self.dtype_policy
                term.build()
        self.loss_weights = LossWeights(self, self.bound_terms)
        self.built = True

    def __call__(
        self,
        predictions: Sequence[Tensor],
        arguments: Mapping[str, Tensor],
        **kwargs: Any,
    ) -> list[Tensor]:
        # Also when a file is loaded, which an earlier Keras may have written.
        if all(isinstance(tensor, keras.KerasTensor) for tensor in predictions):
            arguments = {**self._lost_masks(predictions), **arguments}
            arguments = {name: _dense(tensor) for name, tensor in arguments.items()}
        passed: list[Tensor] = super().__call__(predictions, arguments, **kwargs)
        return passed

    def _lost_masks(self, predictions: Sequence[KerasTensor]) -> dict[str, KerasTensor]:
        masks = {n: lost_mask(t) for n, t in zip(self.prediction_names, predictions)}
        return {mask_name(name): mask for name, mask in masks.items() if mask is not None}

    def call(
        self,
        predictions: Sequence[Tensor],
        arguments: Mapping[str, Tensor],
        predictions_mask: Sequence[Tensor | None] | None = None,
        training: bool | None = None,
    ) -> list[Tensor]:
        masks = list(predictions_mask or [None] * len(predictions))
        for place, name in enumerate(self.prediction_names):
            if (mask := arguments.get(mask_name(name))) is not None:
                masks[place] = mask
                set_mask(predictions[place], mask)  # for the metrics
        named = dict(arguments)
        named.update(zip(self.prediction_names, predictions))
        named = {name: self._widen(x) for name, x in named.items()}
        mask_of = dict(zip(self.prediction_names, masks))

        factors = self.loss_weights.factors(self.compute_dtype)
        values: dict[str, Tensor] = {}
        losses = []
        for bound in self.bound_terms:
            given = {arg: named[src] for arg, src in bound.sources.items()}
            mask = mask_of.get(bound.sources.get(Y_PRED, ""))
            if mask is not None and bound.term.accepts("mask"):
                given["mask"] = mask
            bound.weigh_classes(given)
            factor = factors.get(bound.name, 1.0)
            value = bound.term.compute_loss(bool(training), factor, **given)
            if len(value.shape) != 0:
                raise ValueError(
                    f"The term `{bound.name}` must be a scalar. Reduce it, e.g. with "
                    f"`keras.ops.mean`. Received: value.shape={tuple(value.shape)}."
                )
            values[bound.name] = value
            for name, state in bound.term.watched().items():
                values[f"{bound.name}_{name}"] = state
            if bound.name in factors:
                losses.append(ops.cast(factor, value.dtype) * value)
        for name in self.loss_weights.schedules:
            values[f"{name}_weight"] = factors[name]
        if training:
            self.loss_weights.count_step()
        self._values = values
        for loss in losses:
            self.add_loss(loss)
        # There is deliberately no `compute_output_shape`: without it Keras infers the
        # shapes by a trial call when the model is built, so a loss that cannot take
        # them fails there, not in the first step.
        return list(predictions)

    def _widen(self, x: Tensor) -> Tensor:
        is_float = "float" in keras.backend.standardize_dtype(x.dtype)
        return ops.cast(x, self.compute_dtype) if is_float else x

    def load_own_variables(self, store: Any) -> None:
        # A file of the first release holds no weights of terms: they are those of the
        # config.
        if len(store.keys()) > 0:
            super().load_own_variables(store)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "bound_terms": [bound.get_config() for bound in self.bound_terms],
            "prediction_names": self.prediction_names,
        }

    @classmethod
    def from_config(cls, config: Config) -> LossEndpoint:
        config = dict(config)
        bound = [BoundTerm.from_config(c) for c in config.pop("bound_terms")]
        return cls(bound, **config)


def find_endpoint(model: Any) -> LossEndpoint | None:
    """The endpoint in a model's graph, `None` if there is none."""
    for layer in getattr(model, "layers", []):
        if isinstance(layer, LossEndpoint):
            return layer
    return None


def endpoint_call(model: keras.Model) -> tuple[list[KerasTensor], dict[str, KerasTensor]]:
    """The symbolic arguments of the endpoint in this model.

    A layer may be part of several models; this is the call that leads to this
    model's outputs.

    Returns:
        `(predictions, arguments)`: list and dict of KerasTensors.

    Raises:
        ValueError: If the outputs do not come from an endpoint.
    """
    layer = producer(model.outputs[0])
    if not isinstance(layer, LossEndpoint):
        raise ValueError(
            "The outputs must come straight from the LossEndpoint. Pass the model that "
            "`build_training_model` or `add_loss` returned. "
            f"Received: outputs of layer '{layer.name}'."
        )
    (predictions, arguments), _ = call_arguments(model.outputs[0])
    return list(predictions), dict(arguments)


def _dense(tensor: KerasTensor) -> KerasTensor:
    """A dense computed tensor: Keras takes its product with a number for sparse."""
    if not tensor.sparse or isinstance(producer(tensor), keras.layers.InputLayer):
        return tensor
    return ops.convert_to_tensor(tensor, dtype=tensor.dtype, sparse=False)


def mask_name(prediction: str) -> str:
    """The name of the argument that holds a prediction's mask."""
    # With spaces, so that it cannot be the name of a loss's argument.
    return f"mask of {prediction}"


def bypass(value: KerasTensor) -> KerasTensor:
    """`value` recomputed from the predictions before any endpoint that it depends on.

    A value computed from the output of a training model would keep that model's
    endpoint in the graph, and its losses would count twice. Each operation after an
    endpoint is called again, not wrapped in a model of its own: its Inputs would be
    those of the outer model too, which Keras cannot save twice.
    """
    again: dict[int, KerasTensor] = {}

    def moved(part: Any) -> Any:
        return again.get(id(part), part)

    for tensor in in_order([value]):
        is_endpoint = isinstance(producer(tensor), LossEndpoint)
        is_later = any(id(operand) in again for operand in operands(tensor))
        if id(tensor) in again or not (is_endpoint or is_later):
            continue
        args, options = keras.tree.map_structure(moved, call_arguments(tensor))
        outputs = args[0] if is_endpoint else producer(tensor)(*args, **options)
        again.update(zip(map(id, call_outputs(tensor)), keras.tree.flatten(outputs)))
    return again.get(id(value), value)
