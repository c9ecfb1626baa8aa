"""Metrics per group, exact over the epoch: they sum totals, not batch values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import keras
import numpy as np
from keras import ops

from addloss_kit import functional
from addloss_kit._checks import (
    as_bounds,
    as_held_array,
    check_number,
    check_one_of,
    check_unique,
    received,
    warn_of_one_group,
)
from addloss_kit._types import (
    Between,
    Bounded,
    Config,
    Distance,
    Tensor,
)
from addloss_kit.fields import GROUP_IDS, SAMPLE_WEIGHT, Y_PRED, Y_TRUE
from addloss_kit.functional.groups import BETWEEN, DISTANCES
from addloss_kit.per_group import ErrorPerGroup

__all__ = ["BoundIsMet", "GroupError", "GroupGap"]

# GroupError logs one number per group; with more than this, the gap or `group_report`
# is more useful.
_MAX_LOGGED_GROUPS = 1000


class _GroupMetric(ErrorPerGroup, keras.metrics.Metric):
    """Error and weight totals of each group since the last reset."""

    def __init__(self, num_groups: int, **kwargs: Any) -> None:
        super().__init__(num_groups, **kwargs)
        # float32 sums over many batches drift; the second row accumulates the rounding
        # errors of the first (Neumaier's summation).
        self.error_totals = self._sums("error_totals")
        self.weight_totals = self._sums("weight_totals")

    def _sums(self, name: str) -> Tensor:
        return self.add_variable(shape=(2, self.num_groups), initializer="zeros", name=name)

    @property
    def required_arguments(self) -> tuple[str, ...]:
        """Arguments of `update_state` that must be fed."""
        return (Y_TRUE, Y_PRED, GROUP_IDS)

    @property
    def optional_arguments(self) -> tuple[str, ...]:
        """Arguments that are fed if the model has them."""
        return (SAMPLE_WEIGHT,)

    def accepts(self, argument: str) -> bool:
        """Whether `update_state` has a parameter of that name."""
        return argument in (*self.required_arguments, *self.optional_arguments, "mask")

    def update_state(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        group_ids: Tensor,
        sample_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            y_true, y_pred: `(batch, …)`, as the error takes them.
            group_ids: Integers `(batch,)`; -1 for no group.
            sample_weight: Optional weights `(batch,)`; weights per step or element are
                averaged.
            mask: Optional boolean mask of the prediction's steps. A masked step counts
                nowhere, neither its error nor its weight.
        """
        y_pred = ops.cast(y_pred, self.dtype)
        if mask is not None:
            mask = ops.convert_to_tensor(mask)
        error, weight = self.error.per_row(
            ops.convert_to_tensor(y_true), y_pred, mask, sample_weight
        )
        ids = ops.reshape(ops.cast(group_ids, "int32"), (-1,))
        errors, weights = functional.group_totals(
            error, ids, weight, num_groups=self.num_groups
        )
        _add(self.error_totals, errors)
        _add(self.weight_totals, weights)

    def means(self) -> tuple[Tensor, Tensor]:
        """Mean error and weight of each group, both `(num_groups,)`."""
        error = ops.sum(self.error_totals, axis=0)
        weight = ops.sum(self.weight_totals, axis=0)
        return functional.group_means(error, weight), weight


@keras.saving.register_keras_serializable("addloss_kit.metrics")
class GroupError(_GroupMetric):
    """Mean error of each group over the epoch.

    Args:
        num_groups: Number of groups, at most 1,000.
        error: Error of a sample, as in `losses.GroupGap`.
        group_names: Names for the history. Defaults to the ids.
        group_ids: Name of the Input that holds the ids.
        name: Prefix of the keys in the history: `group_error_0`, …

    Returns:
        A dict with one scalar per group, in the units of the error; NaN for a group
        without weight, because 0 would look perfect. Callbacks such as `EarlyStopping`
        never take NaN for an improvement, but keep a NaN of the first epoch as the best.

    Example:
        >>> metric = GroupError(2)
        >>> metric.update_state([[0.0], [0.0]], [[1.0], [3.0]], [0, 1])
        >>> {name: float(value) for name, value in metric.result().items()}
        {'group_error_0': 1.0, 'group_error_1': 9.0}
    """

    def __init__(
        self, num_groups: int, *, group_names: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_groups, **kwargs)
        if num_groups > _MAX_LOGGED_GROUPS:
            raise ValueError(
                "`GroupError` logs one number per group, for at most "
                f"{_MAX_LOGGED_GROUPS}. Use `metrics.GroupGap`, or `group_report`. "
                f"{received(num_groups=num_groups)}"
            )
        if group_names is not None and len(group_names) != num_groups:
            raise ValueError(
                "`group_names` must have one name per group. "
                f"{received(group_names=list(group_names), num_groups=num_groups)}"
            )
        self.group_names = None if group_names is None else [str(n) for n in group_names]
        check_unique(group_names=self.group_names or [])

    def result(self) -> dict[str, Tensor]:
        means, weight = self.means()
        means = _or_nan(weight > 0, means)
        names = self.group_names or range(self.num_groups)
        return {f"{self.name}_{name}": means[k] for k, name in enumerate(names)}

    def get_config(self) -> Config:
        return {**super().get_config(), "group_names": self.group_names}


