"""GroupGap's limit of force, its growing memory, and training that used to blow up."""

import engines
import keras
import numpy as np
import oracles
import pytest

import addloss_kit as alk
from addloss_kit.losses import GroupGap, WorstGroup

INFINITY = float("inf")


# The slopes ----------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
@pytest.mark.parametrize("num_groups", [1, 2, 5])
@pytest.mark.parametrize("lacks_one", [False, True])
def test_slopes_are_the_differences_of_the_loop(
    distance, between, num_groups, lacks_one, rng
):
    means = rng.normal(size=num_groups)
    weight = rng.uniform(0.5, 2.0, num_groups)
    if lacks_one:
        weight[-1] = 0.0

    def gap(means):
        # One row a group: its error is the mean.
        ids = range(num_groups)
        return oracles.group_gap(means, ids, weight, num_groups, distance, between)

    found = alk.functional.group_gap_slopes(
        means.astype("float32"),
        weight > 0,
        distance=distance,
        between=between,
        shares=weight.astype("float32"),
    )

    step = 1e-6 * np.eye(num_groups)
    expected = [(gap(means + s) - gap(means - s)) / 2e-6 for s in step]
    np.testing.assert_allclose(engines.as_numpy(found), expected, atol=1e-5)


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
def test_slopes_may_be_differentiated_again(distance, between, rng):
    means, weight, along = rng.normal(size=5), rng.uniform(0.5, 2.0, 5), rng.normal(size=5)
    weight[-1] = 0.0

    def gap(means):
        return oracles.group_gap(means, range(5), weight, 5, distance, between)

    def change(means):
        slopes = alk.functional.group_gap_slopes(
            means,
            weight > 0,
            distance=distance,
            between=between,
            shares=weight.astype("float32"),
        )
        return keras.ops.sum(slopes * along.astype("float32"))

    step = 1e-3

    def rise(means):
        return (gap(means + step * along) - gap(means - step * along)) / (2 * step)

    units = step * np.eye(5)
    expected = [(rise(means + u) - rise(means - u)) / (2 * step) for u in units]
    np.testing.assert_allclose(engines.gradient(change, means), expected, atol=1e-4)


def test_slopes_at_equal_means_are_zero_and_finite():
    for between in ("pairs", "range", "overall"):
        slopes = alk.functional.group_gap_slopes([2.0, 2.0, 2.0], between=between)
        np.testing.assert_array_equal(engines.as_numpy(slopes), np.zeros(3))


# The force -----------------------------------------------------------------------


def forces(term, counts, means, weight=1.0):
    """The force on each group's mean, read off the gradient by the predictions.

    The error is absolute and every prediction too high, so that a group's mean moves
    by as much as its predictions do: the gradients of its rows add up to the force.
    """
    ids = np.repeat(np.arange(len(counts)), counts)
    target = np.zeros((len(ids), 1), "float32")
    guess = np.asarray(means, "float32")[ids][:, None]

    def loss(guess):
        named = {"y_true": target, "y_pred": guess, "group_ids": ids}
        named = {k: keras.ops.convert_to_tensor(v) for k, v in named.items()}
        return weight * term.compute_loss(True, weight, **named)

    if not term.built:
        term.build()
    slopes = engines.gradient(loss, guess)[:, 0]
    return np.bincount(ids, slopes, len(counts))


def plug_in(num_groups=2, **options):
    return GroupGap(num_groups, error="absolute_error", momentum=0, **options)


def test_below_the_limit_the_force_is_that_of_the_gap():
    found = forces(plug_in(), [10, 10], [1.0, 1.2])

    np.testing.assert_allclose(found, [-0.4, 0.4], rtol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 3.0, 100.0])
@pytest.mark.parametrize("max_force", [0.5, 1.0, 2.0])
def test_no_weight_pulls_harder_than_the_limit(weight, max_force):
    found = forces(plug_in(max_force=max_force), [10, 10], [1.0, 4.0], weight)

    np.testing.assert_allclose(found, [-max_force, max_force], rtol=1e-5)


def test_without_a_limit_it_is_the_gradient_of_the_first_release():
    found = forces(plug_in(max_force=INFINITY), [2, 18], [1.0, 4.0], 10.0)

    np.testing.assert_allclose(found, [-60.0, 60.0], rtol=1e-5)


