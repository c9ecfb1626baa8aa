"""Does the gap train where training is hard: networks, large steps, rare groups?

Trains networks on MSE + weight · gap² with the kit's own `losses.GroupGap`, as one
`lax.scan` over the steps, over weights × step sizes × seeds at once: the default, the
plug-in (`momentum=0`, no limit), what the first release did (`momentum=0.99`, no
limit), and each half of the default by itself. The objective over all training rows
at the end is set beside that of training on all rows at once, with the same number of
steps and the same step sizes.

    KERAS_BACKEND=jax python networks_study.py             # the tables of networks.md
    KERAS_BACKEND=jax python networks_study.py --quick     # a smaller grid, minutes
    python networks_study.py --report networks_study.jsonl --picture networks.png

It needs JAX and scikit-learn. `networks_held_out.py` and `networks_bounds.py` train with
its `Trainer`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from addloss_kit.losses import GroupGap

ROWS = 1200
WEIGHTS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ADAM = (0.001, 0.003, 0.01)
SGD = (0.001, 0.01)
INFINITY = float("inf")
LARGE = "MLP 2×64, batch norm, dropout"
HEAVY = (LARGE, "CNN", "LSTM")  # fewer settings, so that the study takes an hour
METHODS = {
    "all rows": {"momentum": 0.0, "max_force": INFINITY},
    "plug-in": {"momentum": 0.0, "max_force": INFINITY},
    "first release": {"momentum": 0.99, "max_force": INFINITY},
    "default": {},
    "plug-in, limited": {"momentum": 0.0},
    "0.99, limited": {"momentum": 0.99},
    "push down": {"push": "down"},
}


# Data ----------------------------------------------------------------------------


def made(shares, features, seed=0, rows=ROWS, length=None):
    """Rows for training and as many held out; groups differ in slopes and noise."""
    rng = np.random.default_rng(seed)
    shares = np.asarray(shares) / np.sum(shares)
    k = len(shares)
    ids = rng.choice(k, size=2 * rows, p=shares)
    shape = (2 * rows, features) if length is None else (2 * rows, length, features)
    x = rng.normal(size=shape)
    slopes = rng.normal(size=features) + 0.7 * rng.normal(size=(k, features))
    slopes /= np.sqrt(features)
    flat = x if length is None else np.tanh(x).mean(1) * np.sqrt(length) * 1.5
    noise = rng.permutation(np.linspace(0.3, 0.8, k))[ids]
    y = np.sum(flat * slopes[ids], axis=1) + noise * rng.normal(size=2 * rows)
    return x.astype("float32"), y.astype("float32")[:, None], ids.astype("int32")


def digits_as_images():
    """The digits' pictures with noise; the target is the ink below, ten groups."""
    x, digit = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    x, digit = x[order], digit[order]
    y = x[:, 32:].mean(1)
    y = (y - y.mean()) / y.std()
    images = (x.reshape(-1, 8, 8, 1)[:, :4] / 8 - 1).astype("float32")
    return images, y.astype("float32")[:, None], digit.astype("int32")


GROUPS = {
    "2 groups, 30 %": (0.3, 0.7),
    "2 groups, 10 %": (0.1, 0.9),
    "2 groups, 2 %": (0.02, 0.98),
    "5 groups": (0.4, 0.3, 0.15, 0.1, 0.05),
    "20 groups": (0.05,) * 20,
    "0.5 % beside 5 groups": (0.005, 0.3, 0.25, 0.2, 0.145, 0.1),
    "100 groups": (0.01,) * 100,
}


# Networks ------------------------------------------------------------------------


def network(kind, shape):
    first = keras.Input(shape)
    x = first
    if kind == "MLP 32":
        x = layers.Dense(32, "relu")(x)
    elif kind == LARGE:
        for _ in range(2):
            x = layers.Dense(64)(x)
            x = layers.Activation("relu")(layers.BatchNormalization()(x))
            x = layers.Dropout(0.2)(x)
    elif kind == "CNN":
        x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        x = layers.Dense(32, "relu")(layers.Flatten()(x))
    elif kind == "LSTM":
        x = layers.LSTM(8)(x)
    return keras.Model(first, layers.Dense(1)(x))


