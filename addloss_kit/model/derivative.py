"""derivative: a derivative of the prediction by the features, as a tensor of the graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import did_you_mean, received
from addloss_kit._types import Config, KerasTensor, Shape, Tensor
from addloss_kit.keras_internals.graph import output_names
from addloss_kit.model.endpoint import find_endpoint


def derivative(
    predictor: keras.Model, by: Any, *, output: str | None = None, name: str | None = None
) -> KerasTensor:
    r"""A derivative of the prediction by the features, for a loss to take.

    With `by=[0, 1]`, $\partial^2 \hat y / \partial x_0\, \partial x_1$ of each row and
    output. Give it to `build_training_model` as `tensors={"argument": derivative(...)}`,
    where a loss has that argument, or compute the value of `add_loss` from it. The
    gradient of the loss flows through it. Rows must not depend on one another: layers
    such as dropout and batch normalisation are in inference mode here.

    Each derivative runs the predictor once more; its cost grows with the order, not with
    the number of outputs.

    Args:
        predictor: The functional or Sequential model that is trained.
        by: What to differentiate by: a column of the features, or a list of several,
            one after another. A column is its number; with several Inputs, a pair
            `(input name, number)`.
        output: Name of the output, if there are several.
        name: Name of the layer in the graph.

    Returns:
        KerasTensor of the prediction's shape, in its units over those of the features.

    Raises:
        TypeError: If the predictor has no graph of its own, or `by` holds no columns.
        ValueError: If an Input, a column or an output is unknown.

    Example:
        >>> x = keras.Input((1,))
        >>> predictor = keras.Model(x, keras.layers.Dense(2, "tanh")(x))
        >>> derivative(predictor, by=[0, 0]).shape
        (None, 2)
    """
    if not isinstance(predictor, keras.Model) or not getattr(predictor, "inputs", None):
        raise TypeError(
            "`predictor` must be a functional model, or a Sequential that starts with "
            f"`keras.Input(shape)`. {received(predictor=type(predictor).__name__)}"
        )
    if find_endpoint(predictor) is not None:
        raise ValueError(
            "`predictor` must have no losses yet. Pass the model that is given to "
            f"`build_training_model`. {received(predictor=predictor.name)}"
        )
    # A Sequential has no `output` before it is called.
    is_sequential = isinstance(predictor, keras.Sequential)
    outputs = predictor.outputs[0] if is_sequential else predictor.output
    names = list(output_names(outputs))
    if output is None and len(names) > 1:
        raise ValueError(
            "`output` must say which output to differentiate, as there are several. "
            f"{received(output=None, outputs=names)}"
        )
    if output is not None and output not in names:
        raise ValueError(
            f"`output` must be one of {names}.{did_you_mean(output, names)} "
            f"{received(output=output)}"
        )
    place = 0 if output is None else names.index(output)
    prediction = predictor.outputs[place]
    layer = Derivative(
        _columns(by, predictor.inputs),
        place,
        list(prediction.shape[1:]),
        name=name,
        dtype=keras.config.floatx(),
    )
    layer.link(keras.Model(list(predictor.inputs), prediction))
    return layer(list(predictor.inputs))


@keras.saving.register_keras_serializable("addloss_kit")
class Derivative(keras.layers.Layer):
    """Runs the predictor on tangents; made by `derivative`.

    It holds the predictor without tracking it: the layers belong to the training model,
    which links them again when it is loaded.

    Args:
        columns: Pairs (number of the Input, column).
        place: Number of the output.
        prediction_shape: Shape of a row of the prediction.
    """

    def __init__(
        self,
        columns: Sequence[Sequence[int]],
        place: int,
        prediction_shape: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.columns = [list(pair) for pair in columns]
        self.place = place
        self.prediction_shape = list(prediction_shape)
        object.__setattr__(self, "predictor", None)

    def link(self, predictor: keras.Model) -> None:
        """Set the model to differentiate, from the list of Inputs to one output."""
        object.__setattr__(self, "predictor", predictor)

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        def predict(*features: Tensor) -> Tensor:
            return self.predictor(list(features), training=False)

        function: Callable[..., Tensor] = predict
        for number, column in self.columns:
            function = _directional(function, number, column)
        return function(*inputs)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return (input_shape[0][0], *self.prediction_shape)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "columns": self.columns,
            "place": self.place,
            "prediction_shape": self.prediction_shape,
        }


def link_derivatives(model: Any, predictions: Sequence[KerasTensor]) -> None:
    """Link the derivatives of a model to its predictions, which a reload has made anew.

    Raises:
        ValueError: If a derivative is of another model.
    """
    for layer in model.layers:
        if not isinstance(layer, Derivative):
            continue
        prediction = predictions[layer.place]
        if layer.predictor is None:
            inputs = keras.tree.flatten(layer.input)
            layer.link(keras.Model(inputs, prediction))
        elif layer.predictor.outputs[0] is not prediction:
            raise ValueError(
                f"`{layer.name}` must be a derivative of the predictor that is trained. "
                "Pass the same model to `derivative` and `build_training_model`. "
                f"{received(derivative_of=layer.predictor.outputs[0].name)}"
            )


def _columns(by: Any, inputs: Sequence[KerasTensor]) -> list[tuple[int, int]]:
    """Pairs (number of the Input, column)."""
    names = [tensor.name for tensor in inputs]
    is_one = not isinstance(by, (list, tuple)) or (len(by) == 2 and isinstance(by[0], str))
    columns = []
    for column in [by] if is_one else by:
        name = names[0]
        if isinstance(column, (list, tuple)) and len(column) == 2:
            name, column = column
        elif len(names) > 1:
            raise ValueError(
                f"`by` must name the Input, as there are several. Pass `('{name}', 0)`. "
                f"{received(by=by, inputs=names)}"
            )
        try:
            column = operator.index(column)
        except TypeError:
            raise TypeError(
                f"`by` must be a column's number, or a list of them. {received(by=by)}"
            ) from None
        if name not in names:
            raise ValueError(
                f"`by` names the Input `{name}`, but there are {names}."
                f"{did_you_mean(name, names)} {received(by=by)}"
            )
        number = names.index(name)
        width = inputs[number].shape[-1] if len(inputs[number].shape) == 2 else None
        if width is None or not 0 <= column < width:
            raise ValueError(
                "`by` must be a column of an Input `(batch, features)`. "
                f"{received(**{'by': by, f'{name}.shape': tuple(inputs[number].shape)})}"
            )
        columns.append((number, column))
    if not columns:
        raise ValueError(f"`by` must hold at least one column. {received(by=by)}")
    return columns


def _directional(
    function: Callable[..., Tensor], number: int, column: int
) -> Callable[..., Tensor]:
    """The derivative of a function of tensors along one column of one of them."""

    def along(*features: Tensor) -> Tensor:
        tangents = [ops.zeros_like(x) for x in features]
        x = features[number]
        unit = ops.one_hot(column, x.shape[-1], dtype=x.dtype)
        tangents[number] = ops.ones_like(x) * unit
        return _jacobian_product(function, features, tangents)

    return along


def _jacobian_product(
    function: Callable[..., Tensor], at: Sequence[Tensor], tangents: Sequence[Tensor]
) -> Tensor:
    """The product of a function's Jacobian with tangents."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jvp(function, tuple(at), tuple(tangents))[1]
    if backend == "torch":
        return _twice_in_torch(function, at, tangents)
    import tensorflow as tf

    # Reverse mode twice: uᵀJv is linear in u, and its gradient is Jv. XLA had not compiled
    # a step with `tf.autodiff.ForwardAccumulator` after a minute.
    with tf.GradientTape() as of_cotangent:
        with tf.GradientTape() as tape:
            tape.watch(list(at))
            value = function(*at)
        cotangent = tf.ones_like(value)
        of_cotangent.watch(cotangent)
        zero = {"unconnected_gradients": tf.UnconnectedGradients.ZERO}
        gradients = tape.gradient(value, list(at), cotangent, **zero)
        pairs = zip(gradients, tangents)
        product = tf.add_n([tf.reduce_sum(g * tangent) for g, tangent in pairs])
    return of_cotangent.gradient(product, cotangent, **zero)


def _twice_in_torch(
    function: Callable[..., Tensor], at: Sequence[Tensor], tangents: Sequence[Tensor]
) -> Tensor:
    """The same by reverse mode twice; `torch.func.jvp` uses what torch has deprecated."""
    import torch

    with torch.enable_grad():
        # Those that require it belong to a derivative around this one.
        at = [x if x.requires_grad else x.detach().requires_grad_() for x in at]
        value = function(*at)
        if not value.requires_grad:
            return torch.zeros_like(value)
        cotangent = torch.ones_like(value, requires_grad=True)
        options = {"create_graph": True, "allow_unused": True}
        gradients = torch.autograd.grad(value, at, cotangent, **options)
        product = (0.0 * cotangent).sum()
        for gradient, tangent in zip(gradients, tangents):
            if gradient is not None:
                product = product + (gradient * tangent).sum()
        return torch.autograd.grad(product, cotangent, create_graph=True)[0]
