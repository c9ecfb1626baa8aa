"""Resolve any kind of loss to a LossTerm."""

from __future__ import annotations

from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit.fields import snake_case
from addloss_kit.losses.keras_loss import FunctionLoss, KerasLoss
from addloss_kit.losses.loss_term import LossTerm


def get(loss: Any) -> LossTerm:
    """The term for a loss.

    Args:
        loss: A `LossTerm`; the name, class or object of a Keras loss; or any
            function whose parameters name what it needs.

    Raises:
        TypeError: If it is none of these.
        ValueError: If Keras does not know a loss of that name, as it does not know those
            of the kit.

    Example:
        >>> get("mse").name, get(keras.losses.Huber(delta=0.3)).name
        ('mse', 'huber_loss')
    """
    if isinstance(loss, LossTerm):
        return loss
    if isinstance(loss, type) and issubclass(loss, LossTerm):
        return loss()
    is_keras_class = isinstance(loss, type) and issubclass(loss, keras.losses.Loss)
    if isinstance(loss, (str, keras.losses.Loss)) or is_keras_class:
        try:
            return KerasLoss(loss)
        except ValueError:
            _check_no_term(loss)
            raise
    if callable(loss):
        name = getattr(loss, "__name__", "")
        is_keras_function = getattr(keras.losses, name, None) is loss
        return KerasLoss(loss) if is_keras_function else FunctionLoss(loss)
    raise TypeError(
        "A loss must be a name, a Keras loss, a LossTerm or a function. Pass one of them, "
        f"or a list of them. {received(loss=repr(loss))}"
    )


def _check_no_term(name: Any) -> None:
    """Raise if what Keras does not know is the name of a term, as the history has it."""
    terms = [LossTerm]
    for term in terms:
        terms += term.__subclasses__()
        if snake_case(term.__name__) == name:
            raise ValueError(
                "Terms have arguments, so they have no names as Keras's losses have. Pass "
                f"an object, `losses.{term.__name__}(...)`. {received(loss=repr(name))}"
            ) from None