def gap_squared(error, ids, k):
    """Mean over pairs of the squared difference of the present groups' means."""
    counts = jnp.zeros(k).at[ids].add(1.0)
    means = jnp.zeros(k).at[ids].add(error) / jnp.maximum(counts, 1)
    here = counts > 0
    n = here.sum()
    center = jnp.sum(means * here) / n
    spread = jnp.max(jnp.where(here, means, -jnp.inf)) - jnp.min(
        jnp.where(here, means, jnp.inf)
    )
    return 2 * jnp.sum(here * (means - center) ** 2) / jnp.maximum(n - 1, 1), spread


class Trainer:
    """Trains one kind of network by one method, for many settings at once."""

    weight_of_mse = 1.0

    def __init__(self, kind, data, k, method, batch, steps, optimizer, order):
        self.x, self.y, self.ids, self.held = data
        self.k, self.batch, self.steps = k, batch, steps
        self.optimizer, self.order = optimizer, order
        self.model = network(kind, self.x.shape[1:])
        self.term = self.new_term(method)
        self.term.build()
        self.is_full = isinstance(method, str) and method == "all rows"

    def new_term(self, method):
        """The term that is trained beside the MSE."""
        return GroupGap(self.k, **METHODS[method])

    def start(self, seed):
        """Initial weights that depend on the seed alone."""
        keys = jax.random.split(jax.random.PRNGKey(seed), len(self.model.variables))
        tv = []
        for key, v in zip(keys, self.model.trainable_variables):
            shape, start = v.shape, jnp.asarray(v.value)
            if len(shape) >= 2:  # Glorot; biases and scales as they are
                fan = np.prod(shape[:-1]) + shape[-1]
                start = jax.random.uniform(key, shape, minval=-1, maxval=1)
                start = start * np.sqrt(6 / fan)
            tv.append(start)
        ntv = [jnp.asarray(v.value) for v in self.model.non_trainable_variables]
        ntv = [n.at[1].set(jnp.uint32(seed)) if n.dtype == jnp.uint32 else n for n in ntv]
        return tv, ntv, [jnp.asarray(v.value) for v in self.term.variables]

    def measures(self, tv, ntv, weight):
        """Objective, MSE and gap on the training rows, then on the held-out ones."""
        found = []
        for x, y, ids in ((self.x, self.y, self.ids), self.held):
            guess, _ = self.model.stateless_call(tv, ntv, x, training=False)
            error = ((guess - y) ** 2)[:, 0]
            gap, spread = gap_squared(error, ids, self.k)
            found += [error.mean() + weight * gap, error.mean(), spread]
        return jnp.stack(found)

    def loss(self, tv, ntv, state, rows, weight):
        x, y, ids = self.x[rows], self.y[rows], self.ids[rows]
        guess, ntv = self.model.stateless_call(tv, ntv, x, training=True)
        mapping = list(zip(self.term.variables, state))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            gap = self.term.compute_loss(
                True, weight, y_true=y, y_pred=guess, group_ids=ids
            )
        state = [scope.get_current_value(v) for v in self.term.variables]
        state = [s if s is not None else old for s, (_, old) in zip(state, mapping)]
        mse = jnp.mean((guess - y) ** 2)
        return self.weight_of_mse * mse + weight * gap, (ntv, state)

    def rows_of(self, key, epoch):
        n = len(self.y)
        if self.order == "sorted":
            return jnp.argsort(self.ids, stable=True)
        key = jax.random.fold_in(key, epoch)
        if self.order == "balanced":
            counts = jnp.zeros(self.k).at[self.ids].add(1.0)
            chance = 1.0 / counts[self.ids]
            return jax.random.choice(key, n, (n,), p=chance / chance.sum())
        return jax.random.permutation(key, n)

    @functools.partial(jax.jit, static_argnums=0)
    def run(self, weight, rate, seed):
        """The measures at the start and after each thirtieth of the steps."""
        n, batch = len(self.y), min(self.batch, len(self.y))
        per_epoch = max(n // batch, 1)
        key = jax.random.PRNGKey(seed)
        tv, ntv, state = self.start(seed)
        zeros = [jnp.zeros_like(v) for v in tv]

        def step(carry, t):
            tv, ntv, state, first, second, order = carry
            if self.is_full:
                rows = jnp.arange(n)
            else:
                order = jax.lax.cond(
                    t % per_epoch == 0,
                    lambda: self.rows_of(key, t // per_epoch).astype(order.dtype),
                    lambda: order,
                )
                rows = jax.lax.dynamic_slice(order, ((t % per_epoch) * batch,), (batch,))
            slopes, (ntv, state) = jax.grad(self.loss, has_aux=True)(
                tv, ntv, state, rows, weight
            )
            now = rate * 0.5 * (1 + jnp.cos(jnp.pi * t / self.steps))
            if self.optimizer == "Adam":
                first = [0.9 * a + 0.1 * g for a, g in zip(first, slopes)]
                second = [0.999 * b + 0.001 * g * g for b, g in zip(second, slopes)]
                m, v = 1 - 0.9 ** (t + 1), 1 - 0.999 ** (t + 1)
                moves = [a / m / (jnp.sqrt(b / v) + 1e-7) for a, b in zip(first, second)]
            else:
                first = [0.9 * a + g for a, g in zip(first, slopes)]
                moves = first
            tv = [w - now * m for w, m in zip(tv, moves)]
            return (tv, ntv, state, first, second, order), None

        every = max(self.steps // 30, 1)

        def epoch(carry, i):
            carry, _ = jax.lax.scan(step, carry, i * every + jnp.arange(every))
            return carry, self.measures(carry[0], carry[1], weight)

        carry = (tv, ntv, state, zeros, zeros, jnp.arange(n))
        _, found = jax.lax.scan(epoch, carry, jnp.arange(self.steps // every))
        return jnp.concatenate([self.measures(tv, ntv, weight)[None], found])

    def grid(self, weights, rates, seeds):
        """Array `(weights, rates, seeds, epochs, measures)`."""
        mesh = np.meshgrid(weights, rates, seeds, indexing="ij")
        w, r, s = (jnp.asarray(m.ravel()) for m in mesh)
        found = jax.vmap(self.run)(w.astype("float32"), r.astype("float32"), s)
        return np.asarray(found).reshape(*mesh[0].shape, *found.shape[1:])


# The study -----------------------------------------------------------------------


def data_of(kind, groups, seed=0):
    if kind == "CNN":
        x, y, ids = digits_as_images()
        k = 10
    else:
        shares = GROUPS[groups]
        k = len(shares)
        sizes = {"LSTM": (4, 6), "linear": (10, None)}
        features, length = sizes.get(kind, (20, None))
        x, y, ids = made(shares, features, seed=seed + k, length=length)
    rows = min(ROWS, len(x) // 2)
    data = [jnp.asarray(a) for a in (x, y, ids)]
    held = tuple(a[rows : 2 * rows] for a in data)
    return (*(a[:rows] for a in data), held), k


def cells(is_quick):
    """Network, groups, batch, steps, optimizer, order, seeds, methods."""
    main = ("all rows", "plug-in", "first release", "default")
    few = ("all rows", "plug-in", "default")
    more = (*main, "plug-in, limited", "0.99, limited", "push down")
    five = range(5)
    for groups in list(GROUPS)[:5]:
        for steps in (300, 3000):
            for batch in (32,) if is_quick else (8, 32, 128):
                yield "MLP 32", groups, batch, steps, "Adam", "shuffled", five, more
    for groups in ("2 groups, 30 %", "2 groups, 2 %", "20 groups"):
        for batch in (32,) if is_quick else (16, 64):
            for steps in (300, 3000):
                yield "linear", groups, batch, steps, "Adam", "shuffled", five, main
    for steps in (300,) if is_quick else (300, 1500):
        yield "CNN", "10 digits", 32, steps, "Adam", "shuffled", five, few
        yield "LSTM", "2 groups, 10 %", 32, steps, "Adam", "shuffled", five, few
        for groups in ("2 groups, 30 %", "2 groups, 2 %"):
            yield LARGE, groups, 32, steps, "Adam", "shuffled", five, few
    for order in ("sorted", "balanced"):
        for groups in ("2 groups, 10 %", "5 groups"):
            yield "MLP 32", groups, 32, 3000, "Adam", order, five, main
    for groups in ("2 groups, 30 %", "2 groups, 10 %"):
        yield "MLP 32", groups, 32, 3000, "SGD, momentum 0.9", "shuffled", five, main
    if not is_quick:
        yield "MLP 32", "2 groups, 10 %", 32, 10000, "Adam", "shuffled", five, few
        for groups in ("0.5 % beside 5 groups", "100 groups"):
            for steps in (300, 3000):
                yield "MLP 32", groups, 64, steps, "Adam", "shuffled", five, few
        yield "MLP 32", "2 groups, 30 %", 1024, 300, "Adam", "shuffled", five, main


def study(is_quick, path):
    """Runs every cell; one line of JSON a cell and method."""
    reached = {}  # by all rows at once, which knows no batch size
    done = set()
    if os.path.exists(path):
        with open(path) as file:
            done = {(*(d := json.loads(line))["cell"], d["method"]) for line in file}
    with open(path, "a") as file:
        for cell in cells(is_quick):
            kind, groups, batch, steps, optimizer, order, seeds, methods = cell
            data, k = data_of(kind, groups)
            rates = ADAM if optimizer == "Adam" else SGD
            if kind in HEAVY:
                rates = rates[1:]
            for method in methods:
                if (*cell[:6], method) in done:
                    continue
                began = time.perf_counter()
                key = (kind, groups, steps, optimizer)
                found = reached.get(key) if method == "all rows" else None
                if found is None:
                    trainer = Trainer(kind, data, k, method, batch, steps, optimizer, order)
                    found = trainer.grid(WEIGHTS, rates, list(seeds))
                if method == "all rows":
                    reached[key] = found
                objective, mse = found[..., 0], found[..., 1]
                line = {
                    "cell": [kind, groups, batch, steps, optimizer, order],
                    "method": method,
                    "rates": rates,
                    "objective": objective[..., -1].tolist(),
                    "mse": mse[..., -1].tolist(),
                    "worst_mse": (mse.max(-1) / mse[..., 0]).tolist(),
                    "worst_objective": (objective.max(-1) / objective[..., 0]).tolist(),
                    "group_max": found[..., -1, 2].tolist(),
                    "held": found[..., -1, 4:6].tolist(),
                    "seconds": round(time.perf_counter() - began, 1),
                }
                file.write(json.dumps(line) + "\n")
                file.flush()
            jax.clear_caches()


# The report ----------------------------------------------------------------------


def read(path):
    """Results by cell and method."""
    cells = {}
    with open(path) as file:
        for line in file:
            found = json.loads(line)
            cells.setdefault(tuple(found["cell"]), {})[found["method"]] = found
    return {cell: by for cell, by in cells.items() if {"default", "plug-in"} <= by.keys()}


def medians(found):
    """Objective at the end, the median of the seeds, for weights up to 30."""
    return np.median(np.array(found["objective"]), axis=2)[:5]


def report(path, picture):
    cells = read(path)
    print("| network, groups | batch | steps | plug-in | first release | default |"
          " worse than plug-in |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|---:|")
    for (kind, groups, batch, steps, optimizer, order), by in cells.items():
        full = medians(by["all rows"])
        above = {m: medians(by[m]) / full for m in by if m != "all rows"}
        texts = []
        for m in ("plug-in", "first release", "default"):
            if m not in above:
                texts.append("")
                continue
            here = above[m][np.isfinite(above[m])]
            lost = np.isfinite(full).sum() - len(here)
            text = f"{np.exp(np.mean(np.log(here))):.2f} ({here.max():.1f})"
            texts.append(text + (f", {lost} diverged" if lost else ""))
        share = above["default"] / above["plug-in"]
        share = np.where(np.isfinite(share), share, 1.0)
        count = f"{(share > 1.0001).sum()} of {share.size}"
        count += f", up to {share.max() - 1:.1%}" if share.max() > 1.0001 else ""
        more = "" if order == "shuffled" else f", {order}"
        more += "" if optimizer == "Adam" else f", {optimizer}"
        print(f"| {kind}, {groups}{more} | {batch} | {steps} | " + " | ".join(texts)
              + f" | {count} |")  # fmt: skip
    by_weight(cells)
    print()
    print("| method | runs | MSE above 3 × the start's, or not finite | largest |")
    print("|---|---:|---:|---:|")
    for method in METHODS:
        found = [np.array(by[method]["worst_mse"]) for by in cells.values() if method in by]
        worst = np.concatenate([w.ravel() for w in found])
        print(f"| {method} | {worst.size} | {(~(worst < 3)).sum()} "
              f"| {np.nanmax(worst):.1f} |")  # fmt: skip
    if picture:
        draw(cells, picture)


def by_weight(cells):
    """The default's objective over the plug-in's, by network and weight."""
    shares = {}
    for cell, by in cells.items():
        share = medians(by["default"]) / medians(by["plug-in"])
        shares.setdefault(cell[0], []).append(np.where(np.isfinite(share), share, 1.0))
    print()
    header = " | ".join(f"weight {weight:g}" for weight in WEIGHTS[:5])
    print(f"| network | settings a weight | {header} |")
    print("|---|---:|" + "---:|" * 5)
    for kind, found in shares.items():
        share = np.concatenate([s.reshape(5, -1) for s in found], axis=1)
        means = np.exp(np.log(share).mean(axis=1))
        texts = [f"{m:.2f} ({worst:.2f})" for m, worst in zip(means, share.max(axis=1))]
        print(f"| {kind} | {share.shape[1]} | " + " | ".join(texts) + " |")


def draw(cells, path):
    """The default beside the plug-in, both over what all rows at once reach."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 5.6), layout="constrained")
    for color, steps in (("tab:orange", 300), ("tab:blue", 3000)):
        x, y = [], []
        for cell, by in cells.items():
            if (cell[3] <= 300) == (steps == 300):
                full = medians(by["all rows"])
                x += (medians(by["plug-in"]) / full).ravel().tolist()
                y += (medians(by["default"]) / full).ravel().tolist()
        label = "300 steps" if steps == 300 else "1,500 steps and more"
        axes.scatter(x, y, s=9, alpha=0.5, color=color, label=label)
    ends = [0.8, 100]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.text(3.0, 4.2, "the plug-in is ahead", rotation=45, fontsize=9)
    axes.text(9.0, 1.15, "the default is ahead", fontsize=9)
    axes.set(
        xscale="log",
        yscale="log",
        xlim=ends,
        ylim=ends,
        xlabel="plug-in: objective ÷ that of training on all rows",
        ylabel="default: objective ÷ that of training on all rows",
        title="One point: a network, a weight, a step size (median of seeds)",
    )
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller grid")
    parser.add_argument("--output", default="networks_study.jsonl")
    parser.add_argument("--report", help="tables of such a file, without training")
    parser.add_argument("--picture", help="with --report: where to draw to")
    given = parser.parse_args()
    if given.report:
        report(given.report, given.picture)
    else:
        study(given.quick, given.output)
