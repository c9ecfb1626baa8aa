"""TrainingModel: logs every term and metric, and refuses what Keras ignores."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from addloss_kit._checks import received
from addloss_kit.compiled_loop import looped
from addloss_kit.data.batching import FollowEpoch
from addloss_kit.distribution import separate_losses, unscale_loss
from addloss_kit.endpoint import LossEndpoint, endpoint_call, find_endpoint
from addloss_kit.fields import SAMPLE_WEIGHT, Y_PRED, Y_TRUE, Field, role_of
from addloss_kit.functional.rows import align_weight, own_mask
from addloss_kit.graph import input_tensors
from addloss_kit.loss_tracker import LossTracker
from addloss_kit.resumable import ResumableModel


@dataclasses.dataclass
class BoundMetric:
    """A metric together with where the arguments of its `update_state` come from.

    Args:
        metric: The metric; its name is the key in the history.
        sources: For each argument, the name of the prediction or Input.
    """

    metric: keras.metrics.Metric
    sources: dict[str, str]

    def get_config(self) -> dict:
        metric = keras.saving.serialize_keras_object(self.metric)
        return {"metric": metric, "sources": self.sources}

    @classmethod
    def from_config(cls, config: Any) -> BoundMetric:
        if isinstance(config, BoundMetric):
            return config
        metric = keras.saving.deserialize_keras_object(config["metric"])
        return cls(metric, dict(config["sources"]))


@keras.saving.register_keras_serializable("addloss_kit")
class TrainingModel(ResumableModel):
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
        for tensor in keras.tree.flatten(inputs):
            # An Input without a name has two: the tensor's own, and the layer's,
            # which is all that a reload knows. Data is fed by the tensor's.
            tensor.name = tensor._keras_history.operation.name
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
        # In the place of Keras's own, see `compile`; past the tracking of attributes,
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
        consumers: list[tuple[Any, dict]] = [
            (bound.term, bound.sources) for bound in self.endpoint.bound_terms
        ]
        consumers += [(bound.metric, bound.sources) for bound in self._bound_metrics]
        specs = {tensor.name: tensor for tensor in self.inputs}
        fields: dict[str, Field] = {}
        for consumer, sources in consumers:
            prediction = prediction_of.get(sources.get(Y_PRED, ""), predictions[0])
            for argument, source in sources.items():
                if source not in specs:
                    continue
                spec = specs[source]
                wish = (
                    consumer.field(argument, prediction)
                    if hasattr(consumer, "field")
                    else Field()
                )
                known = fields.get(source, Field())
                fields[source] = Field(
                    shape=tuple(spec.shape[1:]),
                    dtype=keras.backend.standardize_dtype(spec.dtype),
                    role=known.role or role_of(source, argument, prediction_of),
                    num_groups=wish.num_groups or known.num_groups,
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
            given = {arg: named[src] for arg, src in bound.sources.items()}
            mask = own_mask(given[Y_PRED]) if Y_PRED in given else None
            if mask is not None and _takes_mask(bound.metric):
                given["mask"] = mask
            _align(given, bound.metric, mask)
            bound.metric.update_state(**given)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Under a strategy Keras draws a batch to build what is not built yet, and
        # averages it over the replicas: that fails where its rows do not divide by
        # them. Here all is built, unless `compile` was given a loss.
        if self._compile_loss is None and self._compile_metrics is None:
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

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
        # Keras keeps the loss of an earlier `compile` when the new one has none.
        self._compile_loss = None
        self.loss = None
        super().compile(optimizer=optimizer, loss=loss, **kwargs)
        object.__setattr__(self, "_loss_tracker", self._own_loss_tracker)
        self.loops = {}

    def compile_from_config(self, config):
        # As Keras does it for models that leave `compile` alone.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        given = _bind(super().fit, x, y, *args, **kwargs)
        self._check_call("fit", given)
        self._check_validation(given.get("validation_data"))
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
        if "_use_cached_eval_dataset" in kwargs:
            # Within `fit` Keras hands over the validation data once more, unpacked.
            return super().evaluate(x, y, *args, **kwargs)
        given = _bind(super().evaluate, x, y, *args, **kwargs)
        self._check_call("evaluate", given)
        with looped(self, "test", given, "x", "steps"):
            return super().evaluate(**given)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        given = _bind(super().train_on_batch, x, y, *args, **kwargs)
        self._check_call("train_on_batch", given)
        with looped(self, "train", {}, "x", "steps"):
            return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        given = _bind(super().test_on_batch, x, y, *args, **kwargs)
        self._check_call("test_on_batch", given)
        with looped(self, "test", {}, "x", "steps"):
            return super().test_on_batch(x, y, *args, **kwargs)

    def predict(self, x, **kwargs):
        if isinstance(x, Mapping) or not hasattr(x, "element_spec"):
            self._check_arrays(
                x, "Predict from features alone with `export_inference_model(model)`. "
            )
        return super().predict(x, **kwargs)

    def _check_call(self, method: str, given: Mapping[str, Any]) -> None:
        x, y = given.get("x"), given.get("y")
        if self.loss is None:
            for name, remedy in (
                (SAMPLE_WEIGHT, "Pass `sample_weight=` to `pack_inputs`."),
                ("class_weight", "Give each row its class's weight as `sample_weight`."),
            ):
                if given.get(name) is not None:
                    raise ValueError(
                        f"`{method}` would ignore `{name}=`, as the losses are in the "
                        f"graph. {remedy} {received(**{name: type(given[name]).__name__})}"
                    )
            if y is not None:
                raise ValueError(
                    f"`{method}` would ignore `y=`, as the target is an Input of the "
                    "model. Put it into the dict: `pack_inputs(model, x, y)`, then "
                    f"`y=None`. {received(y=type(y).__name__)}"
                )
        elif y is None and not _is_stream(x):
            raise ValueError(
                "`compile(loss=...)` needs `y`, but the losses are in the graph. Call "
                f"`compile` without `loss=`. {received(loss=self.loss, y=None)}"
            )
        if _is_stream(x):
            self._check_stream(method, x)
        elif x is not None:
            self._check_arrays(x, "")

    def _check_stream(self, method: str, x: Any) -> None:
        spec = getattr(x, "element_spec", None)
        if spec is None:
            return
        if isinstance(spec, tuple):
            if self.loss is None and any(part is not None for part in spec[1:]):
                raise ValueError(
                    f"`{method}` would ignore the second part of the dataset's tuples, "
                    "as the target is an Input of the model. Yield dicts, as "
                    f"`make_dataset(pack_inputs(...))` does. {received(element_spec=spec)}"
                )
            spec = spec[0]
        if isinstance(spec, Mapping):
            self._check_names(spec)

    def _check_validation(self, validation_data: Any) -> None:
        if validation_data is None:
            return
        if isinstance(validation_data, Mapping) or _is_stream(validation_data):
            validation_data = (validation_data,)
        names = ("x", "y", SAMPLE_WEIGHT)
        self._check_call("validation_data", dict(zip(names, validation_data)))

    def _check_names(self, names: Iterable[str], remedy: str = "") -> None:
        wanted = [tensor.name for tensor in self.inputs]
        given = list(names)
        missing = [name for name in wanted if name not in given]
        unknown = [name for name in given if name not in wanted]
        if missing or unknown:
            parts = [f"`{name}` is missing" for name in missing]
            parts += [f"`{name}` is not one of them" for name in unknown]
            raise ValueError(
                f"The data must have one entry for each Input {wanted}: "
                f"{'; '.join(parts)}. {remedy}{received(keys=given)}"
            )

    def _check_arrays(self, x: Any, remedy: str) -> None:
        if isinstance(x, Mapping):
            self._check_names(x, remedy)
            arrays = {name: x[name] for name in x}
        else:
            flat = list(x) if isinstance(x, (list, tuple)) else [x]
            if len(flat) != len(self.inputs):
                names = [tensor.name for tensor in self.inputs]
                raise ValueError(
                    f"The model has {len(names)} Inputs, {names}, so it takes a dict of "
                    f"as many arrays, from `pack_inputs`. {remedy}"
                    f"{received(arrays=len(flat))}"
                )
            arrays = {t.name: value for t, value in zip(self.inputs, flat)}
        rows = {}
        for name, array in arrays.items():
            shape = getattr(array, "shape", None)
            if shape is None or str(getattr(array, "dtype", "")) == "object":
                raise TypeError(
                    f"`{name}` must be an array. Convert it, or use `pack_inputs`, which "
                    f"does. {received(**{name: type(array).__name__})}"
                )
            rows[name] = shape[0] if len(shape) else None
        if len(set(rows.values())) > 1:
            raise ValueError(
                "All arrays must have the same number of rows. "
                f"{received(**{f'{k}.shape[0]': v for k, v in rows.items()})}"
            )


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


def _is_stream(x: Any) -> bool:
    """Whether `x` is a dataset or generator, not arrays."""
    if isinstance(x, (Mapping, Sequence)) or x is None or hasattr(x, "shape"):
        return False
    return hasattr(x, "__iter__") or hasattr(x, "__getitem__")


def _takes_mask(metric: Any) -> bool:
    return hasattr(metric, "field")


def _align(given: dict, metric: Any, mask: Any) -> None:
    """Bring a weight to the rank that a Keras metric wants."""
    if SAMPLE_WEIGHT not in given or hasattr(metric, "field"):
        return
    y_pred, y_true = given[Y_PRED], given[Y_TRUE]
    if len(given[SAMPLE_WEIGHT].shape) >= len(y_pred.shape) > 1:
        like = y_pred[..., 0] if len(y_true.shape) == len(y_pred.shape) else y_true
        given[SAMPLE_WEIGHT] = align_weight(given[SAMPLE_WEIGHT], like)
    if mask is not None:
        # A Keras metric multiplies the two as they are.
        steps = ops.ones_like(mask, dtype=given[SAMPLE_WEIGHT].dtype)
        given[SAMPLE_WEIGHT] = align_weight(given[SAMPLE_WEIGHT], steps) * steps
