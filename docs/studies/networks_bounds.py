"""Do bounds, the worst group and the distributions' gap train on networks? (networks.md)

Trains a network on the terms that hold running means or multipliers, with the default
memory, the memory of the first release (0.99) and none, by `networks_study.Trainer`.

    KERAS_BACKEND=jax python networks_bounds.py      # ten minutes on one core

It needs JAX and scikit-learn.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
from networks_study import ADAM, Trainer, data_of

from addloss_kit import losses

MEMORIES = {"none": 0.0, "0.99": 0.99, "default": "auto"}
# The share of the gap, or of the worst group's error, of plain training that a bound
# allows. Set before the runs, from plain training's own numbers.
SHARES = (0.7, 0.4)


class Bounded(Trainer):
    """Measures what a bound is about: MSE, worst group, gap, on the training rows."""

    def new_term(self, method):
        return method

    def measures(self, tv, ntv, weight):
        guess, _ = self.model.stateless_call(tv, ntv, self.x, training=False)
        error = ((guess - self.y) ** 2)[:, 0]
        counts = jnp.zeros(self.k).at[self.ids].add(1.0)
        means = jnp.zeros(self.k).at[self.ids].add(error) / counts
        return jnp.stack([error.mean(), means.max(), means.max() - means.min()])


class Alone(Bounded):
    """The term alone, without an MSE beside it."""

    weight_of_mse = 0.0


def row(name, memory, found, bound, column):
    """One line: MSE and the bounded number over the bound, medians over rates, seeds."""
    end, worst = found[0, :, :, -1], found[0, :, :, :, 0].max(-1)
    over = np.median(end[..., column], axis=1) / bound
    mse = np.median(end[..., 0], axis=1)
    ratio = " | ".join(f"{m:.3f}, {o:.2f}" for m, o in zip(mse, over))
    lost = int((~(worst < 3 * found[0, :, :, 0, 0])).sum())
    print(f"| {name} | {memory} | {ratio} | {lost} of {worst.size} |", flush=True)


def main(steps=3000, batch=32, kind="MLP 32"):
    seeds = list(range(5))
    rates = " | ".join(f"Adam {rate}" for rate in ADAM)
    for groups in ("2 groups, 10 %", "5 groups"):
        data, k = data_of(kind, groups)

        def run(term, of=Bounded, weight=1.0, data=data, k=k):
            trainer = of(kind, data, k, term, batch, steps, "Adam", "shuffled")
            return trainer.grid((weight,), ADAM, seeds)

        plain = run(losses.GroupGap(k), weight=0.0)
        _, worst, gap = np.median(plain[0, :, :, -1], axis=(0, 1))
        print(f"\n{groups}: plain training ends at a worst group of {worst:.3f} and a gap "
              f"of {gap:.3f}\n")  # fmt: skip
        print(f"| term | memory | {rates} | MSE above 3 × the start's |")
        print("|---|---|" + "---:|" * (len(ADAM) + 1))
        for share in SHARES:
            for name, memory in MEMORIES.items():
                term = losses.GroupGapConstraint(k, bound=share * gap, momentum=memory)
                row(f"gap ≤ {share:g} × plain", name, run(term), share * gap, 2)
            jax.clear_caches()
        for share in (0.9, 0.8):
            for name, memory in MEMORIES.items():
                bound = share * worst
                term = losses.BoundedGroupLoss(k, bound=bound, momentum=memory)
                row(f"worst ≤ {share:g} × plain", name, run(term), bound, 1)
            jax.clear_caches()
        for name, memory in MEMORIES.items():
            term = losses.WorstGroup(k, momentum=memory)
            row("worst group", name, run(term, Alone), worst, 1)
        jax.clear_caches()


if __name__ == "__main__":
    main()
