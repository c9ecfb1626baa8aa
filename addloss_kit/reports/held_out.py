"""The packed rows that a trade-off curve uses, and its reports on these and on others."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from addloss_kit._checks import check_name, check_rows, received
from addloss_kit._types import ArrayLike, ErrorLike
from addloss_kit.fields import SAMPLE_WEIGHT, Y_TRUE
from addloss_kit.reports.group_report import group_report
from addloss_kit.reports.report import GroupReport
from addloss_kit.reports.requested import check_errors
from addloss_kit.reports.rows import as_clusters, as_groups, as_weight
from addloss_kit.reports.twins import count_repeated, count_twins


class HeldOut(NamedTuple):
    """What a curve reports on, and how; see `tradeoff_curve`."""

    train: Mapping[str, Any]
    validation: Mapping[str, Any]
    group_ids: str
    group_names: Sequence[Any] | None
    error: ErrorLike

    def check(self) -> None:
        """Raise unless targets and ids are there, one of each for a row."""
        check_name(group_ids=self.group_ids)
        check_errors(self.error)
        for name, rows in (("train", self.train), ("validation", self.validation)):
            keys = Y_TRUE, self.group_ids
            self._check_entries(name, rows, keys, "`{}` and `{}`".format(*keys))
        self._check_groups("validation", self.validation)

    def report(self, predictions: np.ndarray) -> GroupReport | None:
        """On the validation rows; `None` if a prediction is not finite."""
        return self._report(self.validation, predictions, self.group_names)

    def check_unseen(
        self,
        name: str,
        rows: Mapping[str, Any],
        min_groups: int,
        clusters: ArrayLike | None,
    ) -> None:
        """Raise unless these rows can judge: complete, and other than those that chose.

        Args:
            name: That of the argument.
            rows: Like `validation`.
            min_groups: How many groups there are at least; 0 if none is needed.
            clusters: Labels of these rows, or `None`.
        """
        self._check_entries(name, rows, self.validation, "of `validation`")
        for other in ("train", "validation"):
            if _overlap(rows, getattr(self, other)):
                raise ValueError(
                    f"`{name}` must be rows that took no part in training nor in choosing: "
                    "those that chose cannot judge. Keep some apart. "
                    f"{received(**{name: f'rows of `{other}`'})}"
                )
            _warn_of_twins(name, rows, other, getattr(self, other))
        if clusters is not None:
            check_rows(clusters=as_clusters(clusters), **{Y_TRUE: np.asarray(rows[Y_TRUE])})
        self._check_groups(name, rows)
        if min_groups:
            self._check_all_groups(name, rows, min_groups)
        if clusters is None:
            _warn_of_repeated(name, rows, self.train, self.validation)

    def _check_all_groups(
        self, name: str, rows: Mapping[str, Any], min_groups: int
    ) -> None:
        """Raise unless the validation rows have groups to compare, and these rows all."""
        seen = len(self._groups(self.validation))
        if seen < min_groups:
            raise ValueError(
                f"`validation` must have rows of {min_groups} groups at least, to compare "
                f"them. Pass more rows. {received(groups_with_rows=seen)}"
            )
        has_rows = self._groups(rows)
        groups = range(max(min_groups, self._num_groups(rows)))
        absent = [k for k in groups if k not in has_rows]
        if absent:
            raise ValueError(
                f"`{name}` must have rows of every group: the error of the others may be "
                f"anything. Pass more rows. {received(groups_without_rows=absent)}"
            )

    def _check_entries(
        self, name: str, rows: Any, keys: Iterable[str], entries: str
    ) -> None:
        """Raise unless `rows` is a dict with these entries, of one length.

        Args:
            name: Name of the argument, for messages.
            rows: What was given for it.
            keys: Of the entries.
            entries: The same in words.
        """
        if not isinstance(rows, Mapping):
            raise TypeError(
                f"`{name}` must be a dict of arrays. Pack it with `pack_inputs`. "
                f"{received(**{name: type(rows).__name__})}"
            )
        missing = [key for key in keys if key not in rows]
        if missing:
            raise ValueError(
                f"`{name}` must have the entries {entries}. "
                f"Pack it with `pack_inputs`. {received(missing=missing, keys=[*rows])}"
            )
        arrays = {
            f"{name}['{key}']": rows[key]
            if hasattr(rows[key], "shape")
            else np.array(rows[key])
            for key in keys
        }
        check_rows(**arrays)
        if not np.shape(rows[Y_TRUE])[0]:
            raise ValueError(f"`{name}` must have at least one row. {received(rows=0)}")

    def _check_groups(self, name: str, rows: Mapping[str, Any]) -> None:
        """Raise unless the ids are ids, of the groups that have names, of one at least."""
        entry, given = f"{name}['{self.group_ids}']", np.asarray(rows[self.group_ids])
        if given.dtype.kind not in "iu":
            raise TypeError(
                f"`{entry}` must be whole numbers. Pack it with `pack_inputs`. "
                f"{received(dtype=given.dtype)}"
            )
        ids, _ = as_groups(given, self.group_names, entry)
        if not (ids >= 0).any():
            raise ValueError(
                f"`{name}` must have a row with a group. Number the groups from 0. "
                f"{received(rows=len(ids), ids='all -1')}"
            )

    def _groups(self, rows: Mapping[str, Any]) -> np.ndarray:
        """The groups of which rows count."""
        weight = as_weight(rows.get(SAMPLE_WEIGHT), np.asarray(rows[Y_TRUE]))
        ids = np.unique(np.ravel(rows[self.group_ids])[weight > 0])
        return ids[ids >= 0]

    def report_unseen(
        self, rows: Mapping[str, Any], predictions: np.ndarray, clusters: ArrayLike | None
    ) -> GroupReport | None:
        """On other rows, of all groups; `None` if a prediction is not finite."""
        names = self.group_names
        # Ids that these rows lack are groups, too.
        names = range(self._num_groups(rows)) if names is None else names
        return self._report(rows, predictions, names, clusters)

    def _num_groups(self, rows: Mapping[str, Any]) -> int:
        if self.group_names is not None:
            return len(self.group_names)
        parts = (self.train, self.validation, rows)
        return 1 + max(int(np.max(part[self.group_ids])) for part in parts)

    def _report(
        self,
        rows: Mapping[str, Any],
        predictions: np.ndarray,
        names: Sequence[Any] | None,
        clusters: ArrayLike | None = None,
    ) -> GroupReport | None:
        if not np.isfinite(predictions).all():
            return None
        return group_report(
            rows[Y_TRUE],
            predictions,
            rows[self.group_ids],
            sample_weight=rows.get(SAMPLE_WEIGHT),
            group_names=names,
            error=self.error,
            clusters=clusters,
        )


def _warn_of_twins(
    name: str, rows: Mapping[str, Any], other: str, others: Mapping[str, Any]
) -> None:
    """Warn if more rows stand in the others, too, than chance explains."""
    twins = count_twins(rows, others)
    if twins.are_too_many:
        warnings.warn(
            f"{twins.found} of {twins.rows} rows of `{name}` stand in `{other}`, too; by "
            f"chance it would be about {twins.expected:.0f}. A certificate counts on rows "
            "that took no part: split rows before you copy or draw them again.",
            UserWarning,
            stacklevel=2,
        )


def _warn_of_repeated(name: str, rows: Mapping[str, Any], *others: Any) -> None:
    """Warn if more rows stand there more than once than among the others."""
    twins = count_repeated(rows, others)
    if twins.are_too_many:
        warnings.warn(
            f"{twins.found} of {twins.rows} rows of one half of `{name}` stand in the "
            "other half, too; of rows drawn like the others it would be about "
            f"{twins.expected:.0f}. A certificate takes copies for rows of their own, "
            "so it is too sure. Drop them, or pass `clusters`: for each row the number of "
            "the row that it is a copy of.",
            UserWarning,
            stacklevel=2,
        )


def _overlap(rows: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether rows are others' memory, or equal to them as a whole."""
    if np.shares_memory(np.asarray(rows[Y_TRUE]), np.asarray(others[Y_TRUE])):
        return True
    return all(np.array_equal(rows[key], others[key]) for key in others if key in rows)
