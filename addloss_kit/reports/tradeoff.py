"""tradeoff_curve: what a smaller gap costs, on held-out data."""

from __future__ import annotations

import math
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
from addloss_kit._types import ArrayLike, ErrorLike
from addloss_kit.data.batching import make_dataset
from addloss_kit.exporting import export_inference_model
from addloss_kit.fields import GROUP_IDS, Y_TRUE
from addloss_kit.model.training_model import TrainingModel
from addloss_kit.reports import tables
from addloss_kit.reports.certificate import Certified
from addloss_kit.reports.certified_choice import CertifiedChoice, Question, choose
from addloss_kit.reports.held_out import HeldOut
from addloss_kit.reports.page import Shown
from addloss_kit.reports.paired import Change, gap_change, is_within, relative_increase
from addloss_kit.reports.plots import PlottedPoint, plot_tradeoff
from addloss_kit.reports.report import GroupReport
from addloss_kit.reports.tradeoff_point import TradeoffPoint, merged
from addloss_kit.reports.trials import BuiltTrials, CompiledTrials, Plan, Trials

# A group loss can improve the held-out error slightly; a larger improvement than this
# fraction means that the start had not converged.
_NOT_CONVERGED = 0.1

_VALUES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# A value whose error exceeds both neighbours' by more than this fraction, without a
# smaller gap, had not converged.
_WORSE = 0.01


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


