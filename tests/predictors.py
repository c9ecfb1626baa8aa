"""Predictors that many tests train: none of them is what a test is about."""

import keras


def linear(features, outputs=1, name="x"):
    """A linear model of one Input."""
    return keras.Sequential(
        [keras.Input((features,), name=name), keras.layers.Dense(outputs)]
    )
