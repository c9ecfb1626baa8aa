"""The Keras mask of a tensor, and the masks that layers lose on the way to it."""

from __future__ import annotations

from typing import Any

import keras

# Under `jax.jit` Keras stores the mask not on the tensor but in a table that no public
# function reads or writes. Until Keras 3.16, `keras.src.backend` exported the names, too.
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

from addloss_kit._checks import received
from addloss_kit._types import KerasTensor, Tensor
from addloss_kit.keras_internals.graph import (
    all_layers,
    ancestors,
    call_arguments,
    in_order,
    position,
    producer,
)


def mask_of(tensor: Tensor) -> Tensor | None:
    """The boolean mask that a Keras layer has set on its output, or `None`."""
    return get_keras_mask(tensor)


def set_mask(tensor: Tensor, mask: Tensor) -> None:
    """Give a tensor a mask, as the layer that returns it would."""
    set_keras_mask(tensor, mask)


def lost_mask(tensor: KerasTensor) -> KerasTensor | None:
    """The mask that a prediction should have, if a layer on the way loses it.

    From Keras 3.16 on, `RNN`, `Bidirectional` and `TimeDistributed` still compute the
    mask of their output, but do not set it (`supports_masking` is false). Losses and
    metrics would then count padding.

    Args:
        tensor: The KerasTensor of a prediction.

    Returns:
        The mask as a KerasTensor of the same graph; `None` if no layer loses one.

    Raises:
        ValueError: If the layer is inside another model or layer, whose graph is not
            visible from here.
    """
    if not any(_lost_within(producer(t)) for t in ancestors([tensor]) if not _is_input(t)):
        return None
    masks: dict[int, KerasTensor | None] = {}
    for each in in_order([tensor]):
        masks[id(each)] = _mask_as_computed(each, masks)
    return None if mask_of(tensor) is not None else masks[id(tensor)]


def _mask_as_computed(
    tensor: KerasTensor, masks: dict[int, KerasTensor | None]
) -> KerasTensor | None:
    """The mask of a tensor, given those of the tensors that it is computed from."""
    layer = producer(tensor)
    if (own := mask_of(tensor)) is not None:
        return own
    if _is_input(tensor) or not isinstance(layer, keras.layers.Layer):
        return None
    arguments, options = call_arguments(tensor)
    first = arguments[0] if arguments else next(iter(options.values()))
    arriving = options.get("mask")
    if arriving is None:
        arriving = keras.tree.map_structure(lambda t: masks.get(id(t)), first)
    is_masked = any(mask is not None for mask in keras.tree.flatten(arriving))
    _refuse_hidden_loss(layer, is_masked)
    if not is_masked or not (layer.supports_masking or _loses_masks(layer)):
        return None
    computed = keras.tree.flatten(layer.compute_mask(first, arriving))
    return computed[position(tensor)] if len(computed) > position(tensor) else None


def _refuse_hidden_loss(layer: Any, is_masked: bool) -> None:
    """Refuse a layer that hides one which loses the mask that it is given."""
    if _loses_masks(layer) or not (lost := _lost_within(layer)):
        return
    if is_masked or any(_makes_mask(inner) for inner in all_layers(layer)):
        raise ValueError(
            f"The layer `{lost[0].name}`, inside `{layer.name}`, loses the mask of its "
            "input in this version of Keras, so losses would count padded steps. Build "
            "the predictor from layers instead of a nested or subclassed model, or use "
            "a subclass of the layer whose `__init__` sets `self.supports_masking = "
            f"True`. {received(keras=keras.__version__, layer=type(lost[0]).__name__)}"
        )


def _lost_within(layer: Any) -> list[Any]:
    """The layers in a layer (or itself) that do not pass on a mask as they should."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    return [inner for inner in all_layers(layer) if _loses_masks(inner)]


def _loses_masks(layer: Any) -> bool:
    passes_on = (
        keras.layers.RNN,
        keras.layers.Bidirectional,
        keras.layers.TimeDistributed,
    )
    is_sequence = getattr(layer, "return_sequences", True)
    return isinstance(layer, passes_on) and is_sequence and not layer.supports_masking


def _makes_mask(layer: Any) -> bool:
    is_embedding = isinstance(layer, keras.layers.Embedding) and layer.mask_zero
    return is_embedding or isinstance(layer, keras.layers.Masking)


def _is_input(tensor: KerasTensor) -> bool:
    return isinstance(producer(tensor), keras.layers.InputLayer)
