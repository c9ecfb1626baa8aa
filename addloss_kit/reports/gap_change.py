"""The interval and the p-value of the change of a gap between two models."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from addloss_kit.reports.intervals import critical_value, range_interval

# The share of the risk that is spent on leaving out groups that are clearly neither the
# largest nor the smallest.
_SELECTION = 0.1
# Contrasts that are bounded jointly; with more, the two gaps are bounded one by one.
_MAX_CONTRASTS = 10_000


class GapChange(NamedTuple):
    """The gap after minus the gap before, with its interval and p-value.

    NaN where there is no gap; without a standard error of some group the interval is
    infinite and the p-value NaN.
    """

    value: float
    low: float
    high: float
    p_value: float


def change_of_gap(
    before: np.ndarray,
    after: np.ndarray,
    variances_before: np.ndarray,
    variances_after: np.ndarray,
    covariances: np.ndarray,
    confidence: float,
) -> GapChange:
    """The change of largest minus smallest mean, jointly over who may be these.

    A gap is a maximum over pairs of groups, so its change is a maximum over the pairs after
    of a minimum over the pairs before of linear contrasts. Those get simultaneous normal
    intervals (Šidák) over the groups that may be the largest or the smallest: exact where
    these are clear, conservative near ties.

    Args:
        before, after: Means `(num_groups,)`.
        variances_before, variances_after: Their squared standard errors.
        covariances: Of a group's two means; 0 for other rows.
        confidence: Of the interval.
    """
    value = float(np.ptp(after) - np.ptp(before)) if len(after) > 1 else np.nan
    if len(after) < 2:
        return GapChange(value, np.nan, np.nan, np.nan)
    if np.isnan(variances_before + variances_after).any():
        return GapChange(value, -np.inf, np.inf, np.nan)
    risk = 1.0 - confidence
    # Four selections: the largest and the smallest, before and after.
    level = 1.0 - _SELECTION * risk / 4.0
    ends_b = _Ends.of(before, variances_before, level)
    ends_a = _Ends.of(after, variances_after, level)
    # A contrast and its negative have one interval.
    number = ends_a.pairs * ends_b.pairs - ends_a.reversible * ends_b.reversible // 2
    if number > _MAX_CONTRASTS:
        return _one_by_one(
            value, before, after, variances_before, variances_after, confidence
        )
    means, errors = _contrasts(
        (after, variances_after, ends_a), (before, variances_before, ends_b), covariances
    )

    def bound(margin: float) -> float:
        return float((means + margin * errors).min(axis=1).max())

    c = critical_value(1.0 - (1.0 - _SELECTION) * risk, number)
    reach = _reach(bound, -1.0 if value > 0 else 1.0)
    p = (1.0 - (2.0 * NormalDist().cdf(reach) - 1.0) ** number) / (1.0 - _SELECTION)
    return GapChange(value, bound(-c), bound(c), min(1.0, p))


class _Ends(NamedTuple):
    """The groups that may have the largest mean, and those that may have the smallest."""

    highest: np.ndarray
    lowest: np.ndarray

    @classmethod
    def of(cls, means: np.ndarray, variances: np.ndarray, level: float) -> _Ends:
        """Left out are groups clearly beyond the one whose bound reaches farthest.

        Whichever that is: the level is that of comparisons with all others.
        """
        c = NormalDist().inv_cdf(level ** (1.0 / (len(means) - 1)))

        def may_be_largest(means: np.ndarray) -> np.ndarray:
            best = np.argmax(means - c * np.sqrt(variances))
            clear = c * np.sqrt(variances + variances[best])
            return np.flatnonzero(means[best] - means <= clear)

        return cls(may_be_largest(means), may_be_largest(-means))

    @property
    def _both(self) -> int:
        return len(np.intersect1d(self.highest, self.lowest))

    @property
    def pairs(self) -> int:
        """How many pairs of two groups there are."""
        return len(self.highest) * len(self.lowest) - self._both

    @property
    def reversible(self) -> int:
        """How many of the pairs are there the other way round, too."""
        return self._both * (self._both - 1)

    def signs(self, groups: int) -> np.ndarray:
        """The pairs, as rows with 1 at the one and -1 at the other."""
        grid = np.meshgrid(self.highest, self.lowest, indexing="ij")
        high, low = (side.ravel()[grid[0].ravel() != grid[1].ravel()] for side in grid)
        signs = np.zeros((len(high), groups))
        signs[np.arange(len(high)), high] = 1.0
        signs[np.arange(len(high)), low] = -1.0
        return signs


_Side = tuple[np.ndarray, np.ndarray, _Ends]


def _contrasts(
    after: _Side, before: _Side, covariances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard errors of (pairs after) × (pairs before)."""

    signs_a, signs_b = (ends.signs(len(means)) for means, _, ends in (after, before))
    value_a, value_b = signs_a @ after[0], signs_b @ before[0]
    variance = (
        ((signs_a**2) @ after[1])[:, None]
        + ((signs_b**2) @ before[1])[None, :]
        - 2.0 * (signs_a * covariances) @ signs_b.T
    )
    means = value_a[:, None] - value_b[None, :]
    return means, np.sqrt(np.maximum(variance, 0.0))


def _reach(bound: Callable[[float], float], sign: float) -> float:
    """The largest number of standard errors at which the interval leaves out 0."""
    low, high = 0.0, 40.0
    if sign * bound(0.0) >= 0.0:
        return 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if sign * bound(sign * middle) < 0.0 else (low, middle)
    return low


def _one_by_one(
    value: float,
    before: np.ndarray,
    after: np.ndarray,
    variances_before: np.ndarray,
    variances_after: np.ndarray,
    confidence: float,
) -> GapChange:
    """From an interval for each gap, which ignores that rows are paired."""

    def bounds(confidence: float) -> tuple[float, float]:
        each = 1.0 - (1.0 - confidence) / 2.0
        low_b, high_b = range_interval(before, np.sqrt(variances_before), each)
        low_a, high_a = range_interval(after, np.sqrt(variances_after), each)
        return low_a - high_b, high_a - low_b

    low, high = bounds(confidence)
    inside, outside = 1.0, 0.0  # risks at which 0 is left out, and is not
    for _ in range(30):
        middle = 0.5 * (inside + outside)
        lower, upper = bounds(1.0 - middle)
        is_left_out = lower > 0 or upper < 0
        inside, outside = (middle, outside) if is_left_out else (inside, middle)
    return GapChange(value, low, high, inside)
