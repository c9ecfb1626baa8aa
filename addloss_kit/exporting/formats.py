"""The export formats: how each is written, and read back by its own runtime."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from addloss_kit._checks import did_you_mean, received
from addloss_kit._types import ExportFormat, KerasTensor
from addloss_kit.keras_internals.converters import litert_errors, onnx_errors
from addloss_kit.keras_internals.graph import all_layers, output_names

# From one named array per Input to flat predictions.
Predict: TypeAlias = Callable[[Mapping[str, np.ndarray]], list[Any]]

_HALF = ("float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to write a predictor.

    Args:
        suffix: Of the file name; `""` for a directory.
        write: Writes a model to a path.
        read: Loads the file at the path, written from the model, as a function of
            named arrays.
        tolerance: How far its predictions may be from the model's, as a fraction of
            the largest prediction.
        backends: The Keras backends that can write it.
        packages: What writing and reading need besides TensorFlow.
        errors: What the converter and the runtime raise, besides `ValueError`,
            `TypeError` and `RuntimeError`, for a model that the format cannot
            represent; a function, because it imports them.
    """

    suffix: str
    write: Callable[[keras.Model, pathlib.Path], None]
    read: Callable[[pathlib.Path, keras.Model], Predict]
    tolerance: float
    backends: tuple[str, ...] = ("tensorflow", "jax", "torch")
    packages: tuple[str, ...] = ()
    errors: Callable[[], tuple[type[Exception], ...]] = tuple


def choose_format(path: pathlib.Path, name: ExportFormat | None) -> Format:
    """The format with that name, or inferred from the path's suffix.

    Raises:
        ValueError: If it cannot be inferred, the two disagree, or the backend cannot
            write it.
        ImportError: If a package that it needs is missing.
    """
    by_suffix = {f.suffix: key for key, f in FORMATS.items() if f.suffix}
    name = name or by_suffix.get(path.suffix)
    if name not in FORMATS:
        raise ValueError(
            f"`format` must be one of {list(FORMATS)}, or `filepath` end in one of "
            f"{list(by_suffix)}.{did_you_mean(name or path.suffix[1:], FORMATS)} "
            f"{received(filepath=str(path), format=name)}"
        )
    chosen = FORMATS[name]
    if by_suffix.get(path.suffix, "tf_saved_model") != name:
        ending = f"end in `{chosen.suffix}`" if chosen.suffix else "name a directory"
        raise ValueError(
            f"For `format='{name}'` the `filepath` must {ending}. "
            f"{received(filepath=str(path))}"
        )
    backend = keras.backend.backend()
    if backend not in chosen.backends:
        raise ValueError(
            f"Keras cannot write `{name}` from the backend {backend}. Export to `.keras`, "
            "load that file with `KERAS_BACKEND=tensorflow`, and call the loaded model's "
            f"`export(path, format='{name}')`. {received(backend=backend)}"
        )
    # tf2onnx reads TensorFlow graphs; torch writes ONNX itself.
    needed = [p for p in chosen.packages if p != "tf2onnx" or backend == "tensorflow"]
    missing = [p for p in needed if importlib.util.find_spec(p) is None]
    if missing:
        raise ImportError(
            f"`format='{name}'` needs {missing}. Install them: "
            "`pip install 'addloss_kit[export]'`."
        )
    return chosen


def pack(
    rows: Mapping[str, np.ndarray],
    model: keras.Model,
    convert: Callable[..., Any] = keras.ops.convert_to_tensor,
) -> Any:
    """Named arrays as tensors in the model's input structure."""
    return keras.tree.map_structure(
        lambda tensor: convert(rows[tensor.name], tensor.dtype), model.input
    )


# Keras ------------------------------------------------------------------------


def _write_keras(model: keras.Model, path: pathlib.Path) -> None:
    model.save(path)


def _read_keras(path: pathlib.Path, model: keras.Model) -> Predict:
    loaded = keras.saving.load_model(path, compile=False)
    return lambda rows: keras.tree.flatten(loaded(pack(rows, model), training=False))


# SavedModel -------------------------------------------------------------------


def _write_saved_model(model: keras.Model, path: pathlib.Path) -> None:
    model = _served(model)
    signature = _signature(model)
    with _no_call_stacks():
        model.export(path, "tf_saved_model", verbose=False, input_signature=signature)


def _read_saved_model(path: pathlib.Path, model: keras.Model) -> Predict:
    import tensorflow as tf

    model = _served(model)
    loaded = tf.saved_model.load(str(path))
    return lambda rows: keras.tree.flatten(loaded.serve(pack(rows, model, tf.constant)))


