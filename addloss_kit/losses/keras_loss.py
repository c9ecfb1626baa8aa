"""Any Keras loss, and any function, as a term."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit._types import Config, ErrorLike, KerasTensor, Tensor
from addloss_kit.fields import SAMPLE_WEIGHT, Y_PRED, Y_TRUE, Field, snake_case
from addloss_kit.functional.rows import (
    align_weight,
    own_mask,
    steps_that_count,
    without_masked,
)
from addloss_kit.losses.loss_term import LossTerm
from addloss_kit.per_sample_error import PerSampleError, as_keras_target
from addloss_kit.serialization import deserialize_loss, serialize_function


@keras.saving.register_keras_serializable("addloss_kit.losses")
class KerasLoss(LossTerm):
    """A Keras loss as a term, reduced as in Keras.

    Args:
        loss: Name, class, object or function, as in `compile(loss=...)`.
        name: Key in the history. Defaults to the name of the loss.

    Call arguments:
        y_true, y_pred: As the loss takes them.
        sample_weight: Optional; see `functional.align_weight`.

    Returns:
        Σ w·l / number of samples (or steps); Σ w·l for `reduction="sum"`;
        Σ w·l / Σ w for `reduction="mean_with_sample_weight"`. Masked steps are
        excluded from both sums. A loss that is one number for the whole batch
        (`Dice` without an `axis`) is multiplied by the mean weight, as in Keras.

    Raises:
        ValueError: If Keras does not know the loss, or its reduction is None.
    """

    def __init__(self, loss: ErrorLike, *, name: str | None = None, **kwargs: Any) -> None:
        self_error = loss if isinstance(loss, PerSampleError) else PerSampleError(loss)
        super().__init__(name=name or snake_case(self_error.name), **kwargs)
        self.error = self_error
        if self.error.reduction in (None, "none"):
            raise ValueError(
                "A term is a single number, so its loss needs a reduction. Construct it "
                f"with `reduction='sum_over_batch_size'`. {received(reduction=None)}"
            )

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        return self.error.field(prediction) if argument == Y_TRUE else Field()

    def totals(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        sample_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        values, mask = self.error.steps(y_true, y_pred, mask)
        if sample_weight is not None and len(values.shape) == 0:
            values = values * ops.ones_like(sample_weight)
        return reduction_totals(
            values, sample_weight, mask, self.error.reduction, self, [y_pred]
        )

    def value(self, totals: tuple[Tensor, Tensor], training: bool = False) -> Tensor:
        total, count = totals
        if self.error.reduction == "sum":
            return total
        return ops.divide_no_nan(total, count)

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "loss": keras.saving.serialize_keras_object(self.error)}

    @classmethod
    def from_config(cls, config: Config) -> KerasLoss:
        config = dict(config)
        return cls(keras.saving.deserialize_keras_object(config.pop("loss")), **config)


@keras.saving.register_keras_serializable("addloss_kit.losses")
class FunctionLoss(LossTerm):
    """Any function of tensors as a term: each parameter names what it needs.

    A parameter that is neither a prediction nor an intermediate tensor becomes an
    Input of the same name, `(batch,)`: one number per row. Mind the shapes: with
    `(batch, outputs)` it broadcasts over the wrong axis. Multiply it with values per
    row, or declare its shape: `inputs={"delta": keras.Input((1,))}`.

    Args:
        function: `f(y_true, y_pred, …)`, in `keras.ops` or in backend code; or any
            object with such a `__call__`. It returns a scalar, or a value per row
            (or step, or element), which is averaged. A parameter with a default
            becomes an Input only if `inputs=` has it. To be saved, it must be
            registered with Keras.
        name: Key in the history. Defaults to the name of the function.

    Raises:
        TypeError: If it does not return a tensor.
        ValueError: If it returns a scalar and does not take `sample_weight`, but the
            model has weights, which would have no effect. If broadcasting pairs
            every row with every other: a `(batch,)` argument with a `(batch, 1)`
            prediction.
    """

    def __init__(
        self, function: Callable[..., Tensor], *, name: str | None = None, **kwargs: Any
    ) -> None:
        named = getattr(function, "func", function)  # unwraps `functools.partial`
        own_name = getattr(named, "__name__", type(named).__name__)
        super().__init__(name=name or snake_case(own_name.strip("<>")), **kwargs)
        self.function = function
        self._takes = list(inspect.signature(function).parameters.values())

    def _signature(self) -> list[inspect.Parameter]:
        named = [p for p in self._takes if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        own = {p.name for p in named}
        return named + [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in (SAMPLE_WEIGHT, "mask")
            if name not in own
        ]

    def call_function(self, arguments: Mapping[str, Any]) -> Tensor:
        """The raw return value of the function for arguments by name."""
        given = {p.name: arguments[p.name] for p in self._takes if p.name in arguments}
        if "mask" in {p.name for p in self._takes}:
            given.setdefault("mask", None)
        if Y_TRUE in given and Y_PRED in given:
            y_true, y_pred = given[Y_TRUE], given[Y_PRED]
            if "float" in keras.backend.standardize_dtype(y_true.dtype):
                given[Y_TRUE] = as_keras_target(y_true, y_pred)
        places = [p.name for p in self._takes if p.kind == p.POSITIONAL_ONLY]
        return self.function(*[given.pop(name) for name in places], **given)

    def totals(self, **arguments: Tensor) -> tuple[Tensor, Tensor]:
        own = {p.name for p in self._takes}
        values = self.call_function(arguments)
        if values is None or isinstance(values, (dict, list, tuple)):
            raise TypeError(
                f"`{self.name}` must return a scalar or a value per row. For several "
                "losses, pass several functions. "
                f"{received(returned=type(values).__name__)}"
            )
        values = ops.convert_to_tensor(values)
        self._check_rows_apart(values, arguments)
        weight = None if SAMPLE_WEIGHT in own else arguments.get(SAMPLE_WEIGHT)
        mask = None if "mask" in own else arguments.get("mask")
        if mask is not None and len(values.shape) < len(mask.shape):
            raise ValueError(
                f"`{self.name}` averages over steps, so masked steps cannot be left out. "
                "Return a value per step, or take `mask` as a parameter. "
                f"{_shapes(value=values, mask=mask)}"
            )
        mask = own_mask(values, mask)
        like = [arguments[Y_PRED]] if Y_PRED in arguments else list(arguments.values())
        return reduction_totals(values, weight, mask, "sum_over_batch_size", self, like)

    def _check_rows_apart(self, values: Tensor, arguments: Mapping[str, Tensor]) -> None:
        """Refuse values `(batch, batch)`, which come from unintended broadcasting.

        For backend code, which `building.broadcasting` cannot inspect.
        """
        y_pred = arguments.get(Y_PRED)
        if y_pred is None or tuple(y_pred.shape[1:]) != (1,):
            return
        vectors = [n for n, x in arguments.items() if x is not None and len(x.shape) == 1]
        if vectors and len(values.shape) == 2 and values.shape[1] != 1:
            raise ValueError(
                f"`{self.name}` compares every row with every other: {vectors} of shape "
                "(batch,) is broadcast with a prediction of shape (batch, 1). Average over "
                "the outputs first, or pass "
                "`inputs={'" + vectors[0] + "': keras.Input((1,))}`. "
                f"{received(**{'value.shape': tuple(values.shape)})}"
            )

    def get_config(self) -> Config:
        return {**super().get_config(), "function": serialize_function(self.function)}

    @classmethod
    def from_config(cls, config: Config) -> FunctionLoss:
        config = dict(config)
        return cls(deserialize_loss(config.pop("function")), **config)


@keras.saving.register_keras_serializable("addloss_kit.losses")
class SymbolicLoss(LossTerm):
    """A scalar that the graph already computes, as in Keras 2's `add_loss`.

    Over several replicas it is their mean, weighted by rows, which is exact for a
    value that is itself a mean over rows.

    Args:
        name: Key in the history.
    """

    def totals(self, value: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        return _scalar_totals(value, [y_pred])


def _shapes(**tensors: Tensor) -> str:
    return received(**{f"{name}.shape": tuple(x.shape) for name, x in tensors.items()})


def reduction_totals(
    values: Tensor,
    sample_weight: Tensor | None,
    mask: Tensor | None,
    reduction: str | None,
    term: LossTerm,
    arguments: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Keras's reduction as an additive pair `(total, count)`.

    Args:
        values: Losses per sample `(batch,)` or step `(batch, time)`; a scalar counts
            as a mean over rows, or as a sum with `reduction="sum"`.
        sample_weight: Weights or `None`; see `functional.align_weight`.
        mask: Boolean mask of the prediction, or `None`.
        reduction: As in `keras.losses.Loss`.
        term: The term, for the message.
        arguments: What the values were computed from.

    Raises:
        ValueError: If the values are a scalar and there are weights.
    """
    if len(values.shape) == 0:
        if sample_weight is not None:
            raise ValueError(
                f"`{term.name}` returns one number for the whole batch, so sample weights "
                "cannot be applied. Return a value per row, or take `sample_weight` as a "
                f"parameter. {received(**{'value.shape': '()'})}"
            )
        if reduction == "sum":
            return values, ops.ones_like(values)
        return _scalar_totals(values, arguments)
    if sample_weight is None and mask is None:
        return ops.sum(values), ops.cast(ops.size(values), values.dtype)
    ones = ops.ones_like(values)
    weight = ones
    if sample_weight is not None:
        weight = align_weight(sample_weight, values, mask) * ones
    valid = ones
    if mask is not None:
        # A mask with more axes than the losses was applied inside the loss: a value
        # counts if any of its steps does. Not a product: a masked loss may be infinite.
        counts = steps_that_count(mask, values)
        valid = ops.cast(counts, values.dtype)
        values, weight = without_masked(counts, values, weight)
    count = weight if reduction == "mean_with_sample_weight" else valid
    return ops.sum(weight * values), ops.sum(count)


def _scalar_totals(value: Tensor, arguments: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A mean over rows as an additive pair `(total, rows)`.

    Args:
        value: Scalar of the batch.
        arguments: What it was computed from. The first tensor with a batch axis
            gives the number of rows.
    """
    batched = [tensor for tensor in arguments if len(tensor.shape) > 0]
    rows = ops.shape(batched[0])[0] if batched else 1
    rows = ops.cast(rows, value.dtype)
    # A replica without rows has a mean of 0/0.
    return ops.where(rows > 0, value * rows, ops.zeros_like(value)), rows
