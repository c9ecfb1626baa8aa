"""Losses as terms: the formulas of `functional` with config and state."""

from addloss_kit.fields import Field as Field
from addloss_kit.losses.asymmetric import (
    AsymmetricAbsoluteError as AsymmetricAbsoluteError,
)
from addloss_kit.losses.constraints import BoundedGroupLoss as BoundedGroupLoss
from addloss_kit.losses.constraints import GroupGapConstraint as GroupGapConstraint
from addloss_kit.losses.contrastive import Contrastive as Contrastive
from addloss_kit.losses.distribution_gap import (
    GroupDistributionGap as GroupDistributionGap,
)
from addloss_kit.losses.group_gap import GroupGap as GroupGap
from addloss_kit.losses.keras_loss import FunctionLoss as FunctionLoss
from addloss_kit.losses.keras_loss import KerasLoss as KerasLoss
from addloss_kit.losses.keras_loss import SymbolicLoss as SymbolicLoss
from addloss_kit.losses.loss_term import LossTerm as LossTerm
from addloss_kit.losses.resolve import get as get
from addloss_kit.losses.weighted import WeightedMSE as WeightedMSE
from addloss_kit.losses.weighted import WeightedResidualNorm as WeightedResidualNorm
from addloss_kit.losses.weighted import WeightedRMSE as WeightedRMSE
from addloss_kit.losses.worst_group import WorstGroup as WorstGroup

__all__ = [
    "AsymmetricAbsoluteError",
    "BoundedGroupLoss",
    "Contrastive",
    "Field",
    "FunctionLoss",
    "GroupDistributionGap",
    "GroupGap",
    "GroupGapConstraint",
    "KerasLoss",
    "LossTerm",
    "SymbolicLoss",
    "WeightedMSE",
    "WeightedRMSE",
    "WeightedResidualNorm",
    "WorstGroup",
    "get",
]
