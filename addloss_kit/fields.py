"""Names, shapes and dtypes of the training-only Inputs.

One rule names them all: **an extra Input is named after the loss argument that it
feeds.** With several outputs the name is prefixed with the output's: `y_true` of
output `price` is `price_y_true`. All outputs share `group_ids`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container

from addloss_kit._types import Shape

Y_TRUE = "y_true"
Y_PRED = "y_pred"
SAMPLE_WEIGHT = "sample_weight"
GROUP_IDS = "group_ids"

# What a deployed predictor must never see.
TRAINING_ONLY_ROLES = (Y_TRUE, SAMPLE_WEIGHT, GROUP_IDS)
# One array for all outputs: a row as a whole belongs to its group.
_SHARED_ROLES = (GROUP_IDS,)


@dataclasses.dataclass(frozen=True)
class Field:
    """What a training-only Input holds.

    Args:
        shape: Shape of one row; `()` for a scalar per row. `None` if unspecified.
        dtype: Dtype name. `None` if unspecified.
        role: The loss argument that it feeds, such as `"y_true"` or `"group_ids"`.
        num_groups: For group ids, how many groups there are; ids lie in
            `[0, num_groups)`, or are -1 for "no group".
        num_classes: For class targets, how many classes the prediction has; they lie
            in `[0, num_classes)`. `None` if unspecified.
        ignore_class: The class outside them that a loss leaves out, if it does.
        reason: Who requires it, for the message if two uses conflict.
    """

    shape: Shape | None = None
    dtype: str | None = None
    role: str = ""
    num_groups: int | None = None
    num_classes: int | None = None
    ignore_class: int | None = None
    reason: str = ""

    def merge(self, other: Field, name: str) -> Field:
        """The field that satisfies both.

        Raises:
            ValueError: If they contradict each other.
        """
        merged = dataclasses.asdict(self)
        merged.update(self.merge_classes(other))
        for key in ("shape", "dtype", "num_groups"):
            mine, theirs = getattr(self, key), getattr(other, key)
            if mine is None:
                merged[key] = theirs
                merged["reason"] = other.reason
            elif theirs is not None and mine != theirs:
                raise ValueError(
                    f"Input `{name}` cannot have two values of `{key}`: {mine} for "
                    f"{self.reason or 'one use'}, {theirs} for "
                    f"{other.reason or 'another'}. Give one of them an Input with "
                    "another name (for group ids: `group_ids='another_name'`)."
                )
        return Field(**merged)

    def merge_classes(self, other: Field) -> dict[str, int | None]:
        """`num_classes` and `ignore_class` of what satisfies both."""
        if other.num_classes is None or self.num_classes is None:
            one = self if other.num_classes is None else other
            return {"num_classes": one.num_classes, "ignore_class": one.ignore_class}
        # A class that only one of them ignores is an error for the other.
        is_same = self.ignore_class == other.ignore_class
        return {
            "num_classes": min(self.num_classes, other.num_classes),
            "ignore_class": self.ignore_class if is_same else None,
        }


def input_name(argument: str, output: str | None) -> str:
    """The name of the Input that feeds `argument` of a loss on `output`.

    Args:
        argument: The loss argument, such as `"y_true"`.
        output: Name of the output, `None` if the model has only one.

    Example:
        >>> input_name("y_true", None), input_name("y_true", "price")
        ('y_true', 'price_y_true')
        >>> input_name("group_ids", "price")
        'group_ids'
    """
    if output is None or argument in _SHARED_ROLES:
        return argument
    return f"{output}_{argument}"


def parse_input_name(name: str) -> tuple[str, str | None]:
    """The role and the output of an Input: the inverse of `input_name`.

    Args:
        name: Name of an Input or a prediction.

    Returns:
        `(role, output)`; the name itself and `None` if it ends in no known role.

    Example:
        >>> parse_input_name("y_true"), parse_input_name("price_y_true")
        (('y_true', None), ('y_true', 'price'))
        >>> parse_input_name("margin")
        ('margin', None)
    """
    for role in (Y_TRUE, Y_PRED, SAMPLE_WEIGHT, GROUP_IDS):
        if name == role:
            return role, None
        if name.endswith(f"_{role}"):
            return role, name.removesuffix(f"_{role}")
    return name, None


def role_of(source: str, argument: str, predictions: Container[str]) -> str:
    """What the Input `source` holds when it feeds `argument`.

    A term that spans outputs uses the full name of a target, `price_y_true`; it is
    still a target, with the shape of that output.

    Args:
        source: Name of the Input.
        argument: The loss argument.
        predictions: Names of the predictions, such as `"price_y_pred"`.

    Example:
        >>> role_of("price_y_true", "price_y_true", ["price_y_pred", "sold_y_pred"])
        'y_true'
        >>> role_of("margin", "margin", ["y_pred"])
        'margin'
    """
    role, output = parse_input_name(source)
    if role == Y_TRUE and input_name(Y_PRED, output) in predictions:
        return Y_TRUE
    return argument


def snake_case(name: str) -> str:
    """A class name in the form that Keras uses for layer names.

    Example:
        >>> snake_case("WeightedRMSE"), snake_case("GroupGap"), snake_case("mse")
        ('weighted_rmse', 'group_gap', 'mse')
    """
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def has_training_only_name(name: str) -> bool:
    """Whether `name` is the name of a target, a weight or group ids."""
    return parse_input_name(name)[0] in TRAINING_ONLY_ROLES
