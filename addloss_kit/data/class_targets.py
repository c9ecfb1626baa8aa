"""Targets of classes in the form that another loss takes: one-hot rows, or numbers."""

from __future__ import annotations

from addloss_kit._types import Shape
from addloss_kit.fields import Y_TRUE, Field

_ONE_HOT = ("categorical_crossentropy", "categorical_focal_crossentropy")


def other_form(given: Shape, wanted: Shape, field: Field) -> str | None:
    """What to do about a target that has the form of another loss.

    Args:
        given: Shape of the target, rows first.
        wanted: Shape of its Input.
        field: What the losses ask of it.

    Returns:
        Sentences for a message; `None` if it is something else.
    """
    loss, classes = field.reason, wanted[-1]
    if field.num_classes is not None:
        is_one_hot = len(given) == len(wanted) + 1 and given[-1] == field.num_classes
        is_single = len(given) == len(wanted) and wanted[-1] == 1 != given[-1]
        if is_one_hot or (is_single and given[-1] == field.num_classes):
            return (
                f"`{loss}` takes the number of each class, not one-hot rows. Pass "
                "`y.argmax(-1)`, or use the loss `categorical_crossentropy`."
            )
        return None
    if field.role != Y_TRUE or len(wanted) < 2:
        return None
    without_last = given[:-1] if given[-1:] == (1,) and len(given) > 1 else given
    if loss in _ONE_HOT and len(without_last) == len(wanted) - 1:
        return (
            f"`{loss}` takes one-hot rows, not the number of each class. Pass "
            f"`keras.utils.to_categorical(y, {classes})`, or use the loss "
            "`sparse_categorical_crossentropy`."
        )
    if loss.startswith("binary_") and classes == 1 and given[1:] == (*wanted[1:-1], 2):
        return (
            f"`{loss}` on one output takes 0 or 1 for each row, not one-hot rows. Pass "
            "`y.argmax(-1)`, or let the predictor have an output for each class and use "
            "`categorical_crossentropy`."
        )
    return None
