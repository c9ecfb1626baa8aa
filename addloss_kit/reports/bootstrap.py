"""Standard errors of metrics without a formula, from resampled rows.

Rows, or clusters, are drawn with replacement from all of them (Efron, 1979), so groups vary
in size, too. Of n rows or clusters, the spread over the resamples is that of a variance
divided by n, so it is multiplied by √(n/(n−1)), as in the formula for means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np

from addloss_kit.reports.rows import ReportRows
from addloss_kit.reports.scalar_metrics import ScalarMetric

# Of the resamples, this share must have a value for a standard error.
_LEAST_DEFINED = 0.5


def measure_metrics(
    metrics: Sequence[ScalarMetric],
    rows: ReportRows,
    resamples: int,
    seed: int | None,
    verbose: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and standard errors of each metric, `(num_groups + 1,)`; all rows come last.

    Resamples in which a metric is undefined are left out; if these are more than half,
    there is no standard error.

    Args:
        metrics: What to measure, on the same resamples.
        rows: Those without weight are absent.
        resamples: Their number; 0 for no standard errors.
        seed: Of the resamples.
        verbose: 1 for a progress bar.
    """
    if not metrics:
        return []
    values = _on([m.__call__ for m in metrics], rows, np.flatnonzero(rows.weight > 0))
    drawn = np.full((resamples, *values.shape), np.nan)
    draw = _draws(rows, np.random.default_rng(seed))
    bar = keras.utils.Progbar(resamples, verbose=verbose, unit_name="resample")
    for number in range(resamples):
        drawn[number] = _on([m.of_resample for m in metrics], rows, draw())
        bar.add(1)
    return list(zip(values, _spread(drawn, values, _units(rows))))


def _on(
    metrics: Sequence[Callable[..., float]], rows: ReportRows, chosen: np.ndarray
) -> np.ndarray:
    """Each metric on the chosen rows of each group and on all, `(metrics, groups + 1)`."""
    ids = rows.group_ids[chosen]
    in_order = chosen[np.argsort(ids, kind="stable")]
    ends = np.cumsum(np.bincount(ids + 1, minlength=rows.num_groups + 1))
    parts = [in_order[start:end] for start, end in zip(ends, ends[1:])]
    values = np.full((len(metrics), rows.num_groups + 1), np.nan)
    for k, part in enumerate([*parts, chosen]):
        if len(part):
            y_true, y_pred = rows.y_true[part], rows.y_pred[part]
            weight = rows.weight[part] if rows.is_weighted else None
            values[:, k] = [metric(y_true, y_pred, weight) for metric in metrics]
    return values


def _draws(rows: ReportRows, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """Draws as many rows, or clusters, as there are, with replacement."""
    present = np.flatnonzero(rows.weight > 0)
    if rows.clusters is None:
        return lambda: present[rng.integers(0, len(present), len(present))]
    _, cluster = np.unique(rows.clusters[present], return_inverse=True)
    in_order = present[np.argsort(cluster, kind="stable")]
    sizes = np.bincount(cluster)
    starts = np.cumsum(sizes) - sizes

    def draw() -> np.ndarray:
        chosen = rng.integers(0, len(sizes), len(sizes))
        size = sizes[chosen]
        # Places within the drawn clusters, one after another.
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        return np.asarray(in_order[np.repeat(starts[chosen], size) + place])

    return draw


def _units(rows: ReportRows) -> np.ndarray:
    """Number of rows, or clusters, of each group and of all."""
    present = rows.weight > 0
    ids = rows.group_ids[present]
    unit = np.arange(len(ids)) if rows.clusters is None else rows.clusters[present]
    cells = np.unique(np.stack([ids, unit]), axis=1)
    of_groups = np.bincount(cells[0] + 1, minlength=rows.num_groups + 1)[1:]
    return np.append(of_groups, len(np.unique(unit)))


def _spread(drawn: np.ndarray, values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Standard errors from values `(resamples, metrics, groups + 1)`."""
    is_defined = np.isfinite(drawn)
    count = is_defined.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(is_defined, drawn, 0.0).sum(axis=0) / count
        squares = np.where(is_defined, drawn - mean, 0.0) ** 2
        errors = np.sqrt(squares.sum(axis=0) / (count - 1.0) * units / (units - 1.0))
    is_known = np.isfinite(values) & (count > 1) & (units > 1)
    is_known &= count >= _LEAST_DEFINED * len(drawn)
    return np.where(is_known, errors, np.nan)
