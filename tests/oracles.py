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


def group_mmd(y_pred, ids, weight, num_groups, kernel="gaussian", length=None, counts=None):
    """The mean over pairs of groups of the weighted U-statistic.

    `counts` says which elements count; two rows are compared on those of both. Without
    a `length`, it is the root mean square distance of the rows of used groups.
    """
    rows = _rows(y_pred)
    counts = _rows(np.ones(np.shape(y_pred)) if counts is None else counts)
    weight = [w if any(c) else 0.0 for w, c in zip(weight, counts)]
    members = {
        k: [i for i, g in enumerate(ids) if g == k and weight[i] > 0]
        for k in range(num_groups)
    }
    used = [k for k in range(num_groups) if len(members[k]) > 1]

    def distance(i, j):
        parts = zip(rows[i], rows[j], counts[i], counts[j])
        return math.sqrt(sum((a - b) ** 2 for a, b, c, d in parts if c and d))

    if length is None:
        everyone = [i for k in used for i in members[k]]
        pairs = list(itertools.combinations(everyone, 2))
        total = sum(weight[i] * weight[j] for i, j in pairs)
        square = sum(weight[i] * weight[j] * distance(i, j) ** 2 for i, j in pairs)
        length = math.sqrt(square / total) if pairs and square > 0 else 1.0

    def similarity(i, j):
        if kernel == "gaussian":
            return math.exp(-(distance(i, j) ** 2) / (2 * length**2))
        return math.exp(-distance(i, j) / length)

    def mean(pairs):
        total = sum(weight[i] * weight[j] for i, j in pairs)
        return sum(weight[i] * weight[j] * similarity(i, j) for i, j in pairs) / total

    values = []
    for j, k in itertools.combinations(used, 2):
        within = [mean(list(itertools.permutations(members[g], 2))) for g in (j, k)]
        between = mean(list(itertools.product(members[j], members[k])))
        values.append(sum(within) - 2 * between)
    return sum(values) / len(values) if values else 0.0
