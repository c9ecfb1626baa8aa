"""Edges of the terms with a state that only a wrong line would show."""

import functools
import math
import warnings

import engines
import every_term
import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.losses import BoundedGroupLoss, GroupGap, GroupGapConstraint


def column(numbers):
    return np.array(numbers, "float32")[:, None]


def step(term, errors, ids):
    """A step in training with these absolute errors."""
    return float(term(0 * column(errors), column(errors), np.array(ids), training=True))


def absolute(kind, **options):
    return kind(2, error="absolute_error", momentum=0.5, **options)


def multipliers(term):
    return engines.as_numpy(term.multipliers.values)


def test_a_group_that_comes_back_counts_at_most_three_times():
    term = absolute(GroupGap)
    for _ in range(20):
        step(term, [1.0, 1.0], [0, 0])
    # Group 1 is new: half of the batch is expected to be of it now.
    totals = {"error": [0.0, 4.0], "weight": [0.0, 2.0], "rows": 2.0}
    totals = {k: keras.ops.convert_to_tensor(np.float32(v)) for k, v in totals.items()}
    found = engines.as_numpy(term.running.presence(totals))
    np.testing.assert_allclose(found, [0.0, 3.0], rtol=1e-6)


def test_the_multiplier_of_an_absent_group_does_not_shrink():
    term = absolute(GroupGapConstraint, bound=0.5, step_size=0.5)
    step(term, [1.0, 4.0], [0, 1])
    before = multipliers(term)
    assert before[1] > 0
    step(term, [1.0, 1.0], [0, 0])
    assert multipliers(term)[1] == before[1]


@pytest.mark.parametrize("is_known", [False, True])
def test_the_value_of_a_bound_leaves_out_a_group_that_is_absent(is_known):
    # Outside training, group 1 is absent from the batch; it has a multiplier or not.
    term = absolute(BoundedGroupLoss, bound=[1.0, 2.0])
    term.build()
    if is_known:
        term.multipliers.values.assign([0.0, 3.0])
    value = float(term(column([0.0]), column([1.5]), np.array([0])))
    # c/b·(1.5 − 1)²/2 of group 0 alone; a multiplier alone has no energy.
    assert value == pytest.approx(0.125, rel=1e-6)


@pytest.mark.parametrize("bound", [0.5, 1.5])
def test_the_value_of_a_gap_bound_leaves_out_a_group_that_is_absent(bound):
    term = GroupGapConstraint(3, bound=bound, error="absolute_error")
    term.build()
    term.multipliers.values.assign([0.0, 0.0, 3.0])
    value = float(term(column([0.0, 0.0]), column([1.0, 3.0]), np.array([0, 1])))
    # unit 2, center 2: offsets ∓1 beyond b/2, c/unit·(1 − b/2)²/2 each.
    assert value == pytest.approx(2 * 0.5 * (1 - bound / 2) ** 2 / 2, rel=1e-6)


def test_the_center_starts_in_the_middle_and_is_then_held():
    term = absolute(GroupGapConstraint, bound=0.0, penalty=1e-6, step_size=1e-6)
    step(term, [1.0, 5.0], [0, 1])
    assert float(engines.as_numpy(term.center)) == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
@pytest.mark.parametrize("kind", [BoundedGroupLoss, GroupGapConstraint])
def test_a_verdict_has_its_tolerance(kind, tolerance):
    # The worst error is 2.1, and the gap 2.1: 5 % above the bound.
    term = absolute(kind, bound=2.0, tolerance=tolerance)
    step(term, [0.0, 2.1], [0, 1])
    assert float(term.watched()["is_met"]) == (1.0 if tolerance else 0.0)


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
@pytest.mark.parametrize("of", ["error", "gap"])
def test_a_verdict_of_the_epoch_has_its_tolerance(of, tolerance):
    metric = alk.metrics.BoundIsMet(
        2, bound=2.0, of=of, tolerance=tolerance, error="absolute_error"
    )
    metric.update_state(column([0.0, 0.0]), column([0.0, 2.1]), np.array([0, 1]))
    assert float(metric.result()) == (1.0 if tolerance else 0.0)


