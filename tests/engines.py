"""Gradients and compiled execution on whichever backend the tests run."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
from keras import ops

# Many small steps as one call, where Keras can: it refuses more than 1 on torch.
STEPS_PER_EXECUTION = 1 if keras.backend.backend() == "torch" else 25

# For `compile`: Keras's own loop, step by step. On JAX a step that is not compiled takes
# 50 ms, as each operation is dispatched by itself.
KERAS_S_OWN = {
    "jit_compile": keras.backend.backend() == "jax",
    "steps_per_execution": 1,
}


def as_numpy(x):
    """A tensor of any backend as a NumPy array."""
    return ops.convert_to_numpy(x)


@contextlib.contextmanager
def double_precision():
    """Everything in float64, which JAX must be asked for besides."""
    former = keras.config.floatx()
    is_jax = keras.backend.backend() == "jax"
    if is_jax:
        import jax

        jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(former)
        keras.config.set_dtype_policy(former)
        if is_jax:
            jax.config.update("jax_enable_x64", False)


def gradient(function, x):
    """Gradient of a scalar function at `x`, as NumPy."""
    x = np.asarray(x, keras.config.floatx())
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            value = function(variable.value())
        return tape.gradient(value, variable, unconnected_gradients="zero").numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    import torch

    leaf = torch.tensor(x, requires_grad=True)
    function(leaf).backward()
    return np.zeros_like(x) if leaf.grad is None else leaf.grad.numpy()


def compiled(function):
    """The function as a graph and by XLA, by the name of the execution."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return {
            "graph": tf.function(function),
            "xla": tf.function(function, jit_compile=True),
        }
    if backend == "jax":
        import jax

        return {"xla": jax.jit(function)}
    return {}  # The torch backend of Keras runs eagerly.
