"""export_inference_model: cut at the endpoint, write, verify."""

from __future__ import annotations

import os
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import received
from addloss_kit.endpoint import endpoint_call, find_endpoint
from addloss_kit.fields import TRAINING_ONLY_ROLES, has_training_only_name
from addloss_kit.graph import input_tensors


def export_inference_model(
    training_model: keras.Model,
    filepath: str | os.PathLike | None = None,
    *,
    format: str | None = None,
) -> keras.Model:
    """The predictor alone: features in, predictions out.

    Args:
        training_model: What `build_training_model` or `add_loss` returned, or the
            same reloaded.
        filepath: Where to write it as well; `.keras`. The file is written beside
            its place, loaded again, compared, and only then moved there.
        format: `"keras"`; from the suffix if none.

    Returns:
        A Keras model that shares its weights with the training model: training on
        changes it. It owes nothing to this package.

    Raises:
        ValueError: If the model has no losses of this kit, or a prediction
            depends on a training-only Input.
        RuntimeError: If the written file does not predict as the model does.

    Example:
        >>> import addloss_kit as alk
        >>> predictor = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model = alk.build_training_model(predictor, "mse")
        >>> export_inference_model(model).predict(np.ones((3, 2)), verbose=0).shape
        (3, 1)
    """
    model = _cut(training_model)
    if filepath is not None:
        path = pathlib.Path(filepath)
        chosen = format or {".keras": "keras"}.get(path.suffix)
        if chosen != "keras" or path.suffix != ".keras":
            raise ValueError(
                "`filepath` must end in `.keras`. "
                f"{received(filepath=str(path), format=format)}"
            )
        _write_keras(model, path)
    return model


def _cut(training_model: Any) -> keras.Model:
    if not isinstance(training_model, keras.Model) or find_endpoint(training_model) is None:
        raise ValueError(
            "Only a model with losses in its graph can be cut. Pass what "
            "`build_training_model` or `add_loss` returned. "
            f"{received(training_model=type(training_model).__name__)}"
        )
    predictions, _ = endpoint_call(training_model)
    needed = {id(t) for t in input_tensors(predictions)}
    features = [t for t in training_model.inputs if id(t) in needed]
    roles = {n: f.role for n, f in training_model.training_fields.items()}
    for tensor in features:
        role = roles.get(tensor.name)
        if role in TRAINING_ONLY_ROLES or has_training_only_name(tensor.name):
            raise ValueError(
                f"The prediction depends on the training-only Input `{tensor.name}`, so it "
                "cannot be exported. Remove it from the predictor's features. "
                f"{received(inputs=[t.name for t in training_model.inputs])}"
            )
    by_name = {t.name: t for t in features}
    structure = training_model.predictor_inputs
    if structure is None:
        inputs: Any = features[0] if len(features) == 1 else features
    else:
        inputs = keras.tree.map_structure(lambda name: by_name[name], structure)
    positions = keras.tree.pack_sequence_as(
        training_model.output, list(range(len(predictions)))
    )
    outputs = keras.tree.map_structure(lambda i: predictions[i], positions)
    name = training_model.name.removesuffix("_training")
    return keras.Model(inputs, outputs, name=name)


def _write_keras(model: keras.Model, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(suffix=".keras", prefix=".", dir=path.parent)
    os.close(handle)
    try:
        model.save(scratch)
        loaded = keras.saving.load_model(scratch, compile=False)
        _check_equal(model, loaded, path)
        os.replace(scratch, path)
    finally:
        pathlib.Path(scratch).unlink(missing_ok=True)


def _check_equal(model: keras.Model, loaded: Any, path: pathlib.Path) -> None:
    rows = {t.name: _sample(t) for t in model.inputs}
    packed = keras.tree.map_structure(lambda t: rows[t.name], model.input)
    expected = keras.tree.flatten(model.predict(packed, verbose=0))
    actual = keras.tree.flatten(loaded.predict(packed, verbose=0))
    for one, other in zip(expected, actual):
        if not np.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True):
            raise RuntimeError(
                "The written model predicts other values than the one in memory; nothing was "
                f"written. {received(filepath=str(path), difference=np.abs(one - other).max())}"
            )


def _sample(tensor: Any) -> np.ndarray:
    """Four rows for an Input: small numbers, valid as ids too."""
    shape = (4, *(2 if size is None else size for size in tensor.shape[1:]))
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        return np.full(shape, "a", object)
    if "float" in dtype:
        return np.random.default_rng(0).normal(size=shape).astype("float32")
    return np.ones(shape, dtype)
