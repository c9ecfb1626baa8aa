"""Configs of losses and functions that lose nothing, or an error that says what."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit._types import Config
from addloss_kit.keras_internals.wrapped import function_arguments


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


def _constructor_arguments(loss: keras.losses.Loss, config: Config) -> Config:
    """`config` with the constructor arguments that it lacks, less those not taken."""
    definer = next(c for c in type(loss).__mro__ if "from_config" in vars(c))
    if not definer.__module__.startswith("keras."):
        return config  # A person's own `from_config` knows what it needs.
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


def serialize_function(function: Callable[..., Any]) -> Any:
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
