"""TradeoffCurve: what a smaller gap costs, on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from addloss_kit._checks import check_number, received
from addloss_kit._types import ArrayLike
from addloss_kit.exporting import export_inference_model
from addloss_kit.fields import Y_TRUE
from addloss_kit.reports import tables
from addloss_kit.reports.certificate import Certified
from addloss_kit.reports.certified_choice import CertifiedChoice, Question, choose
from addloss_kit.reports.held_out import HeldOut
from addloss_kit.reports.page import Shown
from addloss_kit.reports.paired import Change, gap_change, is_within, relative_increase
from addloss_kit.reports.plots import PlottedPoint, plot_tradeoff
from addloss_kit.reports.report import GroupReport
from addloss_kit.reports.tradeoff_point import TradeoffPoint

# A group loss can improve the held-out error slightly; a larger improvement than this
# fraction means that the start had not converged.
_NOT_CONVERGED = 0.1
# A value whose error exceeds both neighbours' by more than this fraction, without a
# smaller gap, had not converged.
_WORSE = 0.01


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
