"""The plot of the demo: each group's error, and what a smaller gap costs."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from addloss_kit.reports import GroupComparison, TradeoffCurve

# Distinguishable for colour-blind readers, and in print.
_BEFORE, _AFTER = "#9aa5b1", "#0b6e99"


def write_figure(
    path: pathlib.Path,
    comparison: GroupComparison,
    curve: TradeoffCurve,
    target: str,
    loss_weight: float,
) -> None:
    """Plot both fits' errors by group, and the trade-off curve next to them.

    Args:
        path: The PNG to write.
        comparison: The two fits on the held-out samples.
        curve: Starting from the plain fit.
        target: What is predicted, for the title.
        loss_weight: Factor of the squared gap, for the legend.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_errors(left, comparison, f"MSE + {loss_weight:g} × gap²")
    curve.plot(right)
    right.set_xlabel("overall MSE on held-out samples (squared standard deviations)")
    right.set_ylabel("gap between the groups' MSE")
    right.set_title("What a smaller gap costs, by weight of gap²", loc="left")
    gaps = (comparison.before.gap.value, comparison.after.gap.value)
    heading = comparison.before.heading
    totals = [r.overall[heading][0] for r in (comparison.before, comparison.after)]
    figure.suptitle(
        f"Predicting {target}: the gap between the groups {_change(*gaps)}, "
        f"the overall error {_change(*totals)}",
        fontsize=13,
    )
    figure.savefig(path, dpi=150)


def _draw_errors(axes: Any, comparison: GroupComparison, after_label: str) -> None:
    reports = {"plain MSE": comparison.before, after_label: comparison.after}
    counts = [*comparison.before.n, comparison.before.n.sum()]
    names = [*comparison.group_names, "all"]
    places = np.arange(len(names))
    for i, (label, report) in enumerate(reports.items()):
        overall, overall_noise = report.overall[report.heading]
        bars = axes.bar(
            places + (i - 0.5) * 0.38,
            [*report.means, overall],
            0.36,
            yerr=[*report.standard_errors, overall_noise],
            error_kw={"ecolor": "#333333", "elinewidth": 1, "capsize": 3},
            color=(_BEFORE, _AFTER)[i],
            label=f"{label}: gap {report.gap.value:.2f}",
        )
        axes.bar_label(
            bars,
            [f"{value:.2f}" for value in (*report.means, overall)],
            label_type="center",
            color=("black", "white")[i],
        )
    axes.set_xticks(places, [f"{n}\n({c:.0f} samples)" for n, c in zip(names, counts)])
    axes.set_ylabel("MSE on held-out samples (squared standard deviations)")
    axes.set_title("Error of each group (whiskers: ± one standard error)", loc="left")
    axes.legend(frameon=False, loc="upper left")
    axes.margins(y=0.18)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _change(before: float, after: float) -> str:
    return f"{'rises' if after > before else 'falls'} by {abs(after / before - 1.0):.0%}"
