"""addloss_kit: functional `add_loss` for Keras 3."""

import keras as _keras

if int(_keras.__version__.split(".")[0]) < 3:
    raise ImportError(
        "addloss_kit needs Keras 3, but `import keras` gives Keras "
        f"{_keras.__version__}. Unset TF_USE_LEGACY_KERAS and install keras>=3. On "
        "Keras 2 `model.add_loss(tensor)` does what this package does."
    )

from addloss_kit import callbacks as callbacks
from addloss_kit import functional as functional
from addloss_kit import losses as losses
from addloss_kit import metrics as metrics
from addloss_kit._version import __version__ as __version__
from addloss_kit.building import add_loss as add_loss
from addloss_kit.building import add_metric as add_metric
from addloss_kit.building import build_training_model as build_training_model
from addloss_kit.data import encode_groups as encode_groups
from addloss_kit.data import make_dataset as make_dataset
from addloss_kit.data import pack_dataset as pack_dataset
from addloss_kit.data import pack_inputs as pack_inputs
from addloss_kit.data import parquet_dataset as parquet_dataset
from addloss_kit.exporting import export_inference_model as export_inference_model
from addloss_kit.model.derivative import derivative as derivative
from addloss_kit.model.endpoint import LossEndpoint as LossEndpoint
from addloss_kit.model.last_layer import fit_last_layer as fit_last_layer
from addloss_kit.model.loading import load_training_model as load_training_model
from addloss_kit.model.training_model import TrainingModel as TrainingModel
from addloss_kit.reports import fit_to_certificate as fit_to_certificate
from addloss_kit.reports import group_report as group_report
from addloss_kit.reports import tradeoff_curve as tradeoff_curve

__all__ = [
    "LossEndpoint",
    "TrainingModel",
    "add_loss",
    "add_metric",
    "build_training_model",
    "callbacks",
    "derivative",
    "encode_groups",
    "export_inference_model",
    "fit_last_layer",
    "fit_to_certificate",
    "functional",
    "group_report",
    "load_training_model",
    "losses",
    "make_dataset",
    "metrics",
    "pack_dataset",
    "pack_inputs",
    "parquet_dataset",
    "tradeoff_curve",
]


def __dir__() -> list[str]:
    # The subpackages are private.
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
