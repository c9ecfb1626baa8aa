"""From a predictor to a training model."""

from addloss_kit.building.attach import add_loss as add_loss
from addloss_kit.building.attach import add_metric as add_metric
from addloss_kit.building.build import build_training_model as build_training_model

__all__ = ["add_loss", "add_metric", "build_training_model"]
