"""group_report: from targets, predictions and groups to a `GroupReport`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from addloss_kit._checks import (
    as_verbosity,
    check_number,
    check_positive_int,
    check_rows,
    received,
)
from addloss_kit._types import ArrayLike, ErrorLike
from addloss_kit.data.conversion import check_same_index
from addloss_kit.reports.report import GroupReport
from addloss_kit.reports.requested import as_requested, measure
from addloss_kit.reports.rows import (
    ReportRows,
    as_array,
    as_clusters,
    as_groups,
    as_weight,
)


def group_report(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    group_ids: ArrayLike,
    *,
    x: Any = None,
    sample_weight: ArrayLike | None = None,
    group_names: Sequence[Any] | None = None,
    error: ErrorLike | Mapping[str, ErrorLike] = "squared_error",
    confidence: float = 0.95,
    clusters: ArrayLike | None = None,
    control_groups: ArrayLike | None = None,
    bootstrap: int = 200,
    seed: int | None = None,
    verbose: int = 0,
) -> GroupReport:
    r"""The error of each group, the gap between them, and whether it is beyond noise.

    $$\bar e_k = \frac{\sum_{i: g_i = k} w_i e_i}{\sum_{i: g_i = k} w_i}$$

    The gap is the largest mean error minus the smallest, the ratio is the smallest over
    the largest. Intervals are by Student's t, of errors that are never negative on the
    log scale, and account for weights; for the gap they hold jointly over all pairs of
    groups. With fewer than about 30 rows per group they are too narrow. A group without
    rows is left out, and one of a single row of the comparisons: it has no standard error.

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
        error: Error of a sample: `"squared_error"`, `"absolute_error"`, `"error_rate"`,
            any Keras loss, or a function `f(y_true, y_pred)` that returns one value per
            row. Or several by heading: a dict, of which the first is such an error, the
            smaller the better, that decides gap, worst group, comparisons and
            certificates. The others may also be

            - `"signed_error"` (prediction minus target), `"rmse"`, `"r2"`;
            - rates of labels: `"accuracy"`, `"selection_rate"` (the share of 1),
              `"true_positive_rate"`, `"false_positive_rate"`. `y_pred` has labels 0 and
              1, or probabilities of 1, of which those above 0.5 count as 1; for accuracy
              and error rate also labels of more classes, or their probabilities `(rows,
              classes)`;
            - a metric: a function `f(y_true, y_pred, sample_weight=...)` that returns one
              number, such as most of `sklearn.metrics`, or a `keras.metrics.Metric`.
        confidence: Confidence level of the intervals, in (0, 1).
        clusters: `(rows,)` labels, such as the person that a row is of. Rows of one
            cluster may depend on each other; standard errors, intervals and certificates
            then count clusters instead of rows. Groups are taken as independent, which
            is cautious if a cluster's errors are alike in several groups.
        control_groups: `(rows,)` labels or ids of strata, such as the region: the gap
            within each is in `by_stratum`. Rows with id -1, or a missing label, are in
            none, and a stratum without rows of a group is left out.
        bootstrap: Number of resamples of rows, or clusters, from which metrics get their
            standard errors: they have no formula. 0 for none.
        seed: Seed of the resamples.
        verbose: 1 for a progress bar over the resamples.

    Returns:
        A `GroupReport`. It prints as a table; see also `plot()`, `to_dict()`,
        `to_pandas()` and `compare(before)`.

    Raises:
        ValueError: If lengths differ, weights are negative, an id is out of range,
            no row has a group, the error of a row is not finite, or a metric fails.

    Example:
        >>> report = group_report([0.3, 0.5, 0.1, 1.0], [0.3, 0.6, 0.6, 0.5],
        ...                       ["a", "a", "b", "b"], sample_weight=[1, 3, 1, 1])
        >>> {name: round(error, 6) for name, error in report.by_group.items()}
        {'a': 0.0075, 'b': 0.25}
        >>> round(report.gap.value, 6)
        0.2425
        >>> several = {"error rate": "error_rate", "TPR": "true_positive_rate"}
        >>> report = group_report([1, 1, 1, 0], [0.9, 0.2, 0.7, 0.6], ["a", "a", "b", "b"],
        ...                       error=several)
        >>> report.gap_of("TPR").value
        0.5
    """
    check_number(
        low=0.0,
        high=1.0,
        is_low_allowed=False,
        is_high_allowed=False,
        confidence=confidence,
    )
    check_positive_int(least=0, bootstrap=bootstrap)
    verbosity = as_verbosity(verbose)
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
        control_groups=control_groups,
    )
    y_true, y_pred = as_array("y_true", y_true), as_array("y_pred", y_pred)
    ids, names = as_groups(group_ids, group_names)
    labels: dict[str, np.ndarray] = {"group_ids": ids}
    if clusters is not None:
        labels["clusters"] = as_clusters(clusters)
    if control_groups is not None:
        strata, stratum_names = as_groups(control_groups, None, "control_groups")
        labels["control_groups"] = strata
    check_rows(y_true=y_true, y_pred=y_pred, **labels)
    if not (ids >= 0).any():
        raise ValueError(
            "At least one row must have a group. Number the groups from 0, or give them "
            f"names. {received(rows=len(ids), ids='all -1')}"
        )
    weight = as_weight(sample_weight, y_true)
    has_weights = sample_weight is not None
    rows = ReportRows(
        y_true, y_pred, ids, len(names), weight, labels.get("clusters"), has_weights
    )

    def report(rows: ReportRows) -> GroupReport:
        requested = as_requested(error, rows)
        measured = measure(requested, rows, bootstrap, seed, verbosity)
        return GroupReport(rows, names, requested, measured, float(confidence))

    whole = report(rows)
    if control_groups is not None:
        is_compared = (ids >= 0) & (weight > 0) & (strata >= 0)
        for k in np.unique(strata[is_compared]):
            whole.by_stratum[stratum_names[k]] = report(rows.take(strata == k))
    return whole
