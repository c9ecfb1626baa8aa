"""TrainingModel: logs every term and metric, and refuses what Keras ignores."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit._types import Auto, Config, Tensor
from addloss_kit.callbacks import resumed
from addloss_kit.data.checking import InputChecker, InputSpec
from addloss_kit.data.deferred_dataset import undeferred
from addloss_kit.data.streams import telling
from addloss_kit.fields import GROUP_IDS, SAMPLE_WEIGHT, Y_PRED, Y_TRUE, Field, role_of
from addloss_kit.keras_internals.graph import give_layer_names, input_tensors
from addloss_kit.keras_internals.replicas import separate_losses, unscale_loss
from addloss_kit.keras_internals.trainer import (
    BuiltByItself,
    KeptOnJax,
    forget_compiled,
    is_within_fit,
    keeping_state,
    replace_loss_tracker,
)
from addloss_kit.model.bindings import BoundMetric, Consumer
from addloss_kit.model.checked_feeds import (
    check_feed,
    check_validation,
    follow_epoch,
    from_disk,
)
from addloss_kit.model.derivative import link_derivatives
from addloss_kit.model.endpoint import LossEndpoint, endpoint_call, find_endpoint
from addloss_kit.model.feeding import (
    Speed,
    as_keras_takes,
    driving,
    feed_evaluation,
    feed_training,
    feed_validation,
    taking,
)
from addloss_kit.model.history_names import history_names
from addloss_kit.model.loss_tracker import LossTracker
from addloss_kit.model.loss_weights import LossWeights
from addloss_kit.model.refusals import (
    refuse_ignored,
    refuse_unsavable,
    refuse_validation,
    warn_of_batch_size,
)
from addloss_kit.model.resumable import ResumableModel

_EXPORT_IT = "Predict from features alone with `export_inference_model(model)`. "


@keras.saving.register_keras_serializable("addloss_kit")
class TrainingModel(ResumableModel, BuiltByItself, KeptOnJax):
    """A functional model that carries its losses in the graph.

    `build_training_model` and `add_loss` create it; do not construct it directly.
    It trains like any Keras model, fed with one dict:
    `fit(pack_inputs(...), y=None)`. `compile` takes no `loss=`.

    The history, including its `val_` part, contains: `loss`, the weighted sum of
    the terms plus regularisers; every term under its own name, unweighted (as
    `<name>_loss` if a metric has that name); every metric.

    Args:
        inputs: List of Inputs.
        outputs: Outputs of a `LossEndpoint`, in any structure.
        name: Name of the model.
        bound_metrics: `BoundMetric`s, or their configs.
        predictor_inputs: Structure of the predictor's Inputs, with names as
            leaves, which the exported model gets back.
        **kwargs: As in `keras.Model`.
    """

    # `*args, **kwargs`, under these names: the only signature with which every Keras from
    # 3.8 on builds a subclass from its config as a functional model. Below 3.15 Keras
    # compares it with that of `Functional.__init__`, which a decorator hides.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound_metrics = kwargs.pop("bound_metrics", None) or []
        predictor_inputs = kwargs.pop("predictor_inputs", None)
        give_layer_names(args[0] if args else kwargs["inputs"])
        super().__init__(*args, **kwargs)
        endpoint = find_endpoint(self)
        if endpoint is None:
            raise ValueError(
                "A TrainingModel needs a LossEndpoint in its graph. Use "
                f"`build_training_model` or `add_loss`. {received(name=self.name)}"
            )
        self.endpoint: LossEndpoint = endpoint
        link_derivatives(self, endpoint_call(self)[0])
        # Bypasses Keras's tracking, which would replace a dict by its own type: the
        # exported model would warn about every plain dict that it is fed.
        object.__setattr__(self, "predictor_inputs", predictor_inputs)
        self._bound_metrics = tuple(BoundMetric.from_config(c) for c in bound_metrics)
        # Keras tracks this list, so it resets the metrics.
        self.graph_metrics = [bound.metric for bound in self._bound_metrics]
        self._logged = history_names(endpoint, self._bound_metrics)
        # Replaces Keras's own in `compile`. Like Keras's, it bypasses attribute
        # tracking, so that it is not part of a saved model.
        tracker = LossTracker(list(self._logged.values()))
        object.__setattr__(self, "_own_loss_tracker", tracker)
        self._set_speed(Speed())
        separate_losses(self)

    # What the model is made of ------------------------------------------------

    @property
    def bound_metrics(self) -> tuple[BoundMetric, ...]:
        """The metrics with their sources."""
        return self._bound_metrics

    @property
    def loss_weights(self) -> LossWeights:
        """The weight of each term in the total loss, by name: to read and to set.

        `model.loss_weights["group_gap"] = 3.0` holds from the next step on, without a
        new `compile`, and is saved with the model.
        """
        self.take_back_state()
        return self.endpoint.loss_weights

    @loss_weights.setter
    def loss_weights(self, weights: Mapping[str, float]) -> None:
        self.loss_weights.update(weights)

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
                    num_classes=known.merge_classes(asked)["num_classes"],
                    ignore_class=known.merge_classes(asked)["ignore_class"],
                    reason=known.reason or asked.reason,
                )
        return fields

    @functools.cached_property
    def input_checker(self) -> InputChecker:
        """What each Input takes, and the check of arrays against it."""
        fields, features = self.training_fields, self.feature_names
        return InputChecker(
            {
                tensor.name: InputSpec(
                    shape=tuple(tensor.shape),
                    dtype=keras.backend.standardize_dtype(tensor.dtype),
                    field=_of_feature(fields[tensor.name])
                    if tensor.name in features and tensor.name in fields
                    else fields.get(tensor.name, Field()),
                    is_sparse=getattr(tensor, "sparse", False),
                )
                for tensor in self.inputs
            }
        )

    # Keras's hooks ------------------------------------------------------------

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        # As Keras does for `loss`: weight each batch by its number of rows.
        rows = ops.shape(keras.tree.flatten(x)[0])[0]
        values = self.endpoint.values
        terms = [values[name] for name in self._logged]
        self._own_loss_tracker.record([unscale_loss(loss), *terms], rows)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Tensor]:
        named = self._name_inputs(x)
        predictions = keras.tree.flatten(y_pred)
        named.update(zip(self.endpoint.prediction_names, predictions))
        for bound in self._bound_metrics:
            bound.update(named)
        results: dict[str, Tensor] = super().compute_metrics(x, y, y_pred, sample_weight)
        return results

    def _name_inputs(self, x: Any) -> dict[str, Tensor]:
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

    def get_config(self) -> Config:
        config: Config = super().get_config()
        config["bound_metrics"] = [bound.get_config() for bound in self._bound_metrics]
        config["predictor_inputs"] = self.predictor_inputs
        return config

    # What Keras would silently ignore or misread -------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *,
        jit_compile: bool | Auto = "auto",
        steps_per_execution: int | Auto = "auto",
        **kwargs: Any,
    ) -> None:
        """Configure training, as in Keras except for two defaults.

        Args:
            optimizer: As in Keras.
            loss: Omit it: the losses are in the graph.
            jit_compile: `"auto"` runs the steps of `fit` and `evaluate` over in-memory
                data as one loop compiled by XLA, on TensorFlow and JAX; a model that XLA
                cannot compile runs as a TensorFlow graph, with one warning. `True` makes
                that an error. `False` leaves the steps to Keras.
            steps_per_execution: Steps between callback calls. `"auto"` runs as many as
                take a tenth of a second, or 1 if a callback has a per-batch hook. 1 leaves
                the steps to Keras.
            **kwargs: As in Keras.

        Raises:
            ValueError: If metrics or loss weights are given without a `loss`: they are
                for outputs and a `y` that this model does not take.
        """
        for name in ("metrics", "weighted_metrics"):
            if kwargs.get(name) and loss is None:
                raise ValueError(
                    f"`compile({name}=...)` compares outputs with `y`, which this model "
                    "does not take. Pass `metrics=` to `build_training_model`, or call "
                    f"`add_metric`. {received(**{name: kwargs[name]})}"
                )
        if kwargs.get("loss_weights") is not None and loss is None:
            raise ValueError(
                "`compile(loss_weights=...)` would be ignored, because the losses are in "
                "the graph. Pass `build_training_model(loss_weights=...)`, or set "
                "`model.loss_weights['name'] = 1.0`. "
                f"{received(loss_weights=kwargs['loss_weights'])}"
            )
        forget_compiled(self)
        self._set_speed(Speed(jit_compile, steps_per_execution))
        is_auto = steps_per_execution == "auto"
        super().compile(
            optimizer=optimizer,
            loss=loss,
            jit_compile=jit_compile,
            steps_per_execution=1 if is_auto else steps_per_execution,
            **kwargs,
        )
        replace_loss_tracker(self, self._own_loss_tracker)

    def _set_speed(self, speed: Speed) -> None:
        # Bypasses Keras's attribute tracking: it is not part of a saved model.
        object.__setattr__(self, "speed", speed)

    def get_compile_config(self) -> Config | None:
        config: Config | None = super().get_compile_config()
        if config:
            # Keras stores the resolved values; keep the requested ones.
            config["steps_per_execution"] = self.speed.steps_per_execution
            config["jit_compile"] = self.speed.jit_compile
        return config

    def compile_from_config(self, config: Config) -> None:
        # As Keras does it for models that leave `compile` alone.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.build_optimizer()

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        x = undeferred(x)
        given = _bind(super().fit, x, y, *args, **kwargs)
        if "validation_data" in given:
            given["validation_data"] = undeferred(given["validation_data"])
        refuse_ignored(self, "fit", given)
        refuse_validation(self, given.get("validation_data"))
        refuse_unsavable(self, given.get("callbacks"))
        warn_of_batch_size("fit", given)
        given["x"], train_check = check_feed(self, "fit", x)
        given["callbacks"] = follow_epoch(given.get("callbacks"), x)
        validation_check = None
        if given.get("validation_data") is not None:
            found = check_validation(self, given["validation_data"])
            given["validation_data"], validation_check = found
            size = given.get("validation_batch_size") or given.get("batch_size")
            given["validation_data"], _ = from_disk(self, given["validation_data"], size)
        given, training = feed_training(self, resumed(self, given))
        given, validation = feed_validation(self, given)
        with (
            telling(train_check, validation_check),
            keeping_state(self),
            taking(
                self,
                given.get("steps_per_epoch") if training is None else 1,
                given.get("validation_steps") if validation is None else None,
            ),
            driving(self, "train", training),
            driving(self, "test", validation),
        ):
            return super().fit(**as_keras_takes(given))

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        if is_within_fit(kwargs):
            return super().evaluate(x, y, *args, **kwargs)
        x = undeferred(x)
        given = _bind(super().evaluate, x, y, *args, **kwargs)
        refuse_ignored(self, "evaluate", given)
        warn_of_batch_size("evaluate", given)
        given["x"], check = check_feed(self, "evaluate", x)
        given["x"], size = from_disk(self, given["x"], given.get("batch_size"))
        given["batch_size"] = size
        given, executions = feed_evaluation(self, given)
        with (
            telling(check),
            keeping_state(self),
            taking(self, given.get("steps") if executions is None else None),
            driving(self, "test", executions),
        ):
            return super().evaluate(**as_keras_takes(given))

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        given = _bind(super().train_on_batch, x, y, *args, **kwargs)
        refuse_ignored(self, "train_on_batch", given)
        x, _ = check_feed(self, "train_on_batch", x, is_batch=True)
        with keeping_state(self), driving(self, "train", None):
            return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        given = _bind(super().test_on_batch, x, y, *args, **kwargs)
        refuse_ignored(self, "test_on_batch", given)
        x, _ = check_feed(self, "test_on_batch", x, is_batch=True)
        with keeping_state(self), driving(self, "test", None):
            return super().test_on_batch(x, y, *args, **kwargs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        warn_of_batch_size("predict", {"x": x, "batch_size": batch_size})
        x, check = check_feed(self, "predict", x, remedy=_EXPORT_IT)
        x, batch_size = from_disk(self, x, batch_size)
        with telling(check), keeping_state(self), taking(self, steps):
            return super().predict(x, batch_size, verbose, steps, callbacks)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else kwargs.get("inputs")
        if not isinstance(x, Mapping) and x is not None:
            self.input_checker.by_name(x, _EXPORT_IT)
        return super().__call__(*args, **kwargs)

    def add_loss(self, loss: Any) -> None:
        """For tensors within `call`, as Keras has it; of the graph, use `add_loss`."""
        if any(isinstance(part, keras.KerasTensor) for part in keras.tree.flatten(loss)):
            raise NotImplementedError(
                "Keras 3 has no `model.add_loss` in functional models. Use the function, "
                "`model = addloss_kit.add_loss(model, value)`. "
                f"{received(loss=type(loss).__name__)}"
            )
        super().add_loss(loss)

    def predict_on_batch(self, x: Any) -> Any:
        x, _ = check_feed(self, "predict_on_batch", x, remedy=_EXPORT_IT, is_batch=True)
        with keeping_state(self):
            return super().predict_on_batch(x)


def _bind(method: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name."""
    return inspect.signature(method).bind_partial(*args, **kwargs).arguments


def _of_feature(field: Field) -> Field:
    """What a feature that a loss uses too must hold: it may be infinite or missing."""
    is_known = field.role in (Y_TRUE, SAMPLE_WEIGHT, GROUP_IDS)
    return field if is_known else dataclasses.replace(field, role="")
