"""BoundedGroupLoss and GroupGapConstraint: exact problems, multipliers, verdicts."""

import keras
import numpy as np
import pytest
from exact_problems import LinearProblem
from keras import ops
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import BoundedGroupLoss, GroupGapConstraint
from addloss_kit.metrics import BoundIsMet


def train_step(term, errors, ids, **arguments):
    """One step on rows that have the given squared errors."""
    errors = np.asarray(errors, "float32")
    target = np.zeros((len(errors), 1), "float32")
    guess = np.sqrt(errors)[:, None]
    return float(term(target, guess, np.asarray(ids), training=True, **arguments))


def multipliers(term):
    return np.array(ops.convert_to_numpy(term.multipliers.values))


# Exact problems: oracle SLSQP on all rows, training from batches of 32.


def test_bounds_at_the_smallest_possible_worst_error_are_reached():
    # One model alone keeps such bounds, whatever else is minimised; with a smaller
    # weight for that, smaller multipliers hold it there.
    problem = LinearProblem((0.7, 0.3), seed=2)
    smallest, best = problem.smallest_worst()
    np.testing.assert_allclose(problem.means(best), smallest, rtol=1e-3)  # both bind
    term = BoundedGroupLoss(2, bound=smallest)

    weights, _ = problem.train(["mse", term], epochs=50, loss_weights=[0.3, 1.0])

    assert problem.means(problem.least_squares).max() > 1.5 * smallest
    assert problem.means(weights).max() == pytest.approx(smallest, rel=0.02)


def test_a_bound_on_every_group_costs_no_more_than_it_must():
    problem = LinearProblem((0.5, 0.3, 0.2), seed=1)
    before = problem.means(problem.least_squares).max()
    bound = 0.5 * (before + problem.smallest_worst()[0])
    metric = BoundIsMet(3, bound=bound)

    weights, history = problem.train(
        ["mse", BoundedGroupLoss(3, bound=bound)], epochs=50, metrics=[metric]
    )

    assert before > 1.05 * bound
    assert problem.means(weights).max() <= 1.02 * bound
    best = problem.least_under_bound(bound)
    assert problem.mse(weights) == pytest.approx(best, rel=0.02)
    assert history["bound_is_met"][0] == 0 and history["bound_is_met"][-1] == 1
    # Only the group at its bound is pushed.
    final = [history[f"bounded_group_loss_multiplier_{k}"][-1] for k in range(3)]
    assert final[1] > 0.1 and max(final[0], final[2]) < 0.01


@pytest.mark.parametrize(("shares", "seed"), [((0.7, 0.3), 1), ((0.5, 0.3, 0.2), 1)])
def test_a_bound_on_the_gap_costs_no_more_than_it_must(shares, seed):
    # The oracle has a constraint for every ordered pair, the term K with a center.
    problem = LinearProblem(shares, seed)
    before = np.ptp(problem.means(problem.least_squares))
    bound = 0.5 * before
    term = GroupGapConstraint(problem.num_groups, bound=bound)

    weights, history = problem.train(["mse", term], epochs=50)

    assert np.ptp(problem.means(weights)) == pytest.approx(bound, rel=0.02)
    best = problem.least_under_gap(bound)
    assert problem.mse(weights) == pytest.approx(best, rel=0.02)
    assert history["group_gap_constraint_gap"][-1] == pytest.approx(bound, rel=0.1)


# Multipliers


def test_a_multiplier_grows_by_the_relative_violation_and_stops_at_zero():
    # One group, always there: λ ← [λ + step·(error/bound − 1)]₊.
    term = BoundedGroupLoss(1, bound=2.0, step_size=0.1)
    expected = 0.0
    for error in [3.0, 5.0, 1.0, 0.0, 0.0, 0.0, 6.0]:
        train_step(term, [error], [0])
        expected = max(expected + 0.1 * (error / 2.0 - 1), 0.0)

        assert multipliers(term)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["bound", "gap"])
