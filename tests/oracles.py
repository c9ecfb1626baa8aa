"""The formulas once more, as plain loops over float64 numbers.

They share nothing with the package, not even the vectorised form: what they get
wrong, they get wrong on their own.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def _rows(array):
    array = np.asarray(array, "float64")
    return array.reshape(array.shape[0], -1).tolist()


def weighted_mse(y_true, y_pred, weight):
    """Σ w·e² / Σ w over all rows and outputs; 0 if the weights sum to 0."""
    total = weights = 0.0
    for true, pred, row in zip(_rows(y_true), _rows(y_pred), _rows(weight)):
        for t, p, w in zip(true, pred, row):
            total += w * (t - p) ** 2
            weights += w
    return total / weights if weights else 0.0


def weighted_mse_shared(y_true, y_pred, weights):
    """The same with one weight vector for all rows, counted once, not per row."""
    weights = [float(w) for w in weights]
    total = 0.0
    for true, pred in zip(_rows(y_true), _rows(y_pred)):
        for t, p, w in zip(true, pred, weights):
            total += w * (t - p) ** 2
    return total / sum(weights)


def weighted_rmse(y_true, y_pred, weight, over="batch"):
    """√(Σ w·e² / Σ w), once, or per row and then averaged over rows with weight."""
    if over == "batch":
        return math.sqrt(weighted_mse(y_true, y_pred, weight))
    return _mean_over_rows(
        lambda squares, total: math.sqrt(squares / total), y_true, y_pred, weight
    )


def weighted_residual_norm(y_true, y_pred, weight, over="batch"):
    """√(Σ w·e²) / Σ w, once, or per row and then averaged over rows with weight."""
    if over == "sample":
        return _mean_over_rows(
            lambda squares, total: math.sqrt(squares) / total, y_true, y_pred, weight
        )
    squares = total = 0.0
    for true, pred, row in zip(_rows(y_true), _rows(y_pred), _rows(weight)):
        for t, p, w in zip(true, pred, row):
            squares += w * (t - p) ** 2
            total += w
    return math.sqrt(squares) / total if total else 0.0


def _mean_over_rows(per_row, y_true, y_pred, weight):
    values = []
    for true, pred, row in zip(_rows(y_true), _rows(y_pred), _rows(weight)):
        squares = sum(w * (t - p) ** 2 for t, p, w in zip(true, pred, row))
        if sum(row) > 0:
            values.append(per_row(squares, sum(row)))
    return sum(values) / len(values) if values else 0.0


def squared_errors(y_true, y_pred):
    """Squared error of each row: the mean over its outputs."""
    return [
        sum((t - p) ** 2 for t, p in zip(true, pred)) / len(true)
        for true, pred in zip(_rows(y_true), _rows(y_pred))
    ]


def group_totals(error, group_ids, weight, num_groups):
    """Σ w·e and Σ w of each group; ids outside `[0, num_groups)` count nowhere."""
    errors, weights = [0.0] * num_groups, [0.0] * num_groups
    for e, k, w in zip(error, group_ids, weight):
        if 0 <= int(k) < num_groups:
            errors[int(k)] += float(w) * float(e)
            weights[int(k)] += float(w)
    return errors, weights


def group_gap(error, group_ids, weight, num_groups, distance="squared", between="pairs"):
    """The gap between the mean errors of the groups that have any weight."""
    errors, weights = group_totals(error, group_ids, weight, num_groups)
    present = [k for k in range(num_groups) if weights[k] > 0]
    means = {k: errors[k] / weights[k] for k in present}

    def apart(a, b):
        return (a - b) ** 2 if distance == "squared" else abs(a - b)

    if len(present) < 2:
        return 0.0
    if between == "range":
        return apart(max(means.values()), min(means.values()))
    if between == "overall":
        overall = sum(errors) / sum(weights)
        return sum(apart(mean, overall) for mean in means.values()) / len(present)
    pairs = list(itertools.combinations(present, 2))
    return sum(apart(means[j], means[k]) for j, k in pairs) / len(pairs)
