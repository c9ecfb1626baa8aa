"""Trains one model on several machines (or processes of one) with the JAX backend.

Run it on each machine with a number of its own, the address being that of machine 0:

    KERAS_BACKEND=jax KERAS_DISTRIBUTION_JOB_ADDRESSES=10.0.0.1:12345 \
    KERAS_DISTRIBUTION_NUM_PROCESSES=2 KERAS_DISTRIBUTION_PROCESS_ID=0 \
    python several_processes.py

Without these variables it trains in one process, to the same numbers.
"""

import json
import os

import jax
import keras
import numpy as np

import addloss_kit as alk

ROWS, BATCH, NUM_GROUPS = 512, 64, 2


def my_share(array, process, processes):
    """The rows of each batch that this process feeds, in the order of the batches."""
    shares = array.reshape(-1, processes, BATCH // processes, *array.shape[1:])
    return shares[:, process].reshape(-1, *array.shape[1:])


if __name__ == "__main__":
    if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
        keras.distribution.initialize()  # before any computation
    process, processes = jax.process_index(), jax.process_count()
    keras.utils.set_random_seed(0)  # the same weights everywhere
    # Each process feeds its own rows, so that no machine needs to hold them all.
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)
    )

    predictor = keras.Sequential(
        [keras.Input((10,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    )
    model = alk.build_training_model(
        predictor,
        losses=["mse", alk.losses.GroupGap(NUM_GROUPS, momentum=0.9)],
        metrics=[alk.metrics.GroupError(NUM_GROUPS)],
    )
    model.compile(keras.optimizers.Adam(0.01))

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 10))
    group_ids = rng.integers(0, NUM_GROUPS, size=ROWS)
    y = x[:, 0] + group_ids * rng.normal(size=ROWS)
    mine = [my_share(array, process, processes) for array in (x, y, group_ids)]
    packed = alk.pack_inputs(model, mine[0], mine[1], group_ids=mine[2])
    history = model.fit(
        packed,
        y=None,
        batch_size=BATCH // processes,
        epochs=3,
        # Rows stay in their batches; to mix them, permute all rows before the shares.
        shuffle=False,
        verbose=0,
    ).history
    print(json.dumps({key: values[-1] for key, values in history.items()}))
