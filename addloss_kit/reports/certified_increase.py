"""certify of an increase: how much worse the overall error may have become."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np

from addloss_kit.reports.bounds import (
    MIN_ROWS,
    Means,
    any_errors,
    group_means,
    margin_above,
    margin_below,
)
from addloss_kit.reports.certificate import (
    Candidates,
    Certificate,
    reason_for,
    rows_needed,
)
from addloss_kit.reports.tails import NamedErrors

# Beyond 1,000 times the error before, an increase has no bound.
_LARGEST_INCREASE = 1e3


def certify_increase(
    bound: float,
    confidence: float,
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    is_paired: bool,
    heading: str,
) -> Certificate:
    """A certificate of the relative increase of the overall error.

    The increase is at most b where after − (1 + b)·before has no positive mean, so the
    bounds are the values of b at which a bound of that mean is 0 (Fieller).

    Args:
        bound, confidence: As in `GroupComparison.certify`.
        before, after: Error and weight of each row.
        is_paired: Whether the rows are the same.
        heading: Heading of the error.
    """
    at = _Combination(before, after, is_paired, 1.0 - confidence)
    old, new = (np.average(values, weights=weight) for values, weight in (before, after))
    estimate = (new - old) / old
    rows = int((after[1] > 0).sum())
    at_bound = at(bound)
    upper, why_heavy = at.root(1), at.why_heavy()
    growth = np.inf if why_heavy else at_bound.growth(0.0, MIN_ROWS)
    is_short = at_bound.rows[0] < MIN_ROWS
    return Certificate(
        of="error_increase",
        bound=float(bound),
        confidence=float(confidence),
        estimate=float(estimate),
        lower=at.root(-1),
        upper=upper,
        rows=rows,
        rows_needed=rows_needed(growth, rows),
        method="t",
        heading=heading,
        reason=reason_for(upper, ["all"] if is_short else [], any_errors(), why_heavy),
    )


class _Combination:
    """The mean of after − (1 + b)·before with its bounds, for any b."""

    def __init__(
        self,
        before: tuple[np.ndarray, np.ndarray],
        after: tuple[np.ndarray, np.ndarray],
        is_paired: bool,
        risk: float,
    ) -> None:
        self._before, self._after = before, after
        self._is_paired, self._risk = is_paired, risk
        self._means = _overall(*after), _overall(*before)

    def why_heavy(self) -> str:
        """What has too heavy a tail, or nothing."""
        if self._is_paired:
            changes = self._after[0] - self._before[0]
            parts = [(_overall(changes, self._after[1]).upper, "the changes of the errors")]
            rows = [(changes, self._after[1])]
        else:
            one, other = self._means
            parts = [
                (one.upper, "the errors after"),
                (other.lower, "minus the errors before"),
            ]
            rows = [self._after, self._before]
        for (side, name), (values, weight) in zip(parts, rows):
            if side.is_heavy(self._risk)[0]:
                return NamedErrors(name, values, weight).said(0)
        return ""

    def _scaled(self, bound: float) -> Means:
        """Of the same rows."""
        values = self._after[0] - (1.0 + bound) * self._before[0]
        return _overall(values, self._after[1])

    @cached_property
    def _distances(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Those of the two means by side, which add up as in `difference_margins`."""
        one, other = self._means
        return {
            sign: (_margin(one, sign, self._risk), _margin(other, -sign, self._risk))
            for sign in (1, -1)
        }

    def distance(self, bound: float, sign: Literal[1, -1]) -> np.ndarray:
        """How far the upper (1) or lower (-1) bound is from the mean."""
        if not self._is_paired:
            one, other = self._distances[sign]
            return np.asarray(np.hypot(one, (1.0 + bound) * other))
        if (self._after[0] == (1.0 + bound) * self._before[0]).all():
            return np.zeros(1)  # The mean is 0 for sure.
        return _margin(self._scaled(bound), sign, self._risk)

    def mean(self, bound: float) -> np.ndarray:
        one, other = self._means
        return np.asarray(one.mean - (1.0 + bound) * other.mean)

    def __call__(self, bound: float) -> Candidates:
        if self._is_paired:
            means = self._scaled(bound)
            variance, rows = means.variance, means.rows
        else:
            one, other = self._means
            variance = one.variance + (1.0 + bound) ** 2 * other.variance
            rows = np.minimum(one.rows, other.rows)
        above, below = self.distance(bound, 1), self.distance(bound, -1)
        return Candidates(self.mean(bound), above, below, np.sqrt(variance), rows)

    def root(self, sign: Literal[1, -1]) -> float:
        """The b at which the upper (1) or lower (-1) bound is 0; infinite without."""

        def bound_at(b: float) -> float:
            return float((self.mean(b) + sign * self.distance(b, sign))[0])

        low, high = -1.0, _LARGEST_INCREASE
        at_low, at_high = bound_at(low), bound_at(high)
        # What is taken off must not hide the tail of the changes.
        if sign > 0 and (self.why_heavy() or not at_high < 0):
            return np.inf
        if not at_low > 0:
            return low
        # Nearly a line, so false position, with halved weight of an end that stays
        # (Dowell and Jarratt 1971).
        last = 0.0
        for _ in range(100):
            if high - low <= 1e-12 * (1.0 + high):
                break
            middle = low + (high - low) * at_low / (at_low - at_high)
            if not low < middle < high:
                middle = (low + high) / 2.0
            at = bound_at(middle)
            if at <= 0:
                high, at_high = middle, at
                at_low = at_low / 2.0 if last < 0 else at_low
            else:
                low, at_low = middle, at
                at_high = at_high / 2.0 if last > 0 else at_high
            last = -1.0 if at <= 0 else 1.0
        return high if sign > 0 else low


def _margin(means: Means, sign: int, risk: float) -> np.ndarray:
    return margin_above(means, risk) if sign > 0 else margin_below(means, risk)


def _overall(values: np.ndarray, weight: np.ndarray) -> Means:
    return group_means(values, np.zeros(len(values), "int64"), weight, 1)
