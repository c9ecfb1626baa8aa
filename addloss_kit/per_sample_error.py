"""A Keras loss before its reduction: the error of each sample."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import did_you_mean, received
from addloss_kit._types import Config, ErrorLike, KerasTensor, Tensor
from addloss_kit.fields import Field, snake_case
from addloss_kit.functional.rows import own_mask, row_mean, row_weight
from addloss_kit.keras_internals.wrapped import function_arguments
from addloss_kit.serialization import deserialize_loss, serialize_loss

# Names of errors in the literature, and Keras's names for them.
_SYNONYMS = {
    "squared_error": ("mean_squared_error", "mse"),
    "absolute_error": ("mean_absolute_error", "mae"),
}

# Keras losses whose target is a class index, not a value per output.
_CLASS_INDEX_LOSSES = (
    "sparse_categorical_crossentropy",
    "categorical_generalized_cross_entropy",
    "circle",
)


# Keras losses whose value is a mean over the last axis of one value per element.
_ELEMENTWISE_LOSSES = (
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "poisson",
    "hinge",
    "squared_hinge",
    "binary_crossentropy",
    "binary_focal_crossentropy",
)


@keras.saving.register_keras_serializable("addloss_kit")
class PerSampleError:
    """A Keras loss before its reduction: the error of each sample or step.

    Args:
        loss: As in `compile(loss=...)`: a name (also `"squared_error"` and
            `"absolute_error"`), a `keras.losses` class or object, or a function
            `f(y_true, y_pred)` that is registered with Keras.

    Raises:
        ValueError: If Keras does not know the loss.
    """

    def __init__(self, loss: ErrorLike = "squared_error") -> None:
        self.identifier = loss
        known = _SYNONYMS.get(loss, (loss,))[0] if isinstance(loss, str) else loss
        if isinstance(known, type) and issubclass(known, keras.losses.Loss):
            known = known()
        try:
            self.loss: Any = keras.losses.get(known)
        except (ValueError, TypeError):
            self.loss = None
        if self.loss is None:
            raise ValueError(
                "A loss must be a name that `keras.losses.get` knows, a `keras.losses` "
                "class or object, or a function. Check the spelling."
                f"{did_you_mean(loss, _known_names())} {received(loss=repr(loss))}"
            ) from None

    @property
    def name(self) -> str:
        """The name of the loss, in snake case."""
        if isinstance(self.identifier, str):
            return snake_case(self.identifier)
        name = getattr(self.loss, "name", None) or getattr(self.loss, "__name__", None)
        return str(name or type(self.loss).__name__)

    @property
    def reduction(self) -> str | None:
        """How the Keras object reduces; `"sum_over_batch_size"` for functions."""
        if isinstance(self.loss, keras.losses.Loss):
            reduction: str | None = self.loss.reduction
            return reduction
        return "sum_over_batch_size"

    def __call__(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The errors, unreduced and unweighted, in the dtype of `y_pred`."""
        y_true = as_keras_target(y_true, y_pred)
        if isinstance(self.loss, keras.losses.Loss):
            # `call`, not `__call__`: a Loss scales its reduction by the number of
            # replicas, and Keras scales the `add_loss` value again.
            return self.loss.call(y_true, y_pred)
        return self.loss(y_true, y_pred)

    def steps(
        self, y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The errors, unreduced, and which of them count.

        Args:
            y_true, y_pred: `(batch, …)`, as the loss takes them.
            mask: Optional boolean mask of the prediction.
        """
        if mask is not None and 1 < len(mask.shape) == len(y_pred.shape):
            # A mask per element: the mean over the last axis would hide it.
            function = getattr(self.loss, "fn", self.loss)
            if getattr(function, "__name__", "") not in _ELEMENTWISE_LOSSES:
                raise ValueError(
                    f"`{self.name}` averages over the prediction's last axis, so a mask "
                    "of the prediction's shape cannot be applied. Add an axis to the "
                    "prediction, or mask whole steps. "
                    f"{received(**{'mask.shape': tuple(mask.shape)})}"
                )
            y_true = ops.expand_dims(as_keras_target(y_true, y_pred), -1)
            y_pred = ops.expand_dims(y_pred, -1)
        values = self(y_true, y_pred)
        if isinstance(values, (int, float)):
            raise ValueError(self._no_value_per_row(y_pred))
        return values, own_mask(values, mask)

    def per_row(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        mask: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The error of each row: the mean over its steps; and its weight.

        Masked steps count in neither, and a fully masked row has a weight of 0.

        Returns:
            `(error, weight)`, both `(batch,)`.
        """
        if len(y_pred.shape) == 1 and self._averages_last_axis:
            # It would take the rows for the outputs of one row.
            y_true, y_pred = as_keras_target(y_true, y_pred)[:, None], y_pred[:, None]
        values, mask = self.steps(y_true, y_pred, mask)
        if len(values.shape) == 0:
            raise ValueError(self._no_value_per_row(y_pred))
        error = row_mean(values, mask)
        return error, row_weight(sample_weight, error, mask)

    @property
    def _keras_name(self) -> str:
        """Its name in `keras.losses`, or nothing."""
        function = getattr(self.loss, "fn", self.loss)
        name = str(getattr(function, "__name__", ""))
        return name if getattr(keras.losses, name, None) is function else ""

    @property
    def _averages_last_axis(self) -> bool:
        return self._keras_name in _ELEMENTWISE_LOSSES

    def _no_value_per_row(self, y_pred: Tensor) -> str:
        shapes = {"error": self.name, "y_pred.shape": tuple(y_pred.shape)}
        if len(y_pred.shape) == 1 and self._keras_name:
            return (
                f"`{self.name}` takes the last axis of `y_pred` for the outputs or classes "
                "of a row, so `(rows,)` leaves no axis of rows. Pass `(rows, outputs)`: "
                f"`y[:, None]` for one output. {received(**shapes)}"
            )
        return (
            "A group's error needs a loss with one value per sample. Rewrite the "
            f"loss so that it keeps the batch axis. {received(**shapes)}"
        )

    def field(self, prediction: KerasTensor) -> Field:
        """What the target must look like, given the prediction's KerasTensor."""
        shape = tuple(prediction.shape[1:])
        name = self._keras_name
        if not name:
            return Field()  # A custom loss: nothing but the default.
        if name in _CLASS_INDEX_LOSSES:
            # The class axis, counted without the batch axis.
            axis = function_arguments(self.loss).get("axis", -1)
            axis = axis - 1 if axis > 0 else axis + len(shape)
            # The labels of the circle loss are of any number: its axis holds no classes.
            has_classes = name != "circle"
            return Field(
                shape=shape[:axis] + shape[axis + 1 :],
                dtype="int32",
                num_classes=shape[axis] if has_classes else None,
                ignore_class=function_arguments(self.loss).get("ignore_class"),
                reason=self.name,
            )
        if name == "ctc":
            return Field(
                shape=(None,), dtype="int32", num_classes=shape[-1], reason=self.name
            )
        return Field(
            shape=shape,
            dtype=keras.backend.standardize_dtype(prediction.dtype),
            reason=self.name,
        )

    def get_config(self) -> Config:
        loss: Any = self.identifier
        if not isinstance(loss, str):
            loss = serialize_loss(self.loss)
        return {"loss": loss}

    @classmethod
    def from_config(cls, config: Config) -> PerSampleError:
        return cls(deserialize_loss(config["loss"]))


def _known_names() -> list[str]:
    """What Keras calls its losses, and the names of the literature."""
    of_keras = [
        name
        for name, loss in vars(keras.losses).items()
        if inspect.isfunction(loss) and name not in ("get", "serialize", "deserialize")
    ]
    return [*_SYNONYMS, "mse", "mae", "mape", "msle", *of_keras]


def literature_name(error: str) -> str:
    """`"squared_error"` for `"mse"` and the like; other names unchanged."""
    for name, others in _SYNONYMS.items():
        if error in others:
            return name
    return error


def as_keras_target(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """`y_true` as Keras passes it to a loss: with the prediction's dtype and rank.

    A `(batch,)` target is matched with a `(batch, 1)` prediction row by row; otherwise
    they would broadcast to `(batch, batch)`.
    """
    y_true = ops.cast(y_true, y_pred.dtype)
    surplus = len(y_true.shape) - len(y_pred.shape)
    if surplus == 1 and y_true.shape[-1] == 1:
        return ops.squeeze(y_true, -1)
    if surplus == -1 and y_pred.shape[-1] == 1:
        return ops.expand_dims(y_true, -1)
    return y_true