@keras.saving.register_keras_serializable("addloss_kit.metrics")
class GroupGap(_GroupMetric):
    """Gap between the groups' mean errors over the epoch.

    Args:
        num_groups: Number of groups, from 2.
        error: Error of a sample, as in `losses.GroupGap`.
        distance: `"squared"` or `"absolute"`.
        between: `"pairs"`, `"range"` or `"overall"`; see `functional.group_gap`.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history; `"group_gap"`.

    Returns:
        Scalar in the units of the error, squared if `distance` is. Groups without
        weight are excluded; NaN if fewer than two have any.

    Example:
        >>> metric = GroupGap(2, distance="absolute")
        >>> metric.update_state([[0.0], [0.0]], [[1.0], [3.0]], [0, 1])
        >>> float(metric.result())
        8.0
    """

    def __init__(
        self,
        num_groups: int,
        *,
        distance: Distance = "squared",
        between: Between = "pairs",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_groups, **kwargs)
        warn_of_one_group("metrics.GroupGap", num_groups)
        check_one_of(DISTANCES, distance=distance)
        check_one_of(BETWEEN, between=between)
        self.distance = distance
        self.between = between

    def result(self) -> Tensor:
        means, weight = self.means()
        gap = functional.group_gap(
            means, weight > 0, distance=self.distance, between=self.between, shares=weight
        )
        return _or_nan(_number_present(weight) > 1, gap)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "distance": self.distance,
            "between": self.between,
        }


@keras.saving.register_keras_serializable("addloss_kit.metrics")
class BoundIsMet(_GroupMetric):
    """Whether the groups' mean errors over the epoch meet a bound: 1 or 0.

    A verdict on these rows, not on rows to come: for those, `GroupReport.certify`.

    Args:
        num_groups: Number of groups.
        bound: As in `losses.BoundedGroupLoss` or `losses.GroupGapConstraint`: a
            number in the units of the error, or for errors one per group.
        of: `"error"`: no group's mean error exceeds the bound. `"gap"`: the
            difference between the largest and the smallest does not.
        tolerance: Fraction by which the bound may be exceeded, at least 0. Training
            ends close to the bound, slightly above or below.
        error: Error of a sample, as in `losses.GroupGap`.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history; `"bound_is_met"`.

    Returns:
        1.0 or 0.0. Groups without weight are excluded; NaN if none has any, or, for a
        gap, if fewer than two have.

    Example:
        >>> metric = BoundIsMet(2, bound=8.0, of="gap")
        >>> metric.update_state([[0.0], [0.0]], [[1.0], [3.0]], [0, 1])
        >>> float(metric.result())
        1.0
    """

    def __init__(
        self,
        num_groups: int,
        *,
        bound: float | Sequence[float],
        of: Bounded = "error",
        tolerance: float = 0.02,
        **kwargs: Any,
    ) -> None:
        check_one_of(get_args(Bounded), of=of)
        super().__init__(num_groups, **kwargs)
        if of == "gap":
            warn_of_one_group("BoundIsMet(of='gap')", num_groups)
        check_number(low=0.0, tolerance=tolerance)
        bounds = as_bounds(bound)
        shapes = [(), (num_groups,)] if of == "error" else [()]
        held = as_held_array(bounds)
        if bounds.shape not in shapes or not np.all(np.isfinite(held) & (bounds >= 0)):
            raise ValueError(
                "`bound` must be a number, finite and at least 0; or one per group with "
                "`of='error'`. "
                f"{received(bound=bound, num_groups=num_groups, of=repr(of))}"
            )
        self.bound = bounds.tolist()
        self.of = of
        self.tolerance = float(tolerance)

    def result(self) -> Tensor:
        means, weight = self.means()
        if self.of == "gap":
            reached = functional.group_gap(
                means, weight > 0, distance="absolute", between="range"
            )
        else:
            reached = means
        bound = ops.convert_to_tensor(self.bound, means.dtype)
        # A group without weight has a mean of 0, which is below any bound.
        is_met = ops.all(reached <= bound * (1.0 + self.tolerance))
        least = 2 if self.of == "gap" else 1
        return _or_nan(_number_present(weight) >= least, ops.cast(is_met, means.dtype))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "bound": self.bound,
            "of": self.of,
            "tolerance": self.tolerance,
        }


def _number_present(weight: Tensor) -> Tensor:
    return ops.sum(ops.cast(weight > 0, "int32"))


def _or_nan(is_known: Tensor, value: Tensor) -> Tensor:
    """The value where it is known, else NaN: what 0/0 is."""
    return ops.where(is_known, value, ops.full_like(value, float("nan")))


def _add(sums: Tensor, news: Tensor) -> None:
    """Add `news` to row 0 of `sums`, and the rounding error to row 1."""
    news = ops.cast(news, sums.dtype)
    total, rest = sums[0], sums[1]
    new_total = total + news
    cut_off = ops.where(
        ops.abs(total) >= ops.abs(news),
        (total - new_total) + news,
        (news - new_total) + total,
    )
    sums.assign(ops.stack([new_total, rest + cut_off]))