class TradeoffCurve(Shown):
    """The result of `tradeoff_curve`.

    Attributes:
        points: `TradeoffPoint`s in the order of training, the start first.
        budget: As given.
    """

    title = "What a smaller gap costs"

    def __init__(
        self,
        points: list[TradeoffPoint],
        build: Callable[[float], Any],
        budget: float,
        predict: Callable[..., np.ndarray] | None = None,
        held_out: HeldOut | None = None,
    ) -> None:
        self.points, self.budget = points, budget
        self._build, self._predict, self._held_out = build, predict, held_out
        for point in points:
            point.is_on_frontier = not point.has_diverged and not any(
                other.error <= point.error
                and other.gap <= point.gap
                and (other.error < point.error or other.gap < point.gap)
                for other in points
            )

    @property
    def start(self) -> TradeoffPoint:
        """The solution without the group loss."""
        return self.points[0]

    @property
    def frontier(self) -> list[TradeoffPoint]:
        """The points that no other dominates in error and gap, sorted by error."""
        return sorted((p for p in self.points if p.is_on_frontier), key=lambda p: p.error)

    def recommend(
        self, budget: float | None = None, confidence: float | None = 0.8
    ) -> TradeoffPoint:
        """The point with the smallest gap whose cost is within the budget.

        The cost is the increase of the overall error over the start's. Its upper
        confidence bound must be within the budget, from rows paired with those of the
        start and from the repeats, if any (see `cost`).

        Args:
            budget: As in `tradeoff_curve`. Defaults to that of the curve.
            confidence: One-sided, in (0, 1). `None` goes by the estimated error alone.

        Returns:
            A point; the start if no other is within the budget. Never one that diverged.
        """
        budget = self.budget if budget is None else budget
        check_number(low=0.0, budget=budget)
        if confidence is not None:
            check_number(
                low=0.0,
                high=1.0,
                is_low_allowed=False,
                is_high_allowed=False,
                confidence=confidence,
            )
        within = [p for p in self.points[1:] if self._is_within(p, budget, confidence)]
        # `min` takes the first of equals, so the start wins a tie.
        return min([self.start, *within], key=lambda p: (p.gap, p.error))

    def _is_within(
        self, point: TradeoffPoint, budget: float, confidence: float | None
    ) -> bool:
        if point.has_diverged or math.isnan(point.gap):
            return False
        if confidence is None:
            return point.error <= self.limit(budget)
        return is_within(self.start.reports, point.reports, budget, confidence)

    def cost(self, point: TradeoffPoint) -> Change:
        """`(value, standard_error)` of the error's increase; 0.05 is 5 % over the start."""
        if point.has_diverged:
            return Change(math.nan, math.nan)
        return relative_increase(self.start.reports, point.reports)

    def gap_change(self, point: TradeoffPoint) -> Change:
        """`(value, standard_error)` of the gap minus that of the start."""
        if point.has_diverged:
            return Change(math.nan, math.nan)
        return gap_change(self.start.reports, point.reports)

    def limit(self, budget: float) -> float:
        """The largest overall error within the budget."""
        return self.start.error + budget * abs(self.start.error)

    def build_model(self, point: TradeoffPoint | None = None) -> Any:
        """A new compiled model with a point's weights, by default the recommended one's."""
        point = self.recommend() if point is None else point
        model = self._build(point.value)
        export_inference_model(model).set_weights(point.weights)
        return model

    def certify(
        self,
        rows: Mapping[str, Any],
        bound: float,
        of: Certified = "gap",
        confidence: float = 0.95,
        *,
        errors_within: tuple[float, float] | None = None,
        max_tests: int | None = None,
        clusters: ArrayLike | None = None,
    ) -> CertifiedChoice:
        """The most accurate point of which a bound holds on rows to come.

        The points are tested on `rows` in an order that the validation rows decide: the
        safest first, by the upper confidence bound of what is certified, leaving out
        those that are less accurate than a safer one. The first failure ends the tests,
        so a chosen point is beyond the bound with a chance of at most 1 − `confidence`,
        however many are tested. Points that diverged are not tested; of several repeats
        the first is.

        That holds for one call: a second one, with another bound, is another attempt.

        Args:
            rows: Dict from `pack_inputs`, of rows that took no part in training nor in
                validation. They must be independent of one another, but for `clusters`.
            bound: In the units of the error; for `"error_increase"`, relative to the
                start's error: 0.05 is 5 % more.
            of: `"gap"`, `"worst_error"`, or `"error_increase"`; with the last, the point
                with the smallest gap is chosen instead of the most accurate one.
            confidence: Of the choice, in (0, 1).
            errors_within: As in `GroupReport.certify`.
            max_tests: Test at most as many points; all by default.
            clusters: `(rows,)` labels, such as the person that a row is of, as in
                `group_report`: rows of one cluster may depend on one another.

        Returns:
            A `CertifiedChoice`.

        Raises:
            ValueError: If an entry, a group or a label is missing, or the rows are those
                of training or validation.

        Warns:
            UserWarning: If more of the rows stand in the training or validation rows, too,
                or more than once, than chance explains.

        Reference: Angelopoulos et al., "Learn then Test", arXiv:2110.01052 (2021),
        fixed-sequence testing.
        """
        question = Question(bound, of, confidence, errors_within, max_tests)
        if self._held_out is None:
            raise ValueError(
                "Only a curve that `tradeoff_curve` returned can predict other rows. "
                f"{received(held_out=None)}"
            )
        self._held_out.check_unseen("rows", rows, question.min_groups, clusters)
        return self._choose(question, rows, clusters)

    def _choose(
        self, question: Question, rows: Mapping[str, Any], clusters: ArrayLike | None
    ) -> CertifiedChoice:
        """Answer a question by rows that `HeldOut.check_unseen` has let pass."""
        predict, held_out = self._predict, self._held_out
        assert predict is not None and held_out is not None

        def report_on(point: TradeoffPoint) -> GroupReport | None:
            predictions = predict(point.value, point.weights, rows)
            return held_out.report_unseen(rows, predictions, clusters)

        return choose(self, question, report_on, len(rows[Y_TRUE]))

    def plot(self, ax: Any = None, budget: float | None = None) -> Any:
        """Plot error against gap, with the recommended point; returns the axes.

        The bars are ± one standard error of the changes from the start, as in the table.
        """
        budget = self.budget if budget is None else budget
        drawn = [point for point in self.points if not point.has_diverged]
        plotted = [self._plotted(point) for point in drawn]
        best = drawn.index(self.recommend(budget))
        return plot_tradeoff(
            ax,
            points=plotted,
            best=plotted[best],
            limit=self.limit(budget),
            budget=budget,
            heading=self._heading,
        )

    def _plotted(self, point: TradeoffPoint) -> PlottedPoint:
        is_start = point is self.start
        return PlottedPoint(
            "start" if is_start else tables.number(point.value),
            point.error,
            point.gap,
            point.is_on_frontier,
            # The cost is relative to the start's error.
            self.cost(point).standard_error * abs(self.start.error),
            self.gap_change(point).standard_error,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        best = self.recommend()
        return {
            "error": self.start.reports[0].error_name,
            "budget": self.budget,
            "points": [
                {
                    "value": p.value,
                    "error": p.error,
                    "gap": p.gap,
                    "gap low": p.report.gap.low if p.report else math.nan,
                    "gap high": p.report.gap.high if p.report else math.nan,
                    "cost": self.cost(p).value,
                    "cost standard error": self.cost(p).standard_error,
                    "gap change": self.gap_change(p).value,
                    "gap change standard error": self.gap_change(p).standard_error,
                    "epochs": p.epochs,
                    "is_on_frontier": p.is_on_frontier,
                    "is_recommended": p is best,
                }
                for p in self.points
            ],
        }

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with one row per point.

        Raises:
            ImportError: If pandas is not installed.
        """
        return tables.import_pandas().DataFrame(self.to_dict()["points"])

    @property
    def _heading(self) -> str:
        return self.start.reports[0].heading

    def _height(self) -> float:
        return 4.6

    def _table(self) -> tuple[list[str], list[list[str]]]:
        best = self.recommend()
        header = ["value", self._heading, "more", "gap", "change", "epochs", ""]
        rows = []
        for point in self.points:
            is_start = point is self.start
            marks = ["start"] if is_start else []
            marks += ["recommended"] if point is best else []
            if point.has_diverged:
                marks += ["diverged"]
            elif point in self._odd_ones():
                marks += ["worse than its neighbours"]
            elif not point.is_on_frontier:
                marks += ["dominated"]
            change = tables.plus_minus(*self.gap_change(point))
            rows.append(
                [
                    tables.number(point.value),
                    tables.number(point.error),
                    "–" if is_start else tables.percent(*self.cost(point)),
                    tables.number(point.gap),
                    "–" if is_start else change,
                    str(point.epochs),
                    ", ".join(marks),
                ]
            )
        return header, rows

    def _odd_ones(self) -> list[TradeoffPoint]:
        """The points that both neighbours beat clearly, in error and in gap."""
        ordered = sorted(
            (p for p in self.points if not p.has_diverged), key=lambda p: p.value
        )
        odd = []
        for before, point, after in zip(ordered, ordered[1:], [*ordered[2:], None]):
            others = [p for p in (before, after) if p is not None]
            margin = _WORSE * abs(point.error)
            if point is not self.start and all(
                p.error < point.error - margin and p.gap <= point.gap for p in others
            ):
                odd.append(point)
        return odd

    def _notes(self) -> list[str]:
        best = self.recommend()
        more = f"at most {100 * self.budget:g} % more {self._heading}"
        if best is self.start:
            first = (
                f"Recommended for {more}, with 80 % confidence: none, so the start; no "
                "value closes the gap within that budget."
            )
        else:
            change = tables.plus_minus(*self.gap_change(best))
            first = (
                f"Recommended for {more}, with 80 % confidence: "
                f"{tables.number(best.value)}, which takes the gap from "
                f"{tables.number(self.start.gap)} to {tables.number(best.gap)}, "
                f"a change of {change}."
            )
        repeats = len(self.start.reports)
        what = "± standard error of paired rows"
        what += f" and of {repeats} repeats" if repeats > 1 else ""
        start = self.start.reports[0]
        few = tables.few_rows(zip(start.group_names, start.units), "row")
        return [first, what, *few, *self._warnings()]

    def _warnings(self) -> list[str]:
        warnings = []
        recommended, start = self.recommend().report, self.start.report
        if recommended and start and recommended.compare(start).is_levelling_down:
            warnings.append(
                "Levelling down: at this point, groups with smaller errors clearly got "
                "worse, and the worst group did not clearly improve."
            )
        least = min(p.error for p in self.points if not p.has_diverged)
        if least < (1.0 - _NOT_CONVERGED) * self.start.error:
            warnings.append(
                "The start had not converged: another point has a much smaller error. "
                "Train with more `epochs` or `patience`."
            )
        if odd := [tables.number(point.value) for point in self._odd_ones()]:
            warnings.append(
                f"Worse than its neighbours, in error and gap, is {', '.join(odd)}: train "
                "with more `epochs` or `patience`, or a smaller learning rate."
            )
        if gone := [tables.number(p.value) for p in self.points if p.has_diverged]:
            warnings.append(
                f"Diverged, so never recommended: {', '.join(gone)}. Use a smaller "
                "learning rate."
            )
        return warnings
