"""GroupClassifier: a network trained on its error and on the gap between groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from addloss_kit._checks import received
from addloss_kit._types import ArrayLike, ErrorLike
from addloss_kit.sklearn.estimator import GroupEstimator, checked_rows, checked_weight

_CROSS_ENTROPY = "sparse_categorical_crossentropy"


class GroupClassifier(ClassifierMixin, GroupEstimator):
    """A classifier for scikit-learn whose loss may compare groups.

    As `GroupRegressor`, but for labels: each row has one class of two or more. The
    predictor has an output for each class, which are probabilities. The target that the
    losses get is the number of the class. With the default predictor, features are
    standardised in the model.

    Args:
        predictor: A function of `(n_features, n_classes)` that returns a Keras model,
            which ends in a softmax; or such a model. Defaults to a network with hidden
            layers of 64 and 32 units.
        losses: As in `GroupRegressor`.
        loss_weights: Factors of the losses, in their order. Defaults to 1.
        error: Error of a row for the terms that compare groups, and for `report`.
        epochs: Passes through the data, from 1.
        batch_size: Rows per step, from 1.
        optimizer: Name or object of a Keras optimizer.
        validation_fraction: As in `GroupRegressor`.
        random_state: As in `GroupRegressor`.
        verbose: As in `keras.Model.fit`.

    Attributes:
        classes_: The labels, in the order of the outputs.
        model_: The Keras model from features to probabilities.
        history_: Losses and metrics by epoch, as in Keras.
        group_names_: Names of the groups by id.
        n_features_in_, feature_names_in_: As in scikit-learn.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, sex = rng.normal(size=(200, 3)), rng.choice(["f", "m"], size=200)
        >>> labels = np.where(X[:, 0] > 0, "yes", "no")
        >>> classifier = GroupClassifier(epochs=2, random_state=0)
        >>> classifier = classifier.fit(X, labels, sensitive_features=sex)
        >>> classifier.predict_proba(X).shape, classifier.classes_.tolist()
        ((200, 2), ['no', 'yes'])
    """

    activation = "softmax"

    # Both estimators write it out: scikit-learn reads the parameters from the signature.
    def __init__(
        self,
        predictor: Any = None,
        losses: Any = (_CROSS_ENTROPY, "group_gap"),
        loss_weights: Any = None,
        error: ErrorLike = _CROSS_ENTROPY,
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
    ) -> GroupClassifier:
        """Train on the rows.

        Args:
            X: Features `(rows, n_features)`.
            y: Labels `(rows,)` of two classes or more.
            sensitive_features: Group labels, as `encode_groups` takes them: of any kind,
                in one column or several; missing ones mean "no group".
            sample_weight: Weights of at least 0, `(rows,)`. Only their ratios matter.

        Returns:
            The estimator.

        Raises:
            ValueError: If rows differ in number, a value is not finite, or there is only
                one class.
        """
        X, y = checked_rows(self, X, y, sensitive_features, sample_weight)
        check_classification_targets(y)
        weight = checked_weight(sample_weight, y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        num_classes = len(self.classes_)
        if num_classes < 2:
            raise ValueError(
                "`y` has one class only, and there must be two. Check the labels, and the "
                f"rows that are left. {received(classes=self.classes_.tolist())}"
            )
        self.model_ = self._fit(X, numbers, num_classes, sensitive_features, weight)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities `(rows, n_classes)`, in the order of `classes_`.

        Args:
            X: Features `(rows, n_features)`.
        """
        return self._outputs(X)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable labels `(rows,)`.

        Args:
            X: Features `(rows, n_features)`.
        """
        numbers = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[numbers])

    def report(
        self, X: ArrayLike, y: ArrayLike, *, sensitive_features: ArrayLike, **options: Any
    ) -> Any:
        """The error of each group on these rows, from the probabilities.

        For errors of labels pass `predict(X)` to `group_report`.

        Args:
            X: Features `(rows, n_features)`.
            y: Labels that occurred in `fit`.
            sensitive_features: Group labels that occurred in `fit`.
            **options: As in `group_report`, such as `sample_weight=`.

        Returns:
            A `GroupReport`.

        Raises:
            ValueError: If a label is new.
        """
        probabilities = self.predict_proba(X)
        labels = np.asarray(y)
        is_new = ~np.isin(labels, self.classes_)
        if is_new.any():
            row = int(np.argmax(is_new))
            raise ValueError(
                f"`y` must hold labels of `fit`, {self.classes_.tolist()}. "
                f"{received(**{f'y[{row}]': repr(str(labels[row]))})}"
            )
        numbers = np.searchsorted(self.classes_, labels)
        return self._report(X, y, numbers, probabilities, sensitive_features, options)
