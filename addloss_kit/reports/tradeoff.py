"""tradeoff_curve: what a smaller gap costs, on held-out data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import check_number, check_positive_int, received
from addloss_kit._types import ErrorLike
from addloss_kit.data.batching import make_dataset
from addloss_kit.exporting import export_inference_model
from addloss_kit.fields import GROUP_IDS, SAMPLE_WEIGHT, Y_TRUE
from addloss_kit.reports import tables
from addloss_kit.reports.group_report import GroupReport, group_report
from addloss_kit.reports.plots import PlottedPoint, plot_tradeoff

# A group loss can improve the held-out error slightly; a larger improvement than this
# fraction means that the start had not converged.
_NOT_CONVERGED = 0.1


@dataclasses.dataclass
class TradeoffPoint:
    """One trained model of a curve.

    Args:
        value: The argument of `build`.
        report: `GroupReport` of the held-out rows.
        epochs: Epochs trained, not counting the start's.
        weights: The predictor's weights.
        is_on_frontier: Whether no other point dominates it in error and gap.
    """

    value: float
    report: GroupReport
    epochs: int
    weights: list[np.ndarray]
    is_on_frontier: bool = False

    @property
    def error(self) -> float:
        """Mean error of all held-out rows."""
        return self.report.overall[self.report.heading][0]

    @property
    def gap(self) -> float:
        """Largest mean error of a group minus the smallest."""
        return self.report.gap.value


def tradeoff_curve(
    build: Callable[[float], Any],
    train: Mapping[str, Any],
    validation: Mapping[str, Any],
    values: Sequence[float] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    *,
    start: float = 0.0,
    budget: float = 0.05,
    epochs: int = 100,
    batch_size: int = 64,
    patience: int | None = 5,
    group_ids: str = GROUP_IDS,
    group_names: Sequence[Any] | None = None,
    error: ErrorLike = "squared_error",
    seed: int | None = None,
    verbose: int = 1,
) -> TradeoffCurve:
    """Train over a range of loss weights, and compare accuracy with the gap.

    First `build(start)` is trained from scratch: the solution without the group
    loss. Each of `values` then starts from that solution's weights, with its own
    optimizer and loss state. Training stops when the validation loss has not
    improved for `patience` epochs, and keeps the best epoch's weights.

    The validation rows decide when to stop and which point to choose, so evaluate
    the chosen model on other rows, with `group_report`.

    Args:
        build: Takes a loss weight (or a bound) and returns a compiled
            `TrainingModel` with one output.
        train, validation: Dicts from `pack_inputs`, with the ids.
        values: The arguments for `build`: loss weights, or bounds.
        start: The argument for the solution to start from: 0 for loss weights; for
            bounds, one that is not binding.
        budget: By how much the overall error of the recommended point may exceed
            that of the start: 0.05 is 5 % more.
        epochs: Maximum number of epochs for each value.
        batch_size: Rows per training batch.
        patience: Epochs without improvement before training stops; `None` trains
            for all of them. Use `None` with bounds: while the multipliers grow, the
            epoch with the smallest validation loss does not meet the bound.
        group_ids: Name of the entry that holds the ids.
        group_names: Names by id, for the reports.
        error: Error of a sample, as in `group_report`.
        seed: Seed of the row order. For reproducible initial weights, also call
            `keras.utils.set_random_seed`.
        verbose: 0 for no progress bar.

    Returns:
        A `TradeoffCurve`. It prints as a table; see also `plot()`,
        `recommend(budget)` and `build_model(point)`.

    Raises:
        ValueError: If an entry is missing, or `values` is empty.
    """
    if not callable(build):
        raise TypeError(
            "`build` must be a function of a loss weight that returns a compiled model. "
            f"{received(build=repr(build))}"
        )
    check_number(low=0.0, budget=budget)
    check_positive_int(epochs=epochs, batch_size=batch_size)
    if patience is not None:
        check_positive_int(patience=patience)
    if not len(values):
        raise ValueError(f"`values` must hold a value. {received(values=values)}")
    for name, data in (("train", train), ("validation", validation)):
        missing = [key for key in (Y_TRUE, group_ids) if key not in data]
        if missing:
            raise ValueError(
                f"`{name}` must have the entries `{Y_TRUE}` and `{group_ids}`. Pack it "
                f"with `pack_inputs`. {received(missing=missing, keys=list(data))}"
            )
    trial = _Trial(
        build, make_dataset(train, batch_size, seed=seed), validation, epochs, patience
    )
    reporting = {
        "group_ids": validation[group_ids],
        "sample_weight": validation.get(SAMPLE_WEIGHT),
        "group_names": group_names,
        "error": error,
    }
    bar = keras.utils.Progbar(
        len(values) + 1, verbose=verbose, stateful_metrics=["value", "error", "gap"]
    )
    points: list[TradeoffPoint] = []
    for value in (start, *values):
        first_weights = points[0].weights if points else None
        predictions, weights, trained = trial.run(value, first_weights)
        report = group_report(validation[Y_TRUE], predictions, **reporting)
        point = TradeoffPoint(float(value), report, trained, weights)
        points.append(point)
        shown = (("value", value), ("error", point.error), ("gap", point.gap))
        bar.update(len(points), values=list(shown))
    return TradeoffCurve(points, build, float(budget))


class _Trial:
    """Trains one value."""

    def __init__(
        self, build: Any, dataset: Any, validation: Any, epochs: int, patience: int | None
    ) -> None:
        self.build, self.dataset, self.validation = build, dataset, validation
        self.epochs, self.patience = epochs, patience

    def run(self, value: float, weights: Any) -> tuple[np.ndarray, list[np.ndarray], int]:
        model = self.build(value)
        if len(model.outputs) != 1:
            raise ValueError(
                "`build` must return a model with one output. "
                f"{received(outputs=len(model.outputs))}"
            )
        predictor = export_inference_model(model)
        if weights is not None:
            predictor.set_weights(weights)
        stopping: dict[str, Any] = {}
        if self.patience is not None:
            stop = keras.callbacks.EarlyStopping(
                "val_loss", patience=self.patience, mode="min", restore_best_weights=True
            )
            stopping = {
                "callbacks": [stop],
                "validation_data": dict(self.validation),
                # In one batch if possible: the gap of a batch is not that of all rows.
                "validation_batch_size": min(len(self.validation[Y_TRUE]), 8192),
            }
        self.dataset.set_epoch(0)
        history = model.fit(self.dataset, epochs=self.epochs, verbose=0, **stopping)
        predictions = model.predict(dict(self.validation), batch_size=8192, verbose=0)
        return predictions, predictor.get_weights(), len(history.epoch)


class TradeoffCurve:
    """The result of `tradeoff_curve`.

    Attributes:
        points: `TradeoffPoint`s in the order of training, the start first.
        budget: As given.
    """

    def __init__(
        self, points: list[TradeoffPoint], build: Callable[[float], Any], budget: float
    ) -> None:
        self.points, self.budget = points, budget
        self._build = build
        for point in points:
            point.is_on_frontier = not any(
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

    def recommend(self, budget: float | None = None) -> TradeoffPoint:
        """The point with the smallest gap within the budget.

        Args:
            budget: As in `tradeoff_curve`. Defaults to that of the curve.

        Returns:
            A point; the start if no other is within the budget.
        """
        budget = self.budget if budget is None else budget
        check_number(low=0.0, budget=budget)
        limit = self.limit(budget)
        # `<=` because the start itself is within a budget of 0.
        within = [p for p in self.points if p.error <= limit]
        return min(within, key=lambda p: (p.gap, p.error)) if within else self.start

    def limit(self, budget: float) -> float:
        """The largest overall error within the budget."""
        return self.start.error + budget * abs(self.start.error)

    def build_model(self, point: TradeoffPoint | None = None) -> Any:
        """A new compiled model with a point's weights, by default the recommended one's."""
        point = self.recommend() if point is None else point
        model = self._build(point.value)
        export_inference_model(model).set_weights(point.weights)
        return model

    def plot(self, ax: Any = None, budget: float | None = None) -> Any:
        """Plot error against gap, with the recommended point; returns the axes."""
        budget = self.budget if budget is None else budget
        plotted = [
            PlottedPoint(
                "start" if point is self.start else tables.number(point.value),
                point.error,
                point.gap,
                point.is_on_frontier,
            )
            for point in self.points
        ]
        best = self.points.index(self.recommend(budget))
        return plot_tradeoff(
            ax,
            points=plotted,
            best=plotted[best],
            limit=self.limit(budget),
            budget=budget,
            heading=self.start.report.heading,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        best = self.recommend()
        return {
            "error": self.start.report.error_name,
            "budget": self.budget,
            "points": [
                {
                    "value": p.value,
                    "error": p.error,
                    "gap": p.gap,
                    "gap low": p.report.gap.low,
                    "gap high": p.report.gap.high,
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
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "`to_pandas` needs pandas. Install it: `pip install pandas`."
            ) from error
        return pandas.DataFrame(self.to_dict()["points"])

    def _table(self) -> tuple[list[str], list[list[str]]]:
        best = self.recommend()
        heading = self.start.report.heading
        header = ["value", heading, "more", "gap", "interval", "epochs", ""]
        rows = []
        for point in self.points:
            marks = ["start"] if point is self.start else []
            marks += ["recommended"] if point is best else []
            marks += [] if point.is_on_frontier else ["dominated"]
            low, high = point.report.gap[1:]
            rows.append(
                [
                    tables.number(point.value),
                    tables.number(point.error),
                    _percent(point.error, self.start.error),
                    tables.number(point.gap),
                    f"[{tables.number(low)}, {tables.number(high)}]",
                    str(point.epochs),
                    ", ".join(marks),
                ]
            )
        return header, rows

    def _notes(self) -> list[str]:
        best = self.recommend()
        more = f"at most {100 * self.budget:g} % more {self.start.report.heading}"
        if best is self.start:
            first = (
                f"Recommended for {more}: the start; no value closes the gap within that "
                "budget."
            )
        else:
            first = (
                f"Recommended for {more}: {tables.number(best.value)}, which takes the gap "
                f"from {tables.number(self.start.gap)} to {tables.number(best.gap)}."
            )
        return [first, *self._warnings()]

    def _warnings(self) -> list[str]:
        warnings = []
        if self.recommend().report.compare(self.start.report).is_levelling_down:
            warnings.append(
                "Levelling down: at this point, groups with smaller errors clearly got "
                "worse, and the worst group did not clearly improve."
            )
        least = min(point.error for point in self.points)
        if least < (1.0 - _NOT_CONVERGED) * self.start.error:
            warnings.append(
                "The start had not converged: another point has a much smaller error. "
                "Train with more `epochs` or `patience`."
            )
        return warnings

    def __repr__(self) -> str:
        return "\n".join([tables.as_text(*self._table()), "", *self._notes()])

    def _repr_html_(self) -> str:
        return tables.as_html(*self._table(), self._notes())


def _percent(value: float, base: float) -> str:
    if base == 0 or not math.isfinite(base):
        return "–"
    return f"{100 * (value - base) / abs(base):+.1f} %"
