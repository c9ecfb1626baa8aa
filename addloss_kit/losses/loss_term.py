"""LossTerm: one addend of the loss, with the arguments that it needs."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit._types import KerasTensor, Shape, Tensor, Totals
from addloss_kit.fields import SAMPLE_WEIGHT, Y_PRED, Y_TRUE, Field, snake_case
from addloss_kit.keras_internals.replicas import sum_over_replicas

# What the endpoint hands over by itself: never an Input.
_NOT_AN_INPUT = ("mask", "training")


class LossTerm(keras.layers.Layer):
    """One addend of the loss: `totals` of the batch, then the `value` of them.

    Write a subclass with two methods. The parameters of `totals` name what the
    term needs: `y_pred` is the prediction, each other one becomes an Input of
    its name (see `fields`), those with a default only where the model has it.
    Whatever `totals` returns must add up over rows: that is what makes the term
    exact over several devices. A term with state adds its weights in `build`.

    Args:
        name: The key under which the history shows it. Snake case of the class
            name if none is given.
        **kwargs: What a `keras.layers.Layer` takes (`dtype`).

    Call arguments:
        Those of `totals`, as arrays or tensors; so a term can be tried out, or
        given to `compile(loss=...)`, where `(y_true, y_pred)` is enough.

    Returns:
        A scalar tensor.

    Example:
        >>> class MeanAbsolute(LossTerm):
        ...     def totals(self, y_true, y_pred):
        ...         error = ops.abs(y_true - y_pred)
        ...         return ops.sum(error), ops.sum(ops.ones_like(error))
        >>> float(MeanAbsolute()([[1.0]], [[3.0]]))
        2.0
    """

    def __init__(self, *, name: str | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", keras.config.floatx())
        name = name or snake_case(type(self).__name__)
        super().__init__(name=name, autocast=False, **kwargs)
        self.supports_jit = True

    # What a subclass writes -------------------------------------------------

    def totals(self, *args: Any, **kwargs: Any) -> Totals:
        """Sums over the rows of the batch at hand: a nest of tensors."""
        raise NotImplementedError(
            f"A LossTerm must define `totals`. {received(term=type(self).__name__)}"
        )

    def value(self, totals: Totals, training: bool = False) -> Tensor:
        """The scalar loss from the totals; a weighted mean by default.

        An override with a parameter `loss_weight` is told the term's factor in the
        total loss: a number or a scalar tensor.
        """
        return ops.divide_no_nan(*totals)

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        """What the Input of `argument` must look like.

        Args:
            argument: A parameter of `totals`.
            prediction: The KerasTensor of the prediction.

        Returns:
            A `Field`; shape and dtype are `None` where the term has no wish.
        """
        return Field()

    def watched(self) -> dict[str, Tensor]:
        """State to show in the history beside the loss, by name."""
        return {}

    # What the kit uses ------------------------------------------------------

    @property
    def required_arguments(self) -> tuple[str, ...]:
        """Parameters of `totals` without a default."""
        return tuple(
            p.name
            for p in self._signature()
            if p.default is p.empty and p.name not in _NOT_AN_INPUT
        )

    @property
    def optional_arguments(self) -> tuple[str, ...]:
        """Parameters of `totals` with a default."""
        return tuple(
            p.name
            for p in self._signature()
            if p.default is not p.empty and p.name not in _NOT_AN_INPUT
        )

    def source(self, argument: str) -> str:
        """The name under which `argument` is fed; its own by default."""
        return argument

    def accepts(self, argument: str) -> bool:
        """Whether `totals` has a parameter of that name."""
        return any(p.name == argument for p in self._signature())

    def build(self, input_shape: Shape | None = None) -> None:
        """Create the state, if the term has any."""
        self.built = True

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, for state that every replica computes alike.

        It is a function of totals over all replicas, so the first one's will do.
        """
        kwargs.setdefault("aggregation", "only_first_replica")
        return super().add_weight(*args, **kwargs)

    def compute_loss(
        self, training: bool = False, loss_weight: float | Tensor = 1.0, /, **arguments: Any
    ) -> Tensor:
        """The value over the whole batch, on however many replicas it lies.

        Args:
            training: Whether in `fit`.
            loss_weight: The term's factor in the total loss.
            **arguments: Those of `totals`.
        """
        if self.accepts("training"):
            arguments["training"] = training
        totals = sum_over_replicas(self.totals(**arguments))
        options: dict[str, Any] = {}
        if "loss_weight" in inspect.signature(self.value).parameters:
            options["loss_weight"] = loss_weight
        return self.value(totals, training, **options)

    def __call__(self, *args: Any, training: bool = False, **kwargs: Any) -> Tensor:
        if not self.built:
            self.build()
        bound = inspect.Signature(self._signature()).bind(*args, **kwargs).arguments
        return self.compute_loss(
            training,
            1.0,
            **{name: _as_tensor(name, x, self.compute_dtype) for name, x in bound.items()},
        )

    def _signature(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.totals).parameters.values())


def _as_tensor(name: str, x: Tensor, dtype: str) -> Tensor:
    x = ops.convert_to_tensor(x)
    is_float = "float" in keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, dtype) if is_float or name in (Y_TRUE, Y_PRED, SAMPLE_WEIGHT) else x