@contextlib.contextmanager
def _no_call_stacks() -> Iterator[None]:
    """Keep JAX from writing the paths of this machine's source files into the graph."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    name = "jax_traceback_in_locations_limit"
    former = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, former)


def _saved_model_errors() -> tuple[type[Exception], ...]:
    import tensorflow as tf

    return (tf.errors.OpError,)


# ONNX -------------------------------------------------------------------------


def _write_onnx(model: keras.Model, path: pathlib.Path) -> None:
    model = _in_float32(_served(model))
    with _tensors_as_arrays(model):
        model.export(path, "onnx", verbose=False, input_signature=_signature(model))


@contextlib.contextmanager
def _tensors_as_arrays(model: keras.Model) -> Iterator[None]:
    """Attributes of layers that are tensors, as arrays.

    tf2onnx makes an input of each tensor that a layer brings along, such as the mean of
    `Normalization`. TensorFlow makes a constant of an array.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    found = [
        (layer, name, value)
        for layer in all_layers(model)
        for name, value in vars(layer).items()
        if tf.is_tensor(value)
        and hasattr(value, "numpy")
        and not isinstance(value, tf.Variable)
    ]
    try:
        for layer, name, value in found:
            object.__setattr__(layer, name, value.numpy())
        yield
    finally:
        for layer, name, value in found:
            object.__setattr__(layer, name, value)


def _read_onnx(path: pathlib.Path, model: keras.Model) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    others = [name for name in names if name not in {t.name for t in model.inputs}]
    if others:
        raise RuntimeError(
            f"The converter made Inputs of the constants {others}. Let the layer keep them "
            "as a weight or a NumPy array, not as a tensor."
        )
    # Outputs come in the model's order; the converter chooses their names.
    return lambda rows: session.run(None, {name: rows[name] for name in names})


# LiteRT -----------------------------------------------------------------------


def _write_litert(model: keras.Model, path: pathlib.Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    model = _in_float32(_served(model))
    model.export(path, "litert", verbose=False, input_signature=_signature(model))
    try:
        Interpreter(str(path)).allocate_tensors()
    except RuntimeError:
        # Recurrent layers use tensor lists, which LiteRT supports only for a known
        # batch size. A phone predicts one row at a time.
        signature = _signature(model, 1)
        model.export(path, "litert", verbose=False, input_signature=signature)


def _read_litert(path: pathlib.Path, model: keras.Model) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    details = run.get_input_details().values()
    takes_one_row = all(d["shape_signature"][0] == 1 for d in details)
    outputs = _served(model).output
    if isinstance(outputs, Mapping):
        names = sorted(outputs)
    else:
        names = [f"output_{i}" for i in range(len(keras.tree.flatten(outputs)))]

    def predict(rows: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        count = len(next(iter(rows.values())))
        size = 1 if takes_one_row else count
        parts = [
            run(**{name: array[i : i + size] for name, array in rows.items()})
            for i in range(0, count, size)
        ]
        return [np.concatenate([part[name] for part in parts]) for name in names]

    return predict


def _litert_errors() -> tuple[type[Exception], ...]:
    # Keras converts by way of a SavedModel.
    return (*litert_errors(), *_saved_model_errors())


# Shared helpers ---------------------------------------------------------------


def _signature(model: keras.Model, batch_size: int | None = None) -> list[Any]:
    def spec(tensor: KerasTensor) -> keras.InputSpec:
        shape = (tensor.shape[0] or batch_size, *tensor.shape[1:])
        return keras.InputSpec(tensor.dtype, shape, name=tensor.name)

    return [keras.tree.map_structure(spec, model.input)]


def _served(model: keras.Model) -> keras.Model:
    """The model with flat inputs and outputs: servers do not support nested ones."""
    if _is_flat(model.input) and _is_flat(model.output):
        return model
    outputs = dict(zip(output_names(model.output), model.outputs))
    return keras.Model({t.name: t for t in model.inputs}, outputs, name=model.name)


def _is_flat(structure: Any) -> bool:
    if isinstance(structure, Mapping):
        structure = list(structure.values())
    parts = structure if isinstance(structure, (list, tuple)) else [structure]
    return all(isinstance(part, keras.KerasTensor) for part in parts)


def is_half(model: keras.Model) -> bool:
    """Whether a layer of the model computes in half precision."""
    return any(layer.compute_dtype in _HALF for layer in all_layers(model))


def _in_float32(model: keras.Model) -> keras.Model:
    """The model, or a copy in single precision if it computes in half precision.

    Half precision is for training on accelerators. The weights are single anyway;
    LiteRT cannot multiply in half precision, and ONNX is slower with it on a CPU.
    """
    if not is_half(model):
        return model
    model = copy.deepcopy(model)
    for layer in all_layers(model):
        if layer.compute_dtype in _HALF:
            layer.dtype_policy = "float32"
    return model


FORMATS: dict[ExportFormat, Format] = {
    "keras": Format(".keras", _write_keras, _read_keras, tolerance=1e-5),
    "tf_saved_model": Format(
        "",
        _write_saved_model,
        _read_saved_model,
        tolerance=1e-5,
        backends=("tensorflow", "jax"),
        errors=_saved_model_errors,
    ),
    # Other kernels sum in a different order: single-precision rounding errors
    # accumulate over tens of layers.
    "onnx": Format(
        ".onnx",
        _write_onnx,
        _read_onnx,
        tolerance=1e-4,
        backends=("tensorflow", "torch"),
        packages=("onnx", "onnxruntime", "tf2onnx"),
        errors=onnx_errors,
    ),
    "litert": Format(
        ".tflite",
        _write_litert,
        _read_litert,
        tolerance=1e-4,
        backends=("tensorflow",),
        packages=("ai_edge_litert",),
        errors=_litert_errors,
    ),
}
