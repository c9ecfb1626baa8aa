"""Which data take the compiled loop, and what Keras is told of them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from addloss_kit._checks import check_number
from addloss_kit.callbacks import follow_rows
from addloss_kit.data.batching import FollowEpoch, rows_in_memory
from addloss_kit.data.on_disk import any_on_disk
from addloss_kit.data.rows import Rows
from addloss_kit.data.streams import is_stream
from addloss_kit.model.block_executions import (
    BlockExecutions,
    can_run_in_blocks,
    rows_of_a_batch,
    steps_of,
)
from addloss_kit.model.checked_feeds import DEFAULT_BATCH_SIZE, from_disk
from addloss_kit.model.compiled_loop import Loop, can_loop
from addloss_kit.model.executions import (
    ExecutionCallbacks,
    Executions,
    Pace,
    TestCallbacks,
    has_batch_hook,
    is_plain_dict,
    nothing,
    resolve_steps,
    rows_of,
)

# Steps from which on XLA's compilation pays with TensorFlow: it takes a second or two
# longer than that of Keras's own step, which then takes about a millisecond longer each.
# Steps of former calls count: who trains again and again will do so once more. (On JAX
# Keras's own step is compiled as the loop is.)
WORTH_COMPILING = 1000
# XLA also saves time on each row, on so many about as much again as on the step: with
# 8,192 rows a batch it pays from some 300 steps on.
_ROWS_LIKE_A_STEP = 4096


@dataclasses.dataclass
class Speed:
    """What `compile` was asked for, and what is kept between one `fit` and the next.

    Args:
        jit_compile: `True`, `False` or `"auto"`.
        steps_per_execution: A number, or `"auto"`.
    """

    jit_compile: bool | str = "auto"
    steps_per_execution: int | str = "auto"

    def __post_init__(self) -> None:
        self.loops: dict[str, Loop] = {}
        self.paces: dict[tuple[str, int], Pace] = {}
        self.steps = {"train": 0.0, "test": 0.0}  # that were asked for

    @property
    def wants_loop(self) -> bool:
        """Whether to run many steps at a time, by XLA."""
        return self.jit_compile is not False and self.steps_per_execution != 1

    def count(self, kind: str, steps: int, batch_size: int) -> None:
        """Count steps that are asked for; whether XLA pays is decided by all so far."""
        self.steps[kind] += steps * (1.0 + batch_size / _ROWS_LIKE_A_STEP)

    def loop(self, model: Any, kind: str) -> Loop:
        """The loop over `"train"` or `"test"` steps, compiled once a `compile`."""
        if kind not in self.loops:
            self.loops[kind] = Loop(model, kind, self.jit_compile is True)
        return self.loops[kind]

    def pace(self, kind: str, batch_size: int) -> Pace:
        """What is known of the time of such a step."""
        return self.paces.setdefault((kind, batch_size), Pace())


def feed_training(model: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """What to hand to Keras's `fit`, and the executions that it drives, if any.

    Args:
        model: A `TrainingModel`.
        given: Arguments of `fit` by name.

    Returns:
        `(arguments, executions)`; `executions` is `None` where Keras takes the steps.
    """
    arguments = dict(given)
    if share := arguments.get("validation_split"):
        # Keras takes a share of 1.5 for a row number from the end.
        check_number(low=0.0, high=1.0, is_high_allowed=False, validation_split=share)
    x = arguments.get("x")
    rows = rows_of(x)
    is_dict = rows is None and _is_ours(model, arguments)
    if is_dict:
        arguments = _split_off_validation(arguments)
        batch_size = arguments.pop("batch_size", None) or DEFAULT_BATCH_SIZE
        if arguments.get("validation_batch_size") is None:
            arguments["validation_batch_size"] = batch_size
        arguments["validation_data"], _ = from_disk(
            model, arguments.get("validation_data"), arguments["validation_batch_size"]
        )
        shuffle = arguments.pop("shuffle", True)
        rows = _lent_rows(arguments["x"], batch_size, shuffle)
    elif is_stream(x) and not isinstance(x, keras.utils.PyDataset):
        # A stream has an order of its own; Keras warns of its own default.
        arguments.setdefault("shuffle", False)
    follow_rows(arguments, rows)
    if rows is None:
        is_hooked = has_batch_hook(arguments.get("callbacks"), "train")
        is_open = arguments.get("steps_per_epoch") is None and not is_hooked
        epochs = arguments.get("epochs", 1)
        blocks = _block_executions(model, "train", x, epochs) if is_open else None
        if blocks is None:
            return arguments, None
        return _driven(model, arguments, blocks), blocks
    callbacks = _with_callback(arguments.get("callbacks"), FollowEpoch(rows))
    arguments["callbacks"] = callbacks
    planned = rows.steps * arguments.get("epochs", 1)
    is_looped = _is_looped(model, "train", planned, rows.batch_size)
    is_looped = is_looped and arguments.get("steps_per_epoch") is None
    is_hooked = has_batch_hook(callbacks, "train")
    is_looped = is_looped and not (rows.is_on_disk and is_hooked) and _fits_loop(rows)
    if not is_looped:
        if is_dict:
            arguments["x"], arguments["shuffle"] = rows, False
        return arguments, None
    steps = resolve_steps(model.speed.steps_per_execution, is_hooked)
    epochs = arguments.get("epochs", 1) - arguments.get("initial_epoch", 0)
    executions = _executions_over(model, "train", rows, steps, epochs)
    return _driven(model, arguments, executions), executions


def _driven(
    model: Any, arguments: Mapping[str, Any], executions: Executions
) -> dict[str, Any]:
    """Arguments with which Keras's `fit` takes an execution for a step."""
    verbose = arguments.get("verbose", "auto")
    listed = ExecutionCallbacks(
        arguments.get("callbacks"),
        executions,
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=arguments.get("epochs", 1),
        model=model,
    )
    executions.progress = listed.show_progress if verbose != 0 else None
    return {
        **arguments,
        "x": nothing(),
        "shuffle": False,
        "callbacks": listed,
        "steps_per_epoch": executions.calls_per_epoch,
    }


