"""What both estimators share: checks, one training, predictions, reports, files."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from addloss_kit._checks import check_number, check_positive_int, received
from addloss_kit._types import ArrayLike, ExportFormat, Path
from addloss_kit.building import build_training_model
from addloss_kit.data import encode_groups, make_dataset, pack_inputs
from addloss_kit.data.conversion import check_same_index, refuse_masked
from addloss_kit.exporting import export_inference_model
from addloss_kit.exporting.inference_model import write_model
from addloss_kit.reports import group_report
from addloss_kit.sklearn.network import center_and_scale, small_network
from addloss_kit.sklearn.terms import listed, made_terms

# Rows that are predicted at once, which bounds the memory of the hidden layers. Losses of
# the validation rows are computed on as many: those that compare groups need many rows.
_ROWS_AT_ONCE = 4096
# Epochs without a lower loss of the held-out rows, as in scikit-learn's networks.
_PATIENCE = 10
_FLOATS = (np.float64, np.float32)


class GroupEstimator(BaseEstimator):
    """Trains a predictor on losses by group; `GroupRegressor` and `GroupClassifier`.

    A subclass has the parameters, and gives `activation`.
    """

    # Of the output of the default network.
    activation: str | None = None
    predictor: Any
    losses: Any
    loss_weights: Any
    error: Any
    epochs: int
    batch_size: int
    optimizer: Any
    validation_fraction: float
    random_state: Any
    verbose: Any

    def _fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        num_outputs: int,
        sensitive_features: ArrayLike | None,
        weight: np.ndarray | None,
    ) -> keras.Model:
        """Train, and return the predictor of `y` as it is given.

        Args:
            X: Features `(rows, n_features)`.
            y: Targets, or class numbers.
            num_outputs: Outputs of the predictor.
            sensitive_features: As in `fit`.
            weight: Weights of mean 1, or `None`.
        """
        check_positive_int(epochs=self.epochs, batch_size=self.batch_size)
        check_number(
            low=0.0,
            high=1.0,
            is_high_allowed=False,
            validation_fraction=self.validation_fraction,
        )
        ids = None
        self.group_names_: list[str] = []
        if sensitive_features is not None:
            ids, self.group_names_ = encode_groups(sensitive_features)
            _check_groups(ids, len(X))
        losses = listed(self.losses)
        weights = None if self.loss_weights is None else listed(self.loss_weights)
        num_groups = None if ids is None else len(self.group_names_)
        terms, factors = made_terms(losses, weights, self.error, num_groups)

        generator = check_random_state(self.random_state)
        seed = int(generator.randint(2**31 - 1))
        with _seeded(seed):
            predictor = self._new_predictor(X, num_outputs, weight)
            model = build_training_model(
                predictor, terms, loss_weights=factors, sample_weight=weight is not None
            )
        model.compile(_new_optimizer(self.optimizer))
        extra: dict[str, Any] = {} if weight is None else {"sample_weight": weight}
        if "group_ids" in model.training_fields:
            extra["group_ids"] = ids
        packed = pack_inputs(model, X, y, **extra)
        training, validation = self._split(packed, len(X), generator)
        rows = len(training["y_true"])
        data = make_dataset(training, min(self.batch_size, rows), seed=seed)
        options: dict[str, Any] = {}
        if validation is not None:
            options["validation_data"] = validation
            options["validation_batch_size"] = _ROWS_AT_ONCE
            options["callbacks"] = [
                keras.callbacks.EarlyStopping(
                    "val_loss", mode="min", patience=_PATIENCE, restore_best_weights=True
                )
            ]
        history = model.fit(data, epochs=self.epochs, verbose=self.verbose, **options)
        self.history_: dict[str, list[float]] = history.history
        return export_inference_model(model)

    def _new_predictor(
        self, X: np.ndarray, num_outputs: int, weight: np.ndarray | None
    ) -> keras.Model:
        if isinstance(self.predictor, keras.Model):
            predictor = keras.models.clone_model(self.predictor)
            predictor.set_weights(self.predictor.get_weights())
        elif self.predictor is None:
            of_rows = None if weight is None else weight.reshape(len(X), -1).mean(axis=1)
            center, scale = center_and_scale(X, of_rows)
            predictor = small_network(num_outputs, center, scale, self.activation)
        elif callable(self.predictor):
            predictor = self.predictor(X.shape[1], num_outputs)
        else:
            raise TypeError(
                "`predictor` must be a function of `(n_features, n_outputs)`, a Keras "
                "model, or None for a small network. "
                f"{received(predictor=type(self.predictor).__name__)}"
            )
        return predictor

    def _split(
        self, packed: dict[str, Any], rows: int, generator: np.random.RandomState
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The rows to train on, and those that are held out."""
        if self.validation_fraction == 0:
            return packed, None
        held_out = round(self.validation_fraction * rows)
        if not 0 < held_out < rows:
            raise ValueError(
                "`validation_fraction` must leave rows on both sides. Choose another, or 0 "
                "for none. "
                f"{received(validation_fraction=self.validation_fraction, rows=rows)}"
            )
        order = generator.permutation(rows)
        parts = [np.sort(order[held_out:]), np.sort(order[:held_out])]
        training, validation = (
            {name: np.asarray(array)[part] for name, array in packed.items()}
            for part in parts
        )
        return training, validation

    def _outputs(self, X: ArrayLike) -> np.ndarray:
        """What the model predicts, `(rows, n_outputs)`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=_FLOATS)
        parts = [
            keras.ops.convert_to_numpy(
                self.model_(X[start : start + _ROWS_AT_ONCE].astype("float32"))
            )
            for start in range(0, len(X), _ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _report(
        self, X: Any, y: Any, y_true: Any, y_pred: Any, labels: Any, options: Any
    ) -> Any:
        """A `GroupReport`, whose groups are numbered as in `fit`."""
        weight = options.get("sample_weight")
        check_same_index(X=X, y=y, sensitive_features=labels, sample_weight=weight)
        # Not the labels themselves: whole numbers would be taken for ids.
        ids, names = encode_groups(labels, group_names=self.group_names_ or None)
        options = {"error": self.error, **options}
        return group_report(y_true, y_pred, ids, group_names=names, **options)

    def export(self, path: Path, *, format: ExportFormat | None = None) -> None:
        """Write the predictor, and verify the file: it needs neither package.

        Args:
            path: Where to write it, on a local disk.
            format: As in `export_inference_model`.

        Raises:
            NotFittedError: Before `fit`.
            RuntimeError: If the format cannot represent the model.
        """
        check_is_fitted(self)
        write_model(self.model_, path, format=format)


def checked_rows(
    estimator: Any,
    X: Any,
    y: Any,
    sensitive_features: Any,
    sample_weight: Any,
    **options: Any,
) -> tuple[Any, Any]:
    """Features and targets as scikit-learn checks them, by `options`.

    Raises:
        ValueError: If they are not valid, or pandas objects have different indexes.
    """
    check_same_index(
        X=X, y=y, sensitive_features=sensitive_features, sample_weight=sample_weight
    )
    if y is None:
        raise ValueError(
            f"`y` must be given: {type(estimator).__name__} requires y to be passed, but "
            "the target y is None."
        )
    for name, values in {"X": X, "y": y, "sample_weight": sample_weight}.items():
        refuse_masked(name, values)
    X, y = validate_data(estimator, X, y, dtype=_FLOATS, **options)
    return X, y


def checked_weight(sample_weight: Any, y: np.ndarray) -> np.ndarray | None:
    """Weights of mean 1, as only their ratios matter.

    Args:
        sample_weight: `(rows,)`, or the shape of `y`.
        y: Targets.

    Raises:
        ValueError: If they have another shape, are negative, not finite, or all 0.
    """
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, "float64")
    if weight.shape not in (y.shape[:1], y.shape):
        raise ValueError(
            "`sample_weight` must have one number per row, or per row and output. "
            f"{received(**{'sample_weight.shape': weight.shape, 'y.shape': y.shape})}"
        )
    is_bad = ~(np.isfinite(weight) & (weight >= 0))
    if is_bad.any():
        row = int(np.argmax(is_bad.reshape(len(y), -1).any(axis=1)))
        raise ValueError(
            "`sample_weight` must be finite and at least 0. "
            f"{received(**{f'sample_weight[{row}]': weight[row]})}"
        )
    if not weight.any():
        raise ValueError(
            "`sample_weight` must not be zero for every row, which would train nothing. "
            f"Omit it. {received(**{'sum(sample_weight)': 0.0})}"
        )
    return np.asarray(weight / weight.mean())


def _check_groups(ids: np.ndarray, rows: int) -> None:
    if len(ids) != rows:
        raise ValueError(
            "`sensitive_features` must have one label, or one row, per row of `X`. "
            f"{received(sensitive_features=len(ids), X=rows)}"
        )
    if not (ids >= 0).any():
        raise ValueError(
            "`sensitive_features` must have a label for at least one row. "
            f"{received(rows=rows, missing=rows)}"
        )


def _new_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
    """A fresh one: an optimizer belongs to the model that it has trained."""
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return type(optimizer).from_config(optimizer.get_config())
    # Keras writes into a config that it is given.
    return keras.optimizers.get(copy.deepcopy(optimizer))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Keras draws the seeds of initial weights and dropout from Python's `random`."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
