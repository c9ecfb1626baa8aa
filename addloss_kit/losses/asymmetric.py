"""AsymmetricAbsoluteError: over- and underestimates at different prices."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from addloss_kit._checks import check_number, received
from addloss_kit._renamed import renamed
from addloss_kit._types import Config, Tensor
from addloss_kit.losses.elementwise import ElementwiseTerm


@keras.saving.register_keras_serializable("addloss_kit.losses")
@renamed(over="over_price", under="under_price")
class AsymmetricAbsoluteError(ElementwiseTerm):
    r"""Absolute error with different prices for over- and underestimates.

    $$p_\text{over}\,(\hat y - y) \text{ where } \hat y > y, \quad
      \text{else } p_\text{under}\,(y - \hat y)$$

    averaged over the outputs, then over the rows. It is the quantile (pinball)
    loss up to a factor: the best constant prediction is the quantile of the
    targets at `under_price / (over_price + under_price)`, and with both prices 1 it is
    the mean absolute error.

    Args:
        over_price: Price per unit of overestimate, at least 0.
        under_price: Price per unit of underestimate, at least 0.
        name: Key in the history; `"asymmetric_absolute_error"`.

    Call arguments:
        y_true, y_pred: `(batch, outputs)`, or `(batch, time, outputs)`.
        sample_weight: Optional; see `functional.align_weight`. As in Keras's
            losses, the weighted errors are divided by the number of rows.

    Returns:
        Scalar in the units of `y_true`; the gradient is 0 at a perfect fit.

    Raises:
        ValueError: If a price is negative or not finite, or the shapes differ.

    Example:
        >>> loss = AsymmetricAbsoluteError(over_price=3.0, under_price=1.0)
        >>> float(loss([[0.0], [0.0]], [[2.0], [-2.0]]))
        4.0
    """

    def __init__(
        self, over_price: float = 3.0, under_price: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        prices: dict[str, Any] = {"over_price": over_price, "under_price": under_price}
        check_number(low=0.0, **prices)
        if over_price == under_price == 0:
            raise ValueError(
                "`over_price` and `under_price` must not both be 0, which would train "
                f"nothing. Give one a price. {received(**prices)}"
            )
        self.over_price = float(over_price)
        self.under_price = float(under_price)

    def elements(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        excess = y_pred - y_true
        return self.over_price * ops.relu(excess) + self.under_price * ops.relu(-excess)

    def get_config(self) -> Config:
        prices = {"over_price": self.over_price, "under_price": self.under_price}
        return {**super().get_config(), **prices}
