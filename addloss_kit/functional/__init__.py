"""The formulas as pure functions on tensors: no state, no config."""

from addloss_kit.functional.groups import group_gap as group_gap
from addloss_kit.functional.groups import group_gap_slopes as group_gap_slopes
from addloss_kit.functional.groups import group_means as group_means
from addloss_kit.functional.groups import group_totals as group_totals
from addloss_kit.functional.mmd import group_mmd as group_mmd
from addloss_kit.functional.rows import align_weight as align_weight
from addloss_kit.functional.rows import row_mean as row_mean
from addloss_kit.functional.weighted import safe_sqrt as safe_sqrt
from addloss_kit.functional.weighted import squared_error as squared_error
from addloss_kit.functional.weighted import weighted_mse as weighted_mse
from addloss_kit.functional.weighted import (
    weighted_residual_norm as weighted_residual_norm,
)
from addloss_kit.functional.weighted import weighted_rmse as weighted_rmse

__all__ = [
    "align_weight",
    "group_gap",
    "group_gap_slopes",
    "group_means",
    "group_mmd",
    "group_totals",
    "row_mean",
    "safe_sqrt",
    "squared_error",
    "weighted_mse",
    "weighted_residual_norm",
    "weighted_rmse",
]
