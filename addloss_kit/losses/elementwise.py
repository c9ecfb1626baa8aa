"""ElementwiseTerm: a value per element of the prediction, averaged as in Keras."""

from __future__ import annotations

from addloss_kit._checks import check_same_shape
from addloss_kit._types import KerasTensor, Tensor
from addloss_kit.fields import Y_TRUE, Field
from addloss_kit.functional.rows import last_axis_mean, without_masked
from addloss_kit.losses.keras_loss import reduction_totals
from addloss_kit.losses.loss_term import LossTerm
from addloss_kit.per_sample_error import as_keras_target


class ElementwiseTerm(LossTerm):
    """A term that averages `elements` over the outputs, then over the rows."""

    def elements(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The value of each element, for tensors of the same shape."""
        raise NotImplementedError

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        if argument != Y_TRUE:
            return Field()
        return Field(shape=tuple(prediction.shape[1:]), reason=self.name)

    def totals(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        sample_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        y_true = as_keras_target(y_true, y_pred)
        check_same_shape(y_true=y_true, y_pred=y_pred)
        y_true, y_pred = without_masked(mask, y_true, y_pred)
        values = last_axis_mean(self.elements(y_true, y_pred), mask)
        return reduction_totals(
            values, sample_weight, mask, "sum_over_batch_size", self, [y_pred]
        )
