"""Ways to train one network on `mse + 0.5 · (gap of two groups)²`, to be timed.

Each contender is a function `make(task)` that returns `train(epochs)`, which blocks
until done. All train the same network with Adam on the same rows; what differs is
who feeds it and what runs between two steps. The ones of the kit come beside plain
Keras with the same feeding.
"""

from __future__ import annotations

import dataclasses
import os

import keras
import numpy as np

import addloss_kit as alk

FEATURES = 10
UNITS = 64
LEARNING_RATE = 1e-3
GAP_WEIGHT = 0.5
# One execution of this many steps; beyond it the gain was below 5 %.
STEPS_PER_EXECUTION = 256


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained on.

    Args:
        batch: Rows per batch.
        outputs: Outputs of the network.
        groups: Number of groups.
        steps: Steps of an epoch.
    """

    batch: int = 64
    outputs: int = 1
    groups: int = 2
    steps: int = 2048

    @property
    def rows(self) -> int:
        return self.batch * self.steps

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.rows, FEATURES)).astype("float32")
        y = rng.normal(size=(self.rows, self.outputs)).astype("float32")
        return x, y, rng.integers(0, self.groups, size=self.rows).astype("int32")


def network(task: Task) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(UNITS, activation="relu"),
            keras.layers.Dense(UNITS, activation="relu"),
            keras.layers.Dense(task.outputs),
        ]
    )


# Plain Keras and the kit ------------------------------------------------------


def plain_fit(task: Task):
    """`compile(loss="mse")`, `fit(x, y)`."""
    x, y, _ = task.arrays()
    model = network(task)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss="mse")
    return lambda epochs: model.fit(x, y, batch_size=task.batch, epochs=epochs, verbose=0)


def plain_dataset(task: Task, is_xla: bool = False):
    """`compile(loss="mse")`, the kit's dataset, `steps_per_execution`."""
    x, y, _ = task.arrays()
    model = network(task)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        loss="mse",
        steps_per_execution=STEPS_PER_EXECUTION,
        jit_compile=is_xla or "auto",
    )
    rows = alk.make_dataset({"x": x, "y": y}, task.batch, seed=0)
    data = rows.map(lambda batch: (batch["x"], batch["y"]))
    return lambda epochs: model.fit(data, epochs=epochs, verbose=0)


def plain_dataset_xla(task: Task):
    """`compile(loss="mse", jit_compile=True)`, the same feeding."""
    return plain_dataset(task, is_xla=True)


def _kit(task: Task, losses: list, feeding: str, is_xla: bool = False):
    x, y, group_ids = task.arrays()
    factors = [1.0, GAP_WEIGHT][: len(losses)]
    model = alk.build_training_model(network(task), losses, loss_weights=factors)
    is_dataset = feeding == "dataset"
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        steps_per_execution=STEPS_PER_EXECUTION if is_dataset else 1,
        jit_compile=is_xla or "auto",
    )
    has_groups = len(losses) > 1
    packed = alk.pack_inputs(model, x, y, group_ids=group_ids if has_groups else None)
    if is_dataset:
        data = alk.make_dataset(packed, task.batch, seed=0)
        return lambda epochs: model.fit(data, y=None, epochs=epochs, verbose=0)
    return lambda epochs: model.fit(
        packed, y=None, batch_size=task.batch, epochs=epochs, verbose=0
    )


def kit_mse_fit(task: Task):
    """The kit, `["mse"]`, `fit(dict)`."""
    return _kit(task, ["mse"], "arrays")


def kit_mse_dataset(task: Task):
    """The kit, `["mse"]`, `make_dataset` and `steps_per_execution`."""
    return _kit(task, ["mse"], "dataset")


def kit_gap_fit(task: Task):
    """The kit, `["mse", GroupGap]`, `fit(dict)`."""
    return _kit(task, ["mse", alk.losses.GroupGap(task.groups, momentum=0.0)], "arrays")


def kit_gap_dataset(task: Task):
    """The kit, `["mse", GroupGap]`, `make_dataset` and `steps_per_execution`."""
    return _kit(task, ["mse", alk.losses.GroupGap(task.groups, momentum=0.0)], "dataset")


def kit_running_gap_dataset(task: Task):
    """The kit, `["mse", GroupGap]` with running totals, the same feeding."""
    return _kit(task, ["mse", alk.losses.GroupGap(task.groups)], "dataset")


def kit_mse_xla(task: Task):
    """The kit, `["mse"]`, `jit_compile=True`, the same feeding."""
    return _kit(task, ["mse"], "dataset", is_xla=True)


