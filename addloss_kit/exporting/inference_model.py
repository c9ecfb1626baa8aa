"""export_inference_model: extract, write to a temporary path, verify, move into place."""

from __future__ import annotations

import copy as copying
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from addloss_kit._checks import as_path, received
from addloss_kit._types import ExportFormat, Path
from addloss_kit.atomic import replacing
from addloss_kit.exporting.cut import cut_predictor
from addloss_kit.exporting.formats import choose_format
from addloss_kit.exporting.verify import (
    check_predictions,
    draw_rows,
    name_rows,
    predictions,
)

# What Keras writes into a SavedModel directory.
_SAVED_MODEL_PARTS = {"saved_model.pb", "fingerprint.pb", "variables", "assets"}


def export_inference_model(
    training_model: keras.Model,
    filepath: Path | None = None,
    *,
    format: ExportFormat | None = None,
    outputs: Sequence[str] | None = None,
    copy: bool = False,
    sample: Any = None,
) -> keras.Model:
    """Extract the predictor: features in, predictions out.

    An exported file is reloaded with its own runtime, and its predictions are compared
    with the model's before it replaces an existing one: after an error, a full disk or
    a kill, the previous file or directory is unchanged.

    Args:
        training_model: The model that `build_training_model` or `add_loss` returned,
            or the same model reloaded.
        filepath: Where to write the predictor, on a local disk. Omit it to only
            return the model.
        format: `"keras"`, `"tf_saved_model"` (a directory), `"onnx"` or
            `"litert"`. By default inferred from the suffix: `.keras`, `.onnx` or
            `.tflite`.
        outputs: Names of the outputs to export, if there are several. Defaults to
            all. Features that only the others need are omitted.
        copy: Whether the returned model has its own weights. Otherwise it shares
            them: further training changes its predictions.
        sample: A few rows of features, as the predictor takes them, to compare the
            predictions on. Defaults to four random rows: normal numbers, ids 0 and
            1, the string `"a"`.

    Returns:
        A Keras model, not compiled. It does not depend on this package.

    Raises:
        ValueError: If the model has no losses of this kit, a prediction depends on
            a training-only Input, an output is unknown, or the format is unclear.
        ImportError: If the format needs a package that is not installed.
        RuntimeError: If the format cannot represent the model, or the written file
            predicts different values: by more than 1e-5 of the largest prediction
            for `"keras"` and `"tf_saved_model"`, 1e-4 for `"onnx"` and `"litert"`,
            1e-2 if the model computes in half precision.

    Example:
        >>> import addloss_kit as alk, numpy as np
        >>> predictor = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model = alk.build_training_model(predictor, "mse")
        >>> export_inference_model(model).predict(np.ones((3, 2)), verbose=0).shape
        (3, 1)
    """
    model = cut_predictor(training_model, outputs)
    if copy:
        # Keras copies through its own saving format, so lookup tables are included.
        model = copying.deepcopy(model)
    if filepath is not None:
        write_model(model, filepath, format=format, sample=sample)
    elif format is not None:
        raise ValueError(f"`format` needs a `filepath`. {received(format=format)}")
    return model


def write_model(
    model: keras.Model,
    filepath: Path,
    *,
    format: ExportFormat | None = None,
    sample: Any = None,
) -> None:
    """Write a predictor, and verify the file before it replaces an existing one.

    Args and errors are those of `export_inference_model`.
    """
    if "://" in as_path(filepath=filepath):
        raise ValueError(
            "`filepath` must be on a local disk, where a move is a single step. Write it "
            f"there, then copy it. {received(filepath=filepath)}"
        )
    path = pathlib.Path(filepath).resolve()
    chosen = choose_format(path, format)
    _check_replaceable(path, is_directory=not chosen.suffix)
    rows = draw_rows(model) if sample is None else name_rows(sample, model)
    expected = predictions(model, rows)
    refusals: tuple[type[Exception], ...] = (
        TypeError,
        ValueError,
        RuntimeError,
        *chosen.errors(),
    )
    with replacing(path) as place:
        try:
            chosen.write(model, place)
            actual = chosen.read(place, model)(rows)
            check_predictions(actual, expected, model, rows, chosen.tolerance)
        except refusals as error:
            raise RuntimeError(
                f"The model could not be exported; {path} is unchanged. {error}"
            ) from error


def _check_replaceable(path: pathlib.Path, *, is_directory: bool) -> None:
    """Raise if replacing `path` would destroy more than a previous export."""
    if not path.exists():
        return
    if path.is_dir() != is_directory:
        kinds = {True: "a directory", False: "a file"}
        raise ValueError(
            f"The export is {kinds[is_directory]}, but `filepath` is "
            f"{kinds[path.is_dir()]}. Choose another path. {received(filepath=str(path))}"
        )
    others = {part.name for part in path.iterdir()} if is_directory else set()
    others -= _SAVED_MODEL_PARTS
    if others:
        raise ValueError(
            "`filepath` must be a new or empty directory, or a SavedModel to replace. "
            f"{received(filepath=str(path), other_files=sorted(others)[:3])}"
        )
