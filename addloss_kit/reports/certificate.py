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
    MIN_ROWS,
    Means,
    Sides,
    any_errors,
    bounded_errors,
    difference_margins,
    group_means,
    margin_above,
    margin_below,
)
from addloss_kit.reports.intervals import extreme_groups
from addloss_kit.reports.tails import NamedErrors

Certified: TypeAlias = Literal["gap", "worst_error", "error_increase"]
CertificateVerdict: TypeAlias = Literal["holds", "does not hold", "cannot tell"]

# Chance of a clear verdict that `rows_needed` is meant to give.
_POWER = 0.8

# Beyond 1,000 times the error before, an increase has no bound.
_LARGEST_INCREASE = 1e3

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


class _Candidates(NamedTuple):
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
        rows_needed=_rows_needed(growth, len(values)),
        method=sides.method,
        heading=heading,
        reason=_reason(
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


def _errors(means: Means, risk: float, sides: Sides) -> tuple[_Candidates, np.ndarray]:
    above, below = sides.above(means, risk), sides.below(means, risk / len(means.mean))
    is_heavy = means.upper.is_heavy(risk)
    rows = np.where(is_heavy, np.inf, means.rows)
    spread = np.sqrt(means.variance)
    return _Candidates(means.mean, above, below, spread, rows), is_heavy


def _gaps(means: Means, risk: float, sides: Sides) -> tuple[_Candidates, np.ndarray]:
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
    return _Candidates(*(part[is_pair] for part in parts)), is_heavy


def certify_increase(
    bound: float,
    confidence: float,
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    is_paired: bool,
    heading: str,
) -> Certificate:
    """A certificate of the relative increase of the overall error.

    The increase is at most b where after − (1 + b)·before has no positive mean, so the
    bounds are the values of b at which a bound of that mean is 0 (Fieller).

    Args:
        bound, confidence: As in `GroupComparison.certify`.
        before, after: Error and weight of each row.
        is_paired: Whether the rows are the same.
        heading: Heading of the error.
    """
    at = _Combination(before, after, is_paired, 1.0 - confidence)
    old, new = (np.average(values, weights=weight) for values, weight in (before, after))
    estimate = (new - old) / old
    rows = int((after[1] > 0).sum())
    at_bound = at(bound)
    upper, why_heavy = at.root(1), at.why_heavy()
    growth = np.inf if why_heavy else at_bound.growth(0.0, MIN_ROWS)
    is_short = at_bound.rows[0] < MIN_ROWS
    return Certificate(
        of="error_increase",
        bound=float(bound),
        confidence=float(confidence),
        estimate=float(estimate),
        lower=at.root(-1),
        upper=upper,
        rows=rows,
        rows_needed=_rows_needed(growth, rows),
        method="t",
        heading=heading,
        reason=_reason(upper, ["all"] if is_short else [], any_errors(), why_heavy),
    )


class _Combination:
    """The mean of after − (1 + b)·before with its bounds, for any b."""

    def __init__(
        self,
        before: tuple[np.ndarray, np.ndarray],
        after: tuple[np.ndarray, np.ndarray],
        is_paired: bool,
        risk: float,
    ) -> None:
        self._before, self._after = before, after
        self._is_paired, self._risk = is_paired, risk
        self._means = _overall(*after), _overall(*before)
        # Of independent rows each side is hypot(one, (1 + b)·other).
        self._apart = {
            sign: [_margin(mean, side, risk) for mean, side in zip(self._means, sides)]
            for sign, sides in {1: (1, -1), -1: (-1, 1)}.items()
        }

    def why_heavy(self) -> str:
        """What has too heavy a tail, or nothing."""
        if self._is_paired:
            changes = self._after[0] - self._before[0]
            parts = [(_overall(changes, self._after[1]).upper, "the changes of the errors")]
            rows = [(changes, self._after[1])]
        else:
            one, other = self._means
            parts = [
                (one.upper, "the errors after"),
                (other.lower, "minus the errors before"),
            ]
            rows = [self._after, self._before]
        for (side, name), (values, weight) in zip(parts, rows):
            if side.is_heavy(self._risk)[0]:
                return NamedErrors(name, values, weight).said(0)
        return ""

    def _scaled(self, bound: float) -> Means:
        """Of the same rows."""
        values = self._after[0] - (1.0 + bound) * self._before[0]
        return _overall(values, self._after[1])

    def distance(self, bound: float, sign: Literal[1, -1]) -> np.ndarray:
        """How far the upper (1) or lower (-1) bound is from the mean."""
        if not self._is_paired:
            one, other = self._apart[sign]
            return np.asarray(np.hypot(one, (1.0 + bound) * other))
        if (self._after[0] == (1.0 + bound) * self._before[0]).all():
            return np.zeros(1)  # The mean is 0 for sure.
        return _margin(self._scaled(bound), sign, self._risk)

    def mean(self, bound: float) -> np.ndarray:
        one, other = self._means
        return np.asarray(one.mean - (1.0 + bound) * other.mean)

    def __call__(self, bound: float) -> _Candidates:
        if self._is_paired:
            means = self._scaled(bound)
            variance, rows = means.variance, means.rows
        else:
            one, other = self._means
            variance = one.variance + (1.0 + bound) ** 2 * other.variance
            rows = np.minimum(one.rows, other.rows)
        above, below = self.distance(bound, 1), self.distance(bound, -1)
        return _Candidates(self.mean(bound), above, below, np.sqrt(variance), rows)

    def root(self, sign: Literal[1, -1]) -> float:
        """The b at which the upper (1) or lower (-1) bound is 0; infinite without."""

        def bound_at(b: float) -> float:
            return float((self.mean(b) + sign * self.distance(b, sign))[0])

        low, high = -1.0, _LARGEST_INCREASE
        at_low, at_high = bound_at(low), bound_at(high)
        # What is taken off must not hide the tail of the changes.
        if sign > 0 and (self.why_heavy() or not at_high < 0):
            return np.inf
        if not at_low > 0:
            return low
        # Nearly a line, so false position, with halved weight of an end that stays
        # (Dowell and Jarratt 1971).
        last = 0.0
        for _ in range(100):
            if high - low <= 1e-12 * (1.0 + high):
                break
            middle = low + (high - low) * at_low / (at_low - at_high)
            if not low < middle < high:
                middle = _between(low, high)
            at = bound_at(middle)
            if at <= 0:
                high, at_high = middle, at
                at_low = at_low / 2.0 if last < 0 else at_low
            else:
                low, at_low = middle, at
                at_high = at_high / 2.0 if last > 0 else at_high
            last = -1.0 if at <= 0 else 1.0
        return high if sign > 0 else low


def _margin(means: Means, sign: int, risk: float) -> np.ndarray:
    return margin_above(means, risk) if sign > 0 else margin_below(means, risk)


def _overall(values: np.ndarray, weight: np.ndarray) -> Means:
    return group_means(values, np.zeros(len(values), "int64"), weight, 1)


def _between(low: float, high: float) -> float:
    """Geometric in 1 + b, so that small and large increases are found as fast."""
    return math.sqrt(max(1.0 + low, 1e-6) * (1.0 + high)) - 1.0


def _rows_needed(growth: float, rows: int) -> int | None:
    return math.ceil(growth * rows) if math.isfinite(growth) else None


def _reason(upper: float, short: list[str], sides: Sides, why_heavy: str) -> str:
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