def feed_validation(model: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The same for the validation data of a `fit`, after `feed_training`."""
    arguments = dict(given)
    data = arguments.get("validation_data")
    if isinstance(data, tuple) and len(data) == 1:
        data = data[0]
    is_open = arguments.get("validation_steps") is None
    is_hooked = has_batch_hook(arguments.get("callbacks"), "test")
    if not is_open or is_hooked:
        return arguments, None
    rows = rows_of(data)
    if rows is None and is_plain_dict(data) and model.loss is None:
        size = arguments.get("validation_batch_size") or arguments.get("batch_size")
        size = size or DEFAULT_BATCH_SIZE
        rows = _lent_rows(data, size, shuffle=False)
        arguments["validation_batch_size"] = size
    epochs = arguments.get("epochs", 1)
    executions = _test_executions(model, data, rows, epochs)
    if executions is None:
        return arguments, None
    arguments.update(validation_data=nothing(), validation_steps=1)
    return arguments, executions


def feed_evaluation(model: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The same for `evaluate`."""
    arguments = dict(given)
    x = arguments.get("x")
    callbacks = arguments.get("callbacks")
    is_open = arguments.get("steps") is None
    if not is_open or has_batch_hook(callbacks, "test"):
        return arguments, None
    rows = rows_of(x)
    if rows is None and is_plain_dict(x) and model.loss is None:
        size = arguments.get("batch_size") or DEFAULT_BATCH_SIZE
        rows = _lent_rows(x, size, shuffle=False)
    executions = _test_executions(model, x, rows, 1)
    if executions is None:
        return arguments, None
    arguments.pop("batch_size", None)
    verbose = arguments.get("verbose", "auto")
    listed = TestCallbacks(
        callbacks,
        executions,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=1,
        model=model,
    )
    executions.progress = listed.show_progress if verbose != 0 else None
    arguments.update(x=nothing(), steps=1, callbacks=listed)
    return arguments, executions


def as_keras_takes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `fit` or `evaluate`, with rows that no loop runs over as datasets."""
    arguments = dict(arguments)
    for name in ("x", "validation_data"):
        if isinstance(rows := arguments.get(name), Rows):
            from addloss_kit.data.row_dataset import RowDataset

            arguments[name] = RowDataset(rows)
    return arguments


@contextlib.contextmanager
def driving(model: Any, kind: str, executions: Executions | None) -> Iterator[None]:
    """Let executions replace Keras's function for `kind`, within the context.

    Without executions the function is Keras's, also within a context that replaced it:
    a callback may feed other data meanwhile.
    """
    name = f"{kind}_function"
    former = getattr(model, name)
    if executions is not None:
        setattr(model, name, executions.as_keras_function())
    elif getattr(former, "is_driven", False):
        setattr(model, name, None)
    else:
        yield
        return
    try:
        yield
    finally:
        setattr(model, name, former)


@contextlib.contextmanager
def taking(model: Any, *steps: int | None) -> Iterator[None]:
    """Let Keras take just the steps that it is asked for, within the context.

    It rounds them up to whole executions: of an endless stream it would train on more
    batches, and evaluate or predict more. Its functions have the number of steps per
    execution in them, so another number takes other functions.

    Args:
        model: A `TrainingModel`.
        *steps: What must be a whole number of executions; `None` for what need not. 1
            where Keras drives our executions, which it counts as steps. (A pass over test
            data is one, so there any number will do.)
    """
    former = model.steps_per_execution
    divisor = math.gcd(former, *(number for number in steps if number))
    if divisor == former:
        yield
        return
    names = ("train_function", "test_function", "predict_function")
    functions = {name: getattr(model, name) for name in names}

    def use(number: int, functions: Mapping[str, Any]) -> None:
        model.steps_per_execution = number
        for name in names:
            setattr(model, name, functions.get(name))

    use(divisor, {})
    try:
        yield
    finally:
        use(former, functions)


def _test_executions(
    model: Any, data: Any, rows: Rows | None, epochs: int
) -> Executions | None:
    if rows is None:
        return _block_executions(model, "test", data, epochs)
    is_looped = _is_looped(model, "test", rows.steps * epochs, rows.batch_size)
    if not is_looped or not _fits_loop(rows):
        return None
    return _executions_over(model, "test", rows, None)


def _fits_loop(rows: Rows) -> bool:
    """Whether the loop can take the rows: from disk, numbers only."""
    kinds = {array.dtype.kind for array in rows.arrays.values()}
    return not rows.is_on_disk or kinds <= set("biuf")


def _executions_over(
    model: Any, kind: str, rows: Rows, steps: int | None, epochs: int = 1
) -> Executions:
    loop = model.speed.loop(model, kind)
    if rows.is_on_disk:  # the loop would hold them all
        return BlockExecutions(loop, rows, rows.steps)
    return Executions(loop, rows, steps, model.speed.pace(kind, rows.batch_size), epochs)


def _block_executions(
    model: Any, kind: str, dataset: Any, epochs: int
) -> BlockExecutions | None:
    if not can_run_in_blocks(dataset):
        return None
    steps = steps_of(dataset)
    planned = int(steps or 0) * epochs
    if not _is_looped(model, kind, planned, rows_of_a_batch(dataset)):
        return None
    return BlockExecutions(model.speed.loop(model, kind), dataset, steps)


def _is_looped(model: Any, kind: str, steps: int, batch_size: int) -> bool:
    """Whether so many more steps are worth a compiled loop, and there can be one."""
    speed = model.speed
    if not speed.wants_loop or model.loss is not None or not can_loop(model):
        return False
    is_asked_for = speed.jit_compile is True or speed.steps_per_execution != "auto"
    is_cheap = kind in speed.loops or keras.backend.backend() == "jax"
    speed.count(kind, steps, batch_size)
    return is_asked_for or is_cheap or speed.steps[kind] >= WORTH_COMPILING


def _is_ours(model: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a dict of arrays is shuffled and batched here, not by Keras."""
    is_plain = is_plain_dict(arguments.get("x")) and model.loss is None
    shuffle = arguments.get("shuffle", True)
    backend = keras.backend.backend()
    # Without a loop Keras on JAX feeds arrays several times as fast as a `tf.data` dataset.
    is_fast = backend == "tensorflow" or (
        backend == "jax" and _is_looped(model, "train", 0, 0)
    )
    is_fast = is_fast or any_on_disk(arguments.get("x"))  # Keras copies it all
    return (
        is_plain
        and isinstance(shuffle, bool)
        and arguments.get("steps_per_epoch") is None
        and is_fast
    )


def _lent_rows(x: Mapping[str, Any], batch_size: int, shuffle: bool) -> Rows:
    """Rows for one call, in the memory of its arrays, which Keras would read, too."""
    return rows_in_memory(x, batch_size, shuffle=shuffle, is_lent=True)


def _split_off_validation(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The last rows as validation data, as Keras takes them."""
    arguments = dict(arguments)
    share = arguments.pop("validation_split", 0.0)
    if not share or arguments.get("validation_data") is not None:
        return arguments
    x = arguments["x"]
    count = next(iter(x.values())).shape[0]
    first = int(count * (1.0 - share))
    if first == 0 or first == count:
        raise ValueError(
            "`validation_split` must leave rows for both parts. "
            f"Received: validation_split={share}, rows={count}."
        )
    arguments["validation_data"] = {name: a[first:] for name, a in x.items()}
    arguments["x"] = {name: a[:first] for name, a in x.items()}
    return arguments


def _with_callback(callbacks: Any, callback: keras.callbacks.Callback) -> Any:
    """`callbacks`, in any form that `fit` takes, and one more."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(callback)
        return callbacks
    return [*keras.tree.flatten(callbacks), callback] if callbacks else [callback]
