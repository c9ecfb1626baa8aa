"""Trains on torch, alone or as one of two processes, and prints the results as JSON.

    PYTHONPATH=tests KERAS_BACKEND=torch \
    python tests/workers/train_on_torch_processes.py FOLDER

As one of two, if `KERAS_DISTRIBUTION_…` says so: see docs/scaling. Alone it is fed what the
two are fed together. FOLDER is for the files that are written on the way.
"""

import json
import os
import pathlib
import sys

import every_term
import keras
import numpy as np

import addloss_kit as alk
from addloss_kit.keras_internals.replicas import gather_over_replicas, sum_over_replicas

STEPS, EPOCHS = 4, 2
# Rows of a step of process 0 and 1, so that means of the processes' means would be wrong.
SHARES = (7, 5)
IS_ONE_OF_TWO = "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ
RANK = int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", 0))
FOLDER = pathlib.Path(sys.argv[1])


def shared(packed, shares):
    """Batches of what this process, or one for both, is fed: steps of rows by process.

    Of the groups, the last is in process 0 alone.
    """
    is_last = packed["group_ids"] == every_term.NUM_GROUPS - 1
    rows = [list(np.flatnonzero(is_last)) + list(np.flatnonzero(~is_last)), []]
    rows[0], rows[1] = np.split(np.array(rows[0]), [sum(own for own, _ in shares)])
    rows[0] = np.random.default_rng(1).permutation(rows[0])
    assert not is_last[rows[1]].any() and is_last.any()
    at = [0, 0]
    for step in shares:
        indices = [rows[k][at[k] : at[k] + step[k]] for k in range(2)]
        at = [at[k] + step[k] for k in range(2)]
        own = indices[RANK] if IS_ONE_OF_TWO else np.concatenate(indices)
        yield {name: values[own] for name, values in packed.items()}


def joined(batches):
    batches = list(batches)
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def size(*shares):
    return shares[RANK] if IS_ONE_OF_TWO else sum(shares)


def listed(model):
    return {name: value.tolist() for name, value in every_term.state(model).items()}


def all_terms():
    """Uneven shares of each step, trained and then evaluated."""
    model = every_term.build()
    packed = every_term.data(model, STEPS * sum(SHARES))
    own = joined(shared(packed, [SHARES] * STEPS))
    options = {"batch_size": size(*SHARES), "verbose": 0}
    history = model.fit(own, y=None, epochs=EPOCHS, shuffle=False, **options).history
    evaluated = model.evaluate(own, return_dict=True, **options)
    return {"logs": history, "evaluated": evaluated, "state": listed(model)}


def build_small():
    predictor = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(1)]
    )
    groups = every_term.NUM_GROUPS
    model = alk.build_training_model(
        predictor,
        [
            "mse",
            alk.losses.GroupGap(groups, momentum=0.9),
            alk.losses.GroupGapConstraint(groups, bound=0.05),
            alk.losses.GroupDistributionGap(groups),
        ],
        metrics=[
            alk.metrics.GroupError(groups),
            alk.metrics.GroupGap(groups, name="epoch_gap"),
            alk.metrics.BoundIsMet(groups, bound=0.5, of="gap"),
        ],
    )
    model.compile(keras.optimizers.Adam(0.02))
    return model


def small_data(model, rows):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(rows, 4))
    groups = rng.choice(every_term.NUM_GROUPS, size=rows, p=[0.6, 0.3, 0.1])
    groups[:2] = every_term.NUM_GROUPS - 1
    return alk.pack_inputs(
        model, x, x[:, 0] + groups * rng.normal(size=rows), group_ids=groups
    )


def a_few_terms():
    model = build_small()
    own = joined(shared(small_data(model, STEPS * sum(SHARES)), [SHARES] * STEPS))
    history = model.fit(
        own, y=None, epochs=EPOCHS, shuffle=False, batch_size=size(*SHARES), verbose=0
    ).history
    return {"logs": history, "state": listed(model)}


def rows_of_one_process():
    """Gathered rows and their gradient, where process 1 has none."""
    factor = keras.Variable(2.0)
    x = np.arange(1.0, 7.0, dtype="float32").reshape(3, 2)
    own = x[:0] if IS_ONE_OF_TWO and RANK == 1 else x
    rows = gather_over_replicas([keras.ops.multiply(factor, own)])[0]
    weights = np.arange(1.0, len(rows) + 1.0, dtype="float32")[:, None]
    keras.ops.sum(keras.ops.multiply(weights, keras.ops.square(rows))).backward()
    # As `DistributedDataParallel` takes it.
    mean = sum_over_replicas(factor.value.grad) / (2 if IS_ONE_OF_TWO else 1)
    return {"rows": rows.tolist(), "gradient": float(mean)}


def rows_of_unlike_shape():
    """What is refused in both; nothing alone."""
    try:
        gather_over_replicas(keras.ops.ones((2, 3 + RANK)))
    except ValueError as error:
        return {"error": str(error)}
    return {"error": ""}


def resumed_with_a_distribution():
    """Saved by process 0 alone, and resumed by all."""
    if IS_ONE_OF_TWO:
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )

    def fit(epochs):
        model = build_small()
        own = joined(shared(small_data(model, STEPS * sum(SHARES)), [SHARES] * STEPS))
        saving = alk.callbacks.CheckpointAndResume(
            FOLDER / "training.ckpt", delete_checkpoint=False
        )
        return model, model.fit(
            own,
            y=None,
            epochs=epochs,
            shuffle=False,
            batch_size=size(*SHARES),
            callbacks=[saving],
            verbose=0,
        )

    fit(1)
    model, history = fit(3)
    if RANK == 0:
        model.save(FOLDER / "model.keras")
        loaded = keras.saving.load_model(FOLDER / "model.keras")
        assert listed(loaded) == listed(model)
    keras.distribution.set_distribution(None)
    return {"epochs": history.epoch, "logs": history.history, "state": listed(model)}


CASES = (
    all_terms,
    a_few_terms,
    rows_of_one_process,
    rows_of_unlike_shape,
    resumed_with_a_distribution,
)


if __name__ == "__main__":
    if IS_ONE_OF_TWO:
        keras.distribution.initialize()
    results = {}
    for case in CASES:
        keras.utils.clear_session()
        keras.utils.set_random_seed(RANK)  # the weights of process 0 go to all
        results[case.__name__] = case()
    print(json.dumps(results))