def test_the_multiplier_of_an_absent_group_stays(kind):
    if kind == "bound":
        term = BoundedGroupLoss(3, bound=1.0)
    else:
        term = GroupGapConstraint(3, bound=0.1)
    train_step(term, [2.0, 3.0, 4.0], [0, 1, 2])
    before = multipliers(term)

    train_step(term, [1.5, 6.0], [0, 2])

    after = multipliers(term)
    assert before[2] != 0
    assert after[1] == before[1]
    assert after[0] != before[0] and after[2] != before[2]


def test_the_two_sides_of_a_pair_mirror_each_other():
    term = GroupGapConstraint(2, bound=0.5)
    for _ in range(5):
        train_step(term, [1.0, 3.0], [0, 1])

    low, high = multipliers(term)

    assert high > 0
    assert low == pytest.approx(-high, rel=1e-5)
    assert float(ops.convert_to_numpy(term.center)) == pytest.approx(2.0, rel=1e-5)


def test_within_its_bound_a_gap_costs_nothing():
    term = GroupGapConstraint(2, bound=3.0)

    assert train_step(term, [1.0, 3.0], [0, 1]) == 0
    np.testing.assert_array_equal(multipliers(term), [0, 0])


def gradient_of(term, guess, ids):
    """Slope of the term at predictions for targets of 0, by central differences."""
    state = [ops.convert_to_numpy(w) for w in term.weights]
    target = np.zeros_like(guess)

    def value(at):
        for weight, kept in zip(term.weights, state):
            weight.assign(kept)
        return float(term(target, at, ids))

    slope = []
    for row in range(len(guess)):
        shift = np.zeros_like(guess)
        shift[row] = 1e-3
        slope.append((value(guess + shift) - value(guess - shift)) / 2e-3)
    return np.array(slope)


def test_a_violation_counts_as_force_up_to_a_hundred_percent():
    # Force c·min(error/bound − 1, 1)/bound·bound = c·min(…, 1) on the group's mean,
    # whose slope by its one prediction p is 2p.
    term = BoundedGroupLoss(2, bound=[1.0, 1.0], penalty=1.0)
    term.build()
    ids = np.array([0, 1])

    slight = gradient_of(term, np.array([[1.2], [0.5]]), ids)
    large = gradient_of(term, np.array([[5.0], [0.5]]), ids)

    # In evaluation the value is the energy itself, quadratic up to 100 %.
    assert slight[0] == pytest.approx(2 * 1.2 * (1.44 - 1.0), rel=1e-2)
    assert large[0] == pytest.approx(2 * 5.0 * 1.0, rel=1e-2)
    assert slight[1] == large[1] == 0


@pytest.mark.parametrize("kind", ["bound", "gap"])
def test_outside_training_no_state_moves(kind, rng):
    if kind == "bound":
        term = BoundedGroupLoss(2, bound=0.1)
    else:
        term = GroupGapConstraint(2, bound=0.1)
    train_step(term, [1.0, 2.0], [0, 1])
    before = [np.array(ops.convert_to_numpy(w)) for w in term.weights]

    float(term(rng.normal(size=(4, 1)), rng.normal(size=(4, 1)), np.array([0, 1, 1, -1])))

    for weight, kept in zip(term.weights, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), kept)


@pytest.mark.parametrize("kind", ["bound", "gap"])
@pytest.mark.parametrize(
    ("errors", "ids"),
    [
        ([0.0, 0.0], [0, 1]),  # a perfect fit
        ([1.0], [0]),  # one row, and a group that is absent
        ([1.0, 2.0], [-1, -1]),  # no group at all
    ],
)
def test_values_and_state_stay_finite(kind, errors, ids):
    if kind == "bound":
        term = BoundedGroupLoss(2, bound=0.1)
    else:
        term = GroupGapConstraint(2, bound=0.0)

    value = train_step(term, errors, ids)
    value += train_step(term, errors, ids, sample_weight=np.zeros(len(ids), "float32"))

    assert np.isfinite(value)
    for weight in term.weights:
        assert np.all(np.isfinite(ops.convert_to_numpy(weight)))


