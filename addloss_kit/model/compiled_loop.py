"""Many steps as one compiled loop, where Keras runs one compiled step many times.

Most of the time of a small model's step goes to what lies between two steps: Keras
hands over batch by batch. A loop inside XLA has nothing between them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def looped(
    model: keras.Model, kind: str, given: dict, data: str, steps: str
) -> Iterator[None]:
    """Feed `make_dataset`'s data as they are best fed, while the context lasts.

    Where `compile` asks for several steps at a time and for XLA, that is by blocks,
    to a loop in the place of Keras's `train_function` or `test_function`. Other data,
    and part of a pass, are left to Keras.

    Args:
        model: A model with a dict `loops`, emptied by `compile`.
        kind: `"train"` or `"test"`.
        given: Arguments of `fit` or `evaluate`, to be changed.
        data: Name of the argument that may be such a dataset.
        steps: Name of the one that limits its steps.
    """
    name = f"{kind}_function"
    dataset: Any = given.get(data)
    is_pass = hasattr(dataset, "set_epoch") and given.get(steps) is None
    if is_pass:
        # A pass is an epoch. Where Keras has to find that out it makes a second iterator
        # in each epoch, for nothing.
        given[steps] = int(dataset.cardinality())
    former = getattr(model, name)
    if is_pass and _can_loop(model):
        given[data] = dataset.blocks(model.steps_per_execution)
        function = functools.partial(_loop(model, kind), dataset.count_pass)
    elif isinstance(former, functools.partial):
        # A callback feeds other data while a loop is in place: Keras makes its own.
        function = None
    else:
        yield
        return
    setattr(model, name, function)
    try:
        yield
    finally:
        setattr(model, name, former)


def _loop(model: keras.Model, kind: str) -> Callable:
    if kind not in model.loops:
        step = getattr(model, f"{kind}_step")
        is_jax = keras.backend.backend() == "jax"
        model.loops[kind] = _jax_loop(step) if is_jax else _tensorflow_loop(model, step)
    return model.loops[kind]


def _execution(iterator: Any, count_pass: Callable) -> Iterator[tuple[dict, Any]]:
    """The blocks of one execution, each with the number of its batches."""
    is_end = False
    while not is_end:
        batches, block = next(iterator)
        yield batches, block["count"]
        is_end = bool(block["is_end"])
        if block["is_last"]:
            count_pass()


def _can_loop(model: keras.Model) -> bool:
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


def _tensorflow_loop(model: keras.Model, step: Callable) -> Callable:
    """A function that takes one execution's blocks from an iterator over them."""
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def steps(batches: dict, count: Any) -> dict:
        def body(number: Any) -> tuple[Any]:
            step({name: rows[number] for name, rows in batches.items()})
            return (number + 1,)

        tf.while_loop(lambda number: number < count, body, [tf.zeros_like(count)])
        return model.get_metrics_result()

    compiled = tf.function(steps, jit_compile=True, reduce_retracing=True)

    def execution(count_pass: Callable, iterator: Any) -> dict:
        for batches, count in _execution(iterator, count_pass):
            logs = compiled(batches, count)
        return logs

    return execution


def _jax_loop(step: Callable) -> Callable:
    """As on TensorFlow, with the model's state going in and coming out."""
    import jax

    def steps(state: tuple, batches: dict, count: Any) -> tuple[dict, tuple]:
        def body(number: Any, carried: tuple) -> tuple[dict, tuple]:
            _, state = carried
            return step(state, {name: rows[number] for name, rows in batches.items()})

        shapes, _ = jax.eval_shape(body, 0, (None, state))
        logs = jax.tree.map(lambda log: jax.numpy.zeros(log.shape, log.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (logs, state))

    compiled = jax.jit(steps, donate_argnums=0)

    def execution(count_pass: Callable, state: tuple, iterator: Any) -> tuple[dict, tuple]:
        for batches, count in _execution(iterator, count_pass):
            logs, state = compiled(state, batches, count)
        return logs, state

    return execution
