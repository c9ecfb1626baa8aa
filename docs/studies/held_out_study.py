"""Does the smaller bias of running totals reach rows that training has not seen?

Linear models on scikit-learn's bundled sets and on made ones, half of the rows for
training and half held out, ten splits. For each split and method (running totals
with momentum 0.99, and the plug-in) a path of models over the weight of the squared
gap; on that path the absolute gap on the held-out rows where the *held-out* overall
MSE is a given percentage above that of the model without a gap term. Beside them the
same path trained on all rows at once, which is what running totals promise to equal.
Then all of it once more with an L2 penalty on the weights, of the strength that
cross-validation on the training rows picks for the model without a gap term.

    python held_out_study.py              # held_out_tables.md, some minutes
    python held_out_study.py --picture    # held_out.png from held_out_tables.md

The update is that of `momentum_study.step`, which is checked against the kit.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
from momentum_study import gap_slopes, step
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import RidgeCV

MOMENTA = np.array([0.0, 0.99])[:, None, None]
WEIGHTS = np.r_[0.0, np.geomspace(0.1, 300.0, 15)]
BUDGETS = (0.01, 0.02, 0.05, 0.10)
PENALTIES = np.geomspace(0.01, 1000.0, 26)
SPLITS = 10
STEPS = 4000
RATE = 0.01


def made(shares, seed, rows=2000, features=8):
    """Groups that differ in slopes and in noise."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(len(shares), size=rows, p=shares)
    x = rng.normal(size=(rows, features))
    slopes = 0.3 * rng.normal(size=features) + 0.15 * rng.normal(
        size=(len(shares), features)
    )
    noise = rng.uniform(0.2, 0.8, size=len(shares))[ids] * rng.normal(size=rows)
    return x, np.sum(x * slopes[ids], axis=1) + noise, ids


def datasets():
    """Name, features, target and group ids of each set."""
    x, y = load_diabetes(return_X_y=True)
    yield "diabetes, by sex", x, y, (x[:, 1] > 0).astype(int)
    x, y = load_breast_cancer(return_X_y=True)
    large = (x[:, 0] > np.quantile(x[:, 0], 0.75)).astype(int)
    yield "breast cancer, by radius (25 % large)", x[:, 1:10], y * 1.0, large
    x, y = load_wine(return_X_y=True)
    yield "wine: alcohol, by cultivar (3)", x[:, 1:], x[:, 0], y
    x, digit = load_digits(return_X_y=True)
    upper, lower = x[:, :32], x[:, 32:].mean(1)
    yield "digits: ink below from above, by digit (10)", upper, lower, digit
    yield "digits: the same, seven or not (10 %)", upper, lower, (digit == 7) * 1
    yield "made, 2 groups, 20 %", *made([0.2, 0.8], seed=1)
    yield "made, 2 groups, 5 %", *made([0.05, 0.95], seed=2)
    yield "made, 5 groups", *made([0.4, 0.25, 0.15, 0.1, 0.1], seed=3)


def train(x, y, ids, k, batch, penalty, rng):
    """Last weights `(momenta, weights, features)`, all from the same batches.

    Args:
        penalty: Factor of the sum of the squared weights, the last (of the constant)
            left out.
    """
    shrink = 2 * penalty * np.r_[np.ones(x.shape[1] - 1), 0.0]
    shape = (len(MOMENTA), len(WEIGHTS), x.shape[1])
    w, first, second = np.zeros((3, *shape))
    totals = np.zeros((*shape[:2], k))
    state = {"error": totals, "weight": totals, "mass": 0.0 * MOMENTA}
    order = np.empty(0, int)
    for t in range(STEPS):
        if len(order) < batch:
            order = rng.permutation(len(y))
        rows, order = order[:batch], order[batch:]
        bx, onehot = x[rows], np.eye(k)[ids[rows]]
        residual = w @ bx.T - y[rows]
        means, is_seen, expected = step(
            state, MOMENTA, residual**2 @ onehot, onehot.sum(0), batch
        )
        pull = WEIGHTS[:, None] * gap_slopes(means, is_seen)
        pull = np.divide(pull, expected, out=np.zeros_like(pull), where=expected > 0)
        slope = 2 * ((1 / batch + pull @ onehot.T) * residual) @ bx + shrink * w
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        rate = RATE * 0.5 * (1 + np.cos(np.pi * t / STEPS))
        unbiased = second / (1 - 0.999 ** (t + 1))
        w = w - rate * first / (1 - 0.9 ** (t + 1)) / (np.sqrt(unbiased) + 1e-7)
    return w


def gap_at(budget, mse, gap):
    """The gap where the path of growing weights first has cost `budget`.

    A path that never costs as much counts by its last model, which is cheaper.
    """
    cost = mse / mse[0] - 1
    beyond = np.flatnonzero(cost >= budget)
    if len(beyond) == 0:
        return gap[-1]
    j = beyond[0]
    share = (budget - cost[j - 1]) / (cost[j] - cost[j - 1])
    return gap[j - 1] + share * (gap[j] - gap[j - 1])


def best_penalty(x, y):
    """Of the mean squared error, by leave-one-out cross-validation."""
    fit = RidgeCV(PENALTIES).fit(x[:, :-1], y)
    return fit.alpha_ / len(y)


