"""Whatever `fit` and its like are fed is checked as `pack_inputs` checks arrays."""

from __future__ import annotations

from typing import Any

import keras

from addloss_kit._checks import received
from addloss_kit.data.balanced_groups import BalancedGroups
from addloss_kit.data.batch_check import BatchCheck
from addloss_kit.data.batching import make_dataset
from addloss_kit.data.on_disk import any_on_disk
from addloss_kit.data.row_groups import ShuffledGroups
from addloss_kit.data.streams import check_stream, is_stream
from addloss_kit.model.executions import rows_of

DEFAULT_BATCH_SIZE = 32  # Keras's


def check_feed(
    model: Any, method: str, x: Any, *, remedy: str = "", is_batch: bool = False
) -> tuple[Any, BatchCheck | None]:
    """Check arrays at once; let the batches of a stream be checked as they come.

    Args:
        model: A `TrainingModel`.
        method: Name of the calling method or argument, for messages.
        x: A dict by name, arrays in the order of the Inputs, or a stream.
        remedy: A further sentence for the message about missing entries.
        is_batch: Whether arrays are one batch of many.

    Returns:
        `(x, check)`: a dict of arrays, or the stream with its batches checked; the
        `BatchCheck` of a stream, else `None`.

    Raises:
        ValueError: If the data do not fit; see `InputChecker`.
        TypeError: If they are not numbers, or no stream that Keras takes.
    """
    if x is None:
        return None, None
    checker = model.input_checker
    rows = rows_of(x)
    if rows is not None:
        given = checker.by_name(rows.arrays)
        for name, array in checker.check(given).items():
            if len(array.shape) != given[name].ndim and array.shape[-1:] != (1,):
                raise ValueError(
                    f"`{name}` must have shape {checker.specs[name].shape}. Pack the "
                    "arrays with `pack_inputs` before `make_dataset`. "
                    f"{received(**{f'{name}.shape': given[name].shape})}"
                )
        return x, None
    if is_stream(x):
        check = BatchCheck(checker, method, model.loss is not None or method == "predict")
        if _is_parquet(x):
            x.check = check  # is told what goes wrong while reading
            if x.groups.reader.checker.specs == checker.specs:
                return x, check  # each row group is checked as it is read
        return check_stream(x, check), check
    return checker.check(checker.by_name(x, remedy), is_batch=is_batch), None


def check_validation(model: Any, data: Any) -> tuple[Any, BatchCheck | None]:
    """The same for `fit(validation_data=...)`, in any form that Keras takes."""
    if isinstance(data, (list, tuple)):
        x, check = check_feed(model, "validation_data", data[0])
        return (x, *data[1:]), check
    return check_feed(model, "validation_data", data)


def from_disk(model: Any, x: Any, batch_size: int | None) -> tuple[Any, int | None]:
    """A dict with arrays on disk as a dataset in their order; Keras would copy them all.

    Args:
        model: A `TrainingModel`.
        x: What `evaluate` and its like are fed.
        batch_size: Rows per batch; `None` for Keras's default.

    Returns:
        `(x, batch_size)`: the dataset and `None`; anything else as it is.
    """
    if model.loss is not None or not any_on_disk(x):
        return x, batch_size
    size = batch_size or DEFAULT_BATCH_SIZE
    # A seed, though unused: to draw one would change what comes after.
    return make_dataset(x, size, shuffle=False, seed=0), None


def follow_epoch(callbacks: Any, x: Any) -> Any:
    """Callbacks of a `fit` that also set the epoch of a `parquet_dataset`."""
    if not _is_parquet(x):
        return callbacks
    follow = _SetEpoch(x)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(follow)
        return callbacks
    return [*keras.tree.flatten(callbacks), follow] if callbacks else [follow]


class _SetEpoch(keras.callbacks.Callback):
    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.stream.set_epoch(epoch)


def _is_parquet(x: Any) -> bool:
    # Its class would import TensorFlow.
    return isinstance(getattr(x, "groups", None), (ShuffledGroups, BalancedGroups))
