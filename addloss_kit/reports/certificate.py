"""certify: whether a bound holds beyond the rows at hand, with a stated confidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from addloss_kit._checks import check_number, received
from addloss_kit.reports import tables
from addloss_kit.reports.bounds import (
    Means,
    Sides,
    any_errors,
    bounded_errors,
    difference_margins,
    group_means,
)
from addloss_kit.reports.intervals import extreme_groups
from addloss_kit.reports.tails import NamedErrors

Certified: TypeAlias = Literal["gap", "worst_error", "error_increase"]
CertificateVerdict: TypeAlias = Literal["holds", "does not hold", "cannot tell"]

# Chance of a clear verdict that `rows_needed` is meant to give.
_POWER = 0.8

_WHAT = {
    "gap": "gap in {heading}",
    "worst_error": "largest {heading} of a group",
    "error_increase": "increase of the overall {heading}",
}


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Whether a bound holds for the rows to come. It prints as one sentence.

    Args:
        of: `"gap"`, `"worst_error"` or `"error_increase"`.
        bound: The bound in question.
        confidence: Chance that `upper` is not too low, and that `lower` is not too high.
        estimate: The value on the rows at hand.
        lower, upper: One-sided confidence bounds.
        rows: Rows that count.
        rows_needed: About how many rows like these give a clear verdict with a chance of
            80 %, if the estimate is right; `None` if no number does.
        method: `"t"` (with the correction for skewness) or `"bounded"`.
        heading: Heading of the error, such as `"MSE"`.
        reason: Why there is no upper bound, if there is none.
    """

    of: Certified
    bound: float
    confidence: float
    estimate: float
    lower: float
    upper: float
    rows: int
    rows_needed: int | None
    method: Literal["t", "bounded"]
    heading: str
    reason: str = ""

    @property
    def verdict(self) -> CertificateVerdict:
        """`"holds"`, `"does not hold"` or `"cannot tell"`."""
        if self.upper <= self.bound:
            return "holds"
        return "does not hold" if self.lower > self.bound else "cannot tell"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return {"verdict": self.verdict, **dataclasses.asdict(self)}

    def __repr__(self) -> str:
        what = _WHAT[self.of].format(heading=self.heading)
        sure = f"with {100 * self.confidence:g} % confidence"
        bound, low, high = map(self._shown, (self.bound, self.lower, self.upper))
        kind = "bounded errors" if self.method == "bounded" else "t, corrected for skewness"
        basis = f"{self._shown(self.estimate)} on {self.rows:,} rows; {kind}"
        if self.verdict == "holds":
            said = f"{sure} the {what} is at most {high}, within the bound of {bound}"
        elif self.verdict == "does not hold":
            said = f"{sure} the {what} is at least {low}, above the bound of {bound}"
        else:
            said = f"{sure} the {what} is at least {low} and at most {high}"
            said = f"{said}, and the bound is {bound}"
            if self.reason:
                said = f"{said}: {self.reason}"
            if self.rows_needed is not None:
                said = f"{said}; about {self.rows_needed:,} rows like these would tell"
        return f"{self.verdict.capitalize()}: {said} ({basis})."

    def _shown(self, value: float) -> str:
        if self.of == "error_increase" and math.isfinite(value):
            return f"{tables.number(100 * value)} %"
        return tables.number(value)


def check_certified(bound: float, confidence: float) -> None:
    """Raise unless both are numbers, and the confidence lies in (0, 1)."""
    check_number(bound=bound)
    check_number(
        low=0.0,
        high=1.0,
        is_low_allowed=False,
        is_high_allowed=False,
        confidence=confidence,
    )


def check_range(errors_within: tuple[float, float]) -> None:
    """Raise unless it is a pair of numbers, the smaller first."""
    if np.shape(errors_within) != (2,):
        raise ValueError(
            "`errors_within` must be a pair of numbers, (low, high). "
            f"{received(errors_within=repr(errors_within))}"
        )
    low, high = errors_within
    numbers: dict[str, Any] = {"errors_within[0]": low, "errors_within[1]": high}
    check_number(**numbers)
    if not low < high:
        raise ValueError(
            "`errors_within` must be (low, high), with low below high. "
            f"{received(errors_within=errors_within)}"
        )


class Candidates(NamedTuple):
    """The quantities of which the certified one is the largest."""

    estimate: np.ndarray
    above: np.ndarray
    below: np.ndarray
    spread: np.ndarray
    rows: np.ndarray

    def growth(self, bound: float, min_rows: int) -> float:
        """By how much the rows must grow for a clear verdict with a chance of 80 %."""
        spread = NormalDist().inv_cdf(_POWER) * np.nan_to_num(self.spread)
        estimate = float(np.max(self.estimate))
        if not estimate < bound:
            top = int(np.argmax(self.estimate))
            needed = self.below[[top]] + spread[[top]]
            distance, rows = self.estimate[[top]] - bound, self.rows[[top]]
        else:
            needed = self.above + spread
            distance, rows = bound - self.estimate, self.rows
        with np.errstate(divide="ignore", invalid="ignore"):
            growth = (needed / distance) ** 2
            # Nothing but the rows' number is known of groups with too few. Of others
            # without a bound, more rows like these have none either.
            without = np.where(rows < min_rows, min_rows / rows, np.inf)
            growth = np.where(np.isfinite(needed), growth, without)
        return float(np.max(growth))