def split_rows(x, y, rng):
    """Which rows are for training, and features and target in units of those."""
    is_train = rng.permutation(len(y)) < len(y) // 2
    center, scale = x[is_train].mean(0), x[is_train].std(0)
    scale[scale == 0.0] = 1.0  # pixels of the digits that are never inked
    features = np.c_[(x - center) / scale, np.ones(len(x))]
    return is_train, features, (y - y[is_train].mean()) / y[is_train].std()


def print_carried():
    """Whether the gap of a least-squares fit is the same on rows that it has not seen."""
    print("| data | smallest group | training gap | the same two groups, held out |")
    print("|---|---:|---:|---:|")
    for name, x, y, ids in datasets():
        gaps = []
        for split in range(SPLITS):
            is_train, features, target = split_rows(x, y, np.random.default_rng(split))
            w = np.linalg.lstsq(features[is_train], target[is_train], rcond=None)[0]
            squares = (features @ w - target) ** 2
            seen, held = (
                np.bincount(ids[rows], squares[rows]) / np.bincount(ids[rows])
                for rows in (is_train, ~is_train)
            )
            worst, best = seen.argmax(), seen.argmin()
            gaps.append((seen[worst] - seen[best], held[worst] - held[best]))
        cells = [f"{v.mean():.3f} ± {v.std(ddof=1):.3f}" for v in np.array(gaps).T]
        less = sum(held <= 0 for _, held in gaps)
        smallest = np.bincount(ids).min() // 2
        print(f"| {name} | {smallest} rows | {cells[0]} | {cells[1]} ({less} of 10 ≤ 0) |")


def gaps_of(name_x_y_ids, batch, is_penalised):
    """Held-out gaps `(splits, 2, budgets)`, and those without a gap term `(splits,)`.

    Args:
        batch: Rows per batch; `None` for all rows at once.
        is_penalised: Whether with the L2 penalty.
    """
    _, x, y, ids = name_x_y_ids
    k = ids.max() + 1
    found, without = [], []
    for split in range(SPLITS):
        rng = np.random.default_rng(split)
        is_train, features, target = split_rows(x, y, rng)
        size = batch or is_train.sum()
        rows = features[is_train], target[is_train]
        penalty = best_penalty(*rows) if is_penalised else 0.0
        w = train(*rows, ids[is_train], k, size, penalty, rng)
        held = ~is_train
        squares = (w @ features[held].T - target[held]) ** 2
        onehot = np.eye(k)[ids[held]]
        means = squares @ onehot / onehot.sum(0)
        gap, mse = np.ptp(means, axis=-1), squares.mean(-1)
        found.append([[gap_at(b, *path) for b in BUDGETS] for path in zip(mse, gap)])
        without.append(gap[1, 0])
    return np.array(found), np.array(without)


def print_table(is_penalised):
    print(
        "| data | batch | MSE | no gap term | all rows at once | running | plug-in "
        "| running minus plug-in |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for data in datasets():
        at_once, _ = gaps_of(data, None, is_penalised)
        for batch in (16, 32):
            found, without = gaps_of(data, batch, is_penalised)
            for column, budget in enumerate(BUDGETS):
                plug_in, running = found[:, 0, column], found[:, 1, column]
                cells = [
                    f"{v.mean():.3f} ± {v.std(ddof=1):.3f}"
                    for v in (
                        without,
                        at_once[:, 0, column],
                        running,
                        plug_in,
                        running - plug_in,
                    )
                ]
                wins = int((running < plug_in).sum())
                print(
                    f"| {data[0]} | {batch} | +{100 * budget:.0f} % |",
                    " | ".join(cells),
                    f"({wins} of {SPLITS}) |",
                    flush=True,
                )


def recorded(batch, budget):
    """Name and gaps `(methods, 2)`, mean and deviation, of each data set in the tables."""
    page = pathlib.Path(__file__).with_name("held_out_tables.md").read_text()
    for line in page.split("## With an L2 penalty")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[1:3] == [str(batch), f"+{100 * budget:.0f} %"]:
            yield (
                cells[0],
                np.array([[float(n) for n in c.split(" ± ")] for c in cells[3:7]]),
            )


def draw(path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = list(recorded(32, 0.05))[::-1]
    styles = {
        "no gap term": ("gray", "|"),
        "all rows at once": ("black", "x"),
        "plug-in": ("tab:orange", "o"),
        "running totals": ("tab:blue", "o"),
    }
    columns = {"no gap term": 0, "all rows at once": 1, "running totals": 2, "plug-in": 3}
    figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
    for place, (label, (color, marker)) in enumerate(styles.items()):
        values = np.array([gaps[columns[label]] for _, gaps in found])
        axes.errorbar(
            values[:, 0],
            np.arange(len(found)) + 0.27 - 0.18 * place,
            xerr=values[:, 1] / np.sqrt(SPLITS),
            color=color,
            marker=marker,
            linestyle="",
            markersize=5,
            linewidth=1,
            label=label,
        )
    axes.set_yticks(range(len(found)), [name for name, _ in found])
    axes.set_xlabel("held-out gap at 5 % more MSE, ± standard error")
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper right", fontsize=9)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    if "--picture" in sys.argv:
        draw(pathlib.Path(__file__).with_name("held_out.png"))
        sys.exit()
    print_table(is_penalised=False)
    print("\nWith the L2 penalty:\n")
    print_table(is_penalised=True)
    print()
    print_carried()
