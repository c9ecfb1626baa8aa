"""Multipliers of constraints on groups: state that training updates and saves."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from addloss_kit._types import Tensor

# With more groups, the history has the largest multiplier instead of one per group.
MAX_SHOWN_GROUPS = 10


def positive_part(x: Tensor, width: Tensor) -> Tensor:
    """`x - width` if positive, else 0: the multiplier of `x ≤ width`."""
    return ops.maximum(x - width, 0.0)


def soft_threshold(x: Tensor, width: Tensor) -> Tensor:
    """`x` shrunk towards 0 by `width`: the multiplier of `|x| ≤ width`.

    Its positive part is the multiplier of `x ≤ width`, its negative part that of
    `-x ≤ width`; at most one of them is active, so one number represents both.
    """
    return ops.sign(x) * ops.maximum(ops.abs(x) - width, 0.0)


class Multipliers:
    r"""An augmented Lagrangian: one multiplier per group, as weights of a layer.

    For constraints $x_k \le h$ the gradient is
    $\sum_k [\lambda_k + c\,(x_k - h)]_+ \nabla x_k$, and after the step
    $\lambda_k \leftarrow [\lambda_k + \eta\,(\hat x_k - h)]_+$. The two need
    different estimates of $x_k$: the bracket is not linear in $x_k$, so it needs a
    smooth one (a running mean); the sum over time is smooth by itself, so it needs
    one without lag or bias (`RunningTotals.excess`). In the bracket, $x_k$ is
    clipped to ±`limit`: the errors of an untrained model may be many times the
    bound, and optimizers such as Adam remember such large forces for a long time.

    Args:
        layer: The layer that owns the weights, which are saved with it.
        num_groups: Number of groups K.
        project: `positive_part` for $x \le h$, `soft_threshold` for $|x| \le h$.

    Reference:
        Nocedal, Wright, "Numerical Optimization" (2006), section 17.3.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        num_groups: int,
        project: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.project = project
        self.values = layer.add_weight(
            name="multipliers",
            shape=(num_groups,),
            initializer="zeros",
            trainable=False,
        )

    def forces(
        self, x: Tensor, width: float | Tensor, penalty: Tensor, limit: Tensor
    ) -> Tensor:
        """The factor of each `∇x_k` in the gradient, `(num_groups,)`."""
        near = ops.minimum(ops.maximum(x, -limit), limit)
        return self.project(self.values + penalty * near, penalty * width)

    def loss(
        self, x: Tensor, width: float | Tensor, penalty: Tensor, limit: Tensor
    ) -> Tensor:
        """The scalar whose gradient gives the forces.

        Args:
            x: The bounded quantity, `(num_groups,)`, with a gradient; 0 if absent.
            width: The bound h.
            penalty: c, in the units of the loss over those of x²; 0 if absent.
            limit: Where `x` is clipped, in its units.
        """
        here = ops.stop_gradient(x)
        force = self.forces(here, width, penalty, limit)
        near = ops.minimum(ops.maximum(here, -limit), limit)
        energy = ops.square(force) - ops.square(self.values)
        energy = ops.divide_no_nan(energy, 2.0 * penalty) + force * (here - near)
        # The energy has no gradient: all that it is computed from is without one.
        return ops.sum(energy + force * (x - here))

    def update(self, x: Tensor, width: float | Tensor, step: Tensor) -> None:
        """Take an ascent step; if `x` and `width` are 0, the multiplier is unchanged.

        So are all after a batch that overflowed, whose step a loss-scaling optimizer skips.
        """
        former = ops.convert_to_tensor(self.values)
        news = self.project(former + step * x, step * width)
        is_taken = ops.all(ops.isfinite(x))
        self.values.assign(ops.where(is_taken, news, former))

    def shown(self) -> dict[str, Tensor]:
        """Each group's multiplier, or the largest one if there are many groups."""
        return shown_by_group("multiplier", self.values)


def shown_by_group(name: str, values: Tensor) -> dict[str, Tensor]:
    """`<name>_0`, `<name>_1`, … for the history, or `largest_<name>` for many groups."""
    values = ops.convert_to_tensor(values)
    if values.shape[0] > MAX_SHOWN_GROUPS:
        return {f"largest_{name}": ops.max(ops.abs(values))}
    return {f"{name}_{k}": values[k] for k in range(values.shape[0])}