def test_a_force_is_limited_below_as_above():
    # |x| ≤ limit: far below the bound, a multiplier of 2 falls by the penalty, once.
    term = GroupGapConstraint(1 + 1, bound=0.0, error="absolute_error")
    term.build()
    x = keras.ops.convert_to_tensor(np.float32([-100.0, 100.0]))
    penalty, limit = keras.ops.ones((2,)), keras.ops.ones((2,))
    found = term.multipliers.forces(x, 0.0, penalty, limit)
    np.testing.assert_allclose(engines.as_numpy(found), [-1.0, 1.0])
    # The energy goes on in a straight line beyond: 1/2 + 1·(100 − 1), twice.
    value = term.multipliers.loss(x, 0.0, penalty, limit)
    assert float(value) == pytest.approx(2 * 99.5)


def test_a_penalty_is_the_force_at_a_violation_of_100_percent():
    term = absolute(BoundedGroupLoss, bound=2.0, penalty=3.0)
    # 3/2·(4 − 2)²/2 of group 0; group 1 is absent.
    assert float(term(column([0.0]), column([4.0]), np.array([0]))) == pytest.approx(3.0)


def test_the_first_step_of_a_multiplier_is_the_excess_over_the_bound():
    term = absolute(BoundedGroupLoss, bound=2.0, step_size=0.1)
    step(term, [5.0, 7.0, 1.0], [0, 0, 1])
    # λ ← step/bound · (mean − bound), not below 0; the batch is as it was expected.
    np.testing.assert_allclose(multipliers(term), [0.1 / 2 * (6 - 2), 0], rtol=1e-6)


@pytest.mark.parametrize(
    "bound",
    [[1.0, 0.0], [-1.0, 1.0], [np.inf, 1.0], np.inf, 1e39, [1.0], [1.0, 2.0, 3.0]],
)
def test_one_bound_that_is_none_is_refused(bound):
    with pytest.raises(ValueError, match="`bound` must be a positive number"):
        BoundedGroupLoss(2, bound=bound)


@pytest.mark.parametrize("term", every_term.every_term(), ids=lambda term: term.name)
def test_no_optimizer_moves_the_state_of_a_term(term):
    term.build()
    assert term.trainable_variables == []


def test_dissimilar_pairs_are_pushed_to_a_distance_of_1_by_default():
    # (1 − 0.25)² of one dissimilar pair.
    value = alk.losses.Contrastive()(column([0.0]), column([0.25]))
    assert float(value) == pytest.approx(0.5625)


@pytest.mark.parametrize("kind", [BoundedGroupLoss, GroupGapConstraint])
def test_the_defaults_of_the_constraints_are_those_of_the_docs(kind):
    term = kind(2, bound=1.0)
    assert (term.step_size, term.penalty, term.tolerance) == (0.01, 1.0, 0.02)
    assert alk.metrics.BoundIsMet(2, bound=1.0).tolerance == 0.02


def test_a_verdict_on_the_gap_leaves_out_a_group_that_is_absent():
    metric = alk.metrics.BoundIsMet(3, bound=1.0, of="gap", error="absolute_error")
    metric.update_state(column([0.0, 0.0]), column([3.0, 3.5]), np.array([0, 1]))
    assert float(metric.result()) == 1.0


@pytest.mark.parametrize(
    ("bound", "of"), [(-1.0, "error"), (np.nan, "gap"), ([1.0, 2.0], "gap")]
)
def test_a_verdict_on_what_is_no_bound_is_refused(bound, of):
    with pytest.raises(ValueError, match="`bound` must be"):
        alk.metrics.BoundIsMet(2, bound=bound, of=of)


def test_a_metric_says_which_arguments_it_takes():
    metric = alk.metrics.GroupGap(2)
    assert metric.accepts("mask") and metric.accepts("sample_weight")
    assert not metric.accepts("price")


@pytest.mark.parametrize(
    "kind",
    [
        GroupGap,
        alk.losses.WorstGroup,
        functools.partial(BoundedGroupLoss, bound=0.5),
        functools.partial(GroupGapConstraint, bound=0.5),
    ],
)
def test_the_value_of_totals_alone_is_that_of_evaluation(kind):
    term = kind(2, error="absolute_error", momentum=0.5)
    step(term, [1.0, 4.0], [0, 1])
    state = [engines.as_numpy(v) for v in term.variables]
    batch = column([0.0, 0.0]), column([2.0, 3.0]), np.array([0, 1])
    y_true, y_pred, ids = map(keras.ops.convert_to_tensor, batch)
    value = float(term.value(term.totals(y_true, y_pred, ids)))
    assert value == pytest.approx(float(term(*batch)), rel=1e-6)
    by_name = term.compute_loss(y_true=y_true, y_pred=y_pred, group_ids=ids)
    assert float(by_name) == pytest.approx(value, rel=1e-6)
    for variable, former in zip(term.variables, state):
        np.testing.assert_array_equal(engines.as_numpy(variable), former)


