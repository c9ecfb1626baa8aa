"""A batch that overflows, whose step a loss-scaling optimizer skips, changes no state."""

import engines
import numpy as np
import pytest

from addloss_kit.losses import (
    BoundedGroupLoss,
    GroupGap,
    GroupGapConstraint,
    WorstGroup,
)

TERMS = {
    "gap": lambda: GroupGap(2),
    "gap, fixed memory": lambda: GroupGap(2, momentum=0.9),
    "worst group": lambda: WorstGroup(2),
    "worst group, own step": lambda: WorstGroup(2, step_size=0.1),
    "bounded": lambda: BoundedGroupLoss(2, bound=0.1),
    "gap constraint": lambda: GroupGapConstraint(2, bound=0.01),
}


def state(term):
    return {v.path: engines.as_numpy(v).copy() for v in term.variables}


def train(term, rng, culprit=None):
    y_pred = rng.normal(size=(8, 1)).astype("float32")
    if culprit is not None:
        y_pred[3] = culprit
    term(np.zeros((8, 1)), y_pred, np.arange(8) % 2, training=True)


@pytest.mark.parametrize("culprit", [np.inf, -np.inf, np.nan, 1e30])
@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("name", TERMS)
def test_a_batch_that_is_not_finite_changes_no_state(name, steps_before, culprit, rng):
    term = TERMS[name]()
    term.build()
    for _ in range(steps_before):
        train(term, rng)
    before = state(term)
    assert before
    train(term, rng, culprit)
    for path, after in state(term).items():
        np.testing.assert_array_equal(after, before[path])
    train(term, rng)
    assert any((after != before[path]).any() for path, after in state(term).items())
    assert all(np.isfinite(after).all() for after in state(term).values())
