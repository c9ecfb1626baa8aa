"""What `compile`, `fit` and `evaluate` keep on a model and hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def is_within_fit(evaluate_arguments: Mapping[str, Any]) -> bool:
    """Whether `evaluate` is called by `fit`, with the validation data unpacked.

    Keras marks its own calls so, and nothing else tells them from a person's.
    """
    return "_use_cached_eval_dataset" in evaluate_arguments


def forget_compiled(model: keras.Model) -> None:
    """Forget loss and metrics of an earlier `compile`.

    Keras keeps them when the new call has none.
    """
    model._compile_loss = None
    model._compile_metrics = None
    model.loss = None


def replace_loss_tracker(model: keras.Model, tracker: keras.metrics.Metric) -> None:
    """Put another metric where Keras keeps the one for `loss`.

    `compile` makes that, and it can log no more than one number. The attribute is set
    past Keras's tracking, as Keras does, so that it is no part of a saved model.
    """
    object.__setattr__(model, "_loss_tracker", tracker)


class BuiltByItself(keras.Model):
    """A model that needs no batch of data to be built.

    Under a strategy Keras draws a batch to build what is not built yet, and averages
    it over the replicas, which fails where its rows do not divide by them. A
    functional model is built, unless `compile` was given a loss. Keras has no setting
    for it.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if self._compile_loss is None and self._compile_metrics is None:
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
