"""The Keras mask of a tensor."""

from __future__ import annotations

# Under `jax.jit` Keras stores the mask not on the tensor but in a table that no public
# function reads. Until Keras 3.16, `keras.src.backend` exported the name, too.
from keras.src.backend.common.masking import get_keras_mask

from addloss_kit._types import Tensor


def mask_of(tensor: Tensor) -> Tensor | None:
    """The boolean mask that a Keras layer has set on its output, or `None`."""
    return get_keras_mask(tensor)
