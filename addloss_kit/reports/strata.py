"""Strata: the gap within each stratum, for what else differs between the groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from addloss_kit.reports import tables
from addloss_kit.reports.intervals import Estimate
from addloss_kit.reports.page import Shown
from addloss_kit.reports.plots import height_of, plot_gaps


class Gaps(Protocol):
    """The part of a `GroupReport` that is shown of a stratum; documented there."""

    headings: list[str]
    group_names: list[str]
    units: np.ndarray
    clusters: np.ndarray | None
    confidence: float
    row_weight: np.ndarray

    @property
    def gap(self) -> Estimate:
        """Largest mean error minus the smallest."""

    @property
    def worst_group(self) -> str:
        """The group with the largest mean error."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""


_Report = TypeVar("_Report", bound=Gaps)


class Strata(Shown, dict[str, _Report], Generic[_Report]):
    """The reports of the strata by name. It prints as a table, a row for each.

    Each interval holds by itself, not jointly over the strata.
    """

    title = "Gap within each stratum"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return {name: report.to_dict() for name, report in self.items()}

    def plot(self, ax: Any = None) -> Any:
        """The gap of each stratum with its interval; returns the matplotlib axes."""
        return plot_gaps(
            ax,
            gaps={name: report.gap for name, report in self.items()},
            heading=self._first.headings[0],
            confidence=self._first.confidence,
        )

    def __repr__(self) -> str:
        return super().__repr__() if self else "no strata"

    @property
    def _first(self) -> _Report:
        if not self:
            raise ValueError(
                "There must be strata to show. Pass `control_groups=` to `group_report`. "
                "Received: no strata."
            )
        return next(iter(self.values()))

    def _height(self) -> float:
        return height_of(len(self))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["stratum", "n", f"gap in {self._first.headings[0]}", "worst group"]
        names = self._by_gap()[: tables.MAX_ROWS] if len(self) > tables.MAX_ROWS else self
        rows = [
            [
                name,
                str(int((self[name].row_weight > 0).sum())),
                tables.estimate(self[name].gap),
                self[name].worst_group,
            ]
            for name in names
        ]
        if len(self) > len(rows):
            more = f"… {len(self) - len(rows)} with a smaller gap"
            rows.append([more] + [""] * (len(header) - 1))
        return header, rows

    def _notes(self) -> list[str]:
        beyond = [name for name, report in self.items() if report.gap.low > 0]
        found = tables.listed(beyond) if beyond else "none"
        percent = f"{100 * self._first.confidence:g} %"
        return [
            f"gap beyond noise in: {found}",
            f"[ ] {percent} confidence interval, of each stratum by itself",
            *self._few(),
        ]

    def _few(self) -> list[str]:
        counted = [
            (f"{group} in {name}", units)
            for name, report in self.items()
            for group, units in zip(report.group_names, report.units)
        ]
        return tables.few_rows(
            counted, "row" if self._first.clusters is None else "cluster"
        )

    def _by_gap(self) -> Sequence[str]:
        return sorted(self, key=lambda name: -np.nan_to_num(self[name].gap.value, nan=-1.0))
