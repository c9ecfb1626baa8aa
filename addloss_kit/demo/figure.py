"""The picture of the demo: three panels, each with its 95 % intervals."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from addloss_kit.demo.noisy_rows import OUTPUTS
from addloss_kit.demo.rare_group import PLAIN, RARE_DIGIT, WORST, Change
from addloss_kit.reports import GroupComparison, GroupReport
from addloss_kit.reports.comparison import ErrorsByGroup

# Distinguishable for colour-blind readers, and in print.
_BEFORE, _AFTER = "#9aa5b1", "#0b6e99"
_BY_PART = ("#d1495b", _AFTER, "#333333")
_WHISKERS = {"ecolor": "#333333", "elinewidth": 1, "capsize": 3}


def write_figure(
    path: pathlib.Path,
    weights: GroupComparison,
    changes: dict[str, dict[str, Change]],
    reports: dict[str, GroupReport],
) -> None:
    """Plot both parts of the demo.

    Args:
        path: The PNG to write.
        weights: Weighted against plain RMSE.
        changes: By term, then by part of the rows.
        reports: By term, of the held-out rows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.8), layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=(2, 3, 4))
    _draw_bars(
        first,
        {"RMSE": weights.before, "weighted RMSE": weights.after},
        OUTPUTS,
        "Noisy rows: distance from the truth",
        "mean squared distance",
    )
    _draw_changes(second, changes)
    _draw_bars(
        third,
        {label: reports[label] for label in (PLAIN, WORST)},
        [str(k) for k in range(10)],
        f"Digits, {RARE_DIGIT} rare in training: held-out error",
        "cross-entropy",
    )
    for axes in (first, second, third):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
    figure.supxlabel("Held-out rows; whiskers: 95 % intervals", fontsize=10)
    figure.savefig(path, dpi=150)


def _draw_bars(
    axes: Any,
    reports: Mapping[str, ErrorsByGroup],
    names: list[str] | tuple[str, ...],
    title: str,
    unit: str,
) -> None:
    places = np.arange(len(names))
    for i, (label, report) in enumerate(reports.items()):
        axes.bar(
            places + (i - 0.5) * 0.38,
            report.means,
            0.36,
            yerr=1.96 * report.standard_errors,
            error_kw=_WHISKERS,
            color=(_BEFORE, _AFTER)[i],
            label=label,
        )
    axes.set_xticks(places, names)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False)


def _draw_changes(axes: Any, changes: dict[str, dict[str, Change]]) -> None:
    places = np.arange(len(changes))
    for i, part in enumerate(next(iter(changes.values()))):
        of_part = [by_part[part] for by_part in changes.values()]
        axes.errorbar(
            places + (i - 1) * 0.2,
            [change.value for change in of_part],
            yerr=[change.margin for change in of_part],
            fmt="o",
            capsize=3,
            color=_BY_PART[i],
            label=part,
        )
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.set_xticks(places, list(changes), fontsize=9)
    axes.margins(x=0.15)
    axes.set_ylabel(f"cross-entropy, minus that of the {PLAIN} fit")
    axes.set_title("Digits: change by each term", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="best")
