"""Every term of the kit at once, for tests that compare ways to compute."""

import inspect

import keras
import numpy as np
from keras import ops

import addloss_kit as alk

NUM_GROUPS = 3
OUTPUTS = 2


def mean_function(y_true, y_pred, price, sample_weight):
    """A scalar, that is a mean over rows, with an argument of its own."""
    return ops.mean(price[:, None] * sample_weight * ops.abs(y_true - y_pred))


def row_function(y_true, y_pred, price):
    """A value per row."""
    return price * ops.sum(ops.square(y_true - y_pred), axis=-1)


# What a constructor asks for by name, where it has no default.
_ARGUMENTS = {"num_groups": NUM_GROUPS, "bound": 0.05, "margin": 1.0}


def every_term():
    """One of each public term, and what else goes through other code.

    Terms that the package gains later are found by themselves.
    """
    made = [
        alk.losses.KerasLoss("mse", name="keras_mean"),
        alk.losses.KerasLoss(keras.losses.Huber(reduction="sum"), name="keras_sum"),
        alk.losses.KerasLoss(
            keras.losses.MeanAbsoluteError(reduction="mean_with_sample_weight"),
            name="keras_weighted_mean",
        ),
        alk.losses.FunctionLoss(mean_function),
        alk.losses.FunctionLoss(row_function),
        alk.losses.WeightedRMSE(over="sample", name="weighted_rmse_rows"),
        alk.losses.WeightedMSE(weights=[1.0, 3.0], name="weights_per_output"),
        alk.losses.GroupGap(NUM_GROUPS, momentum=0.0, name="plug_in_gap"),
        alk.losses.GroupGap(
            NUM_GROUPS, distance="absolute", between="range", name="range_gap"
        ),
    ]
    by_hand = {"LossTerm", "KerasLoss", "FunctionLoss", "SymbolicLoss"}
    for name in alk.losses.__all__:
        term = getattr(alk.losses, name)
        is_term = inspect.isclass(term) and issubclass(term, alk.losses.LossTerm)
        if name in by_hand or not is_term:
            continue
        parameters = inspect.signature(term.__init__).parameters.values()
        needed = [p.name for p in parameters if p.default is p.empty and p.kind < 4]
        given = {n: _ARGUMENTS[n] for n in needed if n in _ARGUMENTS}
        made.append(term(**given))
    return made


def build(optimizer=None, **compile_arguments):
    """A small model that trains on `every_term()`, a scalar of the graph, and metrics."""
    x = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(5, activation="tanh", kernel_regularizer="l2")(x)
    predictor = keras.Model(x, keras.layers.Dense(OUTPUTS)(hidden))
    terms = every_term()
    model = alk.build_training_model(
        predictor,
        terms,
        loss_weights=[1.0 / len(terms)] * len(terms),
        metrics=[
            alk.metrics.GroupError(NUM_GROUPS),
            alk.metrics.GroupGap(NUM_GROUPS, name="epoch_gap"),
            "mae",
        ],
        sample_weight=True,
    )
    model = alk.add_loss(model, ops.mean(ops.square(model.output)), name="symbolic")
    model.compile(optimizer or keras.optimizers.SGD(0.05), **compile_arguments)
    return model


def data(model, rows, seed=0):
    """Packed rows; the groups of unequal size, and one row of no group."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    group_ids = rng.choice(NUM_GROUPS, size=rows, p=[0.6, 0.3, 0.1])
    group_ids[0] = -1
    return alk.pack_inputs(
        model,
        x,
        x[:, :OUTPUTS] * 2 + (group_ids == 1)[:, None] + rng.normal(size=(rows, OUTPUTS)),
        sample_weight=rng.uniform(0.5, 2.0, size=(rows, OUTPUTS)),
        group_ids=group_ids,
        price=rng.uniform(0.5, 2.0, size=rows),
    )


def state(model):
    """Weights, running totals and multipliers, as one array per name."""
    return {
        f"{number}:{variable.name}": ops.convert_to_numpy(variable)
        for number, variable in enumerate(model.variables)
        if variable.dtype.startswith("float")
    }
