"""TradeoffPoint: one value of a trade-off curve, with its reports and weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from addloss_kit.reports.report import GroupReport


@dataclasses.dataclass
class TradeoffPoint:
    """One value of a curve.

    Args:
        value: The loss weight, or the argument of `build`.
        report: `GroupReport` of the held-out rows, of the first repeat; `None` if a
            training diverged.
        epochs: Epochs trained, not counting the start's.
        weights: The predictor's weights, of the first repeat.
        is_on_frontier: Whether no other point dominates it in error and gap.
        reports: Those of all repeats. Defaults to `[report]`.
    """

    value: float
    report: GroupReport | None
    epochs: int
    weights: list[np.ndarray]
    is_on_frontier: bool = False
    reports: list[GroupReport] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.report is not None and not self.reports:
            self.reports = [self.report]

    @property
    def has_diverged(self) -> bool:
        """Whether a prediction is not finite. Error and gap are then NaN."""
        return self.report is None

    @property
    def error(self) -> float:
        """Mean error of all held-out rows, the mean over the repeats."""
        return _mean([report.overall[report.heading][0] for report in self.reports])

    @property
    def gap(self) -> float:
        """Largest mean error of a group minus the smallest, the mean over the repeats."""
        return _mean([report.gap.value for report in self.reports])


def merged(repeats: list[TradeoffPoint]) -> TradeoffPoint:
    """One point from the trainings of one value."""
    first = repeats[0]
    reports = [point.report for point in repeats if point.report is not None]
    if len(reports) < len(repeats):
        return TradeoffPoint(first.value, None, first.epochs, first.weights)
    epochs = round(_mean([point.epochs for point in repeats]))
    return TradeoffPoint(first.value, first.report, epochs, first.weights, reports=reports)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
