"""CertifiedChoice: the cheapest candidate of which a bound holds on rows to come.

Whoever certifies many candidates and takes the best that passes is wrong more often than
each certificate says. With fixed-sequence testing the confidence survives the search: if
the order is decided on other rows, and the first failure ends the tests, a wrong
certificate needs the first candidate that is beyond the bound to pass, which is one test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from addloss_kit._checks import check_one_of, check_positive_int, received
from addloss_kit.reports import tables
from addloss_kit.reports.certificate import (
    Certificate,
    Certified,
    check_certified,
    check_range,
)
from addloss_kit.reports.report import GroupReport
from addloss_kit.reports.tradeoff_point import TradeoffPoint

ChoiceVerdict: TypeAlias = Literal["holds", "no solution found"]
_Candidate = TypeVar("_Candidate")


def safest_first(
    price: Sequence[float], upper: Sequence[float], estimate: Sequence[float]
) -> list[int]:
    """The candidates worth a test, in the order of their tests.

    By the upper bound; where there is none, by the estimate. Left out are those with
    a safer one that costs no more, so each is cheaper than the one before.

    Args:
        price: What is to be small, of each candidate.
        upper: Upper confidence bound of what is certified.
        estimate: Its estimate.

    Example:
        >>> safest_first([3.0, 1.0, 2.0, 4.0], [0.1, 0.4, 0.2, 0.3], [0, 0, 0, 0])
        [0, 2, 1]
    """
    chosen: list[int] = []
    for k in np.lexsort((price, estimate, upper)).tolist():
        if not chosen or price[k] < price[chosen[-1]]:
            chosen.append(k)
    return chosen


def fixed_sequence(
    candidates: Iterable[_Candidate], certify: Callable[[_Candidate], Certificate]
) -> list[tuple[_Candidate, Certificate]]:
    """Certify one after another, each at the full level, up to the first failure.

    Args:
        candidates: In an order that does not depend on the rows of `certify`.
        certify: The certificate of a candidate.
    """
    tests = []
    for candidate in candidates:
        tests.append((candidate, certify(candidate)))
        if tests[-1][1].verdict != "holds":
            break
    return tests


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of each candidate; see `TradeoffCurve.certify`."""

    bound: float
    of: Certified
    confidence: float
    errors_within: tuple[float, float] | None
    max_tests: int | None

    def __post_init__(self) -> None:
        check_one_of(get_args(Certified), of=self.of)
        check_certified(self.bound, self.confidence)
        if self.max_tests is not None:
            check_positive_int(max_tests=self.max_tests)
        if self.errors_within is None:
            return
        if self.of == "error_increase":
            raise ValueError(
                "`errors_within` bounds a gap or a largest error. Omit it. "
                f"{received(errors_within=self.errors_within, of=repr(self.of))}"
            )
        check_range(self.errors_within)

    @property
    def min_groups(self) -> int:
        """How many groups must have rows at least; 0 if it is not about groups."""
        return {"gap": 2, "worst_error": 1, "error_increase": 0}[self.of]

    def price(self, report: GroupReport) -> float:
        """What is to be small among the candidates that pass."""
        if self.of == "error_increase":
            return report.gap.value
        return report.overall[report.heading][0]

    def ask(self, report: GroupReport, start: GroupReport) -> Certificate:
        """The certificate of one candidate, on the rows of its report."""
        if self.of == "error_increase":
            return report.compare(start).certify(self.bound, self.of, self.confidence)
        return report.certify(
            self.bound, self.of, self.confidence, errors_within=self.errors_within
        )

    def unanswered(self, heading: str, rows: int) -> Certificate:
        """The certificate of a candidate that has a prediction which is not finite."""
        return Certificate(
            of=self.of,
            bound=float(self.bound),
            confidence=float(self.confidence),
            estimate=np.nan,
            lower=-np.inf,
            upper=np.inf,
            rows=rows,
            rows_needed=None,
            method="t",
            heading=heading,
            reason="a prediction is not finite",
        )


