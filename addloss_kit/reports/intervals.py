"""Confidence intervals of group means, their gap, ratio and maximum.

Means have Student's t, without resampling. Errors are skewed to the right, so of what is
never negative it is the logarithm that has it: such intervals reach farther above than
below. Shares of rows have Wilson's (1927). Differences recover each side from those of the
two means, as Newcombe (1998) and Zou and Donner (2008) do. A gap is the largest of all
differences between two groups, so the differences get simultaneous intervals (Šidák's
inequality for the correlated pairs), from which the interval of the largest follows: exact
for two groups, conservative for more.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple, TypeAlias

import numpy as np

from addloss_kit.reports.bounds import t_quantile

# All pairs among more groups than this would be slow. Only pairs of groups with the
# largest and the smallest bounds matter.
_MAX_GROUPS_PAIRED = 500


# Of a critical value c: by how many c-ths each bound lies below its mean, and above it. For
# normal intervals, both are the standard errors.
SpreadsAt: TypeAlias = Callable[[float], tuple[np.ndarray, np.ndarray]]


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted mean of each group, its standard error and the latter's degrees of freedom.

    The standard error is that of a ratio of sums: √(Σw²(v−v̄)²·n/(n−1)) / Σw, which is
    s/√n if all weights are equal. NaN without weight, and for a single row. With
    `clusters`, numbers `(rows,)`, the sum is over the squares of the clusters' sums and n
    their number (CR1, Liang and Zeger 1986).

    The degrees of freedom are n − 1, or fewer: with p the shares of the rows in Σw², and q
    those in Σw²(v−v̄)², they are the smaller of 1/Σp² and 3/Σq², which for normal values is
    the same, less one (Satterthwaite 1946). Where a few rows make up the standard error, it
    is known less well.
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
        of_weight = (weight / total[ids]) ** 2
        by_weight = sums(of_weight) ** 2 / sums(of_weight**2)
        by_value = 3.0 / sums(((weight * (values - means[ids])) ** 2 / squares[ids]) ** 2)
        df = np.fmin(by_weight, by_value) - 1.0  # values that are all equal have no q
    return means, np.where(count > 1, errors, np.nan), df


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


def student_spreads(
    values: np.ndarray,
    errors: np.ndarray,
    df: np.ndarray,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> SpreadsAt:
    """Those of Student's t, on the scale on which the values are about normal.

    That is the logarithm of the distance from a limit, as a mean error near 0 varies less
    than a large one; without a limit, the values themselves. A root has the root's
    interval.

    Args:
        values, errors: Of each group, with standard errors.
        df: Degrees of freedom of the standard errors.
        limits: The smallest and the largest possible value. One at most is finite.
    """
    least, most = limits
    distance = values - least if np.isfinite(least) else most - values

    def spreads(c: float) -> tuple[np.ndarray, np.ndarray]:
        reach = t_quantile(NormalDist().cdf(c), df) * errors / c
        if not np.isfinite(limits).any():
            return reach, reach
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # At the limit itself, the standard error is 0.
            logs = c * np.where(distance > 0, reach / distance, reach)
            towards, away = (-np.expm1(-logs) * distance, np.expm1(logs) * distance)
        towards, away = (np.where(distance > 0, s / c, reach) for s in (towards, away))
        return (towards, away) if np.isfinite(least) else (away, towards)

    return spreads


def wilson_spreads(shares: np.ndarray, rows: np.ndarray) -> SpreadsAt:
    """Those of shares of rows: their bounds lie within [0, 1].

    A share of 0 or 1 has a standard error of 0, whatever the number of rows; its bound does
    tell few rows from many.

    Args:
        shares: In [0, 1].
        rows: Of how many rows of equal weight each share is.
    """

    def spreads(c: float) -> tuple[np.ndarray, np.ndarray]:
        shift = (0.5 - shares) * c / rows
        half = np.sqrt(shares * (1.0 - shares) / rows + (0.5 * c / rows) ** 2)
        shrink = 1.0 + c**2 / rows
        below, above = (half - shift) / shrink, (half + shift) / shrink
        return np.maximum(below, 0.0), np.maximum(above, 0.0)

    return spreads


def log_spreads(means: np.ndarray, spreads_at: SpreadsAt) -> SpreadsAt:
    """Those of the logarithms of positive means."""

    def spreads(c: float) -> tuple[np.ndarray, np.ndarray]:
        below, above = (c * spread / means for spread in spreads_at(c))
        # Infinitely far below the mean is the logarithm of a bound that is not positive.
        with np.errstate(divide="ignore"):
            return -np.log1p(-np.minimum(below, 1.0)) / c, np.log1p(above) / c

    return spreads


def among(spreads_at: SpreadsAt, chosen: np.ndarray) -> SpreadsAt:
    """Those of some of the groups."""

    def spreads(c: float) -> tuple[np.ndarray, np.ndarray]:
        below, above = spreads_at(c)
        return below[chosen], above[chosen]

    return spreads


def range_interval(
    means: np.ndarray,
    errors: np.ndarray,
    confidence: float,
    spreads_at: SpreadsAt | None = None,
) -> tuple[float, float]:
    """Interval of the largest mean minus the smallest, at least 0.

    A group without a standard error (NaN) is not compared: it may lie anywhere, so it
    makes the upper bound infinite. NaN if there are no two groups.

    Args:
        means, errors: Of each group.
        confidence: Of the interval.
        spreads_at: Where bounds are not as far below as above; by default `errors`.
    """
    if len(means) < 2:
        return np.nan, np.nan
    measured = np.flatnonzero(~np.isnan(errors))
    if len(measured) < 2:
        return 0.0, np.inf
    c = critical_value(confidence, len(measured) * (len(measured) - 1) // 2)
    below, above = spreads_at(c) if spreads_at else (errors, errors)
    means, below, above = means[measured], below[measured], above[measured]
    high_group = extreme_groups(means + c * above, means)
    low_group = extreme_groups(-means + c * below, -means)
    difference = means[high_group][:, None] - means[low_group][None, :]
    up = c * np.hypot(above[high_group][:, None], below[low_group][None, :])
    down = c * np.hypot(below[high_group][:, None], above[low_group][None, :])
    is_same = high_group[:, None] == low_group[None, :]
    up[is_same] = down[is_same] = 0.0
    low = max(0.0, float(np.max(difference - down)))
    high = float(np.max(difference + up))
    return low, high if len(measured) == len(errors) else np.inf


def largest_interval(
    means: np.ndarray,
    errors: np.ndarray,
    confidence: float,
    spreads_at: SpreadsAt | None = None,
) -> tuple[float, float]:
    """Interval of the largest mean; as above for groups without a standard error."""
    is_measured = ~np.isnan(errors)
    c = critical_value(confidence, int(is_measured.sum()))
    below, above = spreads_at(c) if spreads_at else (errors, errors)
    low = np.max((means - c * below)[is_measured], initial=-np.inf)
    high = np.max((means + c * above)[is_measured], initial=-np.inf)
    return float(low), float(high if is_measured.all() else np.inf)


def extreme_groups(*bounds: np.ndarray) -> np.ndarray:
    """The groups with the largest values of any of `bounds`."""
    if len(bounds[0]) <= _MAX_GROUPS_PAIRED:
        return np.arange(len(bounds[0]))
    chosen = [np.argpartition(-b, _MAX_GROUPS_PAIRED)[:_MAX_GROUPS_PAIRED] for b in bounds]
    return np.unique(np.concatenate(chosen))
