"""From targets, predictions and labels of any kind to the rows of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from addloss_kit._checks import check_rows, check_same_shape, check_unique, received
from addloss_kit._types import ArrayLike
from addloss_kit.data.conversion import as_number_array, refuse_masked
from addloss_kit.data.encoding import encode_groups

# Integers above it are names, such as the number of a customer, and no ids: an array
# with an entry per id would fill the memory.
_MAX_GROUPS = 1_000_000


@dataclasses.dataclass(frozen=True)
class ReportRows:
    """The rows of a report.

    Args:
        y_true, y_pred: Targets and predictions, one row per sample.
        group_ids: `(rows,)`, -1 for no group.
        num_groups: Number of groups, with rows or not.
        weight: `(rows,)`.
        clusters: Number of the cluster of each row, `(rows,)`, or `None`.
        is_weighted: Whether the weights were given.
    """

    y_true: np.ndarray
    y_pred: np.ndarray
    group_ids: np.ndarray
    num_groups: int
    weight: np.ndarray
    clusters: np.ndarray | None
    is_weighted: bool

    def take(self, chosen: np.ndarray) -> ReportRows:
        """Some of the rows, with the same groups."""
        return dataclasses.replace(
            self,
            y_true=self.y_true[chosen],
            y_pred=self.y_pred[chosen],
            group_ids=self.group_ids[chosen],
            weight=self.weight[chosen],
            clusters=None if self.clusters is None else self.clusters[chosen],
        )


def as_array(name: str, values: ArrayLike) -> np.ndarray:
    """A NumPy array of numbers from lists, tables and tensors of any backend."""
    if ops.is_tensor(values):
        values = ops.convert_to_numpy(values)
    array = as_number_array(name, values, "one or more per row")
    if array.ndim == 0:
        raise ValueError(
            f"`{name}` must have one entry per row. Pass an array. "
            f"{received(**{f'{name}.shape': ()})}"
        )
    return array


def as_groups(
    group_ids: ArrayLike, names: Sequence[Any] | None, argument: str = "group_ids"
) -> tuple[np.ndarray, list[str]]:
    """Ids `(rows,)` and names: integers are ids, anything else is labels."""
    if ops.is_tensor(group_ids):
        group_ids = ops.convert_to_numpy(group_ids)
    array = np.asarray(group_ids)
    is_categorical = hasattr(getattr(group_ids, "dtype", None), "categories")
    is_integer = array.dtype.kind in "iu" and array.ndim > 0 and not is_categorical
    if not is_integer or array.size != array.shape[0]:
        ids, known = encode_groups(group_ids, group_names=names)
        return ids.astype("int64"), known
    ids = array.reshape(-1).astype("int64")
    if isinstance(group_ids, np.ma.MaskedArray):  # a masked label is none, too
        ids = np.where(np.ma.getmaskarray(group_ids).reshape(-1), -1, ids)
    num_groups = int(ids.max(initial=-1)) + 1 if names is None else len(names)
    if names is None and num_groups > max(_MAX_GROUPS, ids.size):
        raise ValueError(
            f"`{argument}` must be ids from 0, one after another. Number the groups with "
            f"`encode_groups`. {received(**{f'max({argument})': num_groups - 1})}"
        )
    is_outside = (ids < -1) | (ids >= num_groups)
    if is_outside.any():
        row = int(np.argmax(is_outside))
        why = "" if names is None else f", as `group_names` has {num_groups} names"
        raise ValueError(
            f"`{argument}` must lie in [0, {num_groups}){why}, or be -1 for no group. "
            f"Received: {int(is_outside.sum())} ids outside, the first being {ids[row]} at "
            f"row {row}."
        )
    texts = [str(name) for name in (range(num_groups) if names is None else names)]
    if names is not None:
        check_unique(group_names=texts)
    return ids, texts


def as_clusters(clusters: ArrayLike) -> np.ndarray:
    """Labels of any kind as numbers `(rows,)`."""
    if ops.is_tensor(clusters):
        clusters = ops.convert_to_numpy(clusters)
    refuse_masked("clusters", clusters)
    array = np.asarray(clusters)
    array = array.reshape(-1) if array.ndim and array.size == len(array) else array
    labels = array if array.dtype.kind in "iu" else array.astype(str)
    missing = 0
    if labels is not array:
        missing = int(np.isin(labels, ["nan", "None", "NaT", "<NA>"]).sum())
    if array.ndim != 1 or missing:
        what = {"clusters.shape": array.shape, "missing": missing}
        raise ValueError(
            "`clusters` must have one label per row, none missing. Give rows that depend "
            f"on no other a label of their own. {received(**what)}"
        )
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def as_weight(sample_weight: ArrayLike | None, y_true: np.ndarray) -> np.ndarray:
    """Weights `(rows,)` for the rows of `y_true`, 1 by default."""
    rows = y_true.shape[0]
    if sample_weight is None:
        return np.ones(rows)
    weight = as_array("sample_weight", sample_weight).astype("float64")
    check_rows(y_true=y_true, sample_weight=weight)
    weight = np.asarray(weight.reshape(rows, -1).mean(axis=1))
    is_bad = ~(np.isfinite(weight) & (weight >= 0))
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise ValueError(
            "`sample_weight` must be finite and at least 0. "
            f"{received(**{f'sample_weight[{row}]': weight[row]})}"
        )
    if rows and not weight.any():
        raise ValueError(
            "`sample_weight` must not be 0 for all rows, which leaves nothing to report. "
            f"Omit it. {received(**{'max(sample_weight)': 0.0, 'rows': rows})}"
        )
    return weight


def check_finite_errors(
    measures: Mapping[str, np.ndarray], y_true: np.ndarray, y_pred: np.ndarray
) -> None:
    """Raise unless every row has a finite error: one NaN would decide the report.

    Raises:
        ValueError: With the first row whose error is not finite.
    """
    for heading, errors in measures.items():
        is_bad = ~np.isfinite(errors)
        if is_bad.any():
            row = int(np.argmax(is_bad))
            culprits = {
                f"{heading}[{row}]": errors[row],
                f"y_true[{row}]": np.ravel(y_true[row]),
                f"y_pred[{row}]": np.ravel(y_pred[row]),
            }
            raise ValueError(
                "Every row must have a finite error. Drop the rows without a target, and "
                f"find out why a prediction is not finite. {received(**culprits)}"
            )


def in_one_shape(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, targets in the shape of the predictions."""
    true, pred = y_true.astype("float64"), y_pred.astype("float64")
    # `(rows,)` and `(rows, 1)` would broadcast to `(rows, rows)`.
    if true.ndim != pred.ndim and true.size == pred.size:
        true = true.reshape(pred.shape)
    check_same_shape(y_true=true, y_pred=pred)
    return true, pred