def certify_groups(
    of: str,
    bound: float,
    confidence: float,
    row_errors: tuple[np.ndarray, np.ndarray, np.ndarray],
    group_names: Sequence[str],
    heading: str,
    errors_within: tuple[float, float] | None,
) -> Certificate:
    """A certificate of a gap or a largest error; see `GroupReport.certify`.

    Args:
        of, bound, confidence, errors_within: As there.
        row_errors: Error, group and weight of each row that has a group.
        group_names: Names by id.
        heading: Heading of the error.
    """
    values, ids, weight = (part[row_errors[2] > 0] for part in row_errors)
    means = group_means(values, ids, weight, len(group_names))
    has_rows = means.rows > 0
    if of == "gap" and has_rows.sum() < 2:
        raise ValueError(
            "A gap needs two groups with rows. Pass rows of at least two groups. "
            f"{received(groups_with_rows=int(has_rows.sum()))}"
        )
    sides = _sides(values, weight, errors_within)
    search = _gaps if of == "gap" else _errors
    present = means.take(has_rows)
    candidates, is_heavy = search(present, 1.0 - confidence, sides)
    lower = float(np.max(candidates.estimate - candidates.below))
    upper = float(np.max(candidates.estimate + candidates.above))
    growth = candidates.growth(bound, sides.min_rows)
    is_short = means.rows < sides.min_rows
    heavy = np.flatnonzero(has_rows)[is_heavy]
    why_heavy = ""
    if len(heavy):
        of_first = ids == heavy[0]
        name = f"the errors of {group_names[int(heavy[0])]}"
        why_heavy = NamedErrors(name, values[of_first], weight[of_first]).said(
            len(heavy) - 1
        )
    if not has_rows.all():  # Their errors may be anything.
        upper, growth = np.inf, np.inf
    return Certificate(
        of="gap" if of == "gap" else "worst_error",
        bound=float(bound),
        confidence=float(confidence),
        estimate=float(np.max(candidates.estimate)),
        lower=max(lower, 0.0) if of == "gap" or values.min() >= 0 else lower,
        upper=upper,
        rows=len(values),
        rows_needed=rows_needed(growth, len(values)),
        method=sides.method,
        heading=heading,
        reason=reason_for(
            upper, [n for n, k in zip(group_names, is_short) if k], sides, why_heavy
        ),
    )


def _sides(
    values: np.ndarray, weight: np.ndarray, errors_within: tuple[float, float] | None
) -> Sides:
    if errors_within is None:
        if not np.isin(values, (0.0, 1.0)).all():
            return any_errors()
        errors_within = 0.0, 1.0  # Errors of a classifier.
    check_range(errors_within)
    low, high = errors_within
    smallest, largest = float(values.min()), float(values.max())
    if not low <= smallest <= largest <= high:
        raise ValueError(
            "`errors_within` must be (low, high), between which all errors lie. "
            f"{received(errors_within=errors_within, errors=(smallest, largest))}"
        )
    return bounded_errors(float(low), float(high), bool(np.ptp(weight) > 0))


# The true maximum is that of one candidate, whose upper bound covers it at the full risk;
# so the largest upper bound does, too (an intersection-union test). The largest lower
# bound is right only if all of them are, so they share the risk (Bonferroni).


def _errors(means: Means, risk: float, sides: Sides) -> tuple[Candidates, np.ndarray]:
    above, below = sides.above(means, risk), sides.below(means, risk / len(means.mean))
    is_heavy = means.upper.is_heavy(risk)
    rows = np.where(is_heavy, np.inf, means.rows)
    spread = np.sqrt(means.variance)
    return Candidates(means.mean, above, below, spread, rows), is_heavy


def _gaps(means: Means, risk: float, sides: Sides) -> tuple[Candidates, np.ndarray]:
    pairs = len(means.mean) * (len(means.mean) - 1)
    margin = sides.above(means, risk / pairs)
    is_heavy = means.upper.is_heavy(risk) | means.lower.is_heavy(risk)
    # Decides the upper bound, so it must be among them.
    is_open = is_heavy | ~np.isfinite(margin)
    far = np.where(np.isfinite(margin), margin, 0.0)
    chosen = extreme_groups(means.mean + far, means.mean, far - means.mean, is_open * 1.0)
    other = means.take(chosen)
    one = other.take(np.s_[:, None])
    above, below = difference_margins(sides, one, other, risk, 1.0 / pairs)
    is_pair = ~np.eye(len(chosen), dtype=bool)
    spread = np.sqrt(one.variance + other.variance)
    of_pair = is_heavy[chosen][:, None] | is_heavy[chosen]
    rows = np.where(of_pair, np.inf, np.minimum(one.rows, other.rows))
    parts = one.mean - other.mean, above, below, spread, rows
    return Candidates(*(part[is_pair] for part in parts)), is_heavy


def rows_needed(growth: float, rows: int) -> int | None:
    """As the attribute of a `Certificate`; `None` if it is not finite."""
    return math.ceil(growth * rows) if math.isfinite(growth) else None


def reason_for(upper: float, short: list[str], sides: Sides, why_heavy: str) -> str:
    """Why there is no upper bound."""
    if math.isfinite(upper):
        return ""
    if not short and why_heavy:
        return why_heavy
    if not short:
        return "all errors of a group are equal"
    shown = ", ".join(short[: tables.MAX_ROWS])
    more = (
        f" and {len(short) - tables.MAX_ROWS} more" if len(short) > tables.MAX_ROWS else ""
    )
    few = "no rows" if sides.min_rows == 1 else f"fewer than {sides.min_rows} rows"
    return f"{few} in {shown}{more}"
