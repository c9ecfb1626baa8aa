"""group_report: the error of each group, and how certain the gap is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, get_args

import numpy as np

from addloss_kit._checks import check_number, check_one_of, check_rows, received
from addloss_kit._types import ArrayLike, ErrorLike, Method
from addloss_kit.data.conversion import check_same_index
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
    by_cluster,
    critical_value,
    largest_interval,
    range_interval,
    weighted_means,
)
from addloss_kit.reports.page import Shown
from addloss_kit.reports.plots import plot_group_errors
from addloss_kit.reports.rows import (
    as_array,
    as_clusters,
    as_groups,
    as_weight,
    check_finite_errors,
    row_errors,
)

# Where the normal approximation begins to hold.
_FEW_ROWS = 30


def group_report(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    group_ids: ArrayLike,
    *,
    x: Any = None,
    sample_weight: ArrayLike | None = None,
    group_names: Sequence[Any] | None = None,
    error: ErrorLike = "squared_error",
    confidence: float = 0.95,
    clusters: ArrayLike | None = None,
) -> GroupReport:
    r"""The error of each group, the gap between them, and whether it is beyond noise.

    $$\bar e_k = \frac{\sum_{i: g_i = k} w_i e_i}{\sum_{i: g_i = k} w_i}$$

    The gap is the largest mean error minus the smallest, the ratio is the smallest over
    the largest. Intervals use the normal approximation and account for weights; for the
    gap they hold jointly over all pairs of groups. With fewer than about 30 rows per
    group they are too narrow. Ratios use the log scale. A group without rows is left
    out, and one of a single row of the comparisons: it has no standard error.

    Args:
        y_true: Targets, one row per sample.
        y_pred: Predictions for the same rows; or a Keras model, with `x` to predict
            from.
        group_ids: `(rows,)` integers, -1 for no group; or labels of any kind, as for
            `encode_groups`. Rows without a group count only in the overall error.
        x: Features, if `y_pred` is a model.
        sample_weight: Weights of at least 0, `(rows,)`; weights per element are
            averaged.
        group_names: Names by id. If `group_ids` are labels, the names from training.
        error: Error of a sample: `"squared_error"`, `"absolute_error"`, any Keras
            loss, or a function `f(y_true, y_pred)` that returns one value per row.
        confidence: Confidence level of the intervals, in (0, 1).
        clusters: `(rows,)` labels, such as the person that a row is of. Rows of one
            cluster may depend on each other; standard errors, intervals and certificates
            then count clusters instead of rows. Groups are taken as independent, which
            is cautious if a cluster's errors are alike in several groups.

    Returns:
        A `GroupReport`. It prints as a table; see also `plot()`, `to_dict()`,
        `to_pandas()` and `compare(before)`.

    Raises:
        ValueError: If lengths differ, weights are negative, an id is out of range,
            no row has a group, or the error of a row is not finite.

    Example:
        >>> report = group_report([0.3, 0.5, 0.1, 1.0], [0.3, 0.6, 0.6, 0.5],
        ...                       ["a", "a", "b", "b"], sample_weight=[1, 3, 1, 1])
        >>> {name: round(error, 6) for name, error in report.by_group.items()}
        {'a': 0.0075, 'b': 0.25}
        >>> round(report.gap.value, 6)
        0.2425
    """
    check_number(
        low=0.0,
        high=1.0,
        is_low_allowed=False,
        is_high_allowed=False,
        confidence=confidence,
    )
    if hasattr(y_pred, "predict"):
        if x is None:
            raise ValueError(
                "A model needs `x` to predict from. Pass its features. "
                f"{received(y_pred=type(y_pred).__name__, x=None)}"
            )
        y_pred = y_pred.predict(x, verbose=0)
    check_same_index(
        y_true=y_true,
        y_pred=y_pred,
        group_ids=group_ids,
        sample_weight=sample_weight,
        clusters=clusters,
    )
    y_true, y_pred = as_array("y_true", y_true), as_array("y_pred", y_pred)
    ids, names = as_groups(group_ids, group_names)
    cluster_ids = None if clusters is None else as_clusters(clusters)
    check_rows(
        y_true=y_true,
        y_pred=y_pred,
        group_ids=ids,
        **({} if cluster_ids is None else {"clusters": cluster_ids}),
    )
    if not (ids >= 0).any():
        raise ValueError(
            "At least one row must have a group. Number the groups from 0, or give them "
            f"names. {received(rows=len(ids), ids='all -1')}"
        )
    weight = as_weight(sample_weight, y_true)
    error_name, measures = row_errors(y_true, y_pred, error)
    check_finite_errors(measures, y_true, y_pred)
    return GroupReport(
        y_true, ids, names, weight, measures, error_name, float(confidence), cluster_ids
    )


class GroupReport(Shown):
    """The result of `group_report`. Arrays are `(num_groups,)`, in id order.

    Attributes:
        group_names: Names by id.
        n: Number of rows with nonzero weight in each group.
        weight: Total weight of each group.
        units: Number of clusters in each group; of rows, if there are no clusters.
        clusters: Number of the cluster of each row, or `None`.
        measures: Pairs (means, standard errors) by heading (`"MSE"`, …; the
            requested error comes first); NaN for a group without weight.
        overall: The same pair by heading for all rows, including those without a
            group.
        rows_without_group: Number of rows with id -1.
        confidence: Confidence level of the intervals.
    """

    title = "Error by group"

    def __init__(
        self,
        y_true: np.ndarray,
        group_ids: np.ndarray,
        group_names: list[str],
        weight: np.ndarray,
        row_errors: dict[str, np.ndarray],
        error_name: str,
        confidence: float,
        clusters: np.ndarray | None = None,
    ) -> None:
        self.group_names = group_names
        self.error_name = error_name
        self.confidence = confidence
        self.y_true = y_true
        self.group_ids = group_ids
        self.row_weight = weight
        self.clusters = clusters
        # The requested error of each row, for paired comparisons.
        self.row_errors = next(iter(row_errors.values()))
        num_groups = len(group_names)
        has_group = group_ids >= 0
        ids, w = group_ids[has_group], weight[has_group]
        of_group = None if clusters is None else clusters[has_group]
        self.rows_without_group = int((~has_group).sum())
        self.n = np.bincount(ids[w > 0], minlength=num_groups)
        self.weight = np.bincount(ids, w, minlength=num_groups)
        self.units = self.n
        if of_group is not None:
            cells = np.unique(np.stack([ids, of_group])[:, w > 0], axis=1)
            self.units = np.bincount(cells[0], minlength=num_groups)
        self.measures: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.overall: dict[str, tuple[float, float]] = {}
        everyone = np.zeros(len(weight), "int64")
        for heading, values in row_errors.items():
            means, errors = weighted_means(values[has_group], ids, w, num_groups, of_group)
            all_means, all_errors = weighted_means(values, everyone, weight, 1, clusters)
            self.measures[heading] = means, errors
            self.overall[heading] = float(all_means[0]), float(all_errors[0])
            if heading == "MSE":
                self.measures["RMSE"] = _root(means, errors)
                root, error = _root(all_means, all_errors)
                self.overall["RMSE"] = float(root[0]), float(error[0])

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

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of each group's mean, not simultaneous.

        An error that is never negative has no bound below 0.
        """
        margin = critical_value(self.confidence) * self.standard_errors
        low = self.means - margin
        if self.row_errors.min() >= 0:
            low = np.maximum(low, 0.0)
        return low, self.means + margin

    @cached_property
    def gap(self) -> Estimate:
        """Largest mean error minus the smallest, with its interval.

        NaN if fewer than two groups have rows. A group of one row has no standard error,
        so it is not compared: the lower bound is that of the others, the upper infinite.
        """
        means, errors = self._present()
        low, high = range_interval(means, errors, self.confidence)
        return Estimate(self.difference(), low, high)

    @cached_property
    def ratio(self) -> Estimate:
        """Smallest over largest mean error, with its interval; NaN unless all > 0."""
        means, errors = self._present()
        if not (means > 0).all():
            return Estimate(self.error_ratio(), np.nan, np.nan)
        # The logarithm turns the ratio into a gap; its slope is 1 / mean.
        low, high = range_interval(np.log(means), errors / means, self.confidence)
        return Estimate(self.error_ratio(), float(np.exp(-high)), float(np.exp(-low)))

    @property
    def worst_group(self) -> str:
        """The group with the largest mean error."""
        return self.group_names[int(np.nanargmax(self.means))]

    @cached_property
    def worst_error(self) -> Estimate:
        """The largest mean error, with an interval that accounts for the selection."""
        means, errors = self._present()
        low, high = largest_interval(means, errors, self.confidence)
        return Estimate(float(means.max()), low, high)

    @property
    def is_gap_beyond_noise(self) -> bool:
        """Whether the gap's interval excludes 0."""
        return self.gap.low > 0

    def difference(self, method: Method = "between_groups") -> float:
        """Largest difference between two groups, or to the overall error.

        Args:
            method: `"between_groups"` (NaN if there are no two groups with rows) or
                `"to_overall"`.
        """
        check_one_of(get_args(Method), method=method)
        means, _ = self._present()
        if method == "between_groups":
            return float(means.max() - means.min()) if len(means) > 1 else np.nan
        return float(np.abs(means - self.overall[self.heading][0]).max())

    def error_ratio(self, method: Method = "between_groups") -> float:
        """Smallest ratio between two groups, or to the overall error; at most 1.

        Args:
            method: `"between_groups"` or `"to_overall"`.
        """
        check_one_of(get_args(Method), method=method)
        means, _ = self._present()
        with np.errstate(divide="ignore", invalid="ignore"):
            if method == "between_groups":
                return float(means.min() / means.max()) if len(means) > 1 else np.nan
            quotient = means / self.overall[self.heading][0]
            return float(np.minimum(quotient, 1.0 / quotient).min())

    def _present(self) -> tuple[np.ndarray, np.ndarray]:
        is_present = self.weight > 0
        return self.means[is_present], self.standard_errors[is_present]

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

        Bounds are Student's t with Hall's correction for skewness, and need 30 rows of
        each group; of bounded errors (0 and 1, or `errors_within`), they are Hoeffding's
        or Maurer and Pontil's, which need no assumption and any number of rows. Rows, or
        clusters, must be independent.

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

    # Forms -----------------------------------------------------------------------

    def compare(self, before: GroupReport) -> GroupComparison:
        """The changes from `before` to this report; see `GroupComparison`."""
        if not isinstance(before, GroupReport):
            raise TypeError(
                "`before` must be a `GroupReport`. Create both with `group_report`. "
                f"{received(before=type(before).__name__)}"
            )
        return GroupComparison(before, self)

    def plot(self, ax: Any = None) -> Any:
        """Each group's error with its interval; returns the matplotlib axes."""
        low, high = self.interval()
        return plot_group_errors(
            ax,
            group_names=self.group_names,
            n=self.n,
            means=self.means,
            low=low,
            high=high,
            overall=self.overall[self.heading][0],
            gap=self.gap,
            heading=self.heading,
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
        }

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with one row per group.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "`to_pandas` needs pandas. Install it: `pip install pandas`."
            ) from error
        frame = pandas.DataFrame.from_dict(self.to_dict()["groups"], orient="index")
        frame.index.name = "group"
        return frame

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
        percent = f"{100 * self.confidence:g} %"
        verdict = "beyond noise" if self.is_gap_beyond_noise else "within noise"
        if np.isnan(self.gap.value):
            verdict = "as only one group has rows"
        notes = [
            f"gap in {self.heading}: {_shown(self.gap)}, {verdict}",
            f"ratio: {_shown(self.ratio)}",
            f"worst group: {self.worst_group}, {_shown(self.worst_error)}",
            f"± standard error; [ ] {percent} confidence interval",
        ]
        if self.rows_without_group:
            notes.insert(3, f"{self.rows_without_group} rows without a group: overall only")
        absent = [n for n, w in zip(self.group_names, self.weight) if not w > 0]
        counted = list(zip(self.group_names, self.units))
        single = [name for name, count in counted if count == 1]
        few = [name for name, count in counted if 1 < count < _FEW_ROWS]
        what = "row" if self.clusters is None else "cluster"
        if few:
            notes.append(
                f"of fewer than {_FEW_ROWS} {what}s, so with intervals that may be too "
                f"narrow: {tables.listed(few)}"
            )
        if absent:
            notes.append(f"without rows, so left out: {tables.listed(absent)}")
        if single:
            names = tables.listed(single)
            notes.append(
                f"of one {what}, so without a standard error, not compared: {names}"
            )
        return notes


def _shown(estimate: Estimate) -> str:
    value, low, high = map(tables.number, estimate)
    return f"{value} [{low}, {high}]"


def _flat(measures: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    flat = {}
    for heading, (value, error) in measures.items():
        flat[heading] = float(value)
        flat[f"{heading} standard error"] = float(error)
    return flat


def _root(means: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root of the means and its standard error (delta method)."""
    root = np.sqrt(means)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(root > 0, 0.5 / root, 0.0)
    return root, slope * errors
