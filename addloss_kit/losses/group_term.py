"""The base of all terms on groups' mean errors: totals and Inputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from addloss_kit import functional
from addloss_kit._checks import (
    check_name,
    check_positive_int,
    warn_of_one_group,
)
from addloss_kit._types import Config, ErrorLike, KerasTensor, Tensor, Totals
from addloss_kit.fields import GROUP_IDS, Y_TRUE, Field, snake_case
from addloss_kit.losses.loss_term import LossTerm
from addloss_kit.per_sample_error import PerSampleError


class GroupTerm(LossTerm):
    """A term whose totals are the error and weight totals of each group.

    Args:
        num_groups: Number of groups K.
        error: Error of a sample; see `per_sample_error.PerSampleError`.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history. If `group_ids` is not the default, the default name
            is prefixed with it, so that terms on two attributes do not collide.
    """

    # Whether the term compares groups, so that one group makes no sense.
    is_gap = False

    def __init__(
        self,
        num_groups: int,
        *,
        error: ErrorLike = "squared_error",
        group_ids: str = GROUP_IDS,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive_int(num_groups=num_groups)
        if self.is_gap:
            warn_of_one_group(type(self).__name__, num_groups)
        check_name(group_ids=group_ids)
        if name is None and group_ids != GROUP_IDS:
            name = f"{group_ids}_{snake_case(type(self).__name__)}"
        super().__init__(name=name, **kwargs)
        self.num_groups = int(num_groups)
        self.error = error if isinstance(error, PerSampleError) else PerSampleError(error)
        self.group_ids = group_ids

    def source(self, argument: str) -> str:
        return self.group_ids if argument == GROUP_IDS else argument

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        if argument == GROUP_IDS:
            return Field(
                shape=(), dtype="int32", num_groups=self.num_groups, reason=self.name
            )
        return self.error.field(prediction) if argument == Y_TRUE else Field()

    def totals(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        group_ids: Tensor,
        sample_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        error, weight = self.error.per_row(y_true, y_pred, mask, sample_weight)
        errors, weights = functional.group_totals(
            error, group_ids, weight, num_groups=self.num_groups
        )
        # Rows without weight are padding: they do not count towards the batch size.
        count = ops.sum(ops.cast(weight > 0, error.dtype))
        return {"error": errors, "weight": weights, "rows": count}

    def batch_means(self, totals: Totals) -> tuple[Tensor, Tensor]:
        """Mean error and weight of each group in the batch."""
        weight = totals["weight"]
        return functional.group_means(totals["error"], weight), weight

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_groups": self.num_groups,
            "error": keras.saving.serialize_keras_object(self.error),
            "group_ids": self.group_ids,
        }

    @classmethod
    def from_config(cls, config: Config) -> GroupTerm:
        config = dict(config)
        if isinstance(config.get("error"), dict):
            config["error"] = keras.saving.deserialize_keras_object(config["error"])
        return cls(**config)
