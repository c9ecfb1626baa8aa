"""How Keras's `fit` and `evaluate` drive a compiled loop: by executions of many steps.

Keras sees one "step" per execution, and placeholder data; callbacks still get the
numbers of the batches.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import keras
import numpy as np

from addloss_kit.data.rows import Rows
from addloss_kit.model.compiled_loop import Loop

# Seconds that an execution should take: short enough for a live progress bar, long
# enough that the 0.2 ms between two executions do not matter.
_SECONDS = 0.1
# Steps of the first execution, when the time of a step is still unknown.
_FIRST_STEPS = 16


class Pace:
    """How many steps to run at a time, so that an execution takes a tenth of a second."""

    def __init__(self) -> None:
        self.steps = _FIRST_STEPS

    def learn(self, steps: int, seconds: float) -> None:
        """Learn from the time of the last execution."""
        wanted = steps * _SECONDS / max(seconds, 1e-6)
        self.steps = max(1, min(int(wanted), 8 * self.steps))


class Executions:
    """Runs the epochs of one `fit` or `evaluate`, one execution per call.

    Args:
        loop: The compiled loop.
        rows: The rows in memory.
        steps: Steps per execution; `None` for a whole epoch in each, with progress
            shown between parts of a tenth of a second.
        pace: What is known about the time of a step.
        epochs: How many epochs there will be at most.
    """

    def __init__(
        self, loop: Loop, rows: Rows, steps: int | None, pace: Pace, epochs: int = 1
    ) -> None:
        self.loop, self.rows, self.pace = loop, rows, pace
        self._epochs_to_come = epochs
        self.total_steps: float | None = rows.steps
        self.steps = steps or rows.steps
        self.is_paced = steps is None
        self.progress: Callable[[int, Any], None] | None = None
        self._position = 0
        self._order: Any = None

    @property
    def calls_per_epoch(self) -> int:
        """How many executions an epoch has."""
        return -(-self.rows.steps // self.steps)

    def restart(self) -> None:
        """Begin an epoch, wherever the last one stopped."""
        self._position = 0

    def last_step(self, call: int) -> int:
        """Number of the last batch of an execution, as Keras counts past the end."""
        return (call + 1) * self.steps - 1

    def run(self, state: Any = None) -> tuple[Any, Any]:
        """One execution; `(logs, state)`, the state on JAX only."""
        rows, loop = self.rows, self.loop
        if self._position == 0:
            self._order = loop.place_tensor(rows.draw_epoch())
            self._epochs_to_come -= 1
        arrays = loop.place(rows)
        end = min(self._position + self.steps, rows.steps)
        logs: Any = {}
        while self._position < end:
            first, full = self._position, rows.full_steps
            if first < full:
                most = self.pace.steps if self.is_paced else self.steps
                size, count, order = (
                    rows.batch_size,
                    min(most, end - first, full - first),
                    self._order,
                )
                at = first
            else:  # a last batch of fewer rows
                size, count = rows.drawn - full * rows.batch_size, 1
                order, at = self._order[full * rows.batch_size :], 0
            began = time.perf_counter()
            logs, state = loop.run(arrays, order, size, at, count, state)
            self._position += count
            if first == 0 and loop.is_jax and self._epochs_to_come > 0:
                # JAX computes meanwhile.
                rows.draw_ahead()
            if self.is_paced and first < full:
                wait(logs)
                # An epoch's first execution may have been compiled, and drew an order.
                if first > 0:
                    self.pace.learn(count, time.perf_counter() - began)
            if self.progress is not None and self._position < end:
                self.progress(self._position - 1, logs)
        if self._position >= rows.steps:
            self._position = 0
        return logs, state

    def as_keras_function(self) -> Callable[..., Any]:
        """The replacement for Keras's `train_function` or `test_function`."""

        def on_jax(state: Any, iterator: Any) -> Any:
            return self.run(state)

        def on_tensorflow(iterator: Any) -> Any:
            return self.run()[0]

        function: Callable[..., Any] = on_jax if self.loop.is_jax else on_tensorflow
        # `feeding.driving` knows it by this; mypy knows no attributes of functions.
        function.is_driven = True  # type: ignore[attr-defined]
        return function


