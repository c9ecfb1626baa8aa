"""One training of a trade-off curve, of a new model or of one that is compiled once."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from addloss_kit._checks import did_you_mean, received
from addloss_kit.exporting import export_inference_model
from addloss_kit.fields import Y_TRUE
from addloss_kit.model.snapshot import put_back, take_snapshot
from addloss_kit.model.training_model import TrainingModel


class Trained(NamedTuple):
    """Predictions of the held-out rows, the predictor's weights, epochs trained."""

    predictions: np.ndarray
    weights: list[np.ndarray]
    epochs: int


class Plan(NamedTuple):
    """How each value is trained; see `tradeoff_curve`."""

    dataset: Any
    validation: Mapping[str, Any]
    epochs: int
    patience: int | None

    def fit(self, model: Any, predictor: Any, seed: int, *, is_start: bool) -> Trained:
        """Train a compiled model, in the row order of `seed`."""
        stopping: dict[str, Any] = {}
        if self.patience is not None:
            stop = keras.callbacks.EarlyStopping(
                "val_loss",
                patience=self.patience,
                mode="min",
                restore_best_weights=True,
                # A large weight throws the start's solution far off at first. The gap may
                # then be small by accident, which outweighs any error in the loss.
                start_from_epoch=0 if is_start else self.patience,
            )
            stopping = {
                "callbacks": [stop],
                "validation_data": dict(self.validation),
                # In one batch if possible: the gap of a batch is not that of all rows.
                "validation_batch_size": min(len(self.validation[Y_TRUE]), 8192),
            }
        self.dataset.rows.seed = seed
        self.dataset.set_epoch(0)
        history = model.fit(self.dataset, epochs=self.epochs, verbose=0, **stopping)
        predictions = _predict(model, self.validation)
        return Trained(predictions, predictor.get_weights(), len(history.epoch))


def _predict(model: Any, rows: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(model.predict(dict(rows), batch_size=8192, verbose=0))


class Trials(Protocol):
    """What trains one value, and builds a model for it."""

    def run(self, value: float, weights: Any, repeat: int) -> Trained:
        """Train from `weights`, or from scratch if they are `None`."""

    def build(self, value: float) -> Any:
        """A compiled model of this value."""

    def predict(
        self, value: float, weights: list[np.ndarray], rows: Mapping[str, Any]
    ) -> np.ndarray:
        """Predictions of other rows. A model that is used again is left as it was."""

    def finish(self) -> None:
        """After the last training, also if one failed."""


class BuiltTrials:
    """A new model for each training."""

    def __init__(self, build: Callable[[float], Any], plan: Plan) -> None:
        self.build, self._plan = build, plan
        self._seed = plan.dataset.rows.seed

    def run(self, value: float, weights: Any, repeat: int) -> Trained:
        model = self.build(value)
        _check_compiled(
            model, "`build` must return a compiled `TrainingModel`", "build(value)"
        )
        _check_one_output(model, "`build` must return a model with one output.")
        predictor = export_inference_model(model)
        if weights is not None:
            predictor.set_weights(weights)
        return self._plan.fit(
            model, predictor, self._seed + repeat, is_start=weights is None
        )

    def predict(
        self, value: float, weights: list[np.ndarray], rows: Mapping[str, Any]
    ) -> np.ndarray:
        model = self.build(value)
        export_inference_model(model).set_weights(weights)
        return _predict(model, rows)

    def finish(self) -> None:
        pass


class CompiledTrials:
    """One compiled model, whose state is put back before each training."""

    def __init__(self, model: Any, term: str, plan: Plan, trainings: int) -> None:
        check_model(model, term)
        self._model, self._term, self._plan = model, term, plan
        self._seed = plan.dataset.rows.seed
        self._predictor = export_inference_model(model)
        self._first = take_snapshot(model)
        # One training alone might not be worth the compilation; all of them may be.
        rows = plan.dataset.rows
        model.speed.count("train", rows.steps * plan.epochs * trainings, rows.batch_size)

    def run(self, value: float, weights: Any, repeat: int) -> Trained:
        model = self.build(value)
        if weights is not None:
            self._predictor.set_weights(weights)
        elif repeat:
            _initialize(self._predictor, self._seed + repeat)
        return self._plan.fit(
            model, self._predictor, self._seed + repeat, is_start=weights is None
        )

    def build(self, value: float) -> Any:
        put_back(self._model, self._first)
        self._model.loss_weights[self._term] = value
        return self._model

    def predict(
        self, value: float, weights: list[np.ndarray], rows: Mapping[str, Any]
    ) -> np.ndarray:
        former = take_snapshot(self._model)
        try:
            self._predictor.set_weights(weights)
            return _predict(self._model, rows)
        finally:
            put_back(self._model, former)

    def finish(self) -> None:
        put_back(self._model, self._first)


def check_model(model: Any, term: str) -> None:
    """Raise unless the weight of this term of a compiled model can be varied."""
    _check_compiled(model, "`model` must be a compiled `TrainingModel`", "model")
    _check_one_output(model, "`model` must have one output.")
    schedules = model.loss_weights.schedules
    known = [name for name in model.loss_weights if name not in schedules]
    if term not in known:
        raise ValueError(
            f"`term` must name a loss whose weight is a number: one of {known}."
            f"{did_you_mean(term, known)} {received(term=repr(term))}"
        )


def _check_compiled(model: Any, message: str, name: str) -> None:
    if not isinstance(model, TrainingModel) or getattr(model, "optimizer", None) is None:
        raise TypeError(
            f"{message}. Call `build_training_model` and `compile`. "
            f"{received(**{name: type(model).__name__})}"
        )


def _check_one_output(model: Any, message: str) -> None:
    if len(model.outputs) != 1:
        raise ValueError(f"{message} {received(outputs=len(model.outputs))}")


def _initialize(predictor: Any, seed: int) -> None:
    """Run the initializers of all trainable weights anew.

    Other weights stay: those of an adapted `Normalization`, or of frozen layers.
    """
    # Initializers without a seed take one from here when they are created.
    state = random.getstate()
    random.seed(seed)
    try:
        fresh = keras.models.clone_model(predictor)
    finally:
        random.setstate(state)
    for own, new in zip(predictor.trainable_weights, fresh.trainable_weights):
        own.assign(new)
