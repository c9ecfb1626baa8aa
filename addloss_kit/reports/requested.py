"""From what is passed as `error=` to the value of each measure in each group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from keras import ops

from addloss_kit._checks import check_rows, did_you_mean, received
from addloss_kit._types import ErrorLike
from addloss_kit.per_sample_error import PerSampleError, literature_name
from addloss_kit.reports.bootstrap import measure_metrics
from addloss_kit.reports.intervals import SpreadsAt, student_spreads, wilson_spreads
from addloss_kit.reports.measures import (
    MeanOf,
    RootOf,
    RowMeasure,
    in_groups,
    in_one,
)
from addloss_kit.reports.ready_measures import READY
from addloss_kit.reports.rows import ReportRows, check_finite_errors
from addloss_kit.reports.scalar_metrics import ScalarMetric, is_metric

# Headings of the well-known errors.
_HEADINGS = {"squared_error": "MSE", "absolute_error": "MAE"}

# What a group's entry of `to_dict` and a column of `to_pandas` are called already.
_RESERVED = ("group", "n", "weight")


class Measured(NamedTuple):
    """A measure on the rows of a report.

    Args:
        by_group: Values and standard errors, both `(num_groups,)`.
        overall: The same of all rows, with and without a group.
        least: The smallest value that the measure can take.
        n, units: Numbers of rows, and of clusters, that count in each group.
        resamples: From which the standard errors are; 0 if there is a formula.
        spreads_at: Of intervals; `None` if they are `critical_value` standard errors wide.
    """

    by_group: tuple[np.ndarray, np.ndarray]
    overall: tuple[float, float]
    least: float
    n: np.ndarray
    units: np.ndarray
    resamples: int = 0
    spreads_at: SpreadsAt | None = None


class Requested(NamedTuple):
    """What a report is asked for.

    Args:
        error_name: Name of the first error.
        headings: Those that were asked for, the first error's first.
        measures: All by heading, in the order of the columns.
    """

    error_name: str
    headings: list[str]
    measures: dict[str, RowMeasure | ScalarMetric]

    @property
    def error(self) -> np.ndarray:
        """The first error of each row, `(rows,)`."""
        first = self.measures[self.headings[0]]
        assert isinstance(first, MeanOf)
        return first.values


def as_requested(error: ErrorLike | Mapping[str, ErrorLike], rows: ReportRows) -> Requested:
    """The measures that are asked for.

    Args:
        error: As in `group_report`.
        rows: Of the report.

    Raises:
        ValueError: If there is none, the first is not a mean over all rows, or a row has
            no finite error.
    """
    if isinstance(error, Mapping):
        _check_headings(error)
        named = {heading: _named(heading, one, rows) for heading, one in error.items()}
        headings, first = list(error), next(iter(error.values()))
        measures = {heading: one for heading, (_, one) in named.items()}
        name, _ = named[headings[0]]
    else:
        first = error
        name, one = _named("error", error, rows)
        headings = [_HEADINGS.get(name, name)]
        measures = {headings[0]: one}
        if name == "squared_error" and isinstance(one, MeanOf):
            measures |= {"RMSE": RootOf(one), "MAE": _ready("absolute_error", rows)}
    _check_first(measures[headings[0]], first)
    values = {h: m.values for h, m in measures.items() if isinstance(m, MeanOf)}
    check_finite_errors(values, rows.y_true, rows.y_pred)
    return Requested(name, headings, measures)


def check_errors(error: ErrorLike | Mapping[str, ErrorLike]) -> None:
    """Raise unless the names of errors are known."""
    for one in error.values() if isinstance(error, Mapping) else [error]:
        if isinstance(one, str) and literature_name(one) not in READY:
            _per_sample_error(one)


def measure(
    requested: Requested, rows: ReportRows, resamples: int, seed: int | None, verbose: int
) -> dict[str, Measured]:
    """Every measure by heading, on all groups and overall."""
    groups, everyone = in_groups(rows), in_one(rows)
    measures = requested.measures
    metrics = [m for m in measures.values() if isinstance(m, ScalarMetric)]
    by_metric = dict(zip(metrics, measure_metrics(metrics, rows, resamples, seed, verbose)))
    measured = {}
    for heading, one in measures.items():
        if isinstance(one, ScalarMetric):
            values, errors = by_metric[one]
            overall = float(values[-1]), float(errors[-1])
            by_group = values[:-1], errors[:-1]
            n, units = groups.counted()
            measured[heading] = Measured(by_group, overall, -np.inf, n, units, resamples)
        else:
            (value,), (error,), _ = one.estimate(everyone)
            overall = float(value), float(error)
            n, units = groups.counted(one.counts)
            values, errors, df = one.estimate(groups)
            if one.is_share:
                effective = groups.effective_rows(values, errors, one.counts)
                spreads_at = wilson_spreads(values, effective)
            else:
                spreads_at = student_spreads(values, errors, df, one.limits)
            by_group, least = (values, errors), one.limits[0]
            measured[heading] = Measured(
                by_group, overall, least, n, units, spreads_at=spreads_at
            )
    return measured


def _named(
    heading: str, error: ErrorLike, rows: ReportRows
) -> tuple[str, RowMeasure | ScalarMetric]:
    """A measure and its own name, whatever its heading."""
    name = literature_name(error) if isinstance(error, str) else ""
    if name in READY:
        return name, _ready(name, rows)
    if is_metric(error):
        metric = ScalarMetric(heading, error)
        return metric.name, metric
    per_sample = _per_sample_error(error)
    y_pred = rows.y_pred
    y_pred = y_pred if y_pred.dtype.kind == "f" else y_pred.astype("float64")
    per_row, _ = per_sample.per_row(rows.y_true, ops.convert_to_tensor(y_pred))
    errors = ops.convert_to_numpy(per_row).astype("float64")
    check_rows(y_true=rows.y_true, **{heading: errors})
    return per_sample.name, MeanOf(errors)


def _ready(name: str, rows: ReportRows) -> RowMeasure:
    return READY[name](rows.y_true, rows.y_pred)


def _per_sample_error(error: ErrorLike) -> PerSampleError:
    try:
        return PerSampleError(error)
    except ValueError:
        hint = did_you_mean(error, READY)
        if not hint:
            raise
        raise ValueError(
            "An error must be a name that `keras.losses.get` knows, a name of a measure, a "
            f"Keras loss or metric, or a function. Check the spelling.{hint} "
            f"{received(error=repr(error))}"
        ) from None


def _check_headings(error: Mapping[str, ErrorLike]) -> None:
    if not error:
        raise ValueError(
            "`error` must name an error at least. Omit it for the squared error. "
            f"{received(error=error)}"
        )
    for heading in error:
        if not isinstance(heading, str) or not heading or heading in _RESERVED:
            raise ValueError(
                "`error` must have headings as keys, other than those of the table's first "
                f"columns, {list(_RESERVED)}. {received(heading=repr(heading))}"
            )


def _check_first(measure: RowMeasure | ScalarMetric, error: ErrorLike) -> None:
    if not isinstance(measure, MeanOf) or measure.is_score or measure.counts is not None:
        raise ValueError(
            "The first error decides gap, worst group, comparisons and certificates, so it "
            "must have a value on every row, the smaller the better. Put such an error "
            "first, as in `error={'MSE': 'squared_error', 'R²': 'r2'}`, or `'error_rate'` "
            f"for labels. {received(error=repr(error))}"
        )
