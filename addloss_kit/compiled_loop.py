"""Many steps as one compiled loop, where Keras runs one compiled step many times.

Most of the time of a small model's step goes to what lies between two steps: Keras
hands over batch by batch. A loop inside XLA has nothing between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def can_loop(model: keras.Model) -> bool:
    """Whether `compile` asks for several steps at a time, with XLA, on one device."""
    if model.steps_per_execution == 1 or model.run_eagerly or not model.jit_compile:
        return False
    if keras.backend.backend() == "jax":
        return keras.distribution.distribution() is None
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    with model.distribute_strategy.scope():
        return not tf.distribute.has_strategy()


def make_loop(model: keras.Model, step: Callable) -> Callable:
    """What to put in the place of a model's `train_function` or `test_function`.

    Args:
        model: A model for which `can_loop` holds.
        step: Its `train_step` or `test_step`.

    Returns:
        A function that takes one execution's blocks from an iterator over
        `dataset.blocks(steps_per_execution)`, and calls `dataset.count_pass` after
        the last of a pass. (On JAX its first argument is the model's state.)
    """
    is_jax = keras.backend.backend() == "jax"
    return _jax_loop(step) if is_jax else _tensorflow_loop(model, step)


def _tensorflow_loop(model: keras.Model, step: Callable) -> Callable:
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def steps(batches: dict, count: Any) -> dict:
        def body(number: Any) -> tuple[Any]:
            step({name: rows[number] for name, rows in batches.items()})
            return (number + 1,)

        tf.while_loop(lambda number: number < count, body, [tf.zeros_like(count)])
        return model.get_metrics_result()

    compiled = tf.function(steps, jit_compile=True, reduce_retracing=True)

    def execution(iterator: Any, count_pass: Callable) -> dict:
        is_end = False
        while not is_end:
            batches, block = next(iterator)
            logs = compiled(batches, block["count"])
            is_end = bool(block["is_end"])
            if block["is_last"]:
                count_pass()
        return logs

    return execution


def _jax_loop(step: Callable) -> Callable:
    import jax

    def steps(state: tuple, batches: dict, count: Any) -> tuple[dict, tuple]:
        def body(number: Any, carried: tuple) -> tuple[dict, tuple]:
            _, state = carried
            return step(state, {name: rows[number] for name, rows in batches.items()})

        shapes, _ = jax.eval_shape(body, 0, (None, state))
        logs = jax.tree.map(lambda log: jax.numpy.zeros(log.shape, log.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (logs, state))

    compiled = jax.jit(steps, donate_argnums=0)

    def execution(state: tuple, iterator: Any, count_pass: Callable) -> tuple[dict, tuple]:
        is_end = False
        while not is_end:
            batches, block = next(iterator)
            logs, state = compiled(state, batches, block["count"])
            is_end = bool(block["is_end"])
            if block["is_last"]:
                count_pass()
        return logs, state

    return execution
