"""The private state that `compile`, `fit` and `evaluate` share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
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


class KeptOnJax(keras.Model):
    """A model that has its weights back when `fit` or `evaluate` raises, on JAX.

    There Keras takes the variables' values away for the time of an epoch. An exception
    (bad data in a stream, Ctrl+C) would leave a model without weights. Keras syncs only
    at the end of an epoch or if a callback asks; and before the first step it has no
    state to sync from, except what this method returned.
    """

    def _get_jax_state(self, **wanted: bool) -> Any:
        self.part_shared_values()
        state = super()._get_jax_state(**wanted)
        names = [name for name in _JAX_STATE if wanted.get(name)]
        # Else what Keras has from an earlier call would be taken back.
        self._jax_state = dict(zip(names, state))
        return state

    def take_back_state(self) -> None:
        """Let the variables have their values, also between two steps of a `fit`.

        Keras does so where a callback asks for its `self.model`. One that knows the model
        by another name would find variables without values.
        """
        if keras.backend.backend() == "jax":
            self.jax_state_sync()

    def part_shared_values(self) -> None:
        """Copy arrays that two variables hold, on JAX, where steps take arrays away.

        At the end of `fit` an optimizer with `use_ema` assigns its averages to the weights;
        `evaluate`, that of the predictor too, would delete the averages with the weights.
        """
        if keras.backend.backend() != "jax":
            return
        optimizer = getattr(self, "optimizer", None)
        seen = set()
        for variable in [*self.variables, *(optimizer.variables if optimizer else ())]:
            value = variable.value
            if id(value) in seen:
                variable.assign(value.copy())
            seen.add(id(value))

    def keep_jax_state(self, state: Any) -> None:
        """Take the state after some steps of an execution that is not over yet.

        What Keras has from before it is donated to these steps, so it is gone.
        """
        self._jax_state = dict(zip(self._jax_state, state))


_JAX_STATE = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


@contextlib.contextmanager
def keeping_state(model: KeptOnJax) -> Iterator[None]:
    """Give the model its state after the last complete step, whatever is raised.

    At first, too: this may be called between two steps of a `fit`.
    """
    model.take_back_state()
    try:
        yield
    except BaseException:
        model.take_back_state()
        raise
    model.part_shared_values()
