"""Changes between reports of the same rows, of one training or of several repeats.

A change has two sources of noise: the rows, in which reports are paired, and the training,
if it was repeated. Their variances add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from addloss_kit.reports.bounds import Moments, moments, t_quantile
from addloss_kit.reports.report import GroupReport


class Change(NamedTuple):
    """A change and its standard error."""

    value: float
    standard_error: float


def relative_increase(
    before: Sequence[GroupReport], after: Sequence[GroupReport]
) -> Change:
    """Of the overall error, relative to the error before; 0.05 is 5 % more."""
    old, new = (np.mean([_overall(report) for report in r]) for r in (before, after))
    if old == 0:
        return Change(np.nan, np.nan)
    rows, repeats = _standard_errors(before, after, float(new / old - 1.0))
    return Change(float((new - old) / abs(old)), float(np.hypot(rows, repeats) / abs(old)))


def gap_change(before: Sequence[GroupReport], after: Sequence[GroupReport]) -> Change:
    """Of the gap, by the groups that have the largest and the smallest error in each."""
    changes = [a.gap.value - b.gap.value for b, a in zip(before, after)]
    influence = np.mean([_influence(a) - _influence(b) for b, a in zip(before, after)], 0)
    rows = np.sqrt(np.sum(influence**2))
    return Change(float(np.mean(changes)), float(np.hypot(rows, _of_mean(changes))))


def is_within(
    before: Sequence[GroupReport],
    after: Sequence[GroupReport],
    budget: float,
    confidence: float,
) -> bool:
    """Whether the upper confidence bound of the relative increase is within the budget."""
    # Some losses are negative.
    budget = float(np.copysign(budget, np.mean([_overall(report) for report in before])))
    means = _excess(before, after, budget)
    rows = means.margin(1.0 - confidence)[0]
    _, repeats = _standard_errors(before, after, budget)
    quantile = t_quantile(confidence, np.array(max(len(before) - 1, 1)))
    return bool(means.mean[0] + np.hypot(rows, quantile * repeats) <= 0)


def _excess(
    before: Sequence[GroupReport], after: Sequence[GroupReport], b: float
) -> Moments:
    """The mean of after − (1 + b)·before over all rows."""
    old, new = (
        np.mean([report.row_errors for report in r], axis=0) for r in (before, after)
    )
    weight, everyone = before[0].row_weight, np.zeros(len(old), "int64")
    # A recommendation must be made, so it goes by the rows at hand, whatever their tail.
    return moments(new - (1.0 + b) * old, everyone, weight, 1)


def _standard_errors(
    before: Sequence[GroupReport], after: Sequence[GroupReport], b: float
) -> tuple[float, float]:
    """Of the same mean: from rows, and from repeats (0 if there are none)."""
    rows = float(np.sqrt(_excess(before, after, b).variance[0]))
    each = [_overall(new) - (1.0 + b) * _overall(old) for old, new in zip(before, after)]
    return rows, _of_mean(each)


def _of_mean(values: Sequence[float]) -> float:
    """Standard error of the mean; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _overall(report: GroupReport) -> float:
    return report.overall[report.heading][0]


def _influence(report: GroupReport) -> np.ndarray:
    """By how much each row moves the gap."""
    sign = np.zeros(len(report.group_names) + 1)  # The last one is for no group.
    sign[int(np.nanargmax(report.means))] += 1.0
    sign[int(np.nanargmin(report.means))] -= 1.0
    ids = report.group_ids
    means, weight = np.append(report.means, 0.0), np.append(report.weight, 1.0)
    n = np.append(report.n, 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt(n / (n - 1.0)) * sign / weight
    scale = np.where(sign != 0, scale, 0.0)
    moved = report.row_weight * (report.row_errors - np.nan_to_num(means)[ids])
    return np.asarray(moved * scale[ids])