def kit_gap_xla(task: Task):
    """The kit, `["mse", GroupGap]`, `jit_compile=True`, the same feeding."""
    gap = alk.losses.GroupGap(task.groups, momentum=0.0)
    return _kit(task, ["mse", gap], "dataset", is_xla=True)


def kit_running_gap_xla(task: Task):
    """The kit, `["mse", GroupGap]` with running totals, `jit_compile=True`."""
    gap = alk.losses.GroupGap(task.groups)
    return _kit(task, ["mse", gap], "dataset", is_xla=True)


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


def _hand_loop(task: Task, is_compiled: bool):
    import tensorflow as tf

    model = network(task)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(model.trainable_variables)
    x, y, group_ids = task.arrays()
    rows = tf.data.Dataset.from_tensor_slices((x, y, group_ids))

    def step(x, y, group_ids):
        with tf.GradientTape() as tape:
            loss = _masked_group_loss(y, model(x, training=True), group_ids)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    if is_compiled:
        step = tf.function(step, reduce_retracing=True)

    def train(epochs):
        for _ in range(epochs):
            batches = rows.shuffle(task.rows).batch(task.batch)
            losses = [step(*batch).numpy() for batch in batches]
        return losses

    return train


def eager_loop(task: Task):
    """A `GradientTape` loop, step by step, as in the articles that people copy."""
    return _hand_loop(task, is_compiled=False)


def function_loop(task: Task):
    """A `GradientTape` loop with its step in `tf.function`."""
    return _hand_loop(task, is_compiled=True)


def tensorflow_limit(task: Task, is_xla: bool = False):
    """One compiled function for the whole epoch: nothing left between steps."""
    import tensorflow as tf

    model = network(task)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(model.trainable_variables)
    arrays = [tf.constant(array) for array in task.arrays()]

    @tf.function(jit_compile=is_xla)
    def steps(x, y, group_ids):
        total = 0.0
        for number in tf.range(task.steps):
            with tf.GradientTape() as tape:
                predicted = model(x[number], training=True)
                loss = _masked_group_loss(y[number], predicted, group_ids[number])
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
            total += loss
        return total / task.steps

    @tf.function
    def epoch():
        order = tf.random.shuffle(tf.range(task.rows))
        order = tf.reshape(order, (task.steps, task.batch))
        return steps(*(tf.gather(array, order) for array in arrays))

    return lambda epochs: [epoch().numpy() for _ in range(epochs)]


def tensorflow_limit_xla(task: Task):
    """One XLA function for the whole epoch: nothing left between steps."""
    return tensorflow_limit(task, is_xla=True)


# Other engines ----------------------------------------------------------------


def torch_loop(task: Task):
    """PyTorch with a `DataLoader`, as its tutorials write it."""
    import torch

    layers = torch.nn
    model = layers.Sequential(
        layers.Linear(FEATURES, UNITS),
        layers.ReLU(),
        layers.Linear(UNITS, UNITS),
        layers.ReLU(),
        layers.Linear(UNITS, task.outputs),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    rows = torch.utils.data.TensorDataset(*map(torch.from_numpy, task.arrays()))
    loader = torch.utils.data.DataLoader(rows, batch_size=task.batch, shuffle=True)

    def train(epochs):
        for _ in range(epochs):
            for x, y, group_ids in loader:
                errors = torch.square(y - model(x)).mean(dim=-1)
                ones = [(group_ids == group).float() for group in (0, 1)]
                means = [(errors * one).sum() / one.sum().clamp(min=1) for one in ones]
                loss = errors.mean() + GAP_WEIGHT * (means[0] - means[1]) ** 2
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return loss.item()

    return train


def jax_scan(task: Task):
    """JAX: one `lax.scan` over the epoch, Adam written out."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp

    x, y, group_ids = (jnp.asarray(array) for array in task.arrays())
    sizes = [FEATURES, UNITS, UNITS, task.outputs]
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
    def epoch(state, key):
        order = jax.random.permutation(key, task.rows).reshape(task.steps, task.batch)
        return jax.lax.scan(step, state, order)

    zeros = jax.tree_util.tree_map(jnp.zeros_like, weights)
    held = [(weights, zeros, zeros, 0.0), jax.random.key(1)]

    def train(epochs):
        for _ in range(epochs):
            held[1], key = jax.random.split(held[1])
            held[0], losses = epoch(held[0], key)
        return losses.block_until_ready()

    return train
