"""How hard a term pulls on the groups' mean errors, and the limit of that force."""

from __future__ import annotations

from typing import get_args

from keras import ops

from addloss_kit._types import Push, Tensor

PUSHES = get_args(Push)

# The largest force that makes a group's error *larger*, in units of the group's force in
# a loss of weight 1, which is its share of the rows. Without this limit a rare, better-off
# group is driven up with up to 1 / share times its own weight, and the running mean
# notices only when the group's next row arrives. At 1, no group's weight in the total loss
# falls below 0, but a gap of 20 groups ends 2.6 % above its minimum; at 4, a gap of a group
# of 0.5 % stays open; at 8, neither, and a group of 2 % in a net does not overshoot
# (docs/studies/networks.md).
_MAX_PUSH = 8.0

_TINY = 1e-30  # a weight that is none


def limited_slopes(
    slopes: Tensor,
    shares: Tensor,
    loss_weight: float | Tensor,
    *,
    max_force: float,
    push: Push,
) -> Tensor:
    """A term's slopes in the groups' means, limited so that no group is pulled too hard.

    The force on a group is the term's weight in the total loss times its slope; the
    forces of a loss of weight 1 add up to 1 over all groups. All forces are scaled
    alike, which keeps their proportions, except those that push an error up.

    Args:
        slopes: Tensor `(num_groups,)`, the derivative of the unweighted term.
        shares: Tensor `(num_groups,)`, each group's share of the rows.
        loss_weight: The term's weight in the total loss, number or scalar tensor.
        max_force: Largest force on a group.
        push: `"both"`, or `"down"` for no force that makes an error larger.

    Returns:
        Tensor `(num_groups,)`, without gradient.
    """
    if max_force != float("inf"):
        weight = ops.abs(ops.cast(loss_weight, slopes.dtype))
        largest = weight * ops.max(ops.abs(slopes))
        slopes = max_force / ops.maximum(largest, max_force) * slopes
        if push == "both":
            # A term of weight 0 pulls at nothing, so nothing is limited.
            floor = -_MAX_PUSH * max_force * shares / ops.maximum(weight, _TINY)
            slopes = ops.maximum(slopes, floor)
    if push == "down":
        slopes = ops.maximum(slopes, 0.0)
    return ops.stop_gradient(slopes)
