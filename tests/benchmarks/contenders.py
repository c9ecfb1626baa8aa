"""Ways to train one network on `mse + 0.5 · (gap of two groups)²`, to be timed.

Each contender is a function `make(task)` that returns `train(epochs)`, which blocks
until done. All train the same network with Adam on the same rows; what differs is
who feeds it and what runs between two steps. Keras trains on `mse` alone.
"""

from __future__ import annotations

import dataclasses
import functools
import os

import keras
import numpy as np

import addloss_kit as alk

UNITS = 64
LEARNING_RATE = 1e-3
GAP_WEIGHT = 0.5


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained on.

    Args:
        batch: Rows per batch.
        outputs: Outputs of the network.
        groups: Number of groups.
        steps: Steps of an epoch.
        features: Inputs of the network.
    """

    batch: int = 64
    outputs: int = 1
    groups: int = 2
    steps: int = 2048
    features: int = 10

    @property
    def rows(self) -> int:
        return self.batch * self.steps

    @functools.lru_cache(maxsize=4)  # noqa: B019 - one copy for all contenders
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.rows, self.features), dtype="float32")
        y = rng.standard_normal((self.rows, self.outputs), dtype="float32")
        return x, y, rng.integers(0, self.groups, size=self.rows, dtype="int32")


def network(task: Task) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((task.features,)),
            keras.layers.Dense(UNITS, activation="relu"),
            keras.layers.Dense(UNITS, activation="relu"),
            keras.layers.Dense(task.outputs),
        ]
    )


# The kit ----------------------------------------------------------------------


def _kit(task: Task, losses: list, **options):
    x, y, group_ids = task.arrays()
    factors = [1.0, GAP_WEIGHT][: len(losses)]
    model = alk.build_training_model(network(task), losses, loss_weights=factors)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), **options)
    has_groups = len(losses) > 1
    packed = alk.pack_inputs(model, x, y, group_ids=group_ids if has_groups else None)
    return lambda epochs: model.fit(packed, batch_size=task.batch, epochs=epochs, verbose=0)


def kit_gap(task: Task):
    """The kit, `["mse", GroupGap]`, plain `fit(packed)`."""
    return _kit(task, ["mse", alk.losses.GroupGap(task.groups)])


def kit_mse(task: Task):
    """The kit, `["mse"]`, plain `fit(packed)`."""
    return _kit(task, ["mse"])


def kit_keras_loop(task: Task):
    """The kit, `["mse"]`, in Keras's own loop."""
    is_compiled = keras.backend.backend() == "jax"  # else operation by operation
    return _kit(task, ["mse"], jit_compile=is_compiled, steps_per_execution=1)


