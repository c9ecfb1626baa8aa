"""Keras losses as errors per sample, and back to a config that loses nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit.fields import Field, snake_case
from addloss_kit.functional.rows import own_mask, row_mean

# Names of the literature for errors that Keras knows under another one.
_ALIASES = {
    "squared_error": "mean_squared_error",
    "absolute_error": "mean_absolute_error",
}

# Keras losses whose target is the index of a class, not a value per output.
_CLASS_INDEX_LOSSES = (
    "sparse_categorical_crossentropy",
    "categorical_generalized_cross_entropy",
    "circle",
)


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
        return row_mean(values, own_mask(values, mask))

    def field(self, prediction: Any) -> Field:
        """What its target looks like, given the prediction's KerasTensor."""
        shape = tuple(prediction.shape[1:])
        function = getattr(self.loss, "fn", self.loss)
        name = getattr(function, "__name__", "")
        if getattr(keras.losses, name, None) is not function:
            return Field()  # A person's own loss: no more than the default.
        if name in _CLASS_INDEX_LOSSES:
            # The classes' axis, counted without that of the batch.
            axis = getattr(self.loss, "_fn_kwargs", {}).get("axis", -1)
            axis = axis - 1 if axis > 0 else axis + len(shape)
            return Field(
                shape=shape[:axis] + shape[axis + 1 :], dtype="int32", reason=self.name
            )
        if name == "ctc":
            return Field(shape=(None,), dtype="int32", reason=self.name)
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
    if not _is_findable(type(loss)):
        raise ValueError(_register(type(loss).__name__, "class"))
    config = keras.saving.serialize_keras_object(loss)
    if "fn" in config["config"]:
        serialize_function(loss.fn)  # For its error, where it is not registered.
        return config
    config["config"] = _constructor_arguments(loss, config["config"])
    return config


def _constructor_arguments(loss: keras.losses.Loss, config: dict) -> dict:
    """`config` with the constructor arguments that it lacks, less those not taken."""
    definer = next(c for c in type(loss).__mro__ if "from_config" in vars(c))
    if not definer.__module__.startswith("keras."):
        return config  # A person's own `from_config` knows what it needs.
    taken = inspect.signature(type(loss).__init__).parameters
    known = {**vars(loss), **getattr(loss, "_fn_kwargs", {})}
    named = [
        name
        for name, parameter in taken.items()
        if name not in ("self", "dtype")
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    lost = [name for name in named if name not in config and name not in known]
    if lost:
        raise ValueError(
            f"The class `{type(loss).__name__}` cannot be saved without losing its "
            f"arguments {lost}. Keep each as an attribute of its name, or define "
            f"`get_config`. {received(get_config=config)}"
        )
    complete = dict(config)
    for name in named:
        if name not in config:
            value = known[name]
            # `Loss.from_config` makes no array of an array's config.
            complete[name] = value.tolist() if hasattr(value, "tolist") else value
    if any(p.kind == p.VAR_KEYWORD for p in taken.values()):
        return complete
    # `Loss.get_config` has `reduction`, which a person's constructor need not take.
    return {name: value for name, value in complete.items() if name in taken}


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
    if isinstance(function, functools.partial):
        raise ValueError(_register(f"partial({function.func.__name__})", "function"))
    # An object with `__call__` is found by its class, and kept by its `get_config`.
    found_by = function if hasattr(function, "__name__") else type(function)
    if not _is_findable(found_by):
        kind = "function" if found_by is function else "class"
        raise ValueError(_register(found_by.__name__, kind))
    if found_by is not function and not hasattr(function, "get_config"):
        raise ValueError(
            f"The class `{found_by.__name__}` cannot be saved without `get_config`. Let it "
            "return the constructor's arguments as a dict. "
            f"{received(methods=[n for n in vars(found_by) if not n.startswith('__')])}"
        )
    return keras.saving.serialize_keras_object(function)


def _is_findable(thing: Any) -> bool:
    """Whether another process can find a class or function by its config."""
    if (getattr(thing, "__module__", "") or "").split(".")[0] == "keras":
        return True
    registered = keras.saving.get_registered_name(thing)
    return keras.saving.get_registered_object(registered) is not None


def _register(name: str, kind: str) -> str:
    return (
        f"The {kind} `{name}` cannot be saved, as no later process could find it. "
        "Define it under a name of its own (no lambda) and put "
        "`@keras.saving.register_keras_serializable('your_package')` above it, "
        "and import that module before loading. "
        f"{received(**{kind: name})}"
    )


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