def test_scaling_the_target_scales_nothing_but_the_value(rng):
    # Units: errors and bound a hundred times as large leave the multipliers alone.
    results = []
    for unit in (1.0, 100.0):
        bounded = BoundedGroupLoss(2, bound=0.5 * unit)
        gap = GroupGapConstraint(2, bound=0.2 * unit)
        draws = np.random.default_rng(3)
        for _ in range(20):
            errors, ids = draws.uniform(0, 2, size=8), draws.integers(0, 2, size=8)
            train_step(bounded, unit * errors, ids)
            train_step(gap, unit * errors, ids)
        results.append(np.r_[multipliers(bounded), multipliers(gap)])

    np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=1e-7)


# What the history says


def a_model(losses, metrics=None):
    predictor = linear(3, name=None)
    model = alk.build_training_model(predictor, losses, metrics=metrics)
    model.compile("adam")
    return model


def test_the_history_shows_multipliers_and_verdict(rng):
    model = a_model(["mse", BoundedGroupLoss(2, bound=[1e-9, 1e9])])
    x = rng.normal(size=(32, 3))
    packed = alk.pack_inputs(model, x, x[:, :1], group_ids=np.arange(32) % 2)

    history = model.fit(packed, y=None, batch_size=8, verbose=0).history

    assert history["bounded_group_loss_multiplier_0"][0] > 0
    assert history["bounded_group_loss_multiplier_1"][0] == 0
    assert history["bounded_group_loss_is_met"][0] == 0


def test_of_many_groups_the_largest_multiplier_is_shown(rng):
    model = a_model(["mse", GroupGapConstraint(11, bound=0.0)])
    x = rng.normal(size=(44, 3))
    packed = alk.pack_inputs(model, x, x[:, :1], group_ids=np.arange(44) % 11)

    history = model.fit(packed, y=None, batch_size=22, verbose=0).history

    assert history["group_gap_constraint_largest_multiplier"][0] > 0
    assert "group_gap_constraint_multiplier_0" not in history


def test_multipliers_are_saved_and_training_goes_on_where_it_stood(tmp_path, rng):
    terms = ["mse", BoundedGroupLoss(2, bound=0.2), GroupGapConstraint(2, bound=0.1)]
    model = a_model(terms, [BoundIsMet(2, bound=0.2)])
    x = rng.normal(size=(32, 3))
    packed = alk.pack_inputs(model, x, x[:, :1] * 3, group_ids=np.arange(32) % 2)
    model.fit(packed, y=None, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")

    first = model.fit(packed, y=None, batch_size=8, shuffle=False, verbose=0).history
    second = again.fit(packed, y=None, batch_size=8, shuffle=False, verbose=0).history

    assert first == second
    assert first["bounded_group_loss_multiplier_0"][0] > 0


@pytest.mark.parametrize(
    ("of", "bound", "verdict"),
    [
        ("error", 9.0, 1.0),  # the groups' mean errors are 1 and 9
        ("error", 8.0, 0.0),
        ("error", [1.0, 9.0], 1.0),
        ("error", [9.0, 1.0], 0.0),
        ("gap", 8.0, 1.0),
        ("gap", 7.0, 0.0),
    ],
)
def test_the_verdict_of_the_epoch(of, bound, verdict):
    metric = BoundIsMet(2, bound=bound, of=of)
    metric.update_state([[0.0]], [[1.0]], [0])
    metric.update_state([[0.0]], [[3.0]], [1])

    assert float(metric.result()) == verdict
    assert BoundIsMet.from_config(metric.get_config()).bound == metric.bound


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoundedGroupLoss(2, bound=0.0), "`bound` must be a positive number"),
        (lambda: BoundedGroupLoss(2, bound=[1.0] * 3), "or one per group"),
        (lambda: BoundedGroupLoss(2, bound=1.0, penalty=0.0), "must be positive"),
        (lambda: GroupGapConstraint(2, bound=-1.0), "`bound` must lie in"),
        (lambda: GroupGapConstraint(2, bound=1.0, momentum=1.0), "`momentum` must lie"),
        (lambda: BoundIsMet(2, bound=[1.0, 1.0], of="gap"), "`bound` must be a number"),
    ],
)
def test_options_that_are_none_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
