"""The reports as matplotlib plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from addloss_kit.reports import tables
from addloss_kit.reports.intervals import Estimate

# More rows do not fit on a screen: only the worst and best groups are drawn.
_MAX_GROUPS = 40
# Times the median upper bound, an interval that is longer makes the others unreadable.
_DWARFED = 4.0
# Distinguishable for colour-blind readers (Okabe and Ito's palette).
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#767676"


def height_of(rows: int) -> float:
    """Of a plot with a row for each group, in inches."""
    return 1.6 + 0.32 * min(rows, _MAX_GROUPS)


def plot_group_errors(
    ax: Any,
    *,
    group_names: Sequence[str],
    n: np.ndarray,
    means: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    overall: float,
    gap: Estimate,
    heading: str,
    confidence: float,
) -> Any:
    """Each group's mean error with its interval, the worst on top.

    Args:
        ax: Matplotlib axes; new ones if none.
        group_names: Names by id.
        n: Rows of each group.
        means, low, high: Mean error of each group and its interval, NaN if there is
            none.
        overall: Mean error of all rows.
        gap: Largest mean error minus the smallest.
        heading: Heading of the error, such as `"MSE"`.
        confidence: Confidence level of the intervals.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    groups = _drawn(means)
    ax = _axes(ax, height=height_of(len(groups)))
    place = np.arange(len(groups))
    sides = np.stack([means - low, high - means])[:, groups]
    # A single row has no interval.
    sides = np.where(np.isfinite(sides), sides, 0.0)
    ax.errorbar(means[groups], place, xerr=sides, fmt="o", color=_BLUE, capsize=3)
    _cut_off(ax, means[groups], means[groups] + sides[1])
    ax.axvline(overall, color=_GREY, linestyle="--", linewidth=1, label="overall")
    labels = [f"{group_names[k]}  (n={n[k]:,})" for k in groups]
    ax.set_yticks(place, labels)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel(f"{heading}, {100 * confidence:g} % interval")
    verdict = "beyond noise" if gap.low > 0 else "within noise"
    gap_title = f"Gap {tables.number(gap.value)}, {verdict}"
    ax.set_title("No gap: one group" if np.isnan(gap.value) else gap_title, loc="left")
    _say_left_out(ax, len(groups), len(means))
    ax.legend(loc="best", frameon=False)
    _tidy(ax, "x")
    return ax


