"""Keyword arguments that have a better name now: the earlier one works, with a warning."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from addloss_kit._checks import received

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def renamed(**new_names: str) -> Callable[[Decorated], Decorated]:
    """Take keyword arguments by earlier names, too; for a class also its attributes.

    Args:
        **new_names: Each earlier name, with the name that replaces it.

    Example:
        >>> @renamed(length="bandwidth")
        ... def kernel(distance, *, bandwidth):
        ...     return distance / bandwidth
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     kernel(6.0, length=2.0)
        3.0
        >>> str(caught[0].message)
        '`length` of `kernel` is deprecated. Use `bandwidth`.'
    """

    def decorate(decorated: Decorated) -> Decorated:
        owner: Any = decorated
        if not isinstance(decorated, type):
            taking: Decorated = _taking(owner, owner.__name__, new_names)
            return taking
        owner.__init__ = _taking(owner.__init__, owner.__name__, new_names)
        for earlier, name in new_names.items():
            setattr(owner, earlier, _attribute(owner, earlier, name))
        return decorated

    return decorate


def with_new_names(owner: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a class by today's names: a file keeps those of its day."""
    new_names = getattr(owner.__init__, "new_names", {})
    return {new_names.get(name, name): value for name, value in config.items()}


def _taking(function: Any, owner: str, new_names: Mapping[str, str]) -> Any:
    @functools.wraps(function)
    def taking(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **_translated(owner, kwargs, new_names))

    known: Any = taking  # mypy knows no attributes of functions
    # Keras asks constructors by `getfullargspec`, which looks at no wrapped function.
    known.__signature__ = inspect.signature(function)
    known.new_names = new_names  # for `with_new_names`
    return known


def _attribute(owner: Any, earlier: str, name: str) -> property:
    def read(self: Any) -> Any:
        _warn(owner.__name__, earlier, name, stacklevel=3)
        return getattr(self, name)

    return property(read, doc=f"Deprecated: `{name}`.")


def _translated(
    owner: str, kwargs: dict[str, Any], new_names: Mapping[str, str]
) -> dict[str, Any]:
    for earlier in new_names.keys() & kwargs.keys():
        name = new_names[earlier]
        if name in kwargs:
            raise TypeError(
                f"`{earlier}` is the earlier name of `{name}`. Pass only `{name}`. "
                f"{received(**{earlier: kwargs[earlier], name: kwargs[name]})}"
            )
        _warn(owner, earlier, name, stacklevel=4)
        kwargs[name] = kwargs.pop(earlier)
    return kwargs


def _warn(owner: str, earlier: str, name: str, stacklevel: int) -> None:
    warnings.warn(
        f"`{earlier}` of `{owner}` is deprecated. Use `{name}`.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
