"""What a subclass of `tf.data.Dataset` must pass on."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class SameElements(tf.data.Dataset):
    """A dataset with the elements of another, for subclasses with more methods.

    `tf.data.Dataset` may be subclassed, but what it is made from, the variant tensor, and
    the `_inputs` that its operations follow have no public names.

    Args:
        dataset: The dataset whose elements it has.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        super().__init__(dataset._variant_tensor)

    @property
    def element_spec(self) -> Any:
        """Shapes and dtypes of an element."""
        return self._dataset.element_spec

    def _inputs(self) -> list[Any]:
        return [self._dataset]
