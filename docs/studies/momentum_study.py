"""Which momentum `losses.GroupGap` should have: a study in plain NumPy.

Trains a linear model by Adam with a cosine decay on MSE + 5·gap², from batches of
8 to 1,024 rows, for groups of 50 % down to 0.5 % and 2 to 100 groups, with every
momentum and by the default (a memory that grows, a limited force), and prints by how
many percent the objective over all rows lies above its minimum (found by L-BFGS on all
rows at once).

    python momentum_study.py            # the tables of momentum.md, some minutes
    python momentum_study.py --quick    # two batch sizes of them
    python momentum_study.py --check    # the same update by the kit's own code

`RunningTotals` is written out in `step` once more, for all momenta at once; the
check holds it against the kit's code, batch by batch.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.optimize import minimize

WEIGHT = 5.0  # of the squared gap; the MSE has 1
MOMENTA = (0.0, 0.9, 0.97, 0.99, 0.997, 0.999)
BATCHES = (8, 16, 32, 64, 128, 256, 1024)
MAX_FACTOR = 3.0  # as in losses/running_totals.py
MAX_FORCE, MAX_PUSH = 1.0, 8.0  # as in losses/group_gap.py and losses/forces.py
COLUMNS = (*(f"{m:g}" for m in MOMENTA), "default")


class Problem:
    """A linear regression whose groups differ in noise and in slopes."""

    def __init__(self, shares, seed=0, rows=4000, features=10):
        rng = np.random.default_rng(seed)
        shares = np.asarray(shares, float)
        self.num_groups = len(shares)
        counts = np.maximum(np.round(shares / shares.sum() * rows), 2).astype(int)
        self.ids = np.repeat(np.arange(self.num_groups), counts)
        x = rng.normal(size=(len(self.ids), features))
        # Targets of variance of about 1, as one would scale them.
        slopes = 0.3 * rng.normal(size=features) + 0.15 * rng.normal(
            size=(self.num_groups, features)
        )
        noise = rng.uniform(0.2, 0.7, size=self.num_groups)[self.ids]
        self.x = np.c_[x, np.ones(len(x))]
        self.y = np.sum(x * slopes[self.ids], axis=1) + noise * rng.normal(size=len(x))
        self.counts = np.bincount(self.ids)

    def objective(self, w):
        """MSE + WEIGHT · mean squared gap over pairs, and its gradient."""
        residual = self.x @ w - self.y
        means = np.bincount(self.ids, residual**2) / self.counts
        per_mean = gap_slopes(means, np.ones_like(means, bool))
        factor = 1 / len(self.y) + WEIGHT * (per_mean / self.counts)[self.ids]
        n = self.num_groups
        gap = 2 * np.sum((means - means.mean()) ** 2) / (n - 1)
        return np.mean(residual**2) + WEIGHT * gap, 2 * (factor * residual) @ self.x

    def minimum(self):
        # The gap is not convex: the best of several starts.
        rng = np.random.default_rng(0)
        start = np.linalg.lstsq(self.x, self.y, rcond=None)[0]
        starts = [start] + [start + 0.3 * rng.normal(size=start.shape) for _ in range(3)]
        found = [
            minimize(self.objective, w, jac=True, method="L-BFGS-B", tol=1e-12)
            for w in starts
        ]
        return min(result.fun for result in found)


def gap_slopes(means, is_present):
    """Derivative of the mean squared gap over pairs by each mean."""
    count = is_present.sum(-1, keepdims=True)
    center = (means * is_present).sum(-1, keepdims=True) / np.maximum(count, 1)
    return np.where(is_present, 4 * (means - center) / np.maximum(count - 1, 1), 0.0)


def step(state, momenta, errors, weights, rows):
    """One update of the running totals, for every momentum at once.

    Args:
        state: `error`, `weight` `(…, momenta, K)` and `mass` `(momenta, 1)`.
        momenta: `(momenta, 1)`.
        errors, weights: The batch's totals `(…, momenta, K)`, `(…, 1, K)`.
        rows: Rows of the batch.

    Returns:
        `(means, is_seen, expected)`.
    """
    state["error"] = momenta * state["error"] + (1 - momenta) * errors / rows
    state["weight"] = momenta * state["weight"] + (1 - momenta) * weights / rows
    state["mass"] = momenta * state["mass"] + (1 - momenta)
    is_seen = state["weight"] > 0
    means = np.divide(
        state["error"], state["weight"], out=np.zeros_like(state["error"]), where=is_seen
    )
    expected = rows * state["weight"] / state["mass"]
    return means, is_seen, np.maximum(expected, weights / MAX_FACTOR)


def limit(slopes, shares):
    """The slopes that the default trains with, as in losses/forces.py."""
    largest = WEIGHT * np.abs(slopes).max(-1, keepdims=True)
    slopes = slopes * np.minimum(1.0, MAX_FORCE / np.maximum(largest, 1e-30))
    return np.maximum(slopes, -MAX_PUSH * MAX_FORCE * shares / WEIGHT)


def train(problem, batch, steps, *, rate=0.01, seeds=2, order="shuffled", optimizer="adam"):
    """Last weights `(seeds, momenta, features)` of training from batches."""
    rng = np.random.default_rng(1)
    x, y, ids, k = problem.x, problem.y, problem.ids, problem.num_groups
    momenta = np.append(MOMENTA, 0.0)[:, None]  # the last is the default's
    w = np.zeros((seeds, len(momenta), x.shape[1]))
    first, second = np.zeros_like(w), np.zeros_like(w)
    shape = (seeds, len(momenta), k)
    state = {"error": np.zeros(shape), "weight": np.zeros(shape), "mass": 0.0 * momenta}
    position = len(y)
    for t in range(steps):
        momenta[-1] = min((t + 1) / (t + 20), 0.997)
        if position + batch > len(y):
            position = 0
            perms = np.array([rng.permutation(len(y)) for _ in range(seeds)])
            if order == "sorted":
                perms = np.array([np.arange(len(y))] * seeds)
        rows = perms[:, position : position + batch]
        position += batch
        bx, bg = x[rows], ids[rows]
        residual = w @ bx.transpose(0, 2, 1) - y[rows][:, None, :]
        onehot = np.zeros((seeds, batch, k))
        np.put_along_axis(onehot, bg[..., None], 1.0, axis=2)
        weights = onehot.sum(1)[:, None, :]
        errors = residual**2 @ onehot
        means, is_seen, expected = step(state, momenta, errors, weights, batch)
        slopes = gap_slopes(means, is_seen)
        shares = state["weight"] / state["weight"].sum(-1, keepdims=True)
        slopes[..., -1, :] = limit(slopes[..., -1, :], shares[..., -1, :])
        pull = np.divide(slopes, expected, out=np.zeros(shape), where=expected > 0)
        factor = 1 / batch + WEIGHT * (pull @ onehot.transpose(0, 2, 1))
        slope = 2 * (factor * residual) @ bx
        now = rate * 0.5 * (1 + np.cos(np.pi * t / steps))
        if optimizer == "sgd":
            w = w - now * slope
            continue
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        unbiased = second / (1 - 0.999 ** (t + 1))
        w = w - now * first / (1 - 0.9 ** (t + 1)) / (np.sqrt(unbiased) + 1e-7)
    return w


def excess(problem, weights):
    """Percent of the objective above its minimum: the mean over seeds."""
    best = problem.minimum()
    values = np.apply_along_axis(lambda w: problem.objective(w)[0], -1, weights)
    return 100 * (values / best - 1).mean(0)


PROBLEMS = {
    "2 groups, 50 %": [0.5, 0.5],
    "2 groups, 10 %": [0.1, 0.9],
    "2 groups, 2 %": [0.02, 0.98],
    "2 groups, 0.5 %": [0.005, 0.995],
    "5 groups, 50 … 5 %": [0.5, 0.25, 0.13, 0.07, 0.05],
    "20 groups, 5 % each": [0.05] * 20,
    "100 groups, 1 % each": [0.01] * 100,
}


def table(steps, batches=BATCHES, **options):
    print(f"\n{steps} steps {options or ''}\n")
    print("| groups | batch | " + " | ".join(COLUMNS) + " |")
    print("|---|---:|" + "---:|" * len(COLUMNS))
    for name, shares in PROBLEMS.items():
        problem = Problem(shares)
        for batch in batches:
            with np.errstate(over="ignore", invalid="ignore"):
                row = excess(problem, train(problem, batch, steps, **options))
            cells = " | ".join(f"{v:.2f}" if v < 1000 else "diverged" for v in row)
            print(f"| {name} | {batch} | {cells} |", flush=True)


def check():
    """Hold `step` against `losses.GroupGap` on the same batches, in double precision.

    JAX has that only with `JAX_ENABLE_X64=1`.
    """
    import keras

    from addloss_kit.losses import GroupGap

    keras.backend.set_floatx("float64")
    rng = np.random.default_rng(0)
    for momentum in MOMENTA[1:]:
        k, batch = 20, 16
        term = GroupGap(k, momentum=momentum, max_force=np.inf)
        term.build()
        state = {"error": np.zeros(k), "weight": np.zeros(k), "mass": 0.0}
        for _ in range(50):
            ids = rng.integers(0, k, batch)
            target, guess = rng.normal(size=batch), rng.normal(size=batch)
            value = float(term(target[:, None], guess[:, None], ids, training=True))
            weights = np.bincount(ids, minlength=k) * 1.0
            errors = np.bincount(ids, (target - guess) ** 2, k)
            means, is_seen, _ = step(state, momentum, errors, weights, batch)
            chosen = means[is_seen]
            gap = 2 * np.var(chosen) * len(chosen) / max(len(chosen) - 1, 1)
            np.testing.assert_allclose(value, gap, rtol=1e-9, atol=1e-12)
    print("The kit's running totals agree with the study's, to 1e-9.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the kit")
    parser.add_argument("--quick", action="store_true", help="batches of 16 and 64 only")
    given = parser.parse_args()
    if given.check:
        check()
    elif given.quick:
        table(6000, batches=(16, 64))
        table(300, batches=(16, 64))
    else:
        table(6000)
        table(300, batches=(16, 64))
        table(6000, batches=(16,), order="sorted")
