"""Compare two reports: who gained, who lost, and whether the gap closed honestly."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from addloss_kit._checks import check_one_of, received
from addloss_kit.reports import tables
from addloss_kit.reports.certificate import Certificate, check_certified
from addloss_kit.reports.certified_increase import certify_increase
from addloss_kit.reports.gap_change import GapChange, change_of_gap
from addloss_kit.reports.intervals import (
    Estimate,
    critical_value,
    simultaneous_p,
    weighted_means,
)
from addloss_kit.reports.page import Shown
from addloss_kit.reports.plots import height_of, plot_change

Verdict: TypeAlias = Literal["better", "worse", "no clear change"]


class ErrorsByGroup(Protocol):
    """The part of a `GroupReport` that a comparison uses; documented there."""

    error_name: str
    confidence: float
    group_names: list[str]
    n: np.ndarray
    units: np.ndarray
    overall: dict[str, tuple[float, float]]
    y_true: np.ndarray
    group_ids: np.ndarray
    row_weight: np.ndarray
    row_errors: np.ndarray
    clusters: np.ndarray | None

    def independent(self) -> tuple[np.ndarray, np.ndarray]:
        """Error and weight of each row, or of each cluster."""

    @property
    def heading(self) -> str:
        """The heading of the error."""

    @property
    def means(self) -> np.ndarray:
        """Mean error of each group, `(num_groups,)`."""

    @property
    def standard_errors(self) -> np.ndarray:
        """Standard error of each mean, `(num_groups,)`."""

    @property
    def gap(self) -> Estimate:
        """Largest mean error minus the smallest."""


class GroupComparison(Shown):
    """What changed from one report to another, group by group.

    If both reports cover the same rows, the comparison is paired, which is far less
    noisy than comparing two means. A group is better or worse if its change is
    beyond noise, jointly over all groups.

    *Levelling down* means that the gap closed only because a group with a smaller
    error got worse: the group that was worst before did not clearly improve.

    Args:
        before, after: Reports of the same error and the same groups.

    Attributes:
        group_names: Names by id.
        change: Mean error of each group after minus before; negative is better.
        standard_errors: Standard errors of the changes.
        p_values: Of each change, two-sided, corrected for the number of groups (Šidák);
            NaN without a standard error. Below 1 − `confidence` where the verdict is
            better or worse.
        verdicts: By group, `"better"`, `"worse"` or `"no clear change"`.
        is_paired: Whether both reports cover the same rows.
        is_levelling_down: See above.

    Raises:
        ValueError: If errors or groups differ.
    """

    title = "Change of the error by group"

    def __init__(self, before: ErrorsByGroup, after: ErrorsByGroup) -> None:
        for what in ("error_name", "group_names"):
            if getattr(before, what) != getattr(after, what):
                raise ValueError(
                    f"Two reports to compare must have the same {what.replace('_', ' ')}. "
                    "Create both with the same `error=` and `group_names=`. "
                    f"{received(before=getattr(before, what), after=getattr(after, what))}"
                )
        self.before, self.after = before, after
        self.group_names = after.group_names
        self.change = after.means - before.means
        self.is_paired = all(
            np.array_equal(getattr(before, what), getattr(after, what))
            for what in ("group_ids", "row_weight", "y_true", "clusters")
        )
        if self.is_paired:
            has_group = after.group_ids >= 0
            _, self.standard_errors, _ = weighted_means(
                (after.row_errors - before.row_errors)[has_group],
                after.group_ids[has_group],
                after.row_weight[has_group],
                len(self.group_names),
                None if after.clusters is None else after.clusters[has_group],
            )
        else:
            self.standard_errors = np.hypot(after.standard_errors, before.standard_errors)
        # A group without a standard error is not compared.
        compared = int((~np.isnan(self.standard_errors)).sum())
        self.p_values = simultaneous_p(self.change, self.standard_errors, compared)
        margin = critical_value(after.confidence, compared) * self.standard_errors
        self._margin = margin
        # NaN compares false: without a standard error, no change is clear.
        self._is_better = self.change < -margin
        self._is_worse = self.change > margin

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of each group's change, jointly over all groups."""
        return self.change - self._margin, self.change + self._margin

    @cached_property
    def gap_change(self) -> GapChange:
        """The gap after minus the gap before, with its interval and p-value.

        Paired if both reports cover the same rows. Exact where it is clear which groups
        have the largest and the smallest error, conservative near ties.
        """
        has_both = ~np.isnan(self.before.means + self.after.means)
        old, new = self.before.standard_errors**2, self.after.standard_errors**2
        # Of two means of the same rows: from the variance of their difference.
        shared = 0.5 * (old + new - self.standard_errors**2) if self.is_paired else 0 * old
        return change_of_gap(
            self.before.means[has_both],
            self.after.means[has_both],
            old[has_both],
            new[has_both],
            shared[has_both],
            self.after.confidence,
        )

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """By group name, `"better"`, `"worse"` or `"no clear change"`."""
        return {
            name: "better"
            if self._is_better[k]
            else "worse"
            if self._is_worse[k]
            else "no clear change"
            for k, name in enumerate(self.group_names)
        }

    @property
    def is_levelling_down(self) -> bool:
        """Whether the gap closed only because a better group got worse."""
        if not self.after.gap.value < self.before.gap.value:
            return False
        # Worst among the groups that both reports have.
        shared = np.where(np.isnan(self.change), -np.inf, self.before.means)
        worst = int(np.argmax(shared))
        got_worse = self._is_worse.copy()
        got_worse[worst] = False
        return bool(got_worse.any() and not self._is_better[worst])

    def certify(
        self,
        bound: float,
        of: Literal["error_increase"] = "error_increase",
        confidence: float = 0.95,
    ) -> Certificate:
        """Whether the overall error increased by at most `bound` on rows to come.

        The rows must have had no part in training, nor in choosing the models. Paired if
        both reports cover the same rows; the bounds are those of `GroupReport.certify`.

        Args:
            bound: Relative to the error before: 0.05 is 5 % more.
            of: `"error_increase"`. For the other two, see `GroupReport.certify`.
            confidence: Of the verdict, in (0, 1).

        Returns:
            A `Certificate` of the increase.
        """
        check_one_of(("error_increase",), of=of)
        check_certified(bound, confidence)
        return certify_increase(
            bound,
            confidence,
            self.before.independent(),
            self.after.independent(),
            self.is_paired,
            self.after.heading,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        before, after = self.before, self.after
        low, high = self.interval()
        groups = {
            name: {
                "before": float(before.means[k]),
                "after": float(after.means[k]),
                "change": float(self.change[k]),
                "change standard error": float(self.standard_errors[k]),
                "low": float(low[k]),
                "high": float(high[k]),
                "p_value": float(self.p_values[k]),
                "verdict": verdict,
            }
            for k, (name, verdict) in enumerate(self.verdicts.items())
        }
        return {
            "error": after.error_name,
            "groups": groups,
            "overall": {
                "before": before.overall[before.heading][0],
                "after": after.overall[after.heading][0],
            },
            "gap": {"before": before.gap.value, "after": after.gap.value}
            | {f"change {k}": v for k, v in self.gap_change._asdict().items()},
            "is_paired": self.is_paired,
            "is_levelling_down": self.is_levelling_down,
        }

    def plot(self, ax: Any = None) -> Any:
        """Each group's error before and after; returns the matplotlib axes."""
        return plot_change(
            ax,
            verdicts=self.verdicts,
            before=self.before.means,
            after=self.after.means,
            gaps=(self.before.gap.value, self.after.gap.value),
            is_gap_change_clear=self._is_gap_change_clear,
            is_levelling_down=self.is_levelling_down,
            heading=self.after.heading,
        )

    def _height(self) -> float:
        return 1.0 + height_of(len(self.group_names))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        heading = self.after.heading
        header = ["group", f"{heading} before", "after", "change", "p", "verdict"]
        names = list(enumerate(self.verdicts.items()))
        if len(names) > tables.MAX_ROWS:
            # The groups that changed most.
            size = np.nan_to_num(np.abs(self.change), nan=-1.0)
            chosen = np.argsort(-size, kind="stable")[: tables.MAX_ROWS]
            names = [names[k] for k in chosen]
        rows = [
            [
                name,
                tables.number(self.before.means[k]),
                tables.number(self.after.means[k]),
                tables.plus_minus(self.change[k], self.standard_errors[k]),
                tables.p_value(self.p_values[k]),
                verdict,
            ]
            for k, (name, verdict) in names
        ]
        if len(self.group_names) > len(rows):
            more = len(self.group_names) - len(rows)
            rows.append([f"… {more} that changed less"] + [""] * 5)
        before, after = self.before, self.after
        old, new = before.overall[before.heading][0], after.overall[heading][0]
        rows.append(["overall", *map(tables.number, (old, new, new - old)), "", ""])
        old, new, change = before.gap.value, after.gap.value, self.gap_change
        p = tables.p_value(change.p_value)
        rows.append(["gap", *map(tables.number, (old, new, change.value)), p, ""])
        return header, rows

    def _who_pays(self) -> str:
        """One sentence: who gains, who loses, what is noise."""
        names = np.array(self.group_names, dtype=object)
        rest = ~(self._is_better | self._is_worse)
        if rest.all():
            return "No group's change is beyond noise."
        parts = [
            f"{what}: {tables.listed(names[which].tolist())}"
            for what, which in (
                ("who gains", self._is_better),
                ("who loses", self._is_worse),
                ("within noise", rest),
            )
            if which.any()
        ]
        sentence = "; ".join(parts)
        return f"{sentence[0].upper()}{sentence[1:]}."

    def _gap_sentence(self) -> str:
        gap = self.gap_change
        low, high = map(tables.number, (gap.low, gap.high))
        noise = "beyond" if self._is_gap_change_clear else "within"
        return (
            f"change of the gap: {tables.number(gap.value)} [{low}, {high}], {noise} noise"
        )

    @property
    def _is_gap_change_clear(self) -> bool:
        return bool(self.gap_change.p_value < 1.0 - self.after.confidence)

    def _notes(self) -> list[str]:
        notes = [self._who_pays()]
        if not np.isnan(self.gap_change.value):
            notes.append(self._gap_sentence())
        if self.is_levelling_down:
            notes.append(
                "Levelling down: the gap closed, groups with smaller errors clearly got "
                "worse, and the worst group did not clearly improve."
            )
        kind = "paired rows" if self.is_paired else "two samples"
        notes.append(
            f"± standard error of {kind}; p over all groups; better and worse are beyond "
            f"noise at {100 * self.after.confidence:g} %"
        )
        units = np.minimum(self.before.units, self.after.units)
        what = "row" if self.after.clusters is None else "cluster"
        return notes + tables.few_rows(zip(self.group_names, units), what)