@dataclasses.dataclass(frozen=True, repr=False)
class CertifiedChoice:
    """The result of `TradeoffCurve.certify` and `fit_to_certificate`. It prints as text.

    Args:
        curve: The `TradeoffCurve` whose points were tested.
        tests: Pairs of a `TradeoffPoint` and its `Certificate`, in the order of the
            tests. Only the last may have failed.
    """

    curve: Any
    tests: list[tuple[TradeoffPoint, Certificate]]

    @property
    def verdict(self) -> ChoiceVerdict:
        """`"holds"` or `"no solution found"`."""
        return "no solution found" if self.point is None else "holds"

    @property
    def point(self) -> TradeoffPoint | None:
        """The chosen `TradeoffPoint`; `None` if none passed."""
        return self._chosen[0] if self._passed else None

    @property
    def certificate(self) -> Certificate:
        """That of the chosen point; without one, that of the first, which failed."""
        return self._chosen[1]

    @property
    def _passed(self) -> list[tuple[TradeoffPoint, Certificate]]:
        return [test for test in self.tests if test[1].verdict == "holds"]

    @property
    def _chosen(self) -> tuple[TradeoffPoint, Certificate]:
        # Each point is cheaper than the one before.
        return self._passed[-1] if self._passed else self.tests[0]

    def build_model(self) -> Any:
        """A compiled model with the chosen point's weights; see `TradeoffCurve`.

        Raises:
            ValueError: If no solution was found.
        """
        if self.point is None:
            raise ValueError(
                "No value passed, so there is no model to build. Widen the bound, or keep "
                f"more rows to certify. {received(certificate=self.certificate)}"
            )
        return self.curve.build_model(self.point)

    def __repr__(self) -> str:
        tried = ", ".join(
            f"{self._name(point)} {'passed' if each.verdict == 'holds' else 'failed'}"
            for point, each in self.tests
        )
        rows = f"{self.certificate.rows:,} rows"
        lines = [f"Tested on {rows}, safest first: {tried}.", repr(self.certificate)]
        if self.point is None:
            return "\n".join(["No solution found.", *lines, *self._advice()])
        least = "gap" if self.certificate.of == "error_increase" else "error"
        chosen = (
            f"Chosen: {self._name(self.point)}, of those that passed the one with the "
            f"smallest {least} on the validation rows."
        )
        return "\n".join([chosen, *lines, *self._cost(self.point)])

    def _name(self, point: TradeoffPoint) -> str:
        is_start = point is self.curve.start
        return f"{tables.number(point.value)}{' (start)' if is_start else ''}"

    def _cost(self, point: TradeoffPoint) -> list[str]:
        if point is self.curve.start:
            return []
        cost = tables.percent(*self.curve.cost(point))
        heading = self.certificate.heading
        return [f"Cost on the validation rows: {cost} {heading} over the start."]

    def _advice(self) -> list[str]:
        if not self.certificate.estimate > self.certificate.bound:
            return []  # The certificate says how many rows are needed.
        return [
            "The bound is below what the safest value reached. Widen it, or try other "
            "values or another term."
        ]


def choose(
    curve: Any,
    question: Question,
    report_on: Callable[[TradeoffPoint], GroupReport | None],
    rows: int,
) -> CertifiedChoice:
    """Order a curve's points by their own reports, and test them on others.

    Args:
        curve: A `TradeoffCurve`.
        question: What is asked.
        report_on: The report of a point on rows that chose nothing; `None` if it has a
            prediction there that is not finite.
        rows: How many these are.
    """
    start = curve.start.report
    points = [(p, p.report) for p in curve.points if p.report is not None]
    seen = [question.ask(report, start) for _, report in points]
    order = safest_first(
        [question.price(report) for _, report in points],
        [certificate.upper for certificate in seen],
        [certificate.estimate for certificate in seen],
    )
    is_paired = question.of == "error_increase"
    unseen_start = report_on(curve.start) if is_paired else start

    def certify(point: TradeoffPoint) -> Certificate:
        report = report_on(point)
        if report is None or unseen_start is None:
            return question.unanswered(start.heading, rows)
        return question.ask(report, unseen_start)

    tested = [points[k][0] for k in order[: question.max_tests]]
    return CertifiedChoice(curve, fixed_sequence(tested, certify))
