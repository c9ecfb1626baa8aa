"""Tails: what the rows that a sample lacks may add to a mean.

The spread of the rows in hand tells how uncertain a mean is, except for its largest rows:
where these fall off slowly, most samples lack those that decide the mean. But how they fall
off tells how far the missing ones may lie. So the largest rows are replaced by their mean,
and how large that may truly be is told by a likelihood, that of a generalised Pareto tail
(Pickands 1975; for means: Johansson 2003), which is exponential at the lightest.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

# The tail is this times n^0.8 rows, 19 of 30 and 50 of 100: many enough to tell how they
# fall off, but an ever smaller share, as only the far tail is sure to be a Pareto one.
_TAIL_FACTOR, _TAIL_POWER, _MAX_TAIL = 1.25, 0.8, 2000

# A likelihood ratio of k rows is this over k too large (Bartlett 1937). Simulated: with it,
# bounds of the mean of a Pareto tail are right as often as they say
# (docs/studies/certificate.md).
_BARTLETT = 4.0

# θ = ξ / σ in units of one over the mean excess.
_THETAS = np.geomspace(0.02, 1000.0, 64)


class Tail(NamedTuple):
    """The excesses of groups' largest rows over a threshold, as far as they are needed.

    Args:
        share: Their share of all weight.
        mean: Their mean; 0 without excesses.
        rows: Their effective number.
        logs: Means of log(1 + θx) for each of `_THETAS` over the mean, in the last axis.
    """

    share: np.ndarray
    mean: np.ndarray
    rows: np.ndarray
    logs: np.ndarray

    def margin(self, risk: float) -> np.ndarray:
        """How much more the tail may add to the mean of all rows, with chance 1 − `risk`.

        Infinite where the rows in hand do not tell that the tail has a mean.
        """
        logs, best, where = self._likeliest()
        shape = np.minimum(logs, 1.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            means = _between_columns(np.log(shape / (1.0 - shape) / _THETAS), where)
            is_exponential = best <= -1.0
            likeliest = np.where(is_exponential | ~np.isfinite(means), 0.0, means)
            largest = _root(
                lambda mean: best - _profile(np.exp(mean), logs) - self._cut(risk),
                likeliest,
                likeliest + 10.0,
            )
        # Never less than the distance from the likeliest: a tail need not be a Pareto one.
        far = np.exp(largest) - np.minimum(np.exp(likeliest), 1.0)
        far = far * self.share * self.mean
        return np.asarray(np.where(self.is_open(risk), np.inf, far))

    def is_open(self, risk: float) -> np.ndarray:
        """Whether the rows in hand do not tell that the tail has a mean."""
        logs, best, _ = self._likeliest()
        infinite, _ = _peak(np.log(_THETAS) - 2.0 * logs)
        return np.asarray((best - infinite <= self._cut(risk)) & (self.rows > 0))

    def _likeliest(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`logs`, the largest log likelihood per row, and its column.

        In units of the mean excess. For a θ, the likeliest ξ is the entry of `logs`.
        """
        logs = np.where(self.logs > 0, self.logs, 1.0)
        shape = np.minimum(logs, 1.0)
        best, where = _peak(np.log(_THETAS / shape) - (1.0 + 1.0 / shape) * logs)
        return logs, np.maximum(best, -1.0), where

    def _cut(self, risk: float) -> np.ndarray:
        """How far a log likelihood per row may lie below the largest."""
        with np.errstate(divide="ignore", invalid="ignore"):
            cut = NormalDist().inv_cdf(1.0 - risk) ** 2 / 2.0 / self.rows
            return np.asarray(cut * (1.0 + _BARTLETT / self.rows))