@pytest.mark.parametrize(
    ("mean", "rows", "total"), [(2.0, 3, 6.0), (2.0, 1, 2.0), (float("nan"), 0, 0.0)]
)
def test_a_mean_counts_as_many_rows_as_it_is_of(mean, rows, total):
    # Replicas add these up; one that gets no rows has a mean of 0/0.
    y_pred = keras.ops.zeros((rows, 1))
    found = alk.losses.SymbolicLoss(name="mean").totals(np.float32(mean), y_pred)
    assert [float(x) for x in found] == [total, rows]


def test_the_rows_of_a_mean_are_those_of_the_first_argument_that_has_some():
    term = alk.losses.FunctionLoss(lambda scale, x: scale * keras.ops.mean(x))
    scale, x = map(keras.ops.convert_to_tensor, (np.float32(2.0), np.ones(3, "float32")))
    assert [float(x) for x in term.totals(scale=scale, x=x)] == [6.0, 3.0]
    # Those of the prediction, whatever else it takes; one where nothing has rows.
    term = alk.losses.FunctionLoss(lambda x, y_pred: keras.ops.mean(x))
    assert [float(x) for x in term.totals(x=x, y_pred=keras.ops.zeros((2, 1)))] == [
        2.0,
        2.0,
    ]
    term = alk.losses.FunctionLoss(lambda scale: 3.0 * scale)
    assert [float(x) for x in term.totals(scale=scale)] == [6.0, 1.0]


