"""What a step of each group term costs, for 2 to 100,000 groups.

One compiled step (value, gradient and state) of the term alone, batches of 64 and of
1,024 rows. Time: the fastest of thirty runs of 50 steps. State: bytes of the term's
weights. Largest: elements of the largest tensor in the step's graph.

    python many_groups_study.py     # the table of many_groups.md; TensorFlow backend
"""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from addloss_kit import losses

TERMS = {
    "GroupGap": losses.GroupGap,
    "GroupGap, absolute pairs": lambda k: losses.GroupGap(k, distance="absolute"),
    "WorstGroup": losses.WorstGroup,
    "BoundedGroupLoss": lambda k: losses.BoundedGroupLoss(k, bound=1.0),
    "GroupGapConstraint": lambda k: losses.GroupGapConstraint(k, bound=0.1),
}


def measure(term, num_groups, batch):
    """Microseconds, bytes of state, elements of the largest tensor of a step."""
    rng = np.random.default_rng(0)
    target = tf.constant(rng.normal(size=(batch, 1)), "float32")
    ids = tf.constant(rng.integers(0, num_groups, size=batch), "int32")
    term.build()

    @tf.function
    def steps(guess):
        for _ in tf.range(50):
            with tf.GradientTape() as tape:
                tape.watch(guess)
                value = term(target, guess, ids, training=True)
            guess = guess - 1e-6 * tape.gradient(value, guess)
        return guess

    guess = tf.zeros((batch, 1))
    graph = steps.get_concrete_function(guess).graph
    # The loop's body is a function of its own.
    bodies = [f.graph for f in graph._functions.values() if hasattr(f, "graph")]
    largest = max(
        output.shape.num_elements()
        for g in [graph, *bodies]
        for operation in g.get_operations()
        for output in operation.outputs
        if output.shape.is_fully_defined()
    )
    times = []
    for _ in range(31):
        start = time.perf_counter()
        steps(guess)
        times.append(time.perf_counter() - start)
    state = sum(4 * int(np.prod(w.shape)) for w in term.weights)
    return 1e6 * min(times[1:]) / 50, state, largest


def main():
    print("| term | batch | groups | µs per step | state, kB | largest tensor |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, make in TERMS.items():
        for batch in (64, 1024):
            for num_groups in (2, 1_000, 10_000, 100_000):
                cost, state, largest = measure(make(num_groups), num_groups, batch)
                print(
                    f"| {name} | {batch:,} | {num_groups:,} | {cost:,.0f} "
                    f"| {state / 1000:,.1f} | {largest:,} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
