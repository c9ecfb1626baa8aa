"""Part 2: a digit that is rare in training, and terms that look at the groups."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from addloss_kit import losses
from addloss_kit.demo.training import train
from addloss_kit.exporting import export_inference_model
from addloss_kit.model.training_model import TrainingModel
from addloss_kit.reports import Certificate, GroupReport, group_report

RARE_DIGIT, RARE_ROWS = 8, 30
PLAIN, GAP, WORST, BOUNDED = "plain", "GroupGap", "WorstGroup", "BoundedGroupLoss"
# All chosen, as the network was, on the splits of seeds 100 to 105.
GAP_WEIGHT = 0.5
BOUND_IN_TRAINING = 0.15
# At most this share of any digit's rows may be read wrong.
CERTIFIED_BOUND = 0.25

_ERROR = "sparse_categorical_crossentropy"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of the data.

    Args:
        x: `(rows, 64)`, brightness of the pixels in [0, 1].
        digits: `(rows,)`, the target and the group.
    """

    x: np.ndarray
    digits: np.ndarray


def load_rows(seed: int) -> tuple[Rows, Rows]:
    """Training rows, few of them of the rare digit, and held-out rows: half of all."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    x, digits = (data.data / 16).astype("float32"), data.target
    train_rows, test_rows = train_test_split(
        np.arange(len(digits)), test_size=0.5, stratify=digits, random_state=seed
    )
    is_rare = digits[train_rows] == RARE_DIGIT
    train_rows = np.delete(train_rows, np.flatnonzero(is_rare)[RARE_ROWS:])
    return Rows(x[train_rows], digits[train_rows]), Rows(x[test_rows], digits[test_rows])


def fit_terms(
    rows: Rows, *, epochs: int, seed: int, gap_weight: float = GAP_WEIGHT
) -> dict[str, TrainingModel]:
    """A model by name of the term that its loss has besides the cross-entropy.

    Args:
        rows: To train on.
        epochs: Passes over them.
        seed: Seed of the initial weights and the row order.
        gap_weight: Factor of the gap, at least 0.
    """
    gap = losses.GroupGap(
        10, error=_ERROR, distance="absolute", between="range", push="down"
    )
    terms = {
        PLAIN: {},
        GAP: {gap: gap_weight},
        WORST: {losses.WorstGroup(10, error=_ERROR, step_size="auto"): 1.0},
        BOUNDED: {
            losses.BoundedGroupLoss(
                10, error=_ERROR, bound=BOUND_IN_TRAINING, step_size=0.05
            ): 1.0
        },
    }
    models = {}
    for label, extra in terms.items():
        keras.utils.set_random_seed(seed)
        # Without decay the small net overfits the training rows.
        decay = keras.regularizers.L2(1e-3)
        predictor = keras.Sequential(
            [
                keras.Input((64,), name="pixels"),
                keras.layers.Dense(16, "relu", kernel_regularizer=decay),
                keras.layers.Dense(10, "softmax", kernel_regularizer=decay),
            ],
            name="predictor",
        )
        models[label] = train(
            predictor,
            {_ERROR: 1.0, **extra},
            (rows.x, rows.digits),
            label=label,
            epochs=epochs,
            seed=seed,
            **({"group_ids": rows.digits} if extra else {}),
        )
    return models


def report(model: TrainingModel, rows: Rows) -> GroupReport:
    """Cross-entropy by digit."""
    return _report(model, rows, _ERROR)


def _report(model: TrainingModel, rows: Rows, error: Any) -> GroupReport:
    return group_report(
        rows.digits[:, None],
        export_inference_model(model).predict(rows.x, verbose=0),
        rows.digits,
        group_names=[f"digit {k}" for k in range(10)],
        error=error,
    )


def error_rate(y_true: Any, y_pred: Any) -> Any:
    """1 for a row that is read wrong, else 0."""
    read = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
    return ops.cast(read != ops.cast(y_true[:, 0], "int32"), "float32")


def certify(model: TrainingModel, rows: Rows) -> Certificate:
    """Whether no digit's error rate exceeds `CERTIFIED_BOUND` on rows to come."""
    of_rows = _report(model, rows, error_rate)
    return of_rows.certify(CERTIFIED_BOUND, "worst_error")


@dataclasses.dataclass(frozen=True)
class Change:
    """Mean change of the error of some rows, with a paired 95 % interval.

    Args:
        value: After minus before.
        margin: Half the width of the interval.
    """

    value: float
    margin: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.margin:.3f}"


def change(before: GroupReport, after: GroupReport, is_counted: np.ndarray) -> Change:
    """Change of the error of the rows in `is_counted`, `(rows,)` of booleans."""
    difference = (after.row_errors - before.row_errors)[is_counted]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return Change(float(difference.mean()), float(1.96 * error))


def changes(before: GroupReport, after: GroupReport) -> dict[str, Change]:
    """Change of the rare digit's error, of the other digits', and of all rows'."""
    is_rare = after.group_ids == RARE_DIGIT
    parts = {
        f"digit {RARE_DIGIT}": is_rare,
        "other digits": ~is_rare,
        "all": np.ones_like(is_rare),
    }
    return {name: change(before, after, rows) for name, rows in parts.items()}