# Keras ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """How Keras is fed and compiled.

    Args:
        feeding: `"arrays"`, or `"dataset"`, a `tf.data` pipeline as in Keras's guides.
        steps_per_execution: As in `compile`.
        jit_compile: As in `compile`.
    """

    feeding: str = "arrays"
    steps_per_execution: int = 1
    jit_compile: bool = False

    def __str__(self) -> str:
        xla = "XLA" if self.jit_compile else "no XLA"
        return f"{self.feeding}, {self.steps_per_execution} a call, {xla}"


SETTINGS = [
    Setting(feeding, steps, is_compiled)
    for feeding in ("arrays", "dataset")
    for steps in (1, 16, 64, 256)
    for is_compiled in (False, True)
    # On JAX that is operation by operation.
    if is_compiled or keras.backend.backend() == "tensorflow"
]


def keras_mse(task: Task, setting: Setting):
    """Keras, `mse`, at its best."""
    x, y, _ = task.arrays()
    model = network(task)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        loss="mse",
        steps_per_execution=setting.steps_per_execution,
        jit_compile=setting.jit_compile,
    )
    if setting.feeding == "arrays":
        given = {"x": x, "y": y, "batch_size": task.batch}
    else:
        import tensorflow as tf

        rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(task.rows)
        batches = rows.batch(task.batch, num_parallel_calls=tf.data.AUTOTUNE)
        given = {"x": batches.prefetch(tf.data.AUTOTUNE), "shuffle": False}
    return lambda epochs: model.fit(**given, epochs=epochs, verbose=0)


def keras_loop(task: Task):
    """Keras, `mse`, plain `fit(x, y)`."""
    is_compiled = keras.backend.backend() == "jax"
    return keras_mse(task, Setting(jit_compile=is_compiled))


# By hand in TensorFlow --------------------------------------------------------


def _masked_group_loss(y_true, y_pred, group_ids):
    """The objective as people write it: a mask for each of two groups."""
    import tensorflow as tf

    errors = tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)
    means = []
    for group in (0, 1):
        is_in = tf.cast(tf.equal(group_ids, group), errors.dtype)
        means.append(
            tf.math.divide_no_nan(tf.reduce_sum(is_in * errors), tf.reduce_sum(is_in))
        )
    return tf.reduce_mean(errors) + GAP_WEIGHT * tf.square(means[0] - means[1])


def _tensorflow_step(task: Task):
    import tensorflow as tf

    model = network(task)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(model.trainable_variables)

    def step(x, y, group_ids):
        with tf.GradientTape() as tape:
            loss = _masked_group_loss(y, model(x, training=True), group_ids)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    return step


def eager_loop(task: Task):
    """A `GradientTape` loop, step by step, as in the articles that people copy."""
    import tensorflow as tf

    step = _tensorflow_step(task)
    rows = tf.data.Dataset.from_tensor_slices(task.arrays())

    def train(epochs):
        for _ in range(epochs):
            batches = rows.shuffle(task.rows).batch(task.batch)
            losses = [step(*batch).numpy() for batch in batches]
        return losses

    return train


def _tensorflow_epoch(task: Task, is_gathered_first: bool):
    import tensorflow as tf

    step = _tensorflow_step(task)
    arrays = [tf.constant(array) for array in task.arrays()]

    def batch_of(arrays, order, number):
        if is_gathered_first:
            return [array[number] for array in arrays]
        rows = tf.slice(order, [number * task.batch], [task.batch])
        return [tf.gather(array, rows) for array in arrays]

    @tf.function(jit_compile=True)
    def steps(arrays, order):
        def body(number, total):
            return number + 1, total + step(*batch_of(arrays, order, number))

        return tf.while_loop(lambda n, _: n < task.steps, body, (0, 0.0))[1]

    @tf.function
    def epoch():
        order = tf.random.shuffle(tf.range(task.rows))
        if is_gathered_first:
            in_steps = tf.reshape(order, (task.steps, task.batch))
            return steps([tf.gather(array, in_steps) for array in arrays], order)
        return steps(arrays, order)

    return lambda epochs: [epoch().numpy() / task.steps for _ in range(epochs)]


def epoch_by_hand(task: Task):
    """TensorFlow, the epoch as one XLA function by hand."""
    return _tensorflow_epoch(task, is_gathered_first=False)


def epoch_gathered_first(task: Task):
    """The same, all rows gathered before the first step."""
    return _tensorflow_epoch(task, is_gathered_first=True)


# Other engines ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TorchSetting:
    """How PyTorch is fed and run.

    Args:
        feeding: `"DataLoader"` or `"indexed"`, a permutation by hand.
        threads: As in `torch.set_num_threads`.
        is_compiled: Whether the whole step is under `torch.compile`.
    """

    feeding: str = "DataLoader"
    threads: int = 1
    is_compiled: bool = False

    def __str__(self) -> str:
        compiled = ", compiled" if self.is_compiled else ""
        return f"{self.feeding}{compiled}, {self.threads} threads"


TORCH_SETTINGS = [
    TorchSetting(feeding, threads, is_compiled)
    for feeding, is_compiled in (
        ("DataLoader", False),
        ("indexed", False),
        ("indexed", True),
    )
    for threads in (1, os.cpu_count() or 1)
]


def torch_gap(task: Task, setting: TorchSetting):
    """PyTorch, at its best."""
    import torch

    layers = torch.nn
    model = layers.Sequential(
        layers.Linear(task.features, UNITS),
        layers.ReLU(),
        layers.Linear(UNITS, UNITS),
        layers.ReLU(),
        layers.Linear(UNITS, task.outputs),
    )
    # `fused` is the fastest where the step is not compiled.
    is_fused = not setting.is_compiled
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=is_fused)
    arrays = list(map(torch.from_numpy, task.arrays()))

    def step(x, y, group_ids):
        errors = torch.square(y - model(x)).mean(dim=-1)
        ones = [(group_ids == group).float() for group in (0, 1)]
        means = [(errors * one).sum() / one.sum().clamp(min=1) for one in ones]
        loss = errors.mean() + GAP_WEIGHT * (means[0] - means[1]) ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    if setting.is_compiled:
        step = torch.compile(step)

    def batches():
        if setting.feeding == "DataLoader":
            rows = torch.utils.data.TensorDataset(*arrays)
            yield from torch.utils.data.DataLoader(rows, task.batch, shuffle=True)
        else:
            for rows in torch.randperm(task.rows).split(task.batch):
                yield [array[rows] for array in arrays]

    def train(epochs):
        torch.set_num_threads(setting.threads)
        for _ in range(epochs):
            for batch in batches():
                loss = step(*batch)
        return loss.item()

    return train


def torch_compiled(task: Task):
    """PyTorch, its step under `torch.compile`."""
    return torch_gap(task, TorchSetting("indexed", is_compiled=True))


def jax_scan(task: Task):
    """JAX, the epoch as one `lax.scan` by hand, Adam written out."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp

    x, y, group_ids = (jnp.asarray(array) for array in task.arrays())
    sizes = [task.features, UNITS, UNITS, task.outputs]
    keys = jax.random.split(jax.random.key(0), len(sizes))
    weights = [
        (jax.random.normal(key, (m, n)) / m**0.5, jnp.zeros(n))
        for key, m, n in zip(keys, sizes, sizes[1:])
    ]

    def loss(weights, x, y, group_ids):
        for kernel, bias in weights[:-1]:
            x = jax.nn.relu(x @ kernel + bias)
        errors = jnp.square(y - x @ weights[-1][0] - weights[-1][1]).mean(axis=-1)
        ones = [(group_ids == group).astype("float32") for group in (0, 1)]
        means = [(errors * one).sum() / jnp.maximum(one.sum(), 1) for one in ones]
        return errors.mean() + GAP_WEIGHT * (means[0] - means[1]) ** 2

    def step(state, rows):
        weights, first, second, count = state
        value, gradients = jax.value_and_grad(loss)(
            weights, x[rows], y[rows], group_ids[rows]
        )
        count = count + 1
        tree_map = jax.tree_util.tree_map
        first = tree_map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        rate = LEARNING_RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        weights = tree_map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second
        )
        return (weights, first, second, count), value

    @jax.jit
    def epoch(state, order):
        return jax.lax.scan(step, state, order.reshape(task.steps, task.batch))

    zeros = jax.tree_util.tree_map(jnp.zeros_like, weights)
    held = [(weights, zeros, zeros, 0.0)]
    # NumPy shuffles; `jax.random.permutation` sorts, which takes ten times as long.
    rng = np.random.default_rng(0)

    def train(epochs):
        for _ in range(epochs):
            order = jnp.asarray(rng.permutation(task.rows).astype("int32"))
            held[0], losses = epoch(held[0], order)
        return losses.block_until_ready()

    return train
