"""fit_last_layer: train the last layers anew, on rows that the body has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import check_positive_int, received
from addloss_kit.data.batching import make_dataset
from addloss_kit.keras_internals.replicas import scope_of
from addloss_kit.model.checked_feeds import check_feed
from addloss_kit.model.head import Head, build_head, find_head
from addloss_kit.model.training_model import TrainingModel


def fit_last_layer(
    model: TrainingModel,
    rows: Mapping[str, Any],
    *,
    epochs: int = 100,
    batch_size: int = 64,
    validation: Mapping[str, Any] | None = None,
    patience: int | None = 5,
    seed: int | None = None,
    verbose: Any = "auto",
) -> keras.callbacks.History:
    """Train the last layer of each prediction, and nothing else, on the model's losses.

    A network that fits its training rows closely has no gap left there for a group loss
    to close. On rows kept apart from those that trained the rest of it, the *body*, it
    has, and the weights of a last layer are few. Whether that helps on rows to come,
    only such rows can tell: see `GroupReport.certify`.

    The last layers are those nearest to the predictions that have trainable weights. They
    start from the weights that they have, with a fresh optimizer of the same
    configuration and fresh state of the losses. The body predicts as it does when
    deployed: dropout is off, statistics of `BatchNormalization` stand still. Whatever
    else the model has, its own optimizer included, is as before afterwards.

    Args:
        model: A compiled `TrainingModel`.
        rows: Dict from `pack_inputs`, of rows that did not train the body.
        epochs: Maximum number of epochs.
        batch_size: Rows per batch.
        validation: Dict from `pack_inputs`, of yet other rows, for `patience`.
        patience: Epochs without improvement of the validation loss before training
            stops and the best epoch's weights are put back; `None` trains for all of
            them, as without `validation`.
        seed: Seed of the row order.
        verbose: As in `fit`.

    Returns:
        The `History`, with the loss and its terms.

    Raises:
        TypeError: If the model is not a compiled `TrainingModel`, or rows are not a dict.
        ValueError: If rows do not fit the model, features are not finite, no layer has
            trainable weights, or the last layers cannot be trained by themselves: they
            are inside a nested or subclassed model, share weights with the body, or feed
            other layers with weights.

    Reference: Mao et al., "Last-layer fairness fine-tuning is simple and effective for
    neural networks", arXiv:2304.03935 (2023).

    Example:
        >>> import addloss_kit as alk, numpy as np
        >>> predictor = keras.Sequential(
        ...     [keras.Input((2,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)]
        ... )
        >>> model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
        >>> model.compile("adam")
        >>> rows = alk.pack_inputs(model, np.ones((8, 2)), np.ones(8), group_ids=[0, 1] * 4)
        >>> before = predictor.layers[0].get_weights()[0]
        >>> history = fit_last_layer(model, rows, epochs=2, verbose=0)
        >>> bool((predictor.layers[0].get_weights()[0] == before).all())
        True
    """
    if not isinstance(model, TrainingModel) or getattr(model, "optimizer", None) is None:
        raise TypeError(
            "`model` must be a compiled `TrainingModel`. Call `build_training_model` and "
            f"`compile`. {received(model=type(model).__name__)}"
        )
    check_positive_int(epochs=epochs, batch_size=batch_size)
    if patience is not None:
        check_positive_int(patience=patience)
    packed = _checked(model, "rows", rows)
    held_out = None if validation is None else _checked(model, "validation", validation)
    # The body computes its features once. That is exact, as they do not change; freezing
    # it instead would leave dropout on, and flags to put back.
    head = find_head(model)
    optimizer = model.optimizer
    with scope_of(model):
        trained = build_head(model, head)
        trained.compile(
            type(optimizer).from_config(optimizer.get_config()),
            jit_compile=model.speed.jit_compile,
            steps_per_execution=model.speed.steps_per_execution,
            run_eagerly=model.run_eagerly,
        )
    stopping: dict[str, Any] = {}
    fed = _features(head, "rows", packed, batch_size)
    if held_out is not None:
        features = _features(head, "validation", held_out, batch_size)
        # In one batch if possible: the gap of a batch is not that of all rows.
        stopping = {"validation_data": features, "validation_batch_size": 8192}
        if patience is not None:
            stopping["callbacks"] = keras.callbacks.EarlyStopping(
                "val_loss", patience=patience, mode="min", restore_best_weights=True
            )
    dataset = make_dataset(fed, batch_size, seed=seed)
    return trained.fit(dataset, epochs=epochs, verbose=verbose, **stopping)


def _checked(model: TrainingModel, name: str, rows: Any) -> dict[str, Any]:
    if not isinstance(rows, Mapping):
        raise TypeError(
            f"`{name}` must be a dict of arrays in memory. Pack it with `pack_inputs`. "
            f"{received(**{name: type(rows).__name__})}"
        )
    packed, _ = check_feed(model, name, rows)
    return dict(packed)


def _features(
    head: Head, name: str, rows: Mapping[str, Any], batch_size: int
) -> dict[str, Any]:
    """What the head is fed, if it is finite: one NaN would end in all weights."""
    arrays = head.arrays(rows, batch_size)
    for array in arrays.values():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            continue
        is_bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise ValueError(
                f"What `{name}` give to the last layer must be finite. Look for features "
                "that are not finite, and whether the model itself diverged. Received: "
                f"{int(is_bad.sum())} rows that are not, the first being row {row}."
            )
    return arrays
