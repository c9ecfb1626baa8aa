"""Keras losses as errors per sample, and back to a config that loses nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit.fields import Field, snake_case
from addloss_kit.functional import row_mean

# Names of the literature for errors that Keras knows under another one.
_ALIASES = {
    "squared_error": "mean_squared_error",
    "absolute_error": "mean_absolute_error",
}


@keras.saving.register_keras_serializable("addloss_kit")
class PerSampleError:
    """A Keras loss before its reduction: the error of each sample or step.

    Args:
        loss: What `compile(loss=...)` takes: a name (also `"squared_error"` and
            `"absolute_error"`), a `keras.losses` class or object, a function
            `f(y_true, y_pred)` that is registered with Keras.

    Raises:
        ValueError: If Keras knows no such loss.
    """

    def __init__(self, loss: Any = "squared_error") -> None:
        self.identifier = loss
        known = _ALIASES.get(loss, loss) if isinstance(loss, str) else loss
        if isinstance(known, type) and issubclass(known, keras.losses.Loss):
            known = known()
        try:
            self.loss: Any = keras.losses.get(known)
        except (ValueError, TypeError):
            self.loss = None
        if self.loss is None:
            raise ValueError(
                "A loss must be a name that `keras.losses.get` knows, a `keras.losses` "
                "class or object, or a function. Check the spelling. "
                f"{received(loss=repr(loss))}"
            ) from None

    @property
    def name(self) -> str:
        """The name that a person gave it, in snake case."""
        if isinstance(self.identifier, str):
            return snake_case(self.identifier)
        name = getattr(self.loss, "name", None) or getattr(self.loss, "__name__", None)
        return str(name or type(self.loss).__name__)

    @property
    def reduction(self) -> str | None:
        """How the Keras object reduces; `"sum_over_batch_size"` for functions."""
        if isinstance(self.loss, keras.losses.Loss):
            return self.loss.reduction
        return "sum_over_batch_size"

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """The errors, unreduced and unweighted, in the dtype of `y_pred`."""
        y_true = as_keras_target(y_true, y_pred)
        if isinstance(self.loss, keras.losses.Loss):
            # `call`, not `__call__`: the reduction of a Loss is scaled by the
            # number of replicas, and Keras scales what `add_loss` gets once more.
            return self.loss.call(y_true, y_pred)
        return self.loss(y_true, y_pred)

    def per_row(self, y_true: Any, y_pred: Any, mask: Any = None) -> Any:
        """The error of each row `(batch,)`: the mean over its steps."""
        values = self(y_true, y_pred)
        if len(values.shape) == 0:
            raise ValueError(
                "A group's error needs a loss with one value a sample. Write the "
                "loss so that it keeps the batch axis. "
                f"{received(error=self.name, shape='()')}"
            )
        return row_mean(values, mask)

    def field(self, prediction: Any) -> Field:
        """What its target looks like, given the prediction's KerasTensor."""
        shape = tuple(prediction.shape[1:])
        name = self.name.lower() + getattr(self.loss, "__name__", "").lower()
        kind = type(self.loss).__name__.lower() + name
        if "sparse" in kind:
            return Field(shape=shape[:-1], dtype="int32", reason=self.name)
        if "ctc" in kind:
            return Field(shape=(None,), dtype="int32", reason=self.name)
        if isinstance(self.loss, keras.losses.Loss) and not isinstance(
            self.loss, tuple(_keras_loss_classes())
        ):
            return Field()  # A person's own class: no more than the default.
        if not isinstance(self.loss, keras.losses.Loss) and not isinstance(
            self.identifier, str
        ):
            return Field()
        return Field(
            shape=shape,
            dtype=keras.backend.standardize_dtype(prediction.dtype),
            reason=self.name,
        )

    def get_config(self) -> dict:
        loss: Any = self.identifier
        if not isinstance(loss, str):
            loss = serialize_loss(self.loss)
        return {"loss": loss}

    @classmethod
    def from_config(cls, config: dict) -> PerSampleError:
        return cls(deserialize_loss(config["loss"]))


def serialize_loss(loss: Any) -> Any:
    """A Keras loss as a config with all its constructor arguments.

    Keras's own configs forget some: `Huber` its `delta`, `CosineSimilarity` its
    `axis` (Keras 3.15). The arguments are still on the object, so they are read
    there.

    Raises:
        ValueError: If the loss is a function or class that is not registered.
    """
    if not isinstance(loss, keras.losses.Loss):
        return serialize_function(loss)
    config = keras.saving.serialize_keras_object(loss)
    if type(loss) is keras.losses.Loss or "fn" in config["config"]:
        return config
    wanted = inspect.signature(type(loss).__init__).parameters
    kept = {k: v for k, v in getattr(loss, "_fn_kwargs", {}).items() if k in wanted}
    config["config"].update(keras.saving.serialize_keras_object(kept))
    if config["registered_name"] is None and not config["module"].startswith("keras"):
        raise ValueError(_register(type(loss).__name__, "class"))
    return config


def deserialize_loss(config: Any) -> Any:
    """The loss of a `serialize_loss` config; names pass through."""
    if isinstance(config, dict):
        return keras.saving.deserialize_keras_object(config)
    return config


def serialize_function(function: Callable) -> Any:
    """A registered function as a config.

    Raises:
        ValueError: If it could be saved but never loaded again: it is not
            registered with Keras, or is a lambda.
    """
    name = getattr(function, "__name__", type(function).__name__)
    module = getattr(function, "__module__", "") or ""
    is_keras = module.split(".")[0] == "keras"
    registered = keras.saving.get_registered_name(function)
    if not is_keras and keras.saving.get_registered_object(registered) is None:
        raise ValueError(_register(name, "function"))
    return keras.saving.serialize_keras_object(function)


def _register(name: str, kind: str) -> str:
    return (
        f"The {kind} `{name}` cannot be saved, as no later process could find it. "
        "Define it under a name of its own (no lambda) and put "
        "`@keras.saving.register_keras_serializable('your_package')` above it, "
        "then import that module before loading. "
        f"{received(**{kind: name})}"
    )


def _keras_loss_classes() -> list:
    return [
        obj
        for obj in vars(keras.losses).values()
        if isinstance(obj, type)
        and issubclass(obj, keras.losses.Loss)
        and obj is not keras.losses.Loss
    ]


def as_keras_target(y_true: Any, y_pred: Any) -> Any:
    """`y_true` as Keras hands it to a loss: of the prediction's dtype and rank.

    A `(batch,)` target meets a `(batch, 1)` prediction row by row; without this
    they would broadcast to `(batch, batch)`.
    """
    y_true = ops.cast(y_true, y_pred.dtype)
    surplus = len(y_true.shape) - len(y_pred.shape)
    if surplus == 1 and y_true.shape[-1] == 1:
        return ops.squeeze(y_true, -1)
    if surplus == -1 and y_pred.shape[-1] == 1:
        return ops.expand_dims(y_true, -1)
    return y_true
