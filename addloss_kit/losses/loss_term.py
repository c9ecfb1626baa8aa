"""LossTerm: one term of the loss, with the arguments that it needs."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit._renamed import with_new_names
from addloss_kit._types import Config, KerasTensor, Shape, Tensor, Totals
from addloss_kit.fields import SAMPLE_WEIGHT, Y_PRED, Y_TRUE, Field, snake_case
from addloss_kit.keras_internals.replicas import sum_over_replicas

# Passed by the endpoint itself: never an Input.
_NOT_AN_INPUT = ("mask", "training")


class LossTerm(keras.layers.Layer):
    """One term of the loss: `totals` of the batch, and the `value` computed from them.

    A subclass defines these two methods. The parameters of `totals` name what the
    term needs: `y_pred` is the prediction; every other one becomes an Input of the
    same name (see `fields`), parameters with a default only if the model has that
    Input. Whatever `totals` returns must add up over rows, which makes the term
    exact on several devices. A term with state adds its weights in `build`.

    Args:
        name: Key in the history. Defaults to the class name in snake case.
        **kwargs: As in `keras.layers.Layer` (`dtype`).

    Call arguments:
        Those of `totals`, as arrays or tensors. So you can call a term directly, or
        pass it to `compile(loss=...)` if it needs only `(y_true, y_pred)`.

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

    # For subclasses to override ----------------------------------------------

    def totals(self, *args: Any, **kwargs: Any) -> Totals:
        """Sums over the rows of the batch: a nest of tensors."""
        raise NotImplementedError(
            f"A LossTerm must define `totals`. {received(term=type(self).__name__)}"
        )

    def value(self, totals: Totals, training: bool = False) -> Tensor:
        """The scalar loss from the totals; a weighted mean by default.

        An override with a parameter `loss_weight` receives the term's factor in the
        total loss: a number or a scalar tensor.
        """
        return ops.divide_no_nan(*totals)

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        """What the Input of `argument` must look like.

        Args:
            argument: A parameter of `totals`.
            prediction: The KerasTensor of the prediction.

        Returns:
            A `Field`; shape and dtype are `None` if unspecified.
        """
        return Field()

    def watched(self) -> dict[str, Tensor]:
        """State to log in the history besides the loss, by name."""
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
        """The name of the source of `argument`; by default, the same name."""
        return argument

    def accepts(self, argument: str) -> bool:
        """Whether `totals` has a parameter of that name."""
        return any(p.name == argument for p in self._signature())

    def build(self, input_shape: Shape | None = None) -> None:
        """Create the state, if the term has any."""
        self.built = True

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, for state that is the same on every replica.

        State depends only on totals over all replicas, so the first copy is enough.
        """
        kwargs.setdefault("aggregation", "only_first_replica")
        return super().add_weight(*args, **kwargs)

    @classmethod
    def from_config(cls, config: Config) -> Any:
        return super().from_config(with_new_names(cls, config))

    def compute_loss(
        self, training: bool = False, loss_weight: float | Tensor = 1.0, /, **arguments: Any
    ) -> Tensor:
        """The value over the whole batch, on any number of replicas.

        Args:
            training: Whether it is called in `fit`.
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
        signature = inspect.Signature(self._signature())
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(
                f"`{self.name}` takes {list(signature.parameters)}. Pass them, or train "
                "with `build_training_model`: `compile(loss=...)` has only "
                "`(y_true, y_pred)`. "
                f"Received: {error}."
            ) from None
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