class ExecutionCallbacks(keras.callbacks.CallbackList):
    """The callbacks of a `fit` or `evaluate` in which Keras takes an execution for a step.

    Args:
        callbacks: As in `fit`.
        executions: Those that Keras drives; their steps number the batches.
        **params: What Keras passes to its own list.
    """

    def __init__(self, callbacks: Any, executions: Executions, **params: Any) -> None:
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        self.executions = executions
        super().__init__(callbacks, steps=executions.total_steps, **params)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_begin(batch * self.executions.steps, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(self.executions.last_step(batch), logs=logs)

    def show_progress(self, step: int, logs: Any) -> None:
        """Update the progress bar within an execution."""
        for callback in self.callbacks:
            if isinstance(callback, keras.callbacks.ProgbarLogger):
                callback.on_train_batch_end(step, logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.executions.restart()
        super().on_epoch_begin(epoch, logs=logs)


class TestCallbacks(ExecutionCallbacks):
    """The same for `evaluate`."""

    def on_test_begin(self, logs: Any = None) -> None:
        self.executions.restart()
        super().on_test_begin(logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_test_batch_begin(batch * self.executions.steps, logs=logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_test_batch_end(self.executions.last_step(batch), logs=logs)

    def show_progress(self, step: int, logs: Any) -> None:
        """Update the progress bar within an execution."""
        for callback in self.callbacks:
            if isinstance(callback, keras.callbacks.ProgbarLogger):
                callback.on_test_batch_end(step, logs)


def has_batch_hook(callbacks: Any, kind: str) -> bool:
    """Whether a callback has a hook for each batch.

    Those of Keras that watch epochs define such hooks, too, but do nothing in them.

    Args:
        callbacks: As in `fit`.
        kind: `"train"` or `"test"`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    return any(
        _has_batch_hook(callback, kind)
        for callback in keras.tree.flatten(callbacks)
        if callback is not None
    )


def _has_batch_hook(callback: Any, kind: str) -> bool:
    of_keras = keras.callbacks
    if isinstance(callback, (of_keras.ProgbarLogger, of_keras.History)):
        return False
    frequency = {
        of_keras.ModelCheckpoint: "save_freq",
        of_keras.BackupAndRestore: "save_freq",
        of_keras.TensorBoard: "update_freq",
    }.get(type(callback))
    if frequency is not None and getattr(callback, frequency) == "epoch":
        return False
    names: tuple[str, ...]
    if kind == "train":
        names = (
            "on_train_batch_begin",
            "on_train_batch_end",
            "on_batch_begin",
            "on_batch_end",
        )
    else:
        names = ("on_test_batch_begin", "on_test_batch_end")
    return any(
        name in vars(callback)
        or getattr(type(callback), name) is not getattr(of_keras.Callback, name)
        for name in names
    )


def nothing() -> Any:
    """Placeholder data for Keras, if the loop has its own: endless, without content."""
    if keras.backend.backend() == "jax":
        # A generator, as Keras would import TensorFlow for a dataset.
        return ((batch,) for batch in itertools.repeat(np.zeros((1, 1))))
    import tensorflow as tf

    from addloss_kit.keras_internals.datasets import without_tuning

    return without_tuning(tf.data.Dataset.range(1).repeat())


def resolve_steps(asked: int | str, is_hooked: bool) -> int | None:
    """Steps per execution; `None` if the time decides.

    Args:
        asked: What `compile` was given: a number or `"auto"`.
        is_hooked: Whether a callback has a hook for each batch.
    """
    if asked == "auto":
        return 1 if is_hooked else None
    return int(asked)


def rows_of(x: Any) -> Rows | None:
    """The rows of a dataset from `make_dataset`, or rows; `None` for anything else."""
    rows = x if isinstance(x, Rows) else getattr(x, "rows", None)
    return rows if isinstance(rows, Rows) else None


def is_plain_dict(x: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether `x` is a dict of arrays in memory, as `pack_inputs` gives."""
    return isinstance(x, Mapping) and all(
        hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__array__")
        for value in x.values()
    )


def wait(logs: Mapping[str, Any]) -> None:
    """Wait for results: JAX returns them before they are computed."""
    for value in logs.values():
        if hasattr(value, "block_until_ready"):
            value.block_until_ready()
