"""Lossless configs of losses and functions, or an error that says what would be lost."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit._types import Config
from addloss_kit.keras_internals.wrapped import function_arguments, wrapped_function


def serialize_loss(loss: Any) -> Any:
    """A Keras loss as a config with all its constructor arguments.

    Keras's own configs drop some: `delta` of `Huber`, `axis` of `CosineSimilarity`
    (Keras 3.15). The object still has them, so they are read from there.

    Raises:
        ValueError: If the loss is a function or class that is not registered.
    """
    if not isinstance(loss, keras.losses.Loss):
        return serialize_function(loss)
    if not _is_findable(type(loss)):
        raise ValueError(_register(type(loss).__name__, "class"))
    config = keras.saving.serialize_keras_object(loss)
    if "fn" in config["config"]:
        serialize_function(loss.fn)  # For its error if not registered.
        return config
    config["config"] = _constructor_arguments(loss, config["config"])
    return config


def _constructor_arguments(loss: keras.losses.Loss, config: Config) -> Config:
    """`config` plus missing constructor arguments, minus those not accepted."""
    definer = next(c for c in type(loss).__mro__ if "from_config" in vars(c))
    if not definer.__module__.startswith("keras."):
        return config  # A custom `from_config` knows what it needs.
    taken = inspect.signature(type(loss).__init__).parameters
    known = {**vars(loss), **function_arguments(loss)}
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
            f"arguments {lost}. Store each as an attribute of the same name, or define "
            f"`get_config`. {received(get_config=config)}"
        )
    complete = dict(config)
    for name in named:
        if name not in config:
            value = known[name]
            # `Loss.from_config` does not restore an array from its config.
            complete[name] = value.tolist() if hasattr(value, "tolist") else value
    if any(p.kind == p.VAR_KEYWORD for p in taken.values()):
        return complete
    # `Loss.get_config` has `reduction`, which a custom constructor may not take.
    return {name: value for name, value in complete.items() if name in taken}


def deserialize_loss(config: Any) -> Any:
    """The loss of a `serialize_loss` config; names pass through."""
    if isinstance(config, dict):
        return keras.saving.deserialize_keras_object(config)
    return config


def serialize_function(function: Callable[..., Any]) -> Any:
    """A registered function as a config.

    Raises:
        ValueError: If it could be saved but not loaded: it is not registered with
            Keras, or is a lambda.
    """
    if isinstance(function, functools.partial):
        raise ValueError(_register(f"partial({function.func.__name__})", "function"))
    # An object with `__call__` is found by its class, and saved by its `get_config`.
    found_by = function if hasattr(function, "__name__") else type(function)
    if not _is_findable(found_by):
        kind = "function" if found_by is function else "class"
        raise ValueError(_register(found_by.__name__, kind))
    if found_by is not function and not hasattr(function, "get_config"):
        raise ValueError(
            f"The class `{found_by.__name__}` cannot be saved without `get_config`. Define "
            "it to return the constructor's arguments as a dict. "
            f"{received(methods=[n for n in vars(found_by) if not n.startswith('__')])}"
        )
    return keras.saving.serialize_keras_object(function)


def serialize_object(thing: Any) -> Any:
    """A registered term, metric or schedule as a config.

    Raises:
        ValueError: If it could be saved but not loaded: its class, or the function that
            a metric averages, is not registered with Keras, or its config is not what
            its constructor takes.
    """
    kind = type(thing)
    if not _is_findable(kind):
        raise ValueError(_register(kind.__name__, "class"))
    function = wrapped_function(thing)
    if function is not None:
        serialize_function(function)  # For its error if not registered.
    config = keras.saving.serialize_keras_object(thing)
    if isinstance(thing, keras.metrics.Metric) and not _is_of_keras(kind):
        try:
            kind.from_config(thing.get_config())
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"The class `{kind.__name__}` cannot be saved, because it cannot be made "
                "from its config. Define `get_config` to return the constructor's "
                f"arguments. {received(get_config=thing.get_config(), error=error)}"
            ) from error
    return config


def _is_of_keras(thing: Any) -> bool:
    return (getattr(thing, "__module__", "") or "").split(".")[0] == "keras"


def _is_findable(thing: Any) -> bool:
    """Whether another process can find a class or function by its config."""
    if _is_of_keras(thing):
        return True
    registered = keras.saving.get_registered_name(thing)
    return keras.saving.get_registered_object(registered) is not None


def _register(name: str, kind: str) -> str:
    return (
        f"The {kind} `{name}` cannot be saved, because no later process could find it. "
        "Define it with its own name (not a lambda), decorate it with "
        "`@keras.saving.register_keras_serializable('your_package')`, "
        "and import its module before loading. "
        f"{received(**{kind: name})}"
    )
