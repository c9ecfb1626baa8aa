"""Measures that are means of one value per row, or a formula of such means."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from addloss_kit.reports.intervals import by_cluster, weighted_means
from addloss_kit.reports.rows import ReportRows

# The value of each group, its standard error and the degrees of freedom of the latter, all
# `(num_groups,)`.
Means: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


class Partition(NamedTuple):
    """Some of the rows, in groups.

    Args:
        rows: Which rows of a report; the other arrays are of these.
        ids: Their groups, from 0.
        weight: Their weights.
        clusters: Numbers of their clusters, or `None`.
        num_groups: Number of groups, with rows or not.
    """

    rows: np.ndarray
    ids: np.ndarray
    weight: np.ndarray
    clusters: np.ndarray | None
    num_groups: int

    def means(self, values: np.ndarray, counts: np.ndarray | None = None) -> Means:
        """Weighted means of values `(rows,)` of the report, of those rows that count."""
        weight = self.weight if counts is None else self.weight * counts[self.rows]
        return weighted_means(
            values[self.rows], self.ids, weight, self.num_groups, self.clusters
        )

    def counted(self, counts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of rows, and of clusters, that count in each group."""
        weight = self.weight if counts is None else self.weight * counts[self.rows]
        ids = self.ids[weight > 0]
        n = np.bincount(ids, minlength=self.num_groups)
        if self.clusters is None:
            return n, n
        cells = np.unique(np.stack([ids, self.clusters[weight > 0]]), axis=1)
        return n, np.bincount(cells[0], minlength=self.num_groups)

    def effective_rows(
        self, share: np.ndarray, error: np.ndarray, counts: np.ndarray | None = None
    ) -> np.ndarray:
        """Of how many independent rows of equal weight a share is as certain.

        By its standard error, but no more than by the weights (Kish, 1965); where all rows
        are alike, so that the standard error is 0, by those of rows or clusters alone.
        """
        weight = self.weight if counts is None else self.weight * counts[self.rows]
        by_weight = if_alike = self._kish(self.ids, weight)
        if self.clusters is not None:
            _, ids, of_clusters = by_cluster(weight, self.ids, weight, self.clusters)
            if_alike = self._kish(ids, of_clusters)
        with np.errstate(divide="ignore", invalid="ignore"):
            by_error = 1.0 + share * (1.0 - share) / error**2
        return np.where(error > 0, np.minimum(by_error, by_weight), if_alike)

    def _kish(self, ids: np.ndarray, weight: np.ndarray) -> np.ndarray:
        total = np.bincount(ids, weight, minlength=self.num_groups)
        squares = np.bincount(ids, weight**2, minlength=self.num_groups)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(total**2 / squares)


def in_groups(rows: ReportRows) -> Partition:
    """The rows that have a group, by group."""
    has_group = rows.group_ids >= 0
    return Partition(
        has_group,
        rows.group_ids[has_group],
        rows.weight[has_group],
        None if rows.clusters is None else rows.clusters[has_group],
        rows.num_groups,
    )


def in_one(rows: ReportRows) -> Partition:
    """All rows, as one group."""
    everyone = np.zeros(len(rows.weight), "int64")
    return Partition(everyone == 0, everyone, rows.weight, rows.clusters, 1)


class RowMeasure(Protocol):
    """A measure with a formula for its standard error."""

    def estimate(self, partition: Partition) -> Means:
        """Its value in each group, NaN where it is undefined, with its standard error."""

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value that it can take."""

    @property
    def is_share(self) -> bool:
        """Whether it is a share of rows."""

    @property
    def counts(self) -> np.ndarray | None:
        """Booleans `(rows,)`; `None` if every row counts."""


@dataclasses.dataclass(frozen=True)
class MeanOf:
    """The weighted mean of one value per row, over the rows that count.

    Args:
        values: `(rows,)`.
        counts: Booleans `(rows,)`; `None` if every row counts.
        is_score: Whether larger is better.
        is_share: Whether the values are 0 or 1, by their meaning.
        is_signed: Whether a value may be negative, though none of these is.
    """

    values: np.ndarray
    counts: np.ndarray | None = None
    is_score: bool = False
    is_share: bool = False
    is_signed: bool = False

    def estimate(self, partition: Partition) -> Means:
        return partition.means(self.values, self.counts)

    @property
    def limits(self) -> tuple[float, float]:
        is_signed = self.is_signed or self.values.min() < 0
        return (-np.inf if is_signed else 0.0), np.inf


@dataclasses.dataclass(frozen=True)
class RootOf:
    """The root of a mean; its standard error is by the delta method."""

    mean: MeanOf

    def estimate(self, partition: Partition) -> Means:
        means, errors, df = self.mean.estimate(partition)
        root = np.sqrt(means)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(root > 0, 0.5 / root, 0.0)
        return root, slope * errors, df

    @property
    def limits(self) -> tuple[float, float]:
        return 0.0, np.inf

    @property
    def counts(self) -> np.ndarray | None:
        return self.mean.counts

    @property
    def is_share(self) -> bool:
        return False


@dataclasses.dataclass(frozen=True)
class RSquared:
    r"""One minus the squared error over the targets' variance, both of the group.

    $$R^2 = 1 - \sum w (y - \hat y)^2 / \sum w (y - \bar y)^2$$

    Of several outputs it is the mean. Its standard error is by the delta method: to first
    order R² moves as the mean of $-\left((y - \hat y)^2 - (1 - R^2) (y - \bar y)^2\right)$
    over the variance. Undefined where all targets of a group are equal.

    Args:
        y_true, y_pred: Float arrays `(rows, outputs)`.
    """

    y_true: np.ndarray
    y_pred: np.ndarray

    def estimate(self, partition: Partition) -> Means:
        outputs = self.y_true.shape[1]
        of_outputs = [self._of_output(partition, k) for k in range(outputs)]
        values, moved = (np.mean(part, axis=0) for part in zip(*of_outputs))
        _, errors, df = weighted_means(
            moved, partition.ids, partition.weight, partition.num_groups, partition.clusters
        )
        return values, np.where(np.isnan(values), np.nan, errors), df

    def _of_output(
        self, partition: Partition, output: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """R² of each group, and by how much each row moves it."""
        ids = partition.ids
        y_true = self.y_true[:, output]
        squared_error = (y_true - self.y_pred[:, output]) ** 2
        center, _, _ = partition.means(y_true)
        distance = np.zeros(len(y_true))
        distance[partition.rows] = (y_true[partition.rows] - center[ids]) ** 2
        mse, _, _ = partition.means(squared_error)
        variance, _, _ = partition.means(distance)
        # Of equal targets, the variance is 0 but for rounding.
        variance = np.where(self._is_spread(partition, output), variance, np.nan)
        ratio = mse / variance
        moved = squared_error[partition.rows] - ratio[ids] * distance[partition.rows]
        return 1.0 - ratio, -moved / variance[ids]

    def _is_spread(self, partition: Partition, output: int) -> np.ndarray:
        """Whether a group has two different targets."""
        counts = partition.weight > 0
        ids, targets = partition.ids[counts], self.y_true[partition.rows, output][counts]
        low, high = np.full((2, partition.num_groups), [[np.inf], [-np.inf]])
        np.minimum.at(low, ids, targets)
        np.maximum.at(high, ids, targets)
        return np.asarray(low < high)

    @property
    def limits(self) -> tuple[float, float]:
        return -np.inf, 1.0

    @property
    def counts(self) -> None:
        return None

    @property
    def is_share(self) -> bool:
        return False
