"""Is the gap smaller on rows that training lacks, at equal MSE? (networks.md)

    KERAS_BACKEND=jax python networks_held_out.py    # a quarter of an hour

It needs JAX and scikit-learn.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
from networks_study import Trainer, gap_squared, made
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine


def real_sets():
    """Name, features, target and ids, of scikit-learn's sets and made ones."""
    x, y = load_diabetes(return_X_y=True)
    yield "diabetes, by sex", x, y, (x[:, 1] > 0).astype(int)
    x, y = load_breast_cancer(return_X_y=True)
    yield "breast cancer: compactness, by diagnosis", x[:, :10], x[:, 25], y
    x, y = load_wine(return_X_y=True)
    yield "wine: alcohol, by cultivar", x[:, 1:], x[:, 0], y
    x, digit = load_digits(return_X_y=True)
    yield "digits: ink below from above, by digit", x[:, :32], x[:, 32:].mean(1), digit
    for shares, seed in (((0.2, 0.8), 1), ((0.05, 0.95), 2), ((0.4, 0.3, 0.2, 0.1), 3)):
        x, y, ids = made(shares, 12, seed=seed, rows=1000)
        yield f"made, {len(shares)} groups, {min(shares):.0%}", x, y[:, 0], ids


PATH = tuple(np.round(np.geomspace(0.05, 100.0, 12), 3))
BUDGETS = (0.01, 0.02, 0.05, 0.10)


def split(x, y, ids, seed):
    """A half for training, a quarter to stop by, a quarter to judge by."""
    order = np.random.default_rng(seed).permutation(len(y))
    n = len(y) // 4
    train, stop, judge = order[: 2 * n], order[2 * n : 3 * n], order[3 * n :]
    center, scale = x[train].mean(0), x[train].std(0)
    scale[scale == 0] = 1.0
    x = ((x - center) / scale).astype("float32")
    y = ((y - y[train].mean()) / y[train].std()).astype("float32")[:, None]
    arrays = (x, y, ids.astype("int32"))
    return tuple(tuple(jnp.asarray(a[r]) for a in arrays) for r in (train, stop, judge))


class HeldOut(Trainer):
    """Measures the rows to stop by and those to judge by, not those of training."""

    def measures(self, tv, ntv, weight):
        found = []
        for x, y, ids in (self.stop, self.held):
            guess, _ = self.model.stateless_call(tv, ntv, x, training=False)
            error = ((guess - y) ** 2)[:, 0]
            gap, spread = gap_squared(error, ids, self.k)
            found += [error.mean() + weight * gap, error.mean(), spread]
        return jnp.stack(found)

    def over(self, splits, weights, rate):
        """Measures `(splits, weights, epochs, measures)`, all in one compilation."""

        def one(split, seed, weight):
            train, self.stop, self.held = split
            self.x, self.y, self.ids = train
            # Past the cache of `run`, which would keep another split's rows.
            return Trainer.run.__wrapped__(self, weight, rate, seed)

        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *splits)
        by_weight = jax.vmap(one, (None, None, 0))
        by_split = jax.vmap(by_weight, (0, 0, None))
        seeds = jnp.arange(len(splits))
        weights = jnp.asarray(weights, "float32")
        return np.asarray(jax.jit(by_split)(stacked, seeds, weights))


def gap_at(budget, mse, gap):
    """The gap where the path of growing weights first has cost `budget`."""
    cost = mse / mse[0] - 1
    beyond = np.flatnonzero(cost >= budget)
    if len(beyond) == 0:
        return gap[-1]
    j = beyond[0]
    share = (budget - cost[j - 1]) / (cost[j] - cost[j - 1])
    return gap[j - 1] + share * (gap[j] - gap[j - 1])


def held_out(splits=10, steps=1500, batch=32, rate=0.003):
    methods = ("plug-in", "default", "push down")
    header = ["data", "model", "MSE", "no term", *methods, "default less plug-in"]
    print("| " + " | ".join(header) + " |")
    print("|---|---|---:|" + "---:|" * (len(methods) + 2))
    differences = {budget: [] for budget in BUDGETS}
    for name, x, y, ids in real_sets():
        k = int(ids.max()) + 1
        parts = [split(x, y, ids, number) for number in range(splits)]
        for kind in ("linear", "MLP 32"):
            gaps, plain = {}, None
            for method in methods:
                first, _, judge = parts[0]
                data = (*first, judge)
                run = HeldOut(kind, data, k, method, batch, steps, "Adam", "shuffled")
                found = run.over(parts, (0.0, *PATH), rate)
                # The epoch with the smallest objective on the rows to stop by.
                best = np.nanargmin(found[..., 0], axis=2)[..., None, None]
                stopped = np.take_along_axis(found, best, axis=2)[:, :, 0]
                mse, gap = stopped[..., 4], stopped[..., 5]
                gaps[method] = np.array(
                    [[gap_at(b, m, g) for b in BUDGETS] for m, g in zip(mse, gap)]
                )
                plain = gap[:, 0]
                jax.clear_caches()
            for j, budget in enumerate(BUDGETS):
                d = gaps["default"][:, j] - gaps["plug-in"][:, j]
                differences[budget].append(d.mean() / plain.mean())
                texts = [f"{gaps[m][:, j].mean():.3f}" for m in methods]
                print(
                    f"| {name} | {kind} | +{budget:.0%} | {plain.mean():.3f} | "
                    + " | ".join(texts)
                    + f" | {d.mean():+.3f} ± {d.std(ddof=1) / len(d) ** 0.5:.3f} |",
                    flush=True,
                )
    for budget, shares in differences.items():
        print(f"+{budget:.0%} MSE: mean difference {np.mean(shares):+.1%} of the plain gap")


if __name__ == "__main__":
    held_out()
