"""tradeoff_curve: train over a range of loss weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import keras
import numpy as np

from addloss_kit._checks import (
    as_verbosity,
    check_number,
    check_positive_int,
    named,
    received,
)
from addloss_kit._types import ErrorLike
from addloss_kit.data.batching import make_dataset
from addloss_kit.fields import GROUP_IDS
from addloss_kit.model.training_model import TrainingModel
from addloss_kit.reports.held_out import HeldOut
from addloss_kit.reports.tradeoff import TradeoffCurve
from addloss_kit.reports.tradeoff_point import TradeoffPoint, merged
from addloss_kit.reports.trials import BuiltTrials, CompiledTrials, Plan, Trials

_VALUES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@overload
def tradeoff_curve(
    build: Callable[[float], Any],
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    values: Sequence[float] = ...,
    **options: Any,
) -> TradeoffCurve: ...


@overload
def tradeoff_curve(
    model: TrainingModel,
    term: str,
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    values: Sequence[float] = ...,
    **options: Any,
) -> TradeoffCurve: ...


def tradeoff_curve(*args: Any, **options: Any) -> TradeoffCurve:
    """Train over a range of loss weights, and compare accuracy with the gap.

    `tradeoff_curve(model, "group_gap", train, validation, values)` varies the weight of
    a term of a model that is compiled once; `tradeoff_curve(build, train, validation,
    values)` builds a model for each value, which may be a bound, too.

    First `start` is trained from scratch: the solution without the group loss. Each of
    `values` then starts from that solution's weights, with its own optimizer and loss
    state. Training stops when the validation loss has not improved for `patience`
    epochs, and keeps the best epoch's weights.

    The validation rows decide when to stop and which point to choose, so evaluate
    the chosen model on other rows, with `group_report`; or let other rows decide which
    point keeps a bound, with `certify`.

    Args:
        model: A compiled `TrainingModel` with one output. It is trained from the weights
            that it has, and has them, its optimizer's and all other state back afterwards.
        term: Name of the term whose weight is varied.
        build: Takes a loss weight (or a bound) and returns a compiled
            `TrainingModel` with one output.
        train, validation: Dicts from `pack_inputs`, with the ids.
        values: Loss weights, or the arguments for `build`.
        start: The value for the solution to start from: 0 for loss weights; for
            bounds, one that is not binding.
        budget: By how much the overall error of the recommended point may exceed
            that of the start: 0.05 is 5 % more.
        epochs: Maximum number of epochs for each value.
        batch_size: Rows per training batch.
        patience: Epochs without improvement before training stops; `None` trains
            for all of them. Use `None` with bounds: while the multipliers grow, the
            epoch with the smallest validation loss does not meet the bound.
        repeats: Trainings of each value, with a row order of their own. From the second
            on, a `model` also has new initial weights, by its initializers; the weights
            that are not trainable stay.
        group_ids: Name of the entry that holds the ids.
        group_names: Names by id, for the reports.
        error: Error of a sample, as in `group_report`.
        seed: Seed of the row order and of new initial weights. For reproducible first
            weights, also call `keras.utils.set_random_seed`.
        verbose: 0 for no progress bar.

    Returns:
        A `TradeoffCurve`. It prints as a table; see also `plot()`,
        `recommend(budget)`, `certify(rows, bound)` and `build_model(point)`.

    Raises:
        ValueError: If an entry is missing, `values` is empty, the term is unknown, or
            the start diverges.
    """
    is_of_model = names_a_term(args, options)
    return _model_curve(*args, **options) if is_of_model else _built_curve(*args, **options)


def names_a_term(args: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether arguments of `tradeoff_curve` begin with a model and a term."""
    if "model" in options or "term" in options:
        return True
    if len(args) == 1:
        return isinstance(args[0], TrainingModel)
    return len(args) > 1 and not isinstance(args[1], Mapping)


@named("tradeoff_curve")
def _built_curve(
    build: Callable[[float], Any],
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    values: Sequence[float] = _VALUES,
    **options: Any,
) -> TradeoffCurve:
    check_build(build)
    return _train_all(
        lambda plan, trainings: BuiltTrials(build, plan),
        train,
        validation,
        values,
        **options,
    )


def check_build(build: Any) -> None:
    """Raise unless it is a function."""
    if isinstance(build, TrainingModel) or not callable(build):
        raise TypeError(
            "`build` must be a function of a loss weight that returns a compiled model; "
            "with a model, name the term: `tradeoff_curve(model, 'group_gap', train, "
            f"validation)`. {received(build=repr(build))}"
        )


@named("tradeoff_curve")
def _model_curve(
    model: TrainingModel,
    term: str,
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    values: Sequence[float] = _VALUES,
    **options: Any,
) -> TradeoffCurve:
    return _train_all(
        lambda plan, trainings: CompiledTrials(model, term, plan, trainings),
        train,
        validation,
        values,
        **options,
    )


@named("tradeoff_curve")
def _train_all(
    make_trials: Callable[[Plan, int], Trials],
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    values: Sequence[float],
    *,
    start: float = 0.0,
    budget: float = 0.05,
    epochs: int = 100,
    batch_size: int = 64,
    patience: int | None = 5,
    repeats: int = 1,
    group_ids: str = GROUP_IDS,
    group_names: Sequence[Any] | None = None,
    error: ErrorLike = "squared_error",
    seed: int | None = None,
    verbose: int = 1,
) -> TradeoffCurve:
    check_number(low=0.0, budget=budget)
    check_positive_int(epochs=epochs, batch_size=batch_size, repeats=repeats)
    if patience is not None:
        check_positive_int(patience=patience)
    if not np.ndim(values):
        raise TypeError(
            "`values` must be a list of numbers. Put a single one into a list. "
            f"{received(values=repr(values))}"
        )
    if not len(values):
        raise ValueError(f"`values` must hold a value. {received(values=values)}")
    numbers: dict[str, Any] = {f"values[{k}]": value for k, value in enumerate(values)}
    check_number(**numbers)
    verbosity = as_verbosity(verbose)
    held_out = HeldOut(train, validation, group_ids, group_names, error)
    held_out.check()
    plan = Plan(make_dataset(train, batch_size, seed=seed), validation, epochs, patience)
    trainings = (len(values) + 1) * repeats
    trials = make_trials(plan, trainings)

    bar = keras.utils.Progbar(
        trainings, verbose=verbosity, stateful_metrics=["value", "error", "gap"]
    )
    columns: list[list[TradeoffPoint]] = [[] for _ in range(len(values) + 1)]
    try:
        for repeat in range(repeats):
            for column, value in zip(columns, (start, *values)):
                first = columns[0][repeat].weights if column is not columns[0] else None
                predictions, weights, trained = trials.run(value, first, repeat)
                report = held_out.report(predictions)
                if report is None and first is None:
                    raise ValueError(
                        "The start must not diverge: its predictions are not finite. Use a "
                        "smaller learning rate, or look for features that are not finite. "
                        f"{received(start=start)}"
                    )
                point = TradeoffPoint(float(value), report, trained, weights)
                column.append(point)
                shown = (("value", value), ("error", point.error), ("gap", point.gap))
                bar.add(1, values=list(shown))
    finally:
        trials.finish()
    points = [merged(column) for column in columns]
    return TradeoffCurve(points, trials.build, float(budget), trials.predict, held_out)
