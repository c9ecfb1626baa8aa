"""From a training model to what is deployed."""

from addloss_kit.exporting.inference_model import (
    export_inference_model as export_inference_model,
)
