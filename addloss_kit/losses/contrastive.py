"""Contrastive: distances of pairs that are alike or not."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from addloss_kit._checks import check_positive
from addloss_kit._types import Config, Tensor
from addloss_kit.losses.elementwise import ElementwiseTerm


@keras.saving.register_keras_serializable("addloss_kit.losses")
class Contrastive(ElementwiseTerm):
    r"""Pulls pairs that are alike together, pushes others a margin apart.

    $$y\,d^2 + (1 - y)\,\max(0,\ m - d)^2$$

    with $d$ the distance that the model predicts for a pair, and $y = 1$ for a
    pair that is alike, else 0. (The paper writes $Y = 0$ for a pair that is
    alike, and a factor ½ before both parts: its value is half of this one.)

    Some texts give $y \log d + (1 - y) \log(1 - d)$ under the same name. That is a
    different loss: with $d$ a similarity in (0, 1), its negative is the binary
    cross-entropy of "alike", so use `"binary_crossentropy"` for that. Without the
    minus sign, as it is often printed, training makes the model worse.

    Args:
        margin: Distance beyond which a pair that is not alike costs nothing.
            Positive, in the units of the prediction.
        name: Key in the history; `"contrastive"`.

    Call arguments:
        y_true: `(batch, 1)`, 1 for a pair that is alike, 0 for one that is not.
        y_pred: `(batch, 1)`, distances of at least 0. A Euclidean distance needs a
            root whose gradient is finite at 0: `functional.safe_sqrt`.
        sample_weight: Optional; see `functional.align_weight`. As in Keras's
            losses, the weighted values are divided by the number of pairs.

    Returns:
        Scalar in the squared units of `y_pred`.

    Raises:
        ValueError: If the margin is not positive, or the shapes differ.

    Reference:
        Hadsell, Chopra, LeCun, "Dimensionality reduction by learning an
        invariant mapping", CVPR 2006, equation 4.

    Example:
        >>> loss = Contrastive(margin=1.0)
        >>> float(loss([[1.0], [0.0]], [[2.0], [0.5]]))  # (2² + 0.5²) / 2
        2.125
    """

    def __init__(self, margin: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # With a margin of 0, pairs that are not alike would cost nothing.
        check_positive(margin=margin)
        self.margin = float(margin)

    def elements(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        shortfall = ops.relu(self.margin - y_pred)
        return y_true * ops.square(y_pred) + (1.0 - y_true) * ops.square(shortfall)

    def get_config(self) -> Config:
        return {**super().get_config(), "margin": self.margin}
