"""One-sided confidence bounds of mean errors, and of linear combinations of them.

Errors are skewed to the right, so an upper bound from Student's t alone is too low: of
40 rows with squared normal residuals, 11 % of 95 % bounds lie below the true mean. Two
kinds of bounds are used instead:

- for errors of any kind, t with Hall's (1992) correction for skewness. Sample skewness is
  too small on average, so it counts `SKEWNESS_FACTOR` times. A bound is no nearer than the
  fall-off of the largest rows allows (`reports.tails`). With fewer than `MIN_ROWS` rows
  there is none;
- for errors known to be bounded, those of Hoeffding (1963, Theorem 1) and of Maurer and
  Pontil (2009, Theorem 4), which hold for any number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np

from addloss_kit.reports.tails import Tail, upper_tail

# Simulated: from 30 rows on, about 6 % of 95 % bounds are wrong at the most, with and
# without a variance (docs/studies/certificate.md).
SKEWNESS_FACTOR = 1.75
MIN_ROWS = 30


class Moments(NamedTuple):
    """Estimated means, with the cumulants of the estimators.

    Args:
        mean: Weighted means.
        variance: Squared standard errors.
        third: Third cumulants.
        rows: Effective numbers of rows, (Σw)²/Σw².
    """

    mean: np.ndarray
    variance: np.ndarray
    third: np.ndarray
    rows: np.ndarray

    def mirrored(self) -> Moments:
        """Those of minus the values."""
        return Moments(-self.mean, self.variance, -self.third, self.rows)

    def margin(self, risk: float) -> np.ndarray:
        """How far upper bounds are above the means, by t, corrected for skewness.

        Infinite with fewer than `MIN_ROWS` effective rows, and where all rows have the same
        error, which says nothing about the rare others.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.sqrt(self.variance)
            skewness = SKEWNESS_FACTOR * self.third / spread**3
            t = t_quantile(1.0 - risk, np.maximum(self.rows - 1.0, 1.0))
            # The inverse of Hall's transformation; towards 0 it is t itself.
            skewness = np.maximum(np.nan_to_num(skewness), 1e-9)
            cube = np.cbrt(1.0 - skewness * (t + skewness / 6.0))
            margin = spread * np.maximum(t, 3.0 / skewness * (1.0 - cube))
        # Equal errors have a spread of rounding errors.
        is_known = (self.rows >= MIN_ROWS) & (spread > 1e-12 * np.abs(self.mean))
        return np.asarray(np.where(is_known, margin, np.inf))


class Side(NamedTuple):
    """What decides how far a mean may lie above its estimate.

    Args:
        whole: Of the values.
        level: Of the values with the largest at their mean.
        tail: How the largest fall off.
    """

    whole: Moments
    level: Moments
    tail: Tail

    def margin(self, risk: float) -> np.ndarray:
        """How far the bound is from the mean; it is too near with chance `risk`.

        The larger of what the rows in hand tell, and of what the fall-off of the largest
        tells of those that are missing.
        """
        # Independent, so distances add up as standard errors do (Zou and Donner 2008).
        missing = np.hypot(self.level.margin(risk), self.tail.margin(risk))
        return np.asarray(np.maximum(self.whole.margin(risk), missing))

    def is_heavy(self, risk: float) -> np.ndarray:
        """Whether there are enough rows, but too heavy a tail for a bound."""
        return np.asarray(self.tail.is_open(risk) & (self.whole.rows >= MIN_ROWS))


class Means(NamedTuple):
    """Estimated means, and what their confidence bounds take.

    Args:
        mean: Weighted means.
        variance: Squared standard errors.
        rows: Effective numbers of rows, (Σw)²/Σw².
        upper, lower: Of the values, and of minus the values.
    """

    mean: np.ndarray
    variance: np.ndarray
    rows: np.ndarray
    upper: Side
    lower: Side

    def take(self, index: Any) -> Means:
        """Some of the means, or all in another shape."""
        taken: Means = _mapped(self, lambda array: array[index])
        return taken


def _mapped(part: Any, of: Callable[[np.ndarray], np.ndarray]) -> Any:
    if isinstance(part, np.ndarray):
        return of(part)
    return type(part)(*(_mapped(one, of) for one in part))


def moments(
    values: np.ndarray, ids: np.ndarray, weight: np.ndarray, num_groups: int
) -> Moments:
    """Of the weighted mean of each group, `(num_groups,)`; NaN without weight.

    Args:
        values, ids, weight: `(rows,)`.
        num_groups: Number of groups.
    """

    def sums(x: np.ndarray) -> np.ndarray:
        return np.bincount(ids, x, minlength=num_groups)

    with np.errstate(divide="ignore", invalid="ignore"):
        total = sums(weight)
        mean = sums(weight * values) / total
        count = sums((weight > 0).astype("float64"))
        moved = weight * (values - mean[ids])
        variance = sums(moved**2) / total**2 * count / (count - 1.0)
        third = sums(moved**3) / total**3
        rows = total**2 / sums(weight**2)
    return Moments(mean, variance, third, np.nan_to_num(rows))


