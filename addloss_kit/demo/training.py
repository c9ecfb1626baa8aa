"""Train one net of the demo."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np

from addloss_kit.building import build_training_model
from addloss_kit.data import pack_inputs
from addloss_kit.model.training_model import TrainingModel


def train(
    predictor: keras.Model,
    terms: dict[Any, float],
    inputs: tuple[Any, ...],
    *,
    label: str,
    epochs: int,
    seed: int,
    **extra: np.ndarray,
) -> TrainingModel:
    """Train `predictor` on a sum of terms.

    Args:
        predictor: As `build_training_model` takes it.
        terms: Factor by term.
        inputs: Features and targets.
        label: Printed with the time that the training took.
        epochs: Passes over the rows.
        seed: Seed of the row order.
        **extra: `sample_weight` or `group_ids`, as `pack_inputs` takes them.
    """
    begin = time.perf_counter()
    model = build_training_model(predictor, [*terms], loss_weights=[*terms.values()])
    # Averaged weights, so that the comparison does not depend on the last batches.
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.99))
    keras.utils.set_random_seed(seed)
    packed = pack_inputs(model, *inputs, **extra)
    model.fit(packed, batch_size=32, epochs=epochs, verbose=0)
    print(f"  {label}: {time.perf_counter() - begin:.0f} s", flush=True)
    return model
