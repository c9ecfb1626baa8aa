"""A permutation test of the gap: how often chance alone gives one as large."""

from __future__ import annotations

import numpy as np

from addloss_kit._checks import received
from addloss_kit.reports.intervals import by_cluster

# Sums in another order differ by rounding; such gaps are as large as the one observed.
_ROUNDING = 1e-12


def gap_p_value(
    values: np.ndarray,
    ids: np.ndarray,
    weight: np.ndarray,
    clusters: np.ndarray | None,
    permutations: int,
    seed: int | None,
) -> float:
    """The share of permutations of the ids whose gap is as large as that of the rows.

    The rows count as one of them, so the p-value is never 0 (Phipson and Smyth, 2010).

    Args:
        values, ids, weight: Error, group and weight of each row that has a group.
        clusters: Numbers of clusters, each of one group, to permute over; `None` for rows.
        permutations: How many are drawn.
        seed: Of the permutations.

    Raises:
        ValueError: If there are no two groups, or a cluster has rows of several.
    """
    counts = weight > 0
    values, ids, weight = values[counts], ids[counts], weight[counts]
    if clusters is not None:
        values, ids, weight = _as_clusters(values, ids, weight, clusters[counts])
    _, ids = np.unique(ids, return_inverse=True)
    num_groups = int(ids.max()) + 1
    if num_groups < 2:
        raise ValueError(
            "A gap needs two groups with rows. Pass rows of at least two groups. "
            f"{received(groups_with_rows=num_groups)}"
        )

    def gap(ids: np.ndarray) -> float:
        totals = np.bincount(ids, weight * values, minlength=num_groups)
        return float(np.ptp(totals / np.bincount(ids, weight, minlength=num_groups)))

    rng = np.random.default_rng(seed)
    least = gap(ids) * (1.0 - _ROUNDING)
    as_large = sum(gap(rng.permutation(ids)) >= least for _ in range(permutations))
    return (1 + as_large) / (1 + permutations)


def _as_clusters(
    values: np.ndarray, ids: np.ndarray, weight: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cells = by_cluster(values, ids, weight, clusters)
    number = len(np.unique(clusters))
    if len(cells[0]) > number:
        raise ValueError(
            "Each cluster must be of one group, so that groups can be permuted over "
            "clusters. Where a cluster has rows of several groups, go by the interval of "
            f"`gap`. {received(clusters=number, groups_of_clusters=len(cells[0]))}"
        )
    return cells
