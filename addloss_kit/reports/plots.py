"""The reports as matplotlib plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from addloss_kit.reports import tables

if TYPE_CHECKING:
    from addloss_kit.reports.comparison import GroupComparison
    from addloss_kit.reports.group_report import GroupReport
    from addloss_kit.reports.tradeoff import TradeoffCurve

# More rows do not fit a screen: the worst and the best groups are drawn.
_MAX_GROUPS = 40
# Told apart by people who do not see red and green (Okabe and Ito's palette).
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#767676"


def plot_group_report(report: GroupReport, ax: Any = None) -> Any:
    """Each group's mean error with its interval, the worst on top.

    Args:
        report: What `group_report` returned.
        ax: Matplotlib axes; new ones if none.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    groups = _drawn(report.means)
    ax = _axes(ax, height=1.6 + 0.32 * len(groups))
    low, high = report.interval()
    place = np.arange(len(groups))
    means = report.means[groups]
    # One row has no interval.
    sides = np.nan_to_num(np.stack([means - low[groups], high[groups] - means]))
    ax.errorbar(means, place, xerr=sides, fmt="o", color=_BLUE, capsize=3)
    overall = report.overall[report.heading][0]
    ax.axvline(overall, color=_GREY, linestyle="--", linewidth=1, label="overall")
    labels = [f"{report.group_names[k]}  (n={report.n[k]:,})" for k in groups]
    ax.set_yticks(place, labels)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel(f"{report.heading}, {100 * report.confidence:g} % interval")
    verdict = "beyond noise" if report.is_gap_beyond_noise else "within noise"
    ax.set_title(f"Gap {tables.number(report.gap.value)}, {verdict}", loc="left")
    _say_left_out(ax, len(groups), len(report.means))
    ax.legend(loc="best", frameon=False)
    _tidy(ax, "x")
    return ax


def plot_comparison(comparison: GroupComparison, ax: Any = None) -> Any:
    """Each group's mean error before and after, joined by a line."""
    before, after = comparison.before.means, comparison.after.means
    groups = _drawn(before)
    ax = _axes(ax, height=1.6 + 0.32 * len(groups))
    place = np.arange(len(groups))
    colors = {"better": _GREEN, "worse": _ORANGE, "no clear change": _GREY}
    verdicts = list(comparison.verdicts.values())
    for i, k in enumerate(groups):
        ax.plot([before[k], after[k]], [i, i], color=colors[verdicts[k]], linewidth=2)
    ax.scatter(
        before[groups],
        place,
        facecolors="white",
        edgecolors="black",
        zorder=3,
        label="before",
    )
    ax.scatter(after[groups], place, color="black", zorder=3, label="after")
    for verdict in dict.fromkeys(verdicts[k] for k in groups):
        ax.plot([], [], color=colors[verdict], linewidth=2, label=verdict)
    ax.set_yticks(place, [comparison.group_names[k] for k in groups])
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel(comparison.after.heading)
    gaps = map(tables.number, (comparison.before.gap.value, comparison.after.gap.value))
    title = "Gap {} → {}".format(*gaps)
    ax.set_title(
        title + (": levelling down" if comparison.is_levelling_down else ""), loc="left"
    )
    _say_left_out(ax, len(groups), len(before))
    ax.legend(loc="best", frameon=False)
    _tidy(ax, "x")
    return ax


def plot_tradeoff(curve: TradeoffCurve, ax: Any, budget: float) -> Any:
    """Overall error against gap, with the budget and the recommended point."""
    ax = _axes(ax, height=4.2)
    best = curve.recommend(budget)
    frontier = curve.frontier
    beaten = [p for p in curve.points if not p.is_on_frontier]
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
            label="beaten by another",
        )
    ax.plot(
        [best.error],
        [best.gap],
        "*",
        markersize=17,
        color=_ORANGE,
        label=f"recommended: {tables.number(best.value)}",
    )
    ax.axvline(
        curve.limit(budget),
        color=_GREY,
        linestyle="--",
        linewidth=1,
        label=f"{100 * budget:g} % more {curve.start.report.heading}",
    )
    for point in curve.points:
        ax.annotate(
            "start" if point is curve.start else tables.number(point.value),
            (point.error, point.gap),
            textcoords="offset points",
            xytext=(6, 6),
            fontsize=8,
        )
    ax.margins(0.08)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(f"overall {curve.start.report.heading} on held-out rows")
    ax.set_ylabel("gap between groups")
    ax.legend(loc="best", frameon=False)
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


def _say_left_out(ax: Any, drawn: int, groups: int) -> None:
    if drawn == _MAX_GROUPS and groups > drawn:
        note = f"the {drawn // 2} worst and the {drawn // 2} best of {groups:,} groups"
        ax.set_title(note, loc="right", fontsize=8)


def _tidy(ax: Any, grid: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, alpha=0.3)
