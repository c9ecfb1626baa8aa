"""What a subclass of `tf.data.Dataset` must pass on, and a thread that it need not have."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def without_tuning(dataset: Any) -> Any:
    """A dataset without the thread that tunes it, for pipelines with nothing to tune.

    The end of an iterator waits for that thread, which may have gone to sleep just then:
    for as long as the iterator has lived, a minute at most. With TensorFlow 2.21, 18 of 120
    did on two busy cores, and none without the thread.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


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