def test_values_of_every_row_with_every_other_are_refused():
    term = alk.losses.FunctionLoss(lambda y_true, y_pred, price: price * (y_true - y_pred))
    y, y_pred = column([0.0, 0.0, 0.0]), column([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"with every other: \['price'\]"):
        term(y, y_pred, np.ones(3, "float32"))
    assert float(term(y, y_pred, np.ones((3, 1), "float32"))) == -2.0
    assert float(term(y, y_pred, np.float32(2.0))) == -4.0


def test_the_worst_of_a_batch_is_among_the_groups_that_it_has():
    term = absolute(alk.losses.WorstGroup)
    value = float(term(column([0.0, 0.0]), column([2.0, 3.0]), np.array([0, 0])))
    assert value == pytest.approx(2.5, rel=1e-6)


def test_the_value_of_a_bound_is_that_of_the_augmented_lagrangian():
    term = absolute(BoundedGroupLoss, bound=1.0)
    term.build()
    term.multipliers.values.assign([0.5, 0.0])
    value = float(term(column([0.0, 0.0]), column([1.5, 0.5]), np.array([0, 1])))
    # λ·x + c·x²/2 with x = 0.5 of group 0; group 1 is far below its bound.
    assert value == pytest.approx(0.5 * 0.5 + 0.5**2 / 2, rel=1e-6)


def test_a_number_per_row_may_meet_one_output_or_several():
    term = alk.losses.FunctionLoss(lambda y_pred, price: price[:, None] * y_pred)
    for outputs in (1, 3):
        value = term(np.ones((2, outputs), "float32"), np.array([1.0, 3.0]))
        assert float(value) == 2.0


def test_whole_numbers_are_targets_and_weights():
    value = alk.losses.WeightedMSE()(np.array([[1], [5]]), column([3.0, 5.0]), [[3], [1]])
    assert float(value) == 3.0  # 3·2² / 4


@pytest.mark.parametrize("kind", [BoundedGroupLoss, GroupGapConstraint])
def test_a_bound_that_is_just_met_is_met(kind):
    term = absolute(kind, bound=2.0, tolerance=0.0)
    step(term, [0.0, 2.0], [0, 1])
    assert float(term.watched()["is_met"]) == 1.0


def test_the_gap_in_the_history_leaves_out_a_group_that_was_never_seen():
    term = GroupGapConstraint(3, bound=1.0, error="absolute_error")
    step(term, [2.0, 5.0], [0, 1])
    assert float(term.watched()["gap"]) == pytest.approx(3.0, rel=1e-5)


def by_one_newton_step(means, bound):
    """Value, center and forces of a gap bound without multipliers, by plain loops."""
    unit = sum(means) / len(means)
    center, half = (max(means) + min(means)) / 2, bound / 2

    def beyond(offset):
        near = max(-unit, min(unit, offset))
        return math.copysign(max(abs(near) - half, 0.0), near), offset - near

    excesses = [beyond(m - center)[0] for m in means]
    center += sum(excesses) / sum(e != 0 for e in excesses)
    value, forces = 0.0, []
    for mean in means:
        excess, rest = beyond(mean - center)
        value += (excess**2 / 2 + excess * rest) / unit
        forces.append(excess / unit)
    return value, center, forces


@pytest.mark.parametrize(
    "means",
    [[1.0, 1.0, 4.0], [1.0, 1.0, 2.5, 4.0], [1.0, 1.0, 2.9, 4.0], [0.1, 0.2, 6.0]],
)
@pytest.mark.parametrize("is_training", [False, True])
def test_the_center_takes_one_newton_step_to_where_the_forces_balance(means, is_training):
    term = GroupGapConstraint(len(means), bound=1.0, error="absolute_error", momentum=0.5)
    term.build()

    def value(y_pred):
        ids = np.arange(len(means))
        return term(0 * column(means), y_pred, ids, training=is_training)

    expected, center, forces = by_one_newton_step(means, 1.0)
    if not is_training:
        slopes = engines.gradient(value, column(means))[:, 0]
        np.testing.assert_allclose(slopes, forces, rtol=1e-5, atol=1e-6)
    assert float(value(column(means))) == pytest.approx(expected, rel=1e-5)
    if is_training:
        assert float(engines.as_numpy(term.center)) == pytest.approx(center, rel=1e-5)


def test_only_what_compares_groups_warns_of_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BoundedGroupLoss(1, bound=1.0)
        alk.losses.WorstGroup(1)
        alk.metrics.BoundIsMet(1, bound=1.0)
    for make in (
        GroupGap,
        functools.partial(GroupGapConstraint, bound=1.0),
        alk.losses.GroupDistributionGap,
        functools.partial(alk.metrics.BoundIsMet, bound=1.0, of="gap"),
    ):
        with pytest.warns(UserWarning, match="compares groups"):
            make(1)


def test_a_batch_without_errors_is_a_batch():
    term = absolute(GroupGap)
    step(term, [4.0, 4.0], [0, 1])
    step(term, [0.0, 0.0], [0, 1])
    # Half of 1 − 0.5 and of 0.5: (0.5·0.5·4 + 0.5·0) / 0.75.
    error, weight = (engines.as_numpy(x) for x in (term.running.error, term.running.weight))
    np.testing.assert_allclose(error / weight, [4 / 3, 4 / 3], rtol=1e-6)


def test_neither_the_excess_nor_a_weight_has_a_gradient():
    running = absolute(GroupGap)
    running.build()
    running = running.running

    def totals(error, weight):
        pair = {"error": error, "weight": weight}
        return {**pair, "rows": keras.ops.convert_to_tensor(np.float32(2.0))}

    ones = keras.ops.ones((2,))

    def means(weight):
        return keras.ops.sum(running.update(totals(2.0 * ones, weight))[0])

    def excess(error):
        return keras.ops.sum(running.excess(totals(error, ones), 0.5))

    for function in (means, excess):
        np.testing.assert_array_equal(engines.gradient(function, [1.0, 1.0]), [0.0, 0.0])


def test_ten_groups_are_shown_one_by_one_and_of_eleven_the_largest():
    for num_groups in (10, 11):
        term = GroupGapConstraint(num_groups, bound=1.0)
        term.build()
        term.multipliers.values.assign([-5.0] + [3.0] * (num_groups - 1))
        shown = {name: float(value) for name, value in term.multipliers.shown().items()}
        if num_groups == 10:
            assert shown == {f"multiplier_{k}": 3.0 if k else -5.0 for k in range(10)}
        else:
            assert shown == {"largest_multiplier": 5.0}
