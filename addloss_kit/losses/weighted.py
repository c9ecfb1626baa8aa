"""Terms with a weight per sample and per output."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from addloss_kit._checks import as_held_array, check_one_of, received
from addloss_kit._types import ArrayLike, Config, KerasTensor, Over, Tensor
from addloss_kit.fields import SAMPLE_WEIGHT, Y_TRUE, Field
from addloss_kit.functional import weighted as formulas
from addloss_kit.functional.rows import steps_that_count, without_masked
from addloss_kit.losses.loss_term import LossTerm


class _Weighted(LossTerm):
    """The base of the weighted terms: where the weights come from.

    Either an Input `sample_weight` of the target's shape, or `weights=`, one
    weight per output that all rows share, without an Input.
    """

    def __init__(self, *, weights: ArrayLike | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weights_per_output: list[Any] | None = None
        if weights is not None:
            try:
                array = np.asarray(weights, "float64")
            except (TypeError, ValueError):
                array = np.asarray(np.nan)
            held = as_held_array(array)
            is_number = np.all(np.isfinite(held)) and np.all(array >= 0)
            # All 0 would train nothing.
            if not is_number or array.ndim == 0 or not held.any():
                raise ValueError(
                    "`weights` must be finite and at least 0, one per output, and not all "
                    f"0. {received(weights=weights)}"
                )
            self.weights_per_output = array.tolist()

    @property
    def required_arguments(self) -> tuple[str, ...]:
        # `totals` has a default for weights only because `weights=` can replace them.
        return super().required_arguments + super().optional_arguments

    @property
    def optional_arguments(self) -> tuple[str, ...]:
        return ()

    def _signature(self) -> list[inspect.Parameter]:
        parameters = super()._signature()
        if self.weights_per_output is None:
            return parameters
        return [p for p in parameters if p.name != SAMPLE_WEIGHT]

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        shape = tuple(prediction.shape[1:])
        if argument not in (Y_TRUE, SAMPLE_WEIGHT):
            return Field()
        return Field(
            shape=shape,
            dtype=keras.backend.standardize_dtype(prediction.dtype),
            reason=self.name,
        )

    def _weight(
        self, sample_weight: Tensor | None, y_pred: Tensor, mask: Tensor | None
    ) -> Tensor:
        """The weight of every element, 0 for masked steps."""
        if self.weights_per_output is not None:
            per_output = ops.convert_to_tensor(self.weights_per_output, y_pred.dtype)
            if tuple(per_output.shape) != tuple(y_pred.shape[1:]):
                shapes = {"weights.shape": tuple(per_output.shape)}
                shapes["y_pred.shape"] = tuple(y_pred.shape)
                raise ValueError(
                    f"`weights` must have one weight per output. {received(**shapes)}"
                )
            sample_weight = ops.broadcast_to(per_output, ops.shape(y_pred))
        elif sample_weight is None:
            raise ValueError(
                f"`{self.name}` needs weights. Pass `sample_weight`, or construct the term "
                "with `weights=[...]`, one per output. `build_training_model` feeds it "
                "weights; `compile(loss=...)` does not. "
                f"{received(sample_weight=None)}"
            )
        if mask is not None:
            counts = steps_that_count(mask, y_pred)
            sample_weight = ops.where(counts, sample_weight, ops.zeros_like(sample_weight))
        return sample_weight

    def get_config(self) -> Config:
        return {**super().get_config(), "weights": self.weights_per_output}


@keras.saving.register_keras_serializable("addloss_kit.losses")
class WeightedMSE(_Weighted):
    r"""Weighted mean squared error, $\sum w (y - \hat y)^2 / \sum w$.

    Args:
        weights: One weight per output, shared by all rows: they are counted once
            per row, so the value does not grow with the batch. If omitted, the model
            gets an Input `sample_weight` of the target's shape.
        name: Key in the history.

    Call arguments:
        y_true, y_pred: `(batch, outputs)`.
        sample_weight: `(batch, outputs)`, or, if you call the term directly,
            `(outputs,)`, counted once (see `functional.weighted_mse`).

    Example:
        >>> y_true = [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
        >>> y_pred = [[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]
        >>> weights = [0.25, 0.5, 1.0, 0.75]
        >>> round(float(WeightedMSE()(y_true, y_pred, weights)), 6)
        0.8
        >>> round(float(WeightedMSE(weights=weights)(y_true, y_pred)), 6)
        0.4
    """

    def totals(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        sample_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        weight = self._weight(sample_weight, y_pred, mask)
        y_true, y_pred = without_masked(mask, y_true, y_pred)
        return formulas.weighted_mse_totals(y_true, y_pred, weight)


class _RootTerm(_Weighted):
    """A term with a root, over the batch or over each row."""

    _totals: Callable[..., tuple[Tensor, Tensor]]
    _finish: Callable[..., Tensor]

    def __init__(self, *, over: Over = "batch", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_one_of(formulas.OVER, over=over)
        self.over = over

    def totals(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        sample_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        weight = self._weight(sample_weight, y_pred, mask)
        y_true, y_pred = without_masked(mask, y_true, y_pred)
        return self._totals(y_true, y_pred, weight, over=self.over)

    def value(self, totals: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        return self._finish(totals, over=self.over)

    def get_config(self) -> Config:
        return {**super().get_config(), "over": self.over}


@keras.saving.register_keras_serializable("addloss_kit.losses")
class WeightedRMSE(_RootTerm):
    r"""Weighted RMSE, $\sqrt{\sum w (y - \hat y)^2 / \sum w}$.

    Args:
        over: `"batch"`: one root over all rows and outputs, so it depends on
            how the rows are batched. `"sample"`: a root per row, then their mean.
        weights: One weight per output, shared by all rows; see `WeightedMSE`.
        name: Key in the history.

    Call arguments:
        y_true, y_pred, sample_weight: `(batch, outputs)`.

    Example:
        >>> float(WeightedRMSE(weights=[1.0, 5.0])([[0.0, 0.0]], [[3.0, 3.0]]))
        3.0
    """

    _totals = staticmethod(formulas.rmse_totals)
    _finish = staticmethod(formulas.finish_rmse)


@keras.saving.register_keras_serializable("addloss_kit.losses")
class WeightedResidualNorm(_RootTerm):
    r"""Weighted residual norm, $\sqrt{\sum w (y - \hat y)^2} / \sum w$.

    Not an RMSE: see `functional.weighted_residual_norm`.

    Args:
        over: `"batch"`: one norm over all rows and outputs. `"sample"`: a norm
            per row, then their mean.
        weights: One weight per output, shared by all rows; see `WeightedMSE`.
        name: Key in the history.

    Call arguments:
        y_true, y_pred, sample_weight: `(batch, outputs)`.

    Example:
        >>> float(WeightedResidualNorm()([[0.0, 0.0]], [[3.0, 4.0]], [[1.0, 1.0]]))
        2.5
    """

    _totals = staticmethod(formulas.residual_norm_totals)
    _finish = staticmethod(formulas.finish_residual_norm)
