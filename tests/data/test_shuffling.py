"""The order of the rows without TensorFlow: it is TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf

from addloss_kit.data.balancing import BalancedPlan
from addloss_kit.data.rows import as_given, shuffled
from addloss_kit.data.shuffling import shuffle

SEEDS = [(0, 0), (7, 3), (-5, 0), (2**63 - 1, 10**6), (-(2**63), 1), (2**32, 2**32)]


def both_orders(order, seed):
    """One by NumPy, one by TensorFlow."""
    seed = np.array(seed, "int64")
    return order(seed), order(tf.constant(seed)).numpy()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 288, 32767, 32768, 32769, 65536, 65537])
def test_the_order_is_that_of_stateless_shuffle(rows, seed):
    found = shuffle(np.arange(rows, dtype="int32"), np.array(seed, "int64"))
    wanted = tf.random.experimental.stateless_shuffle(tf.range(rows), seed)
    np.testing.assert_array_equal(found, wanted)


def test_the_order_of_a_million_rows_is_that_of_stateless_shuffle():
    found = shuffle(np.arange(1_000_003), np.array([-1, 5]))
    rows = tf.range(1_000_003, dtype=tf.int64)
    wanted = tf.random.experimental.stateless_shuffle(rows, [-1, 5])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("order", [as_given(50), shuffled(50)])
def test_an_order_has_the_same_values_and_dtype_in_numpy_and_tensorflow(order):
    found, wanted = both_orders(order, (3, 2))
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype


@pytest.mark.parametrize("shares", [True, [3.0, 1.0, 1.0]])
def test_a_balanced_order_is_the_same_in_numpy_and_tensorflow(shares):
    ids = np.random.default_rng(0).choice([-1, 0, 1, 2], size=999, p=[0.1, 0.7, 0.1, 0.1])
    plan = BalancedPlan({"group_ids": ids}, "group_ids", shares, 32, 40)
    for epoch in range(3):
        found, wanted = both_orders(plan.order, (11, epoch))
        np.testing.assert_array_equal(found, wanted)
