"""Part 1: rows whose noise is known, and a weight for each row and output."""

from __future__ import annotations

import keras
import numpy as np

from addloss_kit import losses
from addloss_kit.demo.training import train
from addloss_kit.exporting import export_inference_model
from addloss_kit.reports import GroupComparison, group_report

OUTPUTS = ("first output", "second output")
_TRAINING_ROWS, _HELD_OUT_ROWS = 600, 2000


def compare_weights(epochs: int, seed: int) -> GroupComparison:
    """Weighted RMSE (after) against plain RMSE (before), by distance from the truth.

    Noise has a standard deviation of its own in each row and output, from 0.05 to 5.
    The weights are 1 / variance. The held-out targets have no noise.

    Args:
        epochs: Passes over the training rows.
        seed: Seed of the rows, the initial weights and the row order.
    """
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (_TRAINING_ROWS + _HELD_OUT_ROWS, 4)).astype("float32")
    truth = np.stack([np.sin(3 * x[:, 0]) + x[:, 1], x[:, 2] * x[:, 3] + x[:, 0]], axis=1)
    x_train, x_test = np.split(x, [_TRAINING_ROWS])
    y_train, y_test = np.split(truth, [_TRAINING_ROWS])
    noise = 10 ** random.uniform(np.log10(0.05), np.log10(5), y_train.shape)
    y_train = y_train + noise * random.normal(size=y_train.shape)
    reports = []
    for label, weight in (
        ("RMSE", np.ones_like(noise)),
        ("weighted RMSE", 1 / noise**2),
    ):
        keras.utils.set_random_seed(seed)
        predictor = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(32, "tanh"),
                keras.layers.Dense(2),
            ]
        )
        model = train(
            predictor,
            {losses.WeightedRMSE(): 1.0},
            (x_train, y_train),
            label=label,
            epochs=epochs,
            seed=seed,
            sample_weight=weight,
        )
        y_pred = export_inference_model(model).predict(x_test, verbose=0)
        reports.append(
            group_report(
                y_test.T.ravel(),
                y_pred.T.ravel(),
                np.repeat([0, 1], _HELD_OUT_ROWS),
                group_names=OUTPUTS,
            )
        )
    return reports[1].compare(reports[0])
