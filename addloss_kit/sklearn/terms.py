"""Losses as an estimator takes them: the number of groups is known in `fit` only."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

from addloss_kit import losses as losses_module
from addloss_kit._checks import received
from addloss_kit._types import ErrorLike
from addloss_kit.fields import snake_case
from addloss_kit.losses import LossTerm
from addloss_kit.per_group import PerGroup

_BY_NAME = {
    snake_case(name): value
    for name, value in vars(losses_module).items()
    if isinstance(value, type) and issubclass(value, LossTerm) and value is not LossTerm
}


def listed(losses: Any) -> list[Any]:
    """One loss, or several, as a list."""
    return list(losses) if isinstance(losses, (list, tuple)) else [losses]


def made_terms(
    losses: Sequence[Any],
    loss_weights: Sequence[Any] | None,
    error: ErrorLike,
    num_groups: int | None,
) -> tuple[list[Any], list[Any] | None]:
    """The losses of this fit, and their weights.

    Args:
        losses: As in `build_training_model`; or the name of a term of the kit in snake
            case, its class, or a `functools.partial` of its class. Terms that compare
            groups are given `num_groups`, and `error` if they take one.
        loss_weights: One per loss, or `None`.
        error: Error of a row for terms that compare groups.
        num_groups: `None` if there are no groups; such terms are then left out, with a
            warning.

    Raises:
        ValueError: If the weights do not fit, or no loss is left.
    """
    if loss_weights is not None and len(loss_weights) != len(losses):
        raise ValueError(
            "`loss_weights` must have one number per loss. "
            f"{received(loss_weights=list(loss_weights), losses=list(losses))}"
        )
    known = [_BY_NAME.get(x, x) if isinstance(x, str) else x for x in losses]
    kept = list(range(len(known)))
    if num_groups is None:
        kept = [i for i in kept if not _compares_groups(known[i])]
    if not kept:
        raise ValueError(
            "All of `losses` compare groups, but there are none. Pass "
            "`sensitive_features=` to `fit`, or add a loss such as 'mse'. "
            f"{received(losses=list(losses), sensitive_features=None)}"
        )
    if len(kept) < len(known):
        left_out = [losses[i] for i in range(len(known)) if i not in kept]
        warnings.warn(
            f"`fit` got no `sensitive_features`, so it leaves out the losses {left_out}. "
            "Pass them, or remove these losses.",
            stacklevel=4,
        )
    terms = [_made(known[i], error, num_groups) for i in kept]
    weights = None if loss_weights is None else [loss_weights[i] for i in kept]
    return terms, weights


def _class_of(loss: Any) -> Any:
    """The class behind a class, or behind a `partial` of one."""
    return loss.func if isinstance(loss, partial) else loss


def _compares_groups(loss: Any) -> bool:
    cls = _class_of(loss)
    is_class = isinstance(cls, type) and issubclass(cls, PerGroup)
    return is_class or isinstance(loss, PerGroup)


def _made(loss: Any, error: ErrorLike, num_groups: int | None) -> Any:
    if isinstance(loss, LossTerm):
        # A copy: training builds the state of a term, and `fit` changes no parameter.
        return type(loss).from_config(loss.get_config())
    cls = _class_of(loss)
    if not isinstance(cls, type) or not issubclass(cls, LossTerm):
        return loss
    options: dict[str, Any] = {}
    if _compares_groups(loss):
        options["num_groups"] = num_groups
        is_given = "error" in getattr(loss, "keywords", {})
        if "error" in inspect.signature(cls).parameters and not is_given:
            options["error"] = error
    return loss(**options)
