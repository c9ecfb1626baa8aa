"""Metrics that turn many rows into one number: functions as scikit-learn's, and Keras's."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from addloss_kit._checks import received

# By name, as the package that defines it is optional.
_UNDEFINED = "UndefinedMetricWarning"


def is_metric(error: Any) -> bool:
    """Whether it is a Keras metric, or a function with a parameter `sample_weight`."""
    if isinstance(error, keras.metrics.Metric):
        return True
    if isinstance(error, type):
        return issubclass(error, keras.metrics.Metric)
    if isinstance(error, keras.losses.Loss) or not callable(error):
        return False
    return _weight_parameter(error) is not None


class ScalarMetric:
    """A metric of some rows.

    Args:
        heading: Its heading in the report.
        metric: A Keras metric, or a function `f(y_true, y_pred, sample_weight=...)`.
    """

    def __init__(self, heading: str, metric: Any) -> None:
        self.heading = heading
        if isinstance(metric, type):
            metric = metric()
        name = getattr(metric, "name", None) or getattr(metric, "__name__", None)
        self.name = str(name or type(metric).__name__)
        self._is_keras = isinstance(metric, keras.metrics.Metric)
        if self._is_keras:
            metric = _KerasMetric(metric)
        self._call: Callable[..., Any] = metric
        parameter = _weight_parameter(metric)
        self._needs_weight = parameter is not None and parameter.default is parameter.empty

    def __call__(
        self, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> float:
        """The value on these rows; NaN if it is undefined there.

        Args:
            y_true, y_pred: `(rows, …)`; one output per row is passed on as `(rows,)`.
            weight: `(rows,)`, or `None` for none.

        Raises:
            ValueError: If the metric fails, or does not return one number.
        """
        if weight is None and self._needs_weight:
            weight = np.ones(len(y_true))
        options = {} if weight is None else {"sample_weight": weight}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = self._call(_flat(y_true), _flat(y_pred), **options)
            except Exception as error:  # a user's own function may raise anything
                raise ValueError(
                    f"The metric `{self.heading}` must have a value on every group and "
                    "resample, or return NaN where it is undefined. "
                    f"{received(rows=len(y_true), error=repr(error))}"
                ) from error
        others = [w for w in caught if w.category.__name__ != _UNDEFINED]
        for other in others:
            warnings.warn_explicit(
                other.message, other.category, other.filename, other.lineno
            )
        value = self._as_number(result)
        # Such as the recall without a positive row, for which scikit-learn returns 0.
        return np.nan if len(others) < len(caught) else value

    def of_resample(
        self, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> float:
        """The same for one of many resamples, whose numbers of rows differ a little."""
        if self._is_keras:
            # JAX compiles anew for every number of rows, so let there be few: to a metric
            # of Keras, a row of weight 0 is absent.
            rows = len(y_true)
            padding = np.arange(1 << (rows - 1).bit_length()) % rows
            weight = np.ones(rows) if weight is None else weight
            weight = np.where(np.arange(len(padding)) < rows, weight[padding], 0.0)
            y_true, y_pred = y_true[padding], y_pred[padding]
        return self(y_true, y_pred, weight)

    def _as_number(self, result: Any) -> float:
        if ops.is_tensor(result):
            result = ops.convert_to_numpy(result)
        array = np.asarray(result)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise ValueError(
                f"The metric `{self.heading}` must return one number. For one value per "
                "row, pass a function of `(y_true, y_pred)` alone. "
                f"{received(**{'shape': array.shape, 'type': type(result).__name__})}"
            )
        return float(array.reshape(()))


class _KerasMetric:
    """A Keras metric as a function. Its state is afterwards what it was."""

    def __init__(self, metric: keras.metrics.Metric) -> None:
        self._metric = metric

    def __call__(
        self, y_true: np.ndarray, y_pred: np.ndarray, sample_weight: Any = None
    ) -> Any:
        metric = self._metric
        former = [ops.convert_to_numpy(variable) for variable in metric.variables]
        metric.reset_state()
        try:
            # Of `(rows,)`, Keras would take the rows for the outputs of one row.
            metric.update_state(_column(y_true), _column(y_pred), sample_weight)
            return ops.convert_to_numpy(metric.result())
        finally:
            metric.reset_state()
            for variable, value in zip(metric.variables, former):
                variable.assign(value)


def _weight_parameter(function: Callable[..., Any]) -> inspect.Parameter | None:
    try:
        return inspect.signature(function).parameters.get("sample_weight")
    except (TypeError, ValueError):  # Written in C.
        return None


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1) if array.size == array.shape[0] else array


def _column(array: np.ndarray) -> np.ndarray:
    return array[:, None] if array.ndim == 1 else array
