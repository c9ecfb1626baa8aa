"""The default predictor: a small network on standardised features."""

from __future__ import annotations

import keras
import numpy as np

_HIDDEN_UNITS = (64, 32)


def small_network(
    num_outputs: int, center: np.ndarray, scale: np.ndarray, activation: str | None
) -> keras.Model:
    """Two hidden layers on standardised features.

    Args:
        num_outputs: Number of outputs.
        center: Means of the features `(n_features,)`.
        scale: Their standard deviations `(n_features,)`, not 0.
        activation: Of the output.
    """
    x = keras.Input((len(center),), name="x")
    # Two layers, so that the mean goes before anything is rounded. Not `Normalization`,
    # with which Keras cannot export to ONNX.
    hidden = keras.layers.Rescaling(1.0, offset=(-center).tolist(), name="centered")(x)
    hidden = keras.layers.Rescaling((1.0 / scale).tolist(), name="standardized")(hidden)
    for number, units in enumerate(_HIDDEN_UNITS, start=1):
        layer = keras.layers.Dense(units, activation="relu", name=f"hidden_{number}")
        hidden = layer(hidden)
    layer = keras.layers.Dense(num_outputs, activation=activation, name="prediction")
    return keras.Model(x, layer(hidden), name="small_network")


def in_units(model: keras.Model, center: np.ndarray, scale: np.ndarray) -> keras.Model:
    """A model of standardised targets, followed by the way back to their units.

    Args:
        model: Predicts `(batch, n_outputs)`.
        center: Means of the targets `(n_outputs,)`.
        scale: Their standard deviations `(n_outputs,)`.
    """
    back = keras.layers.Rescaling(scale.tolist(), offset=center.tolist(), name="in_units")
    return keras.Model(model.inputs[0], back(model.outputs[0]), name=model.name)


def center_and_scale(
    values: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means and standard deviations of columns, 1 for a constant column.

    Args:
        values: `(rows, columns)`.
        weight: Of the rows `(rows,)` or of each element, not all 0; `None` for 1.
    """
    values = values.astype("float64")
    weight = np.ones(len(values)) if weight is None else weight
    weight = np.broadcast_to(weight.reshape(len(values), -1), values.shape)
    center = np.average(values, axis=0, weights=weight)
    scale = np.sqrt(np.average((values - center) ** 2, axis=0, weights=weight))
    # Rounding leaves a constant column of large numbers a tiny deviation.
    is_constant = scale <= 1e-12 * np.maximum(1.0, np.abs(center))
    return center, np.where(is_constant, 1.0, scale)