def test_the_absolute_gap_is_limited_too():
    found = forces(plug_in(distance="absolute"), [10, 10], [1.0, 4.0], 10.0)

    np.testing.assert_allclose(found, [-1.0, 1.0], rtol=1e-5)


def test_forces_keep_their_proportions():
    # Slopes of the mean over the three pairs: 4/2·(m − 3) = −4, −2, 6; the limit is 1.
    found = forces(plug_in(3), [10, 10, 10], [1.0, 2.0, 6.0], 1.0)

    np.testing.assert_allclose(found, np.array([-4, -2, 6]) / 6, rtol=1e-5)


def test_a_rare_group_is_not_pushed_up_by_more_than_eight_times_its_share():
    # The better-off group has 2 % of the rows.
    found = forces(plug_in(), [2, 98], [1.0, 4.0], 10.0)

    np.testing.assert_allclose(found, [-8 * 0.02, 1.0], rtol=1e-5)


def test_push_down_leaves_the_better_off_alone():
    found = forces(plug_in(push="down"), [10, 10], [1.0, 1.2])
    unlimited = forces(plug_in(push="down", max_force=INFINITY), [10, 10], [1.0, 4.0])

    np.testing.assert_allclose(found, [0.0, 0.4], atol=1e-5)
    np.testing.assert_allclose(unlimited, [0.0, 6.0], rtol=1e-5)


def test_the_value_is_the_gap_whatever_the_limit():
    ids, target, guess = [0, 0, 1], np.zeros((3, 1)), np.array([[1.0], [1.0], [3.0]])
    for options in ({}, {"max_force": 1e-3}, {"push": "down"}, {"max_force": INFINITY}):
        assert float(plug_in(**options)(target, guess, ids, training=True)) == 4.0


def test_a_weight_of_zero_has_no_force_and_is_no_trouble():
    assert np.all(forces(plug_in(), [10, 10], [1.0, 4.0], 0.0) == 0.0)


@pytest.mark.parametrize(
    ("weight", "options", "expected"),
    [
        # The largest slope is −6, so all are divided by 6; the floor is −8·0.05.
        (1.0, {}, [-0.4, 1 / 3, 2 / 3]),
        (-1.0, {}, [-0.4, 1 / 3, 2 / 3]),
        (2.0, {}, [-0.2, 1 / 6, 1 / 3]),
        # Below the limit, nothing is scaled; the floor is −8·0.05/0.1.
        (0.1, {}, [-4.0, 2.0, 4.0]),
        (0.0, {}, [-6.0, 2.0, 4.0]),
        (1.0, {"max_force": 3.0}, [-1.2, 1.0, 2.0]),
        (1.0, {"push": "down"}, [0.0, 1 / 3, 2 / 3]),
        (1.0, {"max_force": INFINITY}, [-6.0, 2.0, 4.0]),
        (1.0, {"max_force": INFINITY, "push": "down"}, [0.0, 2.0, 4.0]),
    ],
)
def test_slopes_are_limited_as_worked_by_hand(weight, options, expected):
    from addloss_kit.losses.forces import limited_slopes

    options = {"max_force": 1.0, "push": "both", **options}
    shares = keras.ops.convert_to_tensor(np.float32([0.05, 0.45, 0.5]))

    def limited(slopes):
        return limited_slopes(slopes, shares, weight, **options)

    slopes = keras.ops.convert_to_tensor(np.float32([-6.0, 2.0, 4.0]))
    np.testing.assert_allclose(engines.as_numpy(limited(slopes)), expected, rtol=1e-6)
    pull = engines.gradient(lambda s: keras.ops.sum(limited(s)), [-6.0, 2.0, 4.0])
    np.testing.assert_array_equal(pull, np.zeros(3))


def test_called_by_itself_a_gap_has_a_weight_of_1():
    # Slopes of ∓1: at a weight of 2 they would be halved.
    term = plug_in(distance="absolute")
    target, ids = np.zeros((2, 1), "float32"), np.array([0, 1])

    def by_call(guess):
        return term(target, guess, ids)

    def by_value(guess):
        return term.value(term.totals(keras.ops.convert_to_tensor(target), guess, ids))

    def by_the_endpoint(guess):
        named = {"y_true": target, "group_ids": ids}
        named = {k: keras.ops.convert_to_tensor(v) for k, v in named.items()}
        return term.compute_loss(y_pred=guess, **named)

    for loss in (by_call, by_value, by_the_endpoint):
        slopes = engines.gradient(loss, [[1.0], [4.0]])
        np.testing.assert_allclose(slopes[:, 0], [-1.0, 1.0], rtol=1e-6)