def group_means(
    values: np.ndarray, ids: np.ndarray, weight: np.ndarray, num_groups: int
) -> Means:
    """The weighted mean of each group; arguments as of `moments`."""

    def side(values: np.ndarray, whole: Moments) -> Side:
        tail, level = upper_tail(values, ids, weight, num_groups)
        return Side(whole, moments(level, ids, weight, num_groups), tail)

    whole = moments(values, ids, weight, num_groups)
    sides = side(values, whole), side(-values, whole.mirrored())
    return Means(whole.mean, whole.variance, whole.rows, *sides)


def margin_above(means: Means, risk: float) -> np.ndarray:
    """How far the upper bounds are above the means; each is too low with chance `risk`.

    Infinite with fewer than `MIN_ROWS` effective rows, with a heavy tail, and where all
    rows have the same error.
    """
    return means.upper.margin(risk)


def margin_below(means: Means, risk: float) -> np.ndarray:
    """The same for lower bounds."""
    return means.lower.margin(risk)


class Sides(NamedTuple):
    """How far confidence bounds are from means, and what is needed to compute them.

    Args:
        method: `"t"` or `"bounded"`.
        above, below: From means and a risk to the distance of the bound.
        min_rows: Rows below which there is none.
    """

    method: Literal["t", "bounded"]
    above: Callable[[Means, float], np.ndarray]
    below: Callable[[Means, float], np.ndarray]
    min_rows: int


def difference_margins(
    sides: Sides, one: Means, other: Means, risk: float, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """How far the bounds of `one` − `other`, independent means, are above and below.

    By the method of variance estimates recovery (Zou and Donner 2008): distances of the
    means' own bounds add up as standard errors do. Skewness of a difference cannot be
    corrected as that of a mean is: it cancels, while the spread stays as uncertain. Of
    bounded errors, the means' bounds are combined at half the risk each.

    Args:
        sides: Bounds of a mean.
        one, other: Means; the shapes broadcast.
        risk: Of the upper bounds.
        share: Of the risk, that of the lower bounds.
    """
    if sides.method == "bounded":
        half = risk / 2.0
        above = sides.above(one, half) + sides.below(other, half)
        return above, sides.below(one, half * share) + sides.above(other, half * share)
    above = np.hypot(sides.above(one, risk), sides.below(other, risk))
    low = risk * share
    return above, np.hypot(sides.below(one, low), sides.above(other, low))


def any_errors() -> Sides:
    """Bounds for errors of which nothing is known."""
    return Sides("t", margin_above, margin_below, MIN_ROWS)


def bounded_errors(low: float, high: float, is_weighted: bool) -> Sides:
    """Bounds for errors within `[low, high]`, with any number of rows."""
    width = high - low

    def above(means: Means, risk: float) -> np.ndarray:
        share, variance = (means.mean - low) / width, means.variance / width**2
        return width * _bounded_margin(share, variance, means.rows, risk, is_weighted)

    def below(means: Means, risk: float) -> np.ndarray:
        share, variance = (high - means.mean) / width, means.variance / width**2
        return width * _bounded_margin(share, variance, means.rows, risk, is_weighted)

    return Sides("bounded", above, below, 1)


def _bounded_margin(
    mean: np.ndarray, variance: np.ndarray, rows: np.ndarray, risk: float, is_weighted: bool
) -> np.ndarray:
    """Of means within [0, 1], by the tighter of two bounds, each at half the risk.

    With unequal weights by Hoeffding's (1963, Theorem 2), given the weights.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if is_weighted:
            hoeffding = np.sqrt(np.log(1.0 / risk) / (2.0 * rows))
            return np.asarray(np.minimum(hoeffding, 1.0 - mean))
        low, high = mean, np.ones_like(mean)
        for _ in range(60):  # The largest mean that Hoeffding's Theorem 1 allows.
            middle = (low + high) / 2.0
            is_allowed = rows * _divergence(mean, middle) <= np.log(2.0 / risk)
            low, high = (
                np.where(is_allowed, middle, low),
                np.where(is_allowed, high, middle),
            )
        # Maurer and Pontil's Theorem 4, of the same risk; the log has their factor 2.
        log = np.log(4.0 / risk)
        pontil = np.sqrt(2.0 * variance * log) + 7.0 * log / (3.0 * (rows - 1.0))
        return np.asarray(np.minimum(high - mean, np.where(rows > 1.5, pontil, np.inf)))


def t_quantile(probability: float, df: np.ndarray) -> np.ndarray:
    """Quantile of Student's t, of a probability of at least 0.5.

    Exact for 1 and 2 degrees of freedom, else the expansion of Abramowitz and Stegun
    (26.7.5): from 3 on within 1 % at 95 %, from 10 on within 0.01 %.
    """
    z = NormalDist().inv_cdf(probability)
    tail = 1.0 - probability
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    df = np.asarray(df, "float64")
    safe = np.maximum(df, 2.0)
    t = z + sum(term / safe**power for power, term in enumerate(terms, start=1))
    two = (1.0 - 2.0 * tail) * np.sqrt(0.5 / (tail * (1.0 - tail)))
    t = np.where(df < 3, two, t)
    return np.asarray(np.where(df < 2, np.tan(np.pi * (probability - 0.5)), t))


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback–Leibler divergence of two Bernoulli distributions."""
    q = np.clip(q, 1e-300, 1.0 - 1e-16)
    first = np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0) / q), 0.0)
    rest = 1.0 - p
    safe = np.where(rest > 0, rest, 1.0)
    return np.asarray(first + np.where(rest > 0, rest * np.log(safe / (1.0 - q)), 0.0))
