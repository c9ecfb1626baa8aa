"""The mask that rides on a tensor."""

from __future__ import annotations

# Under `jax.jit` a mask is not on the tensor but in a table of Keras's, and no public
# function reads it. `keras.src.backend` had the name, too, until Keras 3.16.
from keras.src.backend.common.masking import get_keras_mask

from addloss_kit._types import Tensor


def mask_of(tensor: Tensor) -> Tensor | None:
    """The boolean mask that a Keras layer has put on its output; `None` if none."""
    return get_keras_mask(tensor)