def test_the_plug_in_has_no_state_and_the_defaults_are_those_of_the_docs():
    term = plug_in()
    term.build()
    assert term.variables == []
    config = GroupGap(2).get_config()
    defaults = {
        "distance": "squared",
        "between": "pairs",
        "momentum": "auto",
        "max_force": 1.0,
        "push": "both",
        "absent_group": "skip",
    }
    assert {name: config[name] for name in defaults} == defaults


def test_in_evaluation_a_group_with_state_may_count_as_without_error_too():
    term = GroupGap(2, error="absolute_error", absent_group="zero_error")
    target, guess = np.zeros((2, 1)), np.array([[3.0], [1.0]])
    term(target, guess, [0, 1], training=True)
    # Group 1 is absent: (2 − 0)² by its name; in training its mean is known.
    assert float(term(target, guess, [0, 0])) == 4.0
    value = float(term(target, guess, [0, 0], training=True))
    error, weight = (engines.as_numpy(x) for x in (term.running.error, term.running.weight))
    assert value == pytest.approx(np.diff(error / weight)[0] ** 2, rel=1e-5)


def test_in_a_model_the_weight_of_the_loss_counts():
    # One prediction for all, too high for both groups, by 1 and by 3: the groups'
    # slopes by it are 1 each, so the gap has no gradient and only MAE's is left.
    # With the worse group's target raised the slopes differ: −1 and 1.
    x = np.ones((20, 1), "float32")
    ids = np.repeat([0, 1], 10)
    y = np.where(ids == 0, -1.0, 3.0)[:, None]
    weights = {}
    for factor in (5.0, 50.0):
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        predictor = keras.Sequential([keras.Input((1,)), layer])
        model = alk.build_training_model(predictor, plug_in(), loss_weights=[factor])
        model.compile(keras.optimizers.SGD(0.1))
        packed = alk.pack_inputs(model, x, y, group_ids=ids)
        model.fit(packed, batch_size=20, verbose=0)
        weights[factor] = float(layer.get_weights()[0][0, 0])

    # Forces of 1 and −1 on means whose slopes are −1 and 1: a gradient of −2.
    assert weights == pytest.approx({5.0: 0.2, 50.0: 0.2}, rel=1e-5)


# The memory ----------------------------------------------------------------------


def test_the_growing_memory_is_that_of_a_plain_loop(rng):
    num_groups, steps, batch = 3, 60, 5
    term = GroupGap(num_groups)
    error, weight = np.zeros(num_groups), np.zeros(num_groups)
    for step in range(steps):
        ids = rng.integers(0, num_groups, batch)
        guess = rng.normal(size=batch)

        value = float(term(np.zeros((batch, 1)), guess[:, None], ids, training=True))

        keep = (1 + step) / (20 + step)
        for k in range(num_groups):
            mine = guess[ids == k] ** 2
            error[k] = keep * error[k] + (1 - keep) * mine.sum() / batch
            weight[k] = keep * weight[k] + (1 - keep) * len(mine) / batch
        seen = [error[k] / weight[k] for k in range(num_groups) if weight[k] > 0]
        pairs = [(a - b) ** 2 for i, a in enumerate(seen) for b in seen[:i]]
        expected = sum(pairs) / len(pairs) if pairs else 0.0
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(keras.ops.convert_to_numpy(term.running.steps)) == steps


def test_the_memory_ends_at_333_steps():
    term = GroupGap(2)
    term.build()
    term.running.steps.assign(1e6)
    ids, ones = [0, 1], np.ones((2, 1))
    before = 1.0
    term.running.mass.assign(before)
    term.running.weight.assign([0.5, 0.5])
    term.running.error.assign([0.5, 0.5])

    term(0 * ones, 2 * ones, ids, training=True)

    error = keras.ops.convert_to_numpy(term.running.error)
    np.testing.assert_allclose(error, 0.997 * 0.5 + 0.003 * 2.0, rtol=1e-5)


