"""Confidence intervals of group means, their gap, ratio and maximum.

All use the normal approximation (delta method), without resampling. A gap is the
largest of all differences between two groups, so the differences get simultaneous
intervals (Šidák's inequality for the correlated pairs), from which the interval of the
largest follows: exact for two groups, conservative for more.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

# All pairs among more groups than this would be slow. Only pairs of groups with the
# largest and the smallest bounds matter.
_MAX_GROUPS_PAIRED = 500


class Estimate(NamedTuple):
    """A value with its confidence interval; NaN if undefined."""

    value: float
    low: float
    high: float


def weighted_means(
    values: np.ndarray,
    ids: np.ndarray,
    weight: np.ndarray,
    num_groups: int,
    clusters: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of each group and its standard error, both `(num_groups,)`.

    The standard error is that of a ratio of sums: √(Σw²(v−v̄)²·n/(n−1)) / Σw, which is
    s/√n if all weights are equal. NaN without weight, and for a single row. With
    `clusters`, numbers `(rows,)`, the sum is over the squares of the clusters' sums and n
    their number (CR1, Liang and Zeger 1986).
    """
    if clusters is not None:
        values, ids, weight = by_cluster(values, ids, weight, clusters)

    def sums(x: np.ndarray) -> np.ndarray:
        return np.bincount(ids, x, minlength=num_groups)

    with np.errstate(divide="ignore", invalid="ignore"):
        total = sums(weight)
        means = sums(weight * values) / total
        count = sums((weight > 0).astype("float64"))
        squares = sums((weight * (values - means[ids])) ** 2)
        errors = np.sqrt(squares * count / (count - 1.0)) / total
    return means, np.where(count > 1, errors, np.nan)


def by_cluster(
    values: np.ndarray, ids: np.ndarray, weight: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of a cluster in a group as one row: weighted mean, id, and total weight."""
    pairs = np.stack([ids, clusters])
    cells, which = np.unique(pairs, axis=1, return_inverse=True)
    which = which.reshape(-1)  # NumPy 2.0 gives it another shape
    total = np.bincount(which, weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.bincount(which, weight * values) / total
    return np.where(total > 0, means, 0.0), cells[0], total


def critical_value(confidence: float, comparisons: int = 1) -> float:
    """Half-width, in standard errors, of `comparisons` simultaneous intervals."""
    each = confidence ** (1.0 / max(comparisons, 1))
    return NormalDist().inv_cdf((1.0 + each) / 2.0)


def simultaneous_p(values: np.ndarray, errors: np.ndarray, comparisons: int) -> np.ndarray:
    """Two-sided p-values of values other than 0, as `critical_value` corrects them."""
    normal = NormalDist()
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.abs(values) / errors
    inside = np.array([2.0 * normal.cdf(r) - 1.0 if r == r else np.nan for r in reach])
    return np.asarray(1.0 - inside ** max(comparisons, 1))


def range_interval(
    means: np.ndarray, errors: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Interval of the largest mean minus the smallest, at least 0.

    A group without a standard error (NaN) is not compared: it may lie anywhere, so it
    makes the upper bound infinite. NaN if there are no two groups.
    """
    if len(means) < 2:
        return np.nan, np.nan
    is_measured = ~np.isnan(errors)
    if not is_measured.all():
        low, _ = range_interval(means[is_measured], errors[is_measured], confidence)
        return (0.0 if np.isnan(low) else low), np.inf
    c = critical_value(confidence, len(means) * (len(means) - 1) // 2)
    high_group = extreme_groups(means + c * errors, means)
    low_group = extreme_groups(-means + c * errors, -means)
    difference = means[high_group][:, None] - means[low_group][None, :]
    margin = c * np.hypot(errors[high_group][:, None], errors[low_group][None, :])
    margin[high_group[:, None] == low_group[None, :]] = 0.0
    low = max(0.0, float(np.max(difference - margin)))
    return low, float(np.max(difference + margin))


def largest_interval(
    means: np.ndarray, errors: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Interval of the largest mean; as above for groups without a standard error."""
    is_measured = ~np.isnan(errors)
    margin = critical_value(confidence, int(is_measured.sum())) * errors[is_measured]
    low = np.max(means[is_measured] - margin, initial=-np.inf)
    high = np.max(means[is_measured] + margin, initial=-np.inf)
    return float(low), float(high if is_measured.all() else np.inf)


def extreme_groups(*bounds: np.ndarray) -> np.ndarray:
    """The groups with the largest values of any of `bounds`."""
    if len(bounds[0]) <= _MAX_GROUPS_PAIRED:
        return np.arange(len(bounds[0]))
    chosen = [np.argpartition(-b, _MAX_GROUPS_PAIRED)[:_MAX_GROUPS_PAIRED] for b in bounds]
    return np.unique(np.concatenate(chosen))
