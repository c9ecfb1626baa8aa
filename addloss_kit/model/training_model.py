"""TrainingModel: logs every term and metric, and refuses what Keras ignores."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit.data.batching import FollowEpoch
from addloss_kit.fields import Y_PRED, Field, role_of
from addloss_kit.keras_internals.graph import give_layer_names, input_tensors
from addloss_kit.keras_internals.replicas import separate_losses, unscale_loss
from addloss_kit.keras_internals.trainer import (
    BuiltByItself,
    forget_compiled,
    is_within_fit,
    replace_loss_tracker,
)
from addloss_kit.model.bindings import BoundMetric, Consumer
from addloss_kit.model.compiled_loop import looped
from addloss_kit.model.endpoint import LossEndpoint, endpoint_call, find_endpoint
from addloss_kit.model.loss_tracker import LossTracker
from addloss_kit.model.refusals import (
    check_arrays,
    is_stream,
    refuse_ignored,
    refuse_validation,
)
from addloss_kit.model.resumable import ResumableModel


@keras.saving.register_keras_serializable("addloss_kit")
class TrainingModel(ResumableModel, BuiltByItself):
    """A functional model that carries its losses in the graph.

    `build_training_model` and `add_loss` make it; there is no need to construct
    it by hand. It trains as any Keras model does, fed with one dict:
    `fit(pack_inputs(...), y=None)`. `compile` takes no `loss=`.

    The history shows, with `val_` too: `loss`, the weighted sum of the terms plus
    regularisers; every term under its own name, unweighted (as `<name>_loss`
    where a metric has that name); every metric.

    Args:
        inputs: List of Inputs.
        outputs: Outputs of a `LossEndpoint`, in any structure.
        name: Name of the model.
        bound_metrics: `BoundMetric`s, or their configs.
        predictor_inputs: Structure of the predictor's Inputs, with names as
            leaves; the exported model has it again.
        **kwargs: As in `keras.Model`.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any):
        bound_metrics = kwargs.pop("bound_metrics", None) or []
        predictor_inputs = kwargs.pop("predictor_inputs", None)
        give_layer_names(inputs)
        super().__init__(inputs, outputs, name=name, **kwargs)
        endpoint = find_endpoint(self)
        if endpoint is None:
            raise ValueError(
                "A TrainingModel needs a LossEndpoint in its graph. Use "
                f"`build_training_model` or `add_loss`. {received(name=self.name)}"
            )
        self.endpoint: LossEndpoint = endpoint
        # Past Keras's tracking, which would make a dict of another kind of it: the
        # exported model would warn of each plain dict that it is fed.
        object.__setattr__(self, "predictor_inputs", predictor_inputs)
        self._bound_metrics = tuple(BoundMetric.from_config(c) for c in bound_metrics)
        # In lists of their own, which Keras tracks: that is how they are reset.
        self.graph_metrics = [bound.metric for bound in self._bound_metrics]
        # `loss` is Keras's, and a good name for a person's function all the same.
        taken = {"loss", *(metric.name for metric in self.graph_metrics)}
        self._logged = {
            name: f"{name}_loss" if name in taken else name
            for name in _logged_names(endpoint)
        }
        # Replaces Keras's own in `compile`; past the tracking of attributes,
        # as Keras's is, so that it is no part of a saved model.
        tracker = LossTracker(list(self._logged.values()))
        object.__setattr__(self, "_own_loss_tracker", tracker)
        self.loops: dict[str, Any] = {}
        separate_losses(self)

    # What the model is made of ------------------------------------------------

    @property
    def bound_metrics(self) -> tuple[BoundMetric, ...]:
        """The metrics with their sources."""
        return self._bound_metrics

    @property
    def feature_names(self) -> list[str]:
        """The Inputs that the predictions are computed from, in their order."""
        predictions, _ = endpoint_call(self)
        needed = {id(tensor) for tensor in input_tensors(predictions)}
        return [tensor.name for tensor in self.inputs if id(tensor) in needed]

    @property
    def training_fields(self) -> dict[str, Field]:
        """The training-only Inputs by name: what each must hold."""
        predictions, _ = endpoint_call(self)
        prediction_of = dict(zip(self.endpoint.prediction_names, predictions))
        bound: list[tuple[Consumer, dict[str, str]]] = [
            *((b.term, b.sources) for b in self.endpoint.bound_terms),
            *((b.consumer, b.sources) for b in self._bound_metrics),
        ]
        specs = {tensor.name: tensor for tensor in self.inputs}
        fields: dict[str, Field] = {}
        for consumer, sources in bound:
            prediction = prediction_of.get(sources.get(Y_PRED, ""), predictions[0])
            for argument, source in sources.items():
                if source not in specs:
                    continue
                spec = specs[source]
                asked = consumer.field(argument, prediction)
                known = fields.get(source, Field())
                fields[source] = Field(
                    shape=tuple(spec.shape[1:]),
                    dtype=keras.backend.standardize_dtype(spec.dtype),
                    role=known.role or role_of(source, argument, prediction_of),
                    num_groups=asked.num_groups or known.num_groups,
                )
        return fields

    # Keras's hooks ------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        # As Keras does for `loss`: a partial batch counts by its rows.
        rows = ops.shape(keras.tree.flatten(x)[0])[0]
        values = self.endpoint.values
        terms = [values[name] for name in self._logged]
        self._own_loss_tracker.record([unscale_loss(loss), *terms], rows)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        named = self._name_inputs(x)
        predictions = keras.tree.flatten(y_pred)
        named.update(zip(self.endpoint.prediction_names, predictions))
        for bound in self._bound_metrics:
            bound.update(named)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _name_inputs(self, x: Any) -> dict:
        if isinstance(x, Mapping):
            given = dict(x)
        else:
            given = {t.name: v for t, v in zip(self.inputs, keras.tree.flatten(x))}
        named = {}
        for tensor in self.inputs:
            value = ops.convert_to_tensor(given[tensor.name])
            # `(n, 1)` fed to an Input of `(n,)`, or the other way: as Keras does.
            if len(value.shape) == len(tensor.shape) + 1 and value.shape[-1] == 1:
                value = ops.squeeze(value, -1)
            elif len(value.shape) == len(tensor.shape) - 1 and tensor.shape[-1] == 1:
                value = ops.expand_dims(value, -1)
            named[tensor.name] = ops.cast(value, tensor.dtype)
        return named

    def get_config(self) -> dict:
        config = super().get_config()
        config["bound_metrics"] = [bound.get_config() for bound in self._bound_metrics]
        config["predictor_inputs"] = self.predictor_inputs
        return config

    # What Keras would ignore, or misread, in silence --------------------------

    def compile(self, optimizer="rmsprop", loss=None, **kwargs):
        for name in ("metrics", "weighted_metrics"):
            if kwargs.get(name) and loss is None:
                raise ValueError(
                    f"`compile({name}=...)` compares outputs with `y`, which this model "
                    "does not take. Pass `metrics=` to `build_training_model`, or call "
                    f"`add_metric`. {received(**{name: kwargs[name]})}"
                )
        forget_compiled(self)
        super().compile(optimizer=optimizer, loss=loss, **kwargs)
        replace_loss_tracker(self, self._own_loss_tracker)
        self.loops = {}

    def compile_from_config(self, config):
        # As Keras does it for models that leave `compile` alone.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        given = _bind(super().fit, x, y, *args, **kwargs)
        refuse_ignored(self, "fit", given)
        refuse_validation(self, given.get("validation_data"))
        if hasattr(x, "element_spec") and "shuffle" not in given:
            # A dataset has an order of its own; Keras warns of its own default.
            given["shuffle"] = False
        if hasattr(x, "set_epoch"):
            given["callbacks"] = _with_callback(given.get("callbacks"), FollowEpoch(x))
        with (
            looped(self, "train", given, "x", "steps_per_epoch"),
            looped(self, "test", given, "validation_data", "validation_steps"),
        ):
            return super().fit(**given)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        if is_within_fit(kwargs):
            return super().evaluate(x, y, *args, **kwargs)
        given = _bind(super().evaluate, x, y, *args, **kwargs)
        refuse_ignored(self, "evaluate", given)
        with looped(self, "test", given, "x", "steps"):
            return super().evaluate(**given)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        given = _bind(super().train_on_batch, x, y, *args, **kwargs)
        refuse_ignored(self, "train_on_batch", given)
        with looped(self, "train", {}, "x", "steps"):
            return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        given = _bind(super().test_on_batch, x, y, *args, **kwargs)
        refuse_ignored(self, "test_on_batch", given)
        with looped(self, "test", {}, "x", "steps"):
            return super().test_on_batch(x, y, *args, **kwargs)

    def predict(self, x, **kwargs):
        if not is_stream(x):
            remedy = "Predict from features alone with `export_inference_model(model)`. "
            check_arrays(self, x, remedy)
        return super().predict(x, **kwargs)


def _logged_names(endpoint: LossEndpoint) -> list[str]:
    names = []
    for bound in endpoint.bound_terms:
        names.append(bound.name)
        names += [f"{bound.name}_{state}" for state in bound.term.watched()]
    return names


def _bind(method: Any, *args: Any, **kwargs: Any) -> dict:
    """The arguments of a call by name."""
    return inspect.signature(method).bind_partial(*args, **kwargs).arguments


def _with_callback(callbacks: Any, callback: keras.callbacks.Callback) -> Any:
    """`callbacks`, in any form that `fit` takes, and one more."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(callback)
        return callbacks
    return [*keras.tree.flatten(callbacks), callback] if callbacks else [callback]
