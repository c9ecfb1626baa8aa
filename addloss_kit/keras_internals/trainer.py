"""The private state that `compile`, `fit` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def is_within_fit(evaluate_arguments: Mapping[str, Any]) -> bool:
    """Whether `evaluate` is called by `fit`, with the validation data unpacked.

    Keras passes this argument in its own calls; nothing else distinguishes them.
    """
    return "_use_cached_eval_dataset" in evaluate_arguments


def forget_compiled(model: keras.Model) -> None:
    """Forget the loss and metrics of an earlier `compile`.

    Keras keeps them if the new call has none.
    """
    model._compile_loss = None
    model._compile_metrics = None
    model.loss = None


def replace_loss_tracker(model: keras.Model, tracker: keras.metrics.Metric) -> None:
    """Replace the metric that Keras uses for `loss`.

    `compile` creates it, and it can log only one number. As in Keras, setting the
    attribute bypasses tracking, so that it is not part of a saved model.
    """
    object.__setattr__(model, "_loss_tracker", tracker)


class BuiltByItself(keras.Model):
    """A model that does not need a batch of data to be built.

    Under a strategy, Keras draws a batch to build whatever is not built yet, and
    averages it over the replicas, which fails if the rows do not divide evenly. A
    functional model is already built, unless `compile` was given a loss. Keras has no
    setting for this.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if self._compile_loss is None and self._compile_metrics is None:
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
