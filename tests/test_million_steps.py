"""Sums over a million steps of one compiled loop, against float64.

XLA could reorder the sums that hold the rounding errors of other sums, so the loop is
XLA's, as in training.
"""

import engines
import keras
import numpy as np
import pytest

import addloss_kit as alk

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="A million steps need a compiled loop."
)

STEPS, TABLE, ROWS, GROUPS = 1_000_000, 1000, 3, 3


def a_table(rng):
    """Batches that the steps take in turn; the last group is rare, some rows have none.

    The numbers are on a grid, so that the totals of a batch are exact in float32.
    """
    error = np.float32(np.round(64 * rng.lognormal(size=(TABLE, ROWS))) / 64)
    weight = np.float32(rng.integers(32, 128, size=(TABLE, ROWS)) / 64)
    ids = rng.choice(4, size=(TABLE, ROWS), p=[0.6, 0.3, 0.02, 0.08]).astype("int32")
    return error, weight, np.where(ids == 3, -1, ids).astype("int32")


def run(step, variables, table):
    """Call `step` on each batch, `STEPS` times, as one compiled loop."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def loop(*table):
            def body(number):
                step(*(tf.gather(array, number % TABLE) for array in table))
                return (number + 1,)

            tf.while_loop(lambda number: number < STEPS, body, [tf.constant(0)])

        loop(*map(tf.constant, table))
        return
    import jax

    table = [jax.numpy.asarray(array) for array in table]

    def body(number, values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))) as scope:
            step(*(array[number % TABLE] for array in table))
        return [scope.get_current_value(variable) for variable in variables]

    start = [variable.value for variable in variables]
    ends = jax.jit(lambda values: jax.lax.fori_loop(0, STEPS, body, values))(start)
    for variable, end in zip(variables, ends):
        variable.assign(end)


def totals(error, weight, ids):
    """Of each batch and group, in float64: `(batches, groups)` each."""
    is_of = ids[..., None] == np.arange(GROUPS)
    weight = np.float64(weight)[..., None] * is_of
    return (weight * np.float64(error)[..., None]).sum(axis=1), weight.sum(axis=1)


def test_the_totals_of_an_epoch_are_those_of_float64(rng):
    table = a_table(rng)
    metric = alk.metrics.GroupError(GROUPS, error="absolute_error")

    def step(error, weight, ids):
        metric.update_state(0 * error[:, None], error[:, None], ids, weight)

    run(step, metric.variables, table)

    expected = [STEPS // TABLE * sums.sum(axis=0) for sums in totals(*table)]
    for sums, total in zip((metric.error_totals, metric.weight_totals), expected):
        found = engines.as_numpy(sums).astype("float64").sum(axis=0)
        np.testing.assert_allclose(found, total, rtol=1e-9)
    # A plain sum in float32 is this far off: the case is hard enough.
    news = np.tile(totals(*table)[0][:, 0].astype("float32"), STEPS // TABLE)
    assert abs(np.add.accumulate(news)[-1] / expected[0][0] - 1) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("momentum", ["auto", 0.9, 0.999])
def test_running_totals_are_those_of_float64(momentum, rng):
    table = a_table(rng)
    term = alk.losses.GroupGap(GROUPS, error="absolute_error", momentum=momentum)
    term.build()

    def step(error, weight, ids):
        term(0 * error[:, None], error[:, None], ids, weight, training=True)

    run(step, term.variables, table)

    keep = 0.997 if momentum == "auto" else momentum
    error, weight = np.zeros((2, GROUPS))
    # What was 40 memories ago counts e⁻⁴⁰.
    for number in range(STEPS - int(40 / (1 - keep)), STEPS):
        errors, weights = (sums[number % TABLE] for sums in totals(*table))
        error = keep * error + (1 - keep) * errors / ROWS
        weight = keep * weight + (1 - keep) * weights / ROWS
    # Each step rounds, and a memory of 1000 steps holds the rounding of 1000.
    options = {"rtol": 1e-5 if momentum != 0.999 else 3e-5}
    found = engines.as_numpy(term.running.error), engines.as_numpy(term.running.weight)
    np.testing.assert_allclose(found[0], error, **options)
    np.testing.assert_allclose(found[1], weight, **options)
    np.testing.assert_allclose(engines.as_numpy(term.running.mass), 1.0, **options)
    if momentum == "auto":
        assert engines.as_numpy(term.running.steps) == STEPS
