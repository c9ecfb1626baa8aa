"""Measures by name: errors of numbers, and rates of a classifier's labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from addloss_kit._checks import check_rows, received
from addloss_kit.reports.measures import MeanOf, RootOf, RowMeasure, RSquared
from addloss_kit.reports.rows import in_one_shape

# A probability above it predicts label 1, as for `keras.metrics.BinaryAccuracy`.
THRESHOLD = 0.5


def _residual(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """`y_pred - y_true` as `(rows, outputs)`."""
    y_true, y_pred = in_one_shape(y_true, y_pred)
    return np.asarray((y_pred - y_true).reshape(y_true.shape[0], -1))


def signed_error(y_true: np.ndarray, y_pred: np.ndarray) -> MeanOf:
    """The bias: prediction minus target."""
    return MeanOf(_residual(y_true, y_pred).mean(axis=1), is_signed=True)


def squared_error(y_true: np.ndarray, y_pred: np.ndarray) -> MeanOf:
    """The MSE."""
    return MeanOf(np.square(_residual(y_true, y_pred)).mean(axis=1))


def absolute_error(y_true: np.ndarray, y_pred: np.ndarray) -> MeanOf:
    """The MAE."""
    return MeanOf(np.abs(_residual(y_true, y_pred)).mean(axis=1))


def rmse(y_true: np.ndarray, y_pred: np.ndarray) -> RootOf:
    """The root of the MSE; of several outputs, of their mean."""
    return RootOf(squared_error(y_true, y_pred))


def r2(y_true: np.ndarray, y_pred: np.ndarray) -> RSquared:
    """The coefficient of determination."""
    y_true, y_pred = in_one_shape(y_true, y_pred)
    rows = y_true.shape[0]
    return RSquared(y_true.reshape(rows, -1), y_pred.reshape(rows, -1))


def error_rate(y_true: np.ndarray, y_pred: np.ndarray) -> MeanOf:
    """The share of wrong labels."""
    true, predicted = _labels(y_true, y_pred)
    return MeanOf((true != predicted).astype("float64"), is_share=True)


def accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> MeanOf:
    """The share of right labels."""
    true, predicted = _labels(y_true, y_pred)
    is_right = (true == predicted).astype("float64")
    return MeanOf(is_right, is_score=True, is_share=True)


def selection_rate(y_true: np.ndarray, y_pred: np.ndarray) -> MeanOf:
    """The share of rows that are predicted to be 1."""
    _, predicted = _two_labels(y_true, y_pred)
    return MeanOf(predicted, is_share=True)


def true_positive_rate(y_true: np.ndarray, y_pred: np.ndarray) -> MeanOf:
    """Of the rows with target 1, the share that is predicted to be 1."""
    true, predicted = _two_labels(y_true, y_pred)
    return MeanOf(predicted, counts=true == 1, is_score=True, is_share=True)


def false_positive_rate(y_true: np.ndarray, y_pred: np.ndarray) -> MeanOf:
    """Of the rows with target 0, the share that is predicted to be 1."""
    true, predicted = _two_labels(y_true, y_pred)
    return MeanOf(predicted, counts=true == 0, is_share=True)


READY: dict[str, Callable[[np.ndarray, np.ndarray], RowMeasure]] = {
    function.__name__: function
    for function in (
        signed_error,
        squared_error,
        absolute_error,
        rmse,
        r2,
        error_rate,
        accuracy,
        selection_rate,
        true_positive_rate,
        false_positive_rate,
    )
}


def _labels(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers `(rows,)`: the targets, and the labels that are predicted."""
    rows = y_true.shape[0]
    check_rows(y_true=y_true, y_pred=y_pred)
    true = y_true.reshape(rows, -1)
    predicted = y_pred.reshape(rows, -1)
    if true.shape[1] != 1 or np.any(true != np.floor(true)):
        raise ValueError(
            "Rates of labels need whole numbers as targets, one per row. Take the `argmax` "
            f"of one-hot targets. {received(**{'y_true.shape': y_true.shape})}"
        )
    if predicted.shape[1] > 1:
        labels = predicted.argmax(axis=1)
    elif np.all(predicted == np.floor(predicted)):
        labels = predicted[:, 0]
    else:
        _check_probabilities(predicted[:, 0])
        labels = predicted[:, 0] > THRESHOLD
    return true[:, 0].astype("float64"), labels.astype("float64")


def _two_labels(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for the labels 0 and 1."""
    if y_pred.size != y_pred.shape[0]:
        raise ValueError(
            "Rates of positive labels need one prediction per row. Pass the column of "
            f"label 1. {received(**{'y_pred.shape': y_pred.shape})}"
        )
    true, predicted = _labels(y_true, y_pred)
    for name, labels in (("y_true", true), ("y_pred", predicted)):
        is_other = ~np.isin(labels, (0.0, 1.0))
        if is_other.any():
            row = int(np.argmax(is_other))
            raise ValueError(
                f"Rates of positive labels need 0 and 1 in `{name}`, or probabilities in "
                f"`y_pred`. {received(**{f'{name}[{row}]': labels[row]})}"
            )
    return true, predicted


def _check_probabilities(values: np.ndarray) -> None:
    is_outside = ~((values >= 0.0) & (values <= 1.0))
    if is_outside.any():
        row = int(np.argmax(is_outside))
        raise ValueError(
            "Rates of labels need labels or probabilities in `y_pred`. Apply the `sigmoid` "
            f"to logits. {received(**{f'y_pred[{row}]': values[row]})}"
        )
