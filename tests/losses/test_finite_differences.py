"""The gradient of every term against central differences of float64 loops.

What a term holds fixed has no derivative, so each term says here what is meant: a
plain function of the predictions whose central differences its gradient must be.
"""

import engines
import every_term
import keras
import numpy as np
import oracles
import pytest

import addloss_kit as alk

GROUPS = every_term.NUM_GROUPS
OUTPUTS = every_term.OUTPUTS
# Off TensorFlow, Keras takes means in float32 (`result_type` knows no float64 there).
IS_DOUBLE = keras.backend.backend() == "tensorflow"
STEP = 1e-6 if IS_DOUBLE else 1e-3
RTOL, ATOL = (1e-6, 1e-8) if IS_DOUBLE else (2e-3, 3e-4)


@pytest.fixture(autouse=True)
def in_double_precision():
    with engines.double_precision():
        yield


# The running state, by loops -----------------------------------------------------


class Batch:
    """Totals of a batch as a function of its predictions."""

    def __init__(self, named, error="squared"):
        self.named, self.error = named, error
        # Weights per element are averaged.
        self.row_weight = named["sample_weight"].mean(axis=1)

    def totals(self, y_pred):
        errors = oracles.squared_errors(self.named["y_true"], y_pred)
        return oracles.group_totals(
            errors, self.named["group_ids"], self.row_weight, GROUPS
        )


class After:
    """A term's running totals after a batch, from what they were before it."""

    def __init__(self, term, batch):
        held = {v.name: engines.as_numpy(v) for v in term.variables}
        errors, weights = batch.totals(batch.named["y_pred"])
        rows = len(batch.row_weight)
        steps = held["running_steps"]
        keep = min((1 + steps) / (20 + steps), 0.997)
        error, weight = (
            [keep * old + (1 - keep) * new / rows for old, new in zip(held[name], news)]
            for name, news in (("running_error", errors), ("running_weight", weights))
        )
        mass = keep * held["running_mass"] + 1 - keep
        self.held, self.weight = held, np.array(weight)
        self.means = np.array([e / w if w else 0.0 for e, w in zip(error, weight)])
        self.expected = np.array(
            [max(rows * w / mass, n / 3) for w, n in zip(weight, weights)]
        )
        self.errors, self.weights = np.array(errors), np.array(weights)

    def excess(self, level):
        return (self.errors - level * self.weights) / self.expected


def slopes_of_the_gap(means, weight, distance="squared", between="pairs"):
    """By central differences, and limited as `max_force=1` says."""

    def gap(means):
        return oracles.group_gap(means, range(GROUPS), weight, GROUPS, distance, between)

    step = STEP * np.eye(GROUPS)
    slopes = np.array([(gap(means + s) - gap(means - s)) / (2 * STEP) for s in step])
    slopes = slopes / max(1.0, np.abs(slopes).max())
    return np.maximum(slopes, -8 * weight / weight.sum())


def with_forces(forces, batch, over):
    """The function whose derivative a group's error total has, at these forces."""

    def function(y_pred):
        return float(np.sum(forces * np.array(batch.totals(y_pred)[0]) / over))

    return function


# What is meant -------------------------------------------------------------------


def value_of(term, named):
    """The derivative of the value itself: nothing is held fixed."""

    def function(y_pred):
        value = call(term, {**named, "y_pred": y_pred}, training=True)
        return float(engines.as_numpy(value))

    return function


def of_gap(term, named):
    """Every group's running mean pulls by the limited slope of the gap; the mean moves
    by the batch's error total over the weight that is expected there."""
    batch = Batch(named)
    if term.momentum == 0:
        errors, weight = map(np.array, batch.totals(named["y_pred"]))
        means, over = errors / weight, weight
    else:
        after = After(term, batch)
        means, weight, over = after.means, after.weight, after.expected
    forces = slopes_of_the_gap(means, weight, term.distance, term.between)
    return with_forces(forces, batch, over)


def of_worst_group(term, named):
    """The weights q, moved by this batch, are held."""
    batch = Batch(named)
    after = After(term, batch)

    def weights(logs):
        raw = np.exp(logs - logs.max())
        return raw / raw.sum()

    logs = after.held["log_weights"]
    unit = (after.weight * after.means).sum() / after.weight.sum()
    step = after.excess((weights(logs) * after.means).sum())
    forces = weights(logs + 0.01 * step / unit)
    return with_forces(forces, batch, after.expected)


def of_bounds(term, named):
    """The multipliers are held, and so is the violation that the penalty takes."""
    batch = Batch(named)
    after = After(term, batch)
    bound = np.broadcast_to(term.bound, GROUPS)
    violation = np.clip(after.means - bound, -bound, bound) / bound
    forces = np.maximum(after.held["multipliers"] + term.penalty * violation, 0)
    assert forces.any()
    return with_forces(forces, batch, after.expected)


