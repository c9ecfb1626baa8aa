"""GroupReport: the error of each group, and how certain the gap is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, get_args

import numpy as np

from addloss_kit._checks import check_one_of, check_positive_int, received
from addloss_kit._types import Method
from addloss_kit.reports import tables
from addloss_kit.reports.certificate import (
    Certificate,
    Certified,
    certify_groups,
    check_certified,
)
from addloss_kit.reports.comparison import GroupComparison
from addloss_kit.reports.intervals import (
    Estimate,
    SpreadsAt,
    among,
    by_cluster,
    critical_value,
    largest_interval,
    log_spreads,
    range_interval,
)
from addloss_kit.reports.page import Shown
from addloss_kit.reports.permutation import gap_p_value
from addloss_kit.reports.plots import height_of, plot_group_errors
from addloss_kit.reports.requested import Measured, Requested
from addloss_kit.reports.rows import ReportRows
from addloss_kit.reports.strata import Strata


class GroupReport(Shown):
    """The result of `group_report`. Arrays are `(num_groups,)`, in id order.

    Attributes:
        group_names: Names by id.
        n: Number of rows with nonzero weight in each group.
        weight: Total weight of each group.
        units: Number of clusters in each group; of rows, if there are no clusters.
        clusters: Number of the cluster of each row, or `None`.
        headings: Those of the errors that were asked for; that of the requested error,
            which decides gap, worst group, comparisons and certificates, comes first.
        measures: Pairs (values, standard errors) by heading (`"MSE"`, …; the requested
            error comes first); NaN for a group where it is undefined.
        overall: The same pair by heading for all rows, including those without a
            group.
        by_stratum: A dict of the report within each stratum of `control_groups` by name.
            It prints as a table of their gaps.
        rows_without_group: Number of rows with id -1.
        confidence: Confidence level of the intervals.
    """

    title = "Error by group"

    def __init__(
        self,
        rows: ReportRows,
        group_names: list[str],
        requested: Requested,
        measured: Mapping[str, Measured],
        confidence: float,
    ) -> None:
        self.group_names = group_names
        self.error_name = requested.error_name
        self.headings = requested.headings
        self.confidence = confidence
        self.y_true = rows.y_true
        self.group_ids = rows.group_ids
        self.row_weight = rows.weight
        self.clusters = rows.clusters
        # The requested error of each row, for paired comparisons.
        self.row_errors = requested.error
        self.measures = {heading: m.by_group for heading, m in measured.items()}
        self.overall = {heading: m.overall for heading, m in measured.items()}
        self.by_stratum: Strata[GroupReport] = Strata()
        self._measured = measured
        has_group = rows.group_ids >= 0
        ids, weight = rows.group_ids[has_group], rows.weight[has_group]
        self.rows_without_group = int((~has_group).sum())
        self.weight = np.bincount(ids, weight, minlength=rows.num_groups)
        # Every row counts in the requested error.
        self.n, self.units = measured[self.heading].n, measured[self.heading].units

    def independent(self) -> tuple[np.ndarray, np.ndarray]:
        """Error and weight of each row, or of each cluster as a whole."""
        if self.clusters is None:
            return self.row_errors, self.row_weight
        everyone = np.zeros(len(self.row_errors), "int64")
        cells = by_cluster(self.row_errors, everyone, self.row_weight, self.clusters)
        return cells[0], cells[2]

    # The requested error ---------------------------------------------------------

    @property
    def heading(self) -> str:
        """The heading of the requested error, such as `"MSE"`."""
        return next(iter(self.measures))

    @property
    def means(self) -> np.ndarray:
        """Mean error of each group, NaN without weight."""
        return self.measures[self.heading][0]

    @property
    def standard_errors(self) -> np.ndarray:
        """Standard error of each mean, NaN with fewer than two rows."""
        return self.measures[self.heading][1]

    @property
    def by_group(self) -> dict[str, float]:
        """Mean error by group name."""
        return dict(zip(self.group_names, self.means.tolist()))

    def interval(self, heading: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of each group's mean, not simultaneous.

        By Student's t; of an error that is never negative, on the scale of logarithms, so
        its bounds are positive, and the upper one is farther away.

        Args:
            heading: Of the measure; by default the requested error.
        """
        heading = self._known(heading)
        means, errors = self.measures[heading]
        spreads_at, c = self._measured[heading].spreads_at, critical_value(self.confidence)
        below, above = spreads_at(c) if spreads_at else (errors, errors)
        low = np.maximum(means - c * below, self._measured[heading].least)
        return low, means + c * above

    @cached_property
    def gap(self) -> Estimate:
        """Largest mean error minus the smallest, with its interval.

        NaN if fewer than two groups have rows. A group of one row has no standard error,
        so it is not compared: the lower bound is that of the others, the upper infinite.
        """
        return self.gap_of(self.heading)

    def gap_of(self, heading: str) -> Estimate:
        """Largest value of a measure minus the smallest, with its interval, as in `gap`.

        Groups in which it is undefined are left out.

        Args:
            heading: Of the measure: a key of `measures`.
        """
        means, errors, spreads_at = self._present(heading)
        low, high = range_interval(means, errors, self.confidence, spreads_at)
        return Estimate(self.difference(heading=heading), low, high)

    @cached_property
    def ratio(self) -> Estimate:
        """Smallest over largest mean error, with its interval; NaN unless all > 0."""
        return self.ratio_of(self.heading)

    def ratio_of(self, heading: str) -> Estimate:
        """Smallest value of a measure over the largest, as in `ratio`.

        Args:
            heading: Of the measure: a key of `measures`.
        """
        means, errors, spreads_at = self._present(heading)
        value = self.error_ratio(heading=heading)
        if not (means > 0).all():
            return Estimate(value, np.nan, np.nan)
        # The logarithm turns the ratio into a gap; its slope is 1 / mean.
        logs = np.log(means), errors / means
        spreads_at = log_spreads(means, spreads_at) if spreads_at else None
        low, high = range_interval(*logs, self.confidence, spreads_at)
        return Estimate(value, float(np.exp(-high)), float(np.exp(-low)))

    @property
    def worst_group(self) -> str:
        """The group with the largest mean error."""
        return self.group_names[int(np.nanargmax(self.means))]

    @cached_property
    def worst_error(self) -> Estimate:
        """The largest mean error, with an interval that accounts for the selection."""
        means, errors, spreads_at = self._present(self.heading)
        low, high = largest_interval(means, errors, self.confidence, spreads_at)
        low = max(low, self._measured[self.heading].least)
        return Estimate(float(means.max()), low, high)

    @property
    def is_gap_beyond_noise(self) -> bool:
        """Whether the gap's interval excludes 0."""
        return self.gap.low > 0

    def difference(
        self, method: Method = "between_groups", heading: str | None = None
    ) -> float:
        """Largest difference between two groups, or to the overall error.

        Args:
            method: `"between_groups"` (NaN if there are no two groups with rows) or
                `"to_overall"`.
            heading: Of the measure; by default the requested error.
        """
        check_one_of(get_args(Method), method=method)
        heading = self._known(heading)
        means, _, _ = self._present(heading)
        if method == "between_groups":
            return float(means.max() - means.min()) if len(means) > 1 else np.nan
        distance = np.abs(means - self.overall[heading][0])
        return float(distance.max()) if len(means) else np.nan

    def error_ratio(
        self, method: Method = "between_groups", heading: str | None = None
    ) -> float:
        """Smallest ratio between two groups, or to the overall error; at most 1.

        Args:
            method: `"between_groups"` or `"to_overall"`.
            heading: Of the measure; by default the requested error.
        """
        check_one_of(get_args(Method), method=method)
        heading = self._known(heading)
        means, _, _ = self._present(heading)
        with np.errstate(divide="ignore", invalid="ignore"):
            if method == "between_groups":
                return float(means.min() / means.max()) if len(means) > 1 else np.nan
            quotient = means / self.overall[heading][0]
            quotient = np.minimum(quotient, 1.0 / quotient)
            return float(quotient.min()) if len(means) else np.nan

    def _known(self, heading: str | None) -> str:
        if heading is None:
            return self.heading
        check_one_of(self.measures, heading=heading)
        return heading

    def _present(self, heading: str) -> tuple[np.ndarray, np.ndarray, SpreadsAt | None]:
        """Values, standard errors and spreads of the groups that have a value."""
        means, errors = self.measures[self._known(heading)]
        has_value = ~np.isnan(means)
        spreads_at = self._measured[heading].spreads_at
        spreads_at = among(spreads_at, has_value) if spreads_at else None
        return means[has_value], errors[has_value], spreads_at

    def certify(
        self,
        bound: float,
        of: Certified = "gap",
        confidence: float = 0.95,
        *,
        errors_within: tuple[float, float] | None = None,
    ) -> Certificate:
        """Whether the gap, or every group's error, is within a bound on rows to come.

        The rows must have had no part in training, nor in choosing the model. The true
        gap or largest error is above `upper` with a chance of at most 1 − `confidence`,
        and below `lower` with the same. Upper bounds need no correction for the number of
        groups (an intersection-union test); lower ones are Bonferroni's.

        Bounds are Student's t with Hall's correction for skewness, and no nearer than the
        fall-off of a group's largest errors allows: a sample may lack the few rows that
        decide a mean. They need 30 rows of each group, and rows that rule out a tail
        without a mean. Of bounded errors (0 and 1, or `errors_within`), they are
        Hoeffding's or Maurer and Pontil's, which need no assumption and any number of
        rows. Rows, or clusters, must be independent.

        Args:
            bound: In the units of the error.
            of: `"gap"` or `"worst_error"`. For `"error_increase"`, see
                `compare(before).certify`.
            confidence: Of the verdict, in (0, 1).
            errors_within: `(low, high)`, between which the errors of all possible rows
                lie, if that is known.

        Returns:
            A `Certificate`: `verdict` is `"holds"`, `"does not hold"` or
            `"cannot tell"`.

        Raises:
            ValueError: If there is no gap, or an error lies outside `errors_within`.

        Reference: Thomas et al., "Preventing undesirable behavior of intelligent
        machines", Science 366 (2019).

        Example:
            >>> from addloss_kit import group_report
            >>> rng = np.random.default_rng(0)
            >>> residual, ids = rng.normal(size=600), np.arange(600) % 2
            >>> report = group_report(np.zeros(600), residual, ids)
            >>> report.certify(0.5).verdict
            'holds'
        """
        if of == "error_increase":
            raise ValueError(
                "An increase is of one report over another. Call "
                "`report.compare(before).certify(bound)`. Received: of='error_increase'."
            )
        check_one_of(("gap", "worst_error"), of=of)
        check_certified(bound, confidence)
        has_group = self.group_ids >= 0
        parts = (
            self.row_errors[has_group],
            self.group_ids[has_group],
            self.row_weight[has_group],
        )
        if self.clusters is not None:
            if errors_within is None and np.isin(parts[0], (0.0, 1.0)).all():
                errors_within = 0.0, 1.0  # a cluster's mean is neither
            parts = by_cluster(*parts, self.clusters[has_group])
        return certify_groups(
            of,
            bound,
            confidence,
            parts,
            self.group_names,
            self.heading,
            errors_within,
        )

    def permutation_test(self, permutations: int = 999, seed: int | None = None) -> float:
        """The p-value of the gap if group and error were independent.

        The group ids are permuted over the rows, or over the clusters, which must then be
        of one group each. The p-value is the share of permutations whose gap is as large,
        the rows as they are counting as one. It is exact for any number of rows, where
        intervals need about 30 of each group. A small one tells that the errors of the
        groups are not distributed alike, be it in their means or in their spread.

        Args:
            permutations: How many are drawn. The least p-value is 1 / (1 + permutations).
            seed: Of the permutations.

        Returns:
            The p-value, in (0, 1].

        Raises:
            ValueError: If there is no gap, or a cluster has rows of several groups.

        Example:
            >>> from addloss_kit import group_report
            >>> y_pred, ids = [1, 1, 1, 1, 2, 2, 2, 2], [0, 0, 0, 0, 1, 1, 1, 1]
            >>> report = group_report(np.zeros(8), y_pred, ids)
            >>> report.permutation_test(seed=0) < 0.05  # 2 of 70 permutations
            True
        """
        check_positive_int(permutations=permutations)
        has_group = self.group_ids >= 0
        return gap_p_value(
            self.row_errors[has_group],
            self.group_ids[has_group],
            self.row_weight[has_group],
            None if self.clusters is None else self.clusters[has_group],
            permutations,
            seed,
        )

    # Forms -----------------------------------------------------------------------

    def compare(self, before: GroupReport) -> GroupComparison:
        """The changes from `before` to this report; see `GroupComparison`."""
        if not isinstance(before, GroupReport):
            raise TypeError(
                "`before` must be a `GroupReport`. Create both with `group_report`. "
                f"{received(before=type(before).__name__)}"
            )
        return GroupComparison(before, self)

    def plot(self, ax: Any = None, heading: str | None = None) -> Any:
        """Each group's error with its interval; returns the matplotlib axes.

        Args:
            ax: Matplotlib axes; new ones if none.
            heading: Of the measure; by default the requested error.
        """
        heading = self._known(heading)
        low, high = self.interval(heading)
        return plot_group_errors(
            ax,
            group_names=self.group_names,
            n=self._measured[heading].n,
            means=self.measures[heading][0],
            low=low,
            high=high,
            overall=self.overall[heading][0],
            gap=self.gap_of(heading),
            heading=heading,
            confidence=self.confidence,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON except for NaN."""
        groups = {
            name: {"n": int(self.n[k]), "weight": float(self.weight[k])}
            | _flat({h: (m[k], s[k]) for h, (m, s) in self.measures.items()})
            for k, name in enumerate(self.group_names)
        }
        return {
            "error": self.error_name,
            "confidence": self.confidence,
            "groups": groups,
            "overall": _flat(self.overall),
            "rows_without_group": self.rows_without_group,
            "gap": self.gap._asdict(),
            "ratio": self.ratio._asdict(),
            "worst_group": self.worst_group,
            "worst_error": self.worst_error._asdict(),
            "is_gap_beyond_noise": self.is_gap_beyond_noise,
        } | self._further_numbers()

    def _further_numbers(self) -> dict[str, Any]:
        """Only of what was asked for."""
        gaps = {h: self.gap_of(h)._asdict() for h in self.headings[1:]}
        further = {"further_gaps": gaps, "by_stratum": self.by_stratum.to_dict()}
        return {key: numbers for key, numbers in further.items() if numbers}

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with one row per group.

        Raises:
            ImportError: If pandas is not installed.
        """
        frame = tables.import_pandas().DataFrame.from_dict(
            self.to_dict()["groups"], orient="index"
        )
        frame.index.name = "group"
        return frame

    def _further(self) -> list[Shown]:
        return [self.by_stratum] if self.by_stratum else []

    def _plots(self) -> list[Callable[[Any], Any]]:
        return [partial(self.plot, heading=heading) for heading in self.headings]

    def _height(self) -> float:
        return height_of(int((self.weight > 0).sum()))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["group", "n", "weight", *self.measures]
        order = list(range(len(self.group_names)))
        half = tables.MAX_ROWS // 2
        if len(order) > tables.MAX_ROWS:
            # The groups that decide the gap: the worst and the best.
            filled = np.where(np.isnan(self.means), -np.inf, self.means)
            order = np.argsort(-filled, kind="stable").tolist()
            order = order[:half] + [k for k in order if self.weight[k] > 0][-half:]
        rows = []
        for place, k in enumerate(order):
            if place == half and len(self.group_names) > tables.MAX_ROWS:
                rows.append(["…"] + [""] * (len(header) - 1))
            cells = [
                tables.plus_minus(m[k], s[k]) if self.weight[k] > 0 else "–"
                for m, s in self.measures.values()
            ]
            weight = tables.number(float(self.weight[k]))
            rows.append([self.group_names[k], str(int(self.n[k])), weight, *cells])
        total = [
            "overall",
            str(int((self.row_weight > 0).sum())),
            tables.number(float(self.row_weight.sum())),
        ]
        rows.append(total + [tables.plus_minus(*v) for v in self.overall.values()])
        return header, rows

    def _notes(self) -> list[str]:
        notes = [
            self._gap_note(self.heading, "as only one group has rows"),
            f"ratio: {tables.estimate(self.ratio)}",
            f"worst group: {self.worst_group}, {tables.estimate(self.worst_error)}",
        ]
        notes += [
            self._gap_note(heading, "as fewer than two groups have one")
            for heading in self.headings[1:]
        ]
        if self.rows_without_group:
            notes.append(f"{self.rows_without_group} rows without a group: overall only")
        notes.append(
            f"± standard error; [ ] {100 * self.confidence:g} % confidence interval, "
            "which may be wider on one side"
        )
        return notes + self._notes_on_groups() + self._notes_on_measures()

    def _gap_note(self, heading: str, why_none: str) -> str:
        gap = self.gap_of(heading)
        verdict = "beyond noise" if gap.low > 0 else "within noise"
        verdict = why_none if np.isnan(gap.value) else verdict
        return f"gap in {heading}: {tables.estimate(gap)}, {verdict}"

    def _notes_on_groups(self) -> list[str]:
        what = "row" if self.clusters is None else "cluster"
        counted = list(zip(self.group_names, self.units))
        notes = tables.few_rows(counted, what)
        absent = [n for n, w in zip(self.group_names, self.weight) if not w > 0]
        single = [name for name, count in counted if count == 1]
        if absent:
            notes.append(f"without rows, so left out: {tables.listed(absent)}")
        if single:
            names = tables.listed(single)
            notes.append(
                f"of one {what}, so without a standard error, not compared: {names}"
            )
        return notes

    def _notes_on_measures(self) -> list[str]:
        notes = []
        what = "row" if self.clusters is None else "cluster"
        for heading, one in self._measured.items():
            # The others are named for all measures already.
            own = np.where(self.units < tables.FEW_ROWS, 0, one.units)
            few = tables.few_rows(zip(self.group_names, own), what)
            notes += [f"{heading}: {note}" for note in few]
            is_undefined = np.isnan(one.by_group[0]) & (self.weight > 0)
            if is_undefined.any():
                names = [self.group_names[k] for k in np.flatnonzero(is_undefined)]
                notes.append(f"{heading} is undefined in: {tables.listed(names)}")
        resampled = [h for h, m in self._measured.items() if m.resamples]
        if resampled:
            number = self._measured[resampled[0]].resamples
            notes.append(
                f"standard errors of {tables.listed(resampled)} are from {number:,} "
                f"resamples of {what}s"
            )
        return notes


def _flat(measures: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    flat = {}
    for heading, (value, error) in measures.items():
        flat[heading] = float(value)
        flat[f"{heading} standard error"] = float(error)
    return flat