@pytest.mark.parametrize("momentum", ["auto", 0.9])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_batch_that_overflows_leaves_no_trace(momentum, bad, rng):
    # As under `LossScaleOptimizer`, which skips the step of such a batch.
    target, ids = rng.normal(size=(8, 1)), np.arange(8) % 2
    term = GroupGap(2, momentum=momentum)
    term(target, 0 * target, ids, training=True)
    before = [engines.as_numpy(v) for v in term.variables]

    term(target, 0 * target + bad, ids, training=True)

    for old, new in zip(before, term.variables):
        np.testing.assert_array_equal(old, engines.as_numpy(new))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": "fast"}, '`momentum` must be "auto" or a number in'),
        ({"max_force": 0.0}, "`max_force` must be positive"),
        ({"max_force": float("nan")}, "`max_force` must be positive"),
        ({"push": "up"}, "Invalid value for argument `push`"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GroupGap(2, **options)


def test_the_options_are_saved():
    term = GroupGap(2, max_force=INFINITY, push="down", momentum=0.9)
    again = GroupGap.from_config(term.get_config())

    assert again.get_config() == term.get_config()


def test_a_config_of_the_first_release_has_no_limit():
    config = GroupGap(2, momentum=0.99).get_config()
    del config["max_force"], config["push"]

    assert GroupGap.from_config(config).max_force == INFINITY


# Where it blew up ----------------------------------------------------------------


def a_hard_problem(minority, features=99, rows=1200):
    """Two groups that follow other lines, with other noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features)).astype("float32")
    ids = (rng.uniform(size=rows) < minority).astype("int32")
    line, other = rng.normal(size=(2, features)) / np.sqrt(features)
    y = np.where(ids == 1, x @ (line + 0.7 * other), x @ line)
    y = y + rng.normal(size=rows) * np.where(ids == 1, 0.8, 0.3)
    return x, y.astype("float32")[:, None], ids


def train_a_net(term, weight, minority=0.3, steps=1200):
    """The objective over all rows at the end, and the largest MSE over the first's."""
    x, y, ids = a_hard_problem(minority)
    keras.utils.set_random_seed(1)
    predictor = keras.Sequential(
        [keras.Input(x.shape[1:]), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    )
    model = alk.build_training_model(predictor, ["mse", term], loss_weights=[1.0, weight])
    schedule = keras.optimizers.schedules.CosineDecay(0.01, steps)
    model.compile(
        keras.optimizers.Adam(schedule), steps_per_execution=engines.STEPS_PER_EXECUTION
    )
    data = alk.make_dataset(alk.pack_inputs(model, x, y, group_ids=ids), 32, seed=0)
    mse = []
    for _ in range(steps // 38):
        model.fit(data, verbose=0)
        errors = (predictor.predict(x, batch_size=1200, verbose=0) - y)[:, 0] ** 2
        mse.append(errors.mean())
    gap = errors[ids == 0].mean() - errors[ids == 1].mean()
    return mse[-1] + weight * gap**2, max(mse) / mse[0]


@pytest.mark.slow
@pytest.mark.parametrize("minority", [0.3, 0.05])
def test_a_net_with_a_large_weight_trains_better_than_by_the_plug_in(minority):
    weight = 10.0
    ours, worst = train_a_net(GroupGap(2), weight, minority)
    plug_in, _ = train_a_net(
        GroupGap(2, momentum=0.0, max_force=INFINITY), weight, minority
    )

    print(f"objective: default {ours:.3f}, plug-in {plug_in:.3f}; worst epoch {worst:.2f}")
    assert ours < 0.7 * plug_in
    assert worst < 1.5


# The step of WorstGroup ----------------------------------------------------------


def test_the_step_of_worst_group_has_no_unit(rng):
    target, ids = rng.normal(size=(12, 1)), np.arange(12) % 3
    log_weights = []
    for unit in (1.0, 1000.0):
        term = WorstGroup(3)
        for scale in (1.0, 0.8, 0.5):
            term(unit * target, unit * scale * target[::-1], ids, training=True)
        log_weights.append(engines.as_numpy(term.log_weights))

    assert np.ptp(log_weights[0]) > 0
    np.testing.assert_allclose(*log_weights, rtol=1e-4)


def test_a_step_size_by_number_is_per_unit_of_the_error_as_before():
    # q is even at first, the means are 1 and 9, their level 5, so the excess is ∓4.
    term = WorstGroup(2, step_size=0.1)
    term([[0.0], [0.0]], [[1.0], [3.0]], [0, 1], training=True)

    found = engines.as_numpy(term.log_weights)
    np.testing.assert_allclose(found, [-0.8, 0.0], rtol=1e-5)
