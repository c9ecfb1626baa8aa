"""From a training model to the deployed predictor."""

from addloss_kit.exporting.inference_model import (
    export_inference_model as export_inference_model,
)
