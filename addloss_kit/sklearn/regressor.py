"""GroupRegressor: a network trained on its error and on the gap between groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin

from addloss_kit._types import ArrayLike, ErrorLike
from addloss_kit.sklearn.estimator import GroupEstimator, checked_rows, checked_weight
from addloss_kit.sklearn.network import center_and_scale, in_units


class GroupRegressor(MultiOutputMixin, RegressorMixin, GroupEstimator):
    """A regressor for scikit-learn whose loss may compare groups.

    Groups and weights are given to `fit` alone; `predict` takes features. With the
    default predictor, features and targets are standardised in the model: the losses,
    their bounds and `history_` are in units of the targets' standard deviations, and
    predictions in those of `y`. With a predictor of your own nothing is standardised.

    Args:
        predictor: A function of `(n_features, n_outputs)` that returns a Keras model; or
            a Keras model, whose weights are the start of each `fit`, and which is not
            changed. Defaults to a network with hidden layers of 64 and 32 units.
        losses: One or several: those of `build_training_model`, and terms of
            `addloss_kit.losses` by their names in snake case (`"worst_group"`), as
            classes, or as `functools.partial(losses.BoundedGroupLoss, bound=0.5)`. The
            number of groups is filled in. Without `sensitive_features`, terms that
            compare groups are left out with a warning.
        loss_weights: Factors of the losses, in their order. Defaults to 1.
        error: Error of a row for the terms that compare groups, and for `report`.
        epochs: Passes through the data, from 1.
        batch_size: Rows per step, from 1.
        optimizer: Name or object of a Keras optimizer.
        validation_fraction: Share of the rows, in [0, 1), to hold out. If not 0, training
            stops after ten epochs in which their loss has not fallen, and the weights of
            the best epoch are kept.
        random_state: Seed of the initial weights, the order of the rows, and the rows
            held out; or a `numpy.random.RandomState`.
        verbose: As in `keras.Model.fit`.

    Attributes:
        model_: The Keras model from features to predictions.
        history_: Losses and metrics by epoch, as in Keras.
        group_names_: Names of the groups by id.
        n_features_in_, feature_names_in_: As in scikit-learn.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, sex = rng.normal(size=(200, 3)), rng.choice(["f", "m"], size=200)
        >>> regressor = GroupRegressor(epochs=2, random_state=0)
        >>> regressor = regressor.fit(X, X[:, 0], sensitive_features=sex)
        >>> regressor.predict(X).shape, regressor.group_names_
        ((200,), ['f', 'm'])
    """

    # Both estimators write it out: scikit-learn reads the parameters from the signature.
    def __init__(
        self,
        predictor: Any = None,
        losses: Any = ("mse", "group_gap"),
        loss_weights: Any = None,
        error: ErrorLike = "squared_error",
        epochs: int = 100,
        batch_size: int = 64,
        optimizer: Any = "adam",
        validation_fraction: float = 0.0,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.predictor = predictor
        self.losses = losses
        self.loss_weights = loss_weights
        self.error = error
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sensitive_features: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> GroupRegressor:
        """Train on the rows.

        Args:
            X: Features `(rows, n_features)`.
            y: Targets `(rows,)` or `(rows, n_outputs)`.
            sensitive_features: Group labels, as `encode_groups` takes them: of any kind,
                in one column or several; missing ones mean "no group".
            sample_weight: Weights of at least 0, `(rows,)`; for `"weighted_mse"` and its
                kin also `(rows, n_outputs)`. Only their ratios matter.

        Returns:
            The estimator.

        Raises:
            ValueError: If rows differ in number, or a value is not finite.
        """
        X, y = checked_rows(
            self,
            X,
            y,
            sensitive_features,
            sample_weight,
            multi_output=True,
            y_numeric=True,
        )
        weight = checked_weight(sample_weight, y)
        self._is_one_target = y.ndim == 1
        targets = y.reshape(len(y), -1).astype("float64")
        is_standardized = self.predictor is None
        if is_standardized:
            center, scale = center_and_scale(targets, weight)
            targets = (targets - center) / scale
        model = self._fit(X, targets, targets.shape[1], sensitive_features, weight)
        self.model_ = in_units(model, center, scale) if is_standardized else model
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predictions `(rows,)`, or `(rows, n_outputs)`, in the units of `y`.

        Args:
            X: Features `(rows, n_features)`.
        """
        outputs = self._outputs(X)
        return outputs.reshape(-1) if self._is_one_target else outputs

    def report(
        self, X: ArrayLike, y: ArrayLike, *, sensitive_features: ArrayLike, **options: Any
    ) -> Any:
        """The error of each group on these rows, in the units of `y`.

        Args:
            X: Features `(rows, n_features)`.
            y: Targets.
            sensitive_features: Labels that occurred in `fit`.
            **options: As in `group_report`, such as `sample_weight=`.

        Returns:
            A `GroupReport`.
        """
        predicted = self.predict(X)
        return self._report(X, y, y, predicted, sensitive_features, options)