def of_gap_bound(term, named):
    """Held besides: the overall mean, which is the unit, and the center: at
    first the middle, then one Newton step towards forces that add up to 0."""
    batch = Batch(named)
    after = After(term, batch)
    unit = (after.weight * after.means).sum() / after.weight.sum()
    penalty = term.penalty / unit

    def forces(center):
        offset = np.clip(after.means - center, -unit, unit)
        raw = after.held["multipliers"] + penalty * offset
        return np.sign(raw) * np.maximum(np.abs(raw) - penalty * term.bound / 2, 0)

    is_first = after.held["running_mass"] == 0
    middle = (after.means.max() + after.means.min()) / 2
    center = middle if is_first else after.held["center"]
    first = forces(center)
    center = center + first.sum() / max((first != 0).sum() * penalty, 1e-300)
    assert forces(center).any()
    return with_forces(forces(center), batch, after.expected)


def of_distributions(term, named):
    """The length of the kernel, which defaults to that of the batch, is held."""
    y_pred, weight = named["y_pred"], named["sample_weight"].mean(axis=1)
    ids = named["group_ids"]
    used = [i for i in range(len(ids)) if ids[i] >= 0]
    pairs = [(i, j) for i in used for j in used if i != j]
    total = sum(weight[i] * weight[j] for i, j in pairs)
    square = sum(
        weight[i] * weight[j] * ((y_pred[i] - y_pred[j]) ** 2).sum() for i, j in pairs
    )
    length = term.bandwidth or np.sqrt(square / total)

    def function(y_pred):
        return oracles.group_mmd(y_pred, ids, weight, GROUPS, term.kernel, length)

    return function


MEANT = {
    alk.losses.GroupGap: of_gap,
    alk.losses.WorstGroup: of_worst_group,
    alk.losses.BoundedGroupLoss: of_bounds,
    alk.losses.GroupGapConstraint: of_gap_bound,
    alk.losses.GroupDistributionGap: of_distributions,
}


def terms():
    """Those of `every_term`, and options whose gradient takes another road."""
    with_options = [
        alk.losses.GroupGap(GROUPS, distance="absolute", name="absolute_gap"),
        alk.losses.GroupGap(GROUPS, between="overall", name="overall_gap"),
        alk.losses.GroupGap(GROUPS, between="range", momentum=0.0, name="plug_in_range"),
        alk.losses.BoundedGroupLoss(GROUPS, bound=[0.3, 0.5, 9.0], name="near_bounds"),
        alk.losses.GroupGapConstraint(GROUPS, bound=0.1, penalty=3.0, name="near_gap"),
        alk.losses.GroupDistributionGap(GROUPS, kernel="laplacian", name="laplacian"),
        alk.losses.GroupDistributionGap(GROUPS, bandwidth=0.8, name="with_length"),
    ]
    return {term.name: term for term in every_term.every_term() + with_options}


def call(term, named, **options):
    taken = term.required_arguments + term.optional_arguments
    return term(**{n: x for n, x in named.items() if n in taken}, **options)


def a_batch(rng, term, rows=11):
    """Random rows of all groups and of none, away from kinks."""
    sign = rng.choice([-1, 1], size=(rows, OUTPUTS))
    y_true = rng.normal(size=(rows, OUTPUTS))
    y_pred = y_true + sign * rng.uniform(0.1, 1.5, size=(rows, OUTPUTS))
    if isinstance(term, alk.losses.Contrastive):
        y_true = rng.integers(0, 2, size=(rows, OUTPUTS)).astype(float)
        y_pred = term.margin + sign * rng.uniform(0.1, 0.9, size=(rows, OUTPUTS))
    return {
        "y_true": y_true,
        "y_pred": y_pred,
        "group_ids": np.append(-1, np.arange(rows - 1) % GROUPS),
        "price": rng.uniform(0.5, 2.0, size=rows),
        "sample_weight": rng.uniform(0.5, 2.0, size=(rows, OUTPUTS)),
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", terms())
def test_the_gradient_is_the_central_difference(name, seed):
    term = terms()[name]
    rng = np.random.default_rng(seed)
    for _ in range(3 * seed):  # The state of the first step, and of later ones.
        call(term, a_batch(rng, term), training=True)
    named = a_batch(rng, term)
    if not term.built:
        term.build()
    meant = MEANT.get(type(term), value_of)(term, named)

    def function(y_pred):
        return call(term, {**named, "y_pred": y_pred}, training=True)

    found = engines.gradient(function, named["y_pred"])

    assert found.dtype == "float64"
    expected = np.zeros_like(found)
    for at in np.ndindex(found.shape):
        step = np.zeros_like(found)
        step[at] = STEP
        rise, fall = meant(named["y_pred"] + step), meant(named["y_pred"] - step)
        expected[at] = (rise - fall) / (2 * STEP)
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL)