def plot_gaps(
    ax: Any, *, gaps: Mapping[str, Estimate], heading: str, confidence: float
) -> Any:
    """The gap of each stratum with its interval, the largest on top.

    Args:
        ax: Matplotlib axes; new ones if none.
        gaps: By name of the stratum; NaN where there is none.
        heading: Heading of the error, such as `"MSE"`.
        confidence: Confidence level of the intervals.
    """
    names = list(gaps)
    value, low, high = np.array(list(gaps.values())).T
    chosen = _drawn(value)
    ax = _axes(ax, height=height_of(len(chosen)))
    place = np.arange(len(chosen))
    sides = np.stack([value - low, high - value])[:, chosen]
    # A group of one row leaves the gap open above.
    sides = np.where(np.isfinite(sides), sides, 0.0)
    ax.errorbar(value[chosen], place, xerr=sides, fmt="o", color=_BLUE, capsize=3)
    _cut_off(ax, value[chosen], value[chosen] + sides[1])
    ax.set_yticks(place, [names[k] for k in chosen])
    ax.set_ylim(len(chosen) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel(f"gap in {heading}, {100 * confidence:g} % interval")
    _say_left_out(ax, len(chosen), len(names), "strata")
    _tidy(ax, "x")
    return ax


def _cut_off(ax: Any, values: np.ndarray, high: np.ndarray) -> None:
    """End the axis where the interval of a few rows would dwarf all others."""
    if len(high) < 2 or not values.min() >= 0:
        return
    end = max(_DWARFED * float(np.median(high)), 1.2 * float(values.max()))
    if ax.get_xlim()[1] > end > 0:
        ax.set_xlim(right=end)


def plot_change(
    ax: Any,
    *,
    verdicts: Mapping[str, str],
    before: np.ndarray,
    after: np.ndarray,
    gaps: tuple[float, float],
    is_gap_change_clear: bool,
    is_levelling_down: bool,
    heading: str,
) -> Any:
    """Each group's mean error before and after, joined by a line.

    Args:
        ax: Matplotlib axes; new ones if none.
        verdicts: By group name, in the order of the ids, `"better"`, `"worse"` or
            `"no clear change"`.
        before, after: Mean error of each group.
        gaps: Largest mean error minus the smallest, before and after.
        is_gap_change_clear: Whether its change is beyond noise.
        is_levelling_down: Whether the title says so.
        heading: Heading of the error, such as `"MSE"`.
    """
    groups = _drawn(before)
    ax = _axes(ax, height=height_of(len(groups)))
    place = np.arange(len(groups))
    colors = {"better": _GREEN, "worse": _ORANGE, "no clear change": _GREY}
    names, verdict_of = list(verdicts), list(verdicts.values())
    for i, k in enumerate(groups):
        ax.plot([before[k], after[k]], [i, i], color=colors[verdict_of[k]], linewidth=2)
    ax.scatter(
        before[groups],
        place,
        facecolors="white",
        edgecolors="black",
        zorder=3,
        label="before",
    )
    ax.scatter(after[groups], place, color="black", zorder=3, label="after")
    for verdict in dict.fromkeys(verdict_of[k] for k in groups):
        ax.plot([], [], color=colors[verdict], linewidth=2, label=verdict)
    ax.set_yticks(place, [names[k] for k in groups])
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel(heading)
    title = "Gap {} → {}, {} noise".format(
        *map(tables.number, gaps), "beyond" if is_gap_change_clear else "within"
    )
    ax.set_title(title + (": levelling down" if is_levelling_down else ""), loc="left")
    _say_left_out(ax, len(groups), len(before))
    _legend_below(ax)
    _tidy(ax, "x")
    return ax


class PlottedPoint(NamedTuple):
    """A trained model on the plot of a trade-off.

    Args:
        label: Its label.
        error: Mean error of all held-out rows.
        gap: Largest mean error of a group minus the smallest.
        is_on_frontier: Whether no other point dominates it.
        error_bar, gap_bar: Standard errors of the changes from the start.
    """

    label: str
    error: float
    gap: float
    is_on_frontier: bool
    error_bar: float
    gap_bar: float


def plot_tradeoff(
    ax: Any,
    *,
    points: Sequence[PlottedPoint],
    best: PlottedPoint,
    limit: float,
    budget: float,
    heading: str,
) -> Any:
    """Overall error against gap, with the budget and the recommended point.

    Args:
        ax: Matplotlib axes; new ones if none.
        points: All points, in any order.
        best: The recommended point.
        limit: The largest overall error within the budget.
        budget: By how much it exceeds the start's: 0.05 is 5 % more.
        heading: Heading of the error, such as `"MSE"`.
    """
    ax = _axes(ax, height=4.2)
    frontier = sorted((p for p in points if p.is_on_frontier), key=lambda p: p.error)
    beaten = [p for p in points if not p.is_on_frontier]
    ax.plot(
        [p.error for p in frontier],
        [p.gap for p in frontier],
        "o-",
        color=_BLUE,
        label="frontier",
    )
    if beaten:
        ax.plot(
            [p.error for p in beaten],
            [p.gap for p in beaten],
            "o",
            color=_GREY,
            alpha=0.6,
            label="dominated",
        )
    ax.errorbar(
        [p.error for p in points],
        [p.gap for p in points],
        xerr=np.nan_to_num([p.error_bar for p in points]),
        yerr=np.nan_to_num([p.gap_bar for p in points]),
        fmt="none",
        ecolor=_GREY,
        elinewidth=1,
        label="± standard error of the\nchange from the start",
    )
    ax.plot(
        [best.error],
        [best.gap],
        "*",
        markersize=17,
        color=_ORANGE,
        label=f"recommended: {best.label}",
    )
    ax.axvline(
        limit,
        color=_GREY,
        linestyle="--",
        linewidth=1,
        label=f"{100 * budget:g} % more {heading}",
    )
    for point in points:
        ax.annotate(
            point.label,
            (point.error, point.gap),
            textcoords="offset points",
            xytext=(6, 6),
            fontsize=8,
        )
    ax.margins(0.08)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(f"overall {heading} on held-out rows")
    ax.set_ylabel("gap between groups")
    _legend_below(ax)
    _tidy(ax, "both")
    return ax


def _axes(ax: Any, height: float) -> Any:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "`plot` needs matplotlib. Install it: `pip install 'addloss_kit[plots]'`."
        ) from error
    _, ax = pyplot.subplots(figsize=(7.0, height), layout="constrained")
    return ax


def _drawn(means: np.ndarray) -> np.ndarray:
    """The groups to draw, worst first."""
    order = np.argsort(-means, kind="stable")
    order = order[~np.isnan(means[order])]
    half = _MAX_GROUPS // 2
    if len(order) > _MAX_GROUPS:
        order = np.concatenate([order[:half], order[-half:]])
    return order


def _say_left_out(ax: Any, drawn: int, number: int, what: str = "groups") -> None:
    if drawn == _MAX_GROUPS and number > drawn:
        note = f"the {drawn // 2} worst and the {drawn // 2} best of {number:,} {what}"
        ax.set_title(note, loc="right", fontsize=8)


def _legend_below(ax: Any) -> None:
    """Where it hides no point."""
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=9
    )


def _tidy(ax: Any, grid: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, alpha=0.3)