def _root(
    of: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Where a function turns positive: halved eight times, then three secants."""
    for _ in range(8):
        middle = (low + high) / 2.0
        is_below = of(middle) <= 0
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    at_low, at_high, limits = of(low), of(high), (low, high)
    for _ in range(3):
        step = at_high * (high - low) / (at_high - at_low)
        after = np.clip(high - np.where(np.isfinite(step), step, 0.0), *limits)
        low, at_low, high, at_high = high, at_high, after, of(after)
    return high


def _profile(mean: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """The largest log likelihood per row of all generalised Pareto tails with a mean."""
    scaled = mean[..., None] * _THETAS  # ξ / (1 − ξ)
    each = np.log1p(scaled) - (2.0 + 1.0 / scaled) * logs
    return np.asarray(np.maximum(_peak(each)[0], -1.0 / mean) - np.log(mean))


def _peak(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest value in the last axis, by a parabola through three, and its column."""
    top = np.clip(values.argmax(-1), 1, values.shape[-1] - 2)[..., None]
    before, at, after = (
        np.take_along_axis(values, top + step, -1)[..., 0] for step in (-1, 0, 1)
    )
    curvature = 2.0 * at - before - after
    is_inside = (at >= before) & (at >= after) & (curvature > 0)
    step = np.where(is_inside, (after - before) / 2.0 / curvature, 0.0)
    peak = at + step * (after - before) / 4.0
    column = np.where(is_inside, top[..., 0] + step, values.argmax(-1))
    return np.where(is_inside, peak, values.max(-1)), column


def _between_columns(values: np.ndarray, column: np.ndarray) -> np.ndarray:
    low = np.floor(column).astype("int64")[..., None]
    high = np.minimum(low + 1, values.shape[-1] - 1)
    before, after = (np.take_along_axis(values, at, -1)[..., 0] for at in (low, high))
    return np.asarray(before + (column - low[..., 0]) * (after - before))


def upper_tail(
    values: np.ndarray, ids: np.ndarray, weight: np.ndarray, num_groups: int
) -> tuple[Tail, np.ndarray]:
    """The tail of each group, and the values with the mean of their tail in its place.

    Args:
        values, ids, weight: `(rows,)`; rows without weight are absent.
        num_groups: Number of groups.
    """
    threshold = _thresholds(values[weight > 0], ids[weight > 0], num_groups)
    is_tail = (values > threshold[ids]) & (weight > 0)
    excess, of, w = (values - threshold[ids])[is_tail], ids[is_tail], weight[is_tail]

    def sums(x: np.ndarray) -> np.ndarray:
        return np.bincount(of, x, minlength=num_groups)

    with np.errstate(divide="ignore", invalid="ignore"):
        total = sums(w)
        mean = np.nan_to_num(sums(w * excess) / total)
        rows = np.nan_to_num(total**2 / sums(w**2))
        share = np.nan_to_num(total / np.bincount(ids, weight, minlength=num_groups))
    scaled = excess / mean[of]
    logs = np.zeros((num_groups, len(_THETAS)))
    for column, theta in enumerate(_THETAS):
        logs[:, column] = sums(w * np.log1p(theta * scaled))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.nan_to_num(logs / total[:, None])
    level = values.copy()
    level[is_tail] = threshold[of] + mean[of]
    return Tail(share, mean, rows, logs), level


def _thresholds(values: np.ndarray, ids: np.ndarray, num_groups: int) -> np.ndarray:
    """Of each group, the largest value that is not in its tail; infinite without one."""
    rows = np.bincount(ids, minlength=num_groups)
    size = np.rint(_TAIL_FACTOR * rows**_TAIL_POWER)
    last = rows - np.minimum(size, _MAX_TAIL).astype("int64") - 1
    found = np.full(num_groups, np.inf)
    in_order = values if num_groups == 1 else values[np.argsort(ids, kind="stable")]
    first = np.cumsum(rows) - rows
    for group in np.flatnonzero(last >= 0):
        part = in_order[first[group] : first[group] + rows[group]]
        found[group] = np.partition(part, last[group])[last[group]]
    return found


def rows_with_half(values: np.ndarray, weight: np.ndarray) -> int:
    """How many rows, at the least, hold half of the sum of weight times absolute value."""
    parts = np.cumsum(-np.sort(-weight * np.abs(values)))
    return int(np.searchsorted(parts, 0.5 * parts[-1]) + 1)


class NamedErrors(NamedTuple):
    """Errors, and what they are called where their tail is too heavy."""

    name: str
    values: np.ndarray
    weight: np.ndarray

    def said(self, more: int) -> str:
        """Why they, and some more, have no bound, and what to do."""
        others = f" (and {more} more)" if more else ""
        half, rows = rows_with_half(self.values, self.weight), int((self.weight > 0).sum())
        return (
            f"{self.name}{others} have too heavy a tail, half of their sum in {half:,} of "
            f"{rows:,} rows; certify the absolute error, a bounded one, or that of a "
            "logarithm"
        )
