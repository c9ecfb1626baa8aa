"""Many steps as one compiled loop, where Keras runs one compiled step many times.

Most of the time of a small model's step goes to what lies between two steps: Keras
hands over batch by batch. A loop inside XLA has nothing between them, and gathers
each batch's rows by itself from arrays that lie on the device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from addloss_kit.data.aligned import aligned_copy
from addloss_kit.data.rows import Rows


def can_loop(model: keras.Model) -> bool:
    """Whether backend and devices allow a loop: TensorFlow or JAX, on one device."""
    if model.run_eagerly:
        return False
    if keras.backend.backend() == "jax":
        return keras.distribution.distribution() is None
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    with model.distribute_strategy.scope():
        return not tf.distribute.has_strategy()


class Loop:
    """The steps of a model over rows in memory.

    A step is Keras's own `train_step` or `test_step`, so the results are those of
    Keras's loop.

    Args:
        model: A compiled model.
        kind: `"train"` or `"test"`.
        is_xla_asked_for: Whether a model that XLA refuses is an error; else its loop
            runs as TensorFlow's graph, which is told once.
    """

    def __init__(self, model: keras.Model, kind: str, is_xla_asked_for: bool) -> None:
        self.model = model
        self.step = getattr(model, f"{kind}_step")
        self.is_xla_asked_for = is_xla_asked_for
        self.is_xla = True
        self.is_jax = keras.backend.backend() == "jax"
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def place(self, rows: Rows) -> dict[str, Any]:
        """The arrays on the device, one copy of each, kept with the rows."""
        if not self.is_jax:
            return rows.tensors
        placed = rows.__dict__.get("_placed")
        if placed is None:
            placed = rows.__dict__["_placed"] = _place_on_jax(rows)
        return placed

    def place_tensor(self, tensor: Any) -> Any:
        """An array or TensorFlow tensor, such as the order of an epoch, on the device."""
        if not self.is_jax:
            import tensorflow as tf

            return tf.convert_to_tensor(tensor)
        import jax

        # On a CPU JAX takes NumPy's memory as it is where its address suits,
        # `may_alias=False` or not, and the caller may change it.
        return jax.device_put(aligned_copy(np.asarray(tensor)))

    def run(
        self,
        arrays: dict[str, Any],
        order: Any,
        size: int,
        first: int,
        count: int,
        state: Any,
    ) -> tuple[Any, Any]:
        """Run `count` steps.

        Args:
            arrays: From `place`.
            order: From `place_tensor`.
            size: Rows per batch.
            first: Number of the first batch.
            count: How many batches.
            state: On JAX the model's state; else `None`.

        Returns:
            `(logs, state)`: the metrics' results after the last step.
        """
        if self.is_jax:
            if size not in self._compiled:
                self._compiled[size] = _jax_loop(self.model, self.step, size)
            logs, state = self._compiled[size](state, arrays, order, first, count)
            self.model.keep_jax_state(state)
            return logs, state
        import tensorflow as tf

        given = arrays, order, tf.constant(first), tf.constant(count)
        shapes = (tuple(array.shape) for array in (order, *arrays.values()))
        key = (size, *arrays, *shapes)
        is_new = key not in self._compiled
        try:
            if is_new:
                self._compiled[key] = self._tensorflow_loop(size, given)
            return self._compiled[key](*given), None
        except (tf.errors.OpError, NotImplementedError, ValueError) as error:
            # XLA refuses while it compiles, so no step has been taken.
            if not is_new or not self.is_xla or self.is_xla_asked_for:
                self._compiled.pop(key, None)
                raise
            self.is_xla = False
            self._compiled = {key: self._tensorflow_loop(size, given)}
            result = self._compiled[key](*given)
            reason = str(error).strip().splitlines()[0][:200]
            warnings.warn(
                "XLA cannot compile this model, so its steps run as TensorFlow's graph, "
                "which is slower for small models. To choose that yourself, compile with "
                f"`jit_compile=False`. XLA said: {reason}",
                stacklevel=2,
            )
            return result, None

    def _tensorflow_loop(self, size: int, given: Sequence[Any]) -> Callable[..., Any]:
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def steps(arrays: dict[str, Any], order: Any, first: Any, count: Any) -> Any:
            def body(number: Any) -> tuple[Any]:
                rows = tf.slice(order, [number * size], [size])
                self.step({name: tf.gather(array, rows) for name, array in arrays.items()})
                return (number + 1,)

            tf.while_loop(lambda number: number < first + count, body, [first])
            return self.model.get_metrics_result()

        # A function of one signature: TensorFlow warns of "retracing" where a function
        # meets other shapes, as those of the validation data.
        loop = tf.function(steps, jit_compile=self.is_xla)
        concrete: Callable[..., Any] = loop.get_concrete_function(*given)
        return concrete


def _jax_loop(model: Any, step: Callable[..., Any], size: int) -> Callable[..., Any]:
    """As on TensorFlow, with the model's state going in and coming out."""
    import jax

    def steps(
        state: Any, arrays: dict[str, Any], order: Any, first: Any, count: Any
    ) -> Any:
        def body(number: Any, state: Any) -> Any:
            rows = jax.lax.dynamic_slice(order, (number * size,), (size,))
            # The logs are dropped, so XLA leaves out what only they need.
            return step(state, {name: array[rows] for name, array in arrays.items()})[1]

        state = jax.lax.fori_loop(first, first + count, body, state)
        held = zip(model.metrics_variables, state[-1])
        with keras.StatelessScope(state_mapping=list(held)):
            return model.get_metrics_result(), state

    compiled: Callable[..., Any] = jax.jit(steps, donate_argnums=0)
    return compiled


def _place_on_jax(rows: Rows) -> dict[str, Any]:
    import jax

    # On a CPU the rows' own copies are used as they are: a copy by NumPy takes half the
    # time of one by JAX. Another device has its own memory.
    is_cpu = jax.default_backend() == "cpu"
    arrays = rows.aligned_arrays() if is_cpu else rows.arrays
    return {name: jax.device_put(a, may_alias=is_cpu) for name, a in arrays.items()}
