"""The formulas against plain loops and outside libraries, and at their edges."""

import engines
import numpy as np
import oracles
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from keras.metrics import RootMeanSquaredError
from sklearn.metrics import mean_absolute_error, mean_squared_error

from addloss_kit import functional

WEIGHTED = {
    "mse": (functional.weighted_mse, oracles.weighted_mse),
    "rmse": (functional.weighted_rmse, oracles.weighted_rmse),
    "rmse_sample": (
        lambda *a: functional.weighted_rmse(*a, over="sample"),
        lambda *a: oracles.weighted_rmse(*a, over="sample"),
    ),
    "norm": (functional.weighted_residual_norm, oracles.weighted_residual_norm),
    "norm_sample": (
        lambda *a: functional.weighted_residual_norm(*a, over="sample"),
        lambda *a: oracles.weighted_residual_norm(*a, over="sample"),
    ),
}
each_weighted = pytest.mark.parametrize("name", WEIGHTED)

# Numbers on a grid: their sums are exact in float32, so a difference from the
# loops is a wrong formula, not rounding.
GRID = st.integers(-16, 16).map(lambda i: i / 8)
WEIGHT = st.integers(0, 8).map(lambda i: i / 4)
few = settings(max_examples=30, deadline=None, derandomize=True)


@st.composite
def weighted_rows(draw):
    rows, outputs = draw(st.sampled_from([(1, 1), (1, 3), (4, 1), (4, 3)]))
    numbers = st.lists(GRID, min_size=rows * outputs, max_size=rows * outputs)
    weights = st.lists(WEIGHT, min_size=rows * outputs, max_size=rows * outputs)
    drawn = draw(numbers), draw(numbers), draw(weights)
    return tuple(np.reshape(x, (rows, outputs)).astype("float32") for x in drawn)


@st.composite
def rows_in_groups(draw):
    rows, num_groups = draw(st.sampled_from([(1, 1), (1, 3), (6, 1), (6, 2), (6, 4)]))
    errors = st.lists(GRID.map(abs), min_size=rows, max_size=rows)
    ids = st.lists(st.integers(-2, num_groups), min_size=rows, max_size=rows)
    weights = st.lists(WEIGHT, min_size=rows, max_size=rows)
    error, weight = (np.array(draw(x), "float32") for x in (errors, weights))
    return error, np.array(draw(ids), "int32"), weight, num_groups


def a_batch(rng, rows=7, outputs=4):
    shape = (rows, outputs)
    y_true, y_pred = rng.normal(size=(2, *shape)).astype("float32")
    return y_true, y_pred, rng.uniform(0.1, 2.0, shape).astype("float32")


# Weighted errors --------------------------------------------------------------


@each_weighted
@given(rows=weighted_rows())
@few
def test_the_formula_is_that_of_a_plain_loop(name, rows):
    function, oracle = WEIGHTED[name]
    np.testing.assert_allclose(float(function(*rows)), oracle(*rows), rtol=1e-6, atol=1e-7)


def test_squared_error_of_a_row_is_that_of_scikit_learn(rng):
    y_true, y_pred, _ = a_batch(rng)
    expected = mean_squared_error(y_true.T, y_pred.T, multioutput="raw_values")
    np.testing.assert_allclose(
        engines.as_numpy(functional.squared_error(y_true, y_pred)), expected, rtol=1e-6
    )


def test_weighted_mse_over_all_elements_is_that_of_scikit_learn(rng):
    y_true, y_pred, weight = a_batch(rng)
    expected = mean_squared_error(
        y_true.ravel(), y_pred.ravel(), sample_weight=weight.ravel()
    )
    assert float(functional.weighted_mse(y_true, y_pred, weight)) == pytest.approx(
        expected, rel=1e-6
    )


def test_weighted_rmse_is_the_metric_of_keras(rng):
    y_true, y_pred, weight = a_batch(rng, outputs=1)
    metric = RootMeanSquaredError()
    metric.update_state(y_true, y_pred, sample_weight=weight)
    assert float(functional.weighted_rmse(y_true, y_pred, weight)) == pytest.approx(
        float(metric.result()), rel=1e-6
    )


def test_weighted_rmse_of_a_case_worked_by_hand_is_the_root_of_13():
    # Only errors 1 and 5 have weight, so (1² + 5²) / 2 = 13.
    value = functional.weighted_rmse(
        [2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 3.0, 2.0, 3.0, 5.0], [0.0, 1.0, 0.0, 1.0, 0.0]
    )
    assert float(value) == pytest.approx(np.sqrt(13.0), rel=1e-6)


def test_weighted_residual_norm_is_the_norm_of_numpy(rng):
    y_true, y_pred, weight = a_batch(rng)
    expected = np.linalg.norm(np.sqrt(weight) * (y_true - y_pred)) / weight.sum()
    assert float(
        functional.weighted_residual_norm(y_true, y_pred, weight)
    ) == pytest.approx(expected, rel=1e-6)


def test_a_shared_weight_vector_is_counted_once(rng):
    y_true, y_pred, weight = a_batch(rng)
    assert float(functional.weighted_mse(y_true, y_pred, weight[0])) == pytest.approx(
        oracles.weighted_mse_shared(y_true, y_pred, weight[0]), rel=1e-6
    )


@pytest.mark.parametrize("name", ["mse", "rmse", "rmse_sample"])
@given(factor=st.sampled_from([0.01, 0.3, 4.0, 1000.0]))
@few
def test_only_ratios_of_weights_matter(name, factor):
    y_true, y_pred, weight = a_batch(np.random.default_rng(1))
    function, _ = WEIGHTED[name]
    assert float(function(y_true, y_pred, factor * weight)) == pytest.approx(
        float(function(y_true, y_pred, weight)), rel=1e-6
    )


@pytest.mark.parametrize("name", ["norm", "norm_sample"])
def test_four_times_the_weights_halve_the_residual_norm(name, rng):
    y_true, y_pred, weight = a_batch(rng)
    function, _ = WEIGHTED[name]
    assert float(function(y_true, y_pred, 4 * weight)) == pytest.approx(
        float(function(y_true, y_pred, weight)) / 2, rel=1e-6
    )


def test_equal_weights_give_the_plain_rmse(rng):
    y_true, y_pred, _ = a_batch(rng)
    weight = np.full_like(y_true, 3.0)
    assert float(functional.weighted_rmse(y_true, y_pred, weight)) == pytest.approx(
        np.sqrt(mean_squared_error(y_true, y_pred)), rel=1e-6
    )


@each_weighted
def test_the_order_of_rows_does_not_matter(name, rng):
    function, _ = WEIGHTED[name]
    rows = a_batch(rng)
    order = rng.permutation(7)
    assert float(function(*(x[order] for x in rows))) == pytest.approx(
        float(function(*rows)), rel=1e-6
    )


@each_weighted
def test_rows_without_weight_change_nothing(name, rng):
    function, _ = WEIGHTED[name]
    y_true, y_pred, weight = a_batch(rng)
    junk = np.full((3, 4), 50.0, "float32")
    padded = (
        np.concatenate([y_true, junk]),
        np.concatenate([y_pred, -junk]),
        np.concatenate([weight, 0 * junk]),
    )
    assert float(function(*padded)) == pytest.approx(
        float(function(y_true, y_pred, weight)), rel=1e-6
    )


@each_weighted
@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (1, 1)])
@pytest.mark.parametrize("case", ["perfect fit", "zero weights"])
def test_value_and_gradient_are_zero_where_the_formula_is_0_over_0(name, shape, case):
    function, _ = WEIGHTED[name]
    y_true = np.ones(shape, "float32")
    y_pred = y_true if case == "perfect fit" else y_true + 2
    weight = np.full(shape, 0.0 if case == "zero weights" else 0.5, "float32")
    assert float(function(y_true, y_pred, weight)) == 0.0
    slope = engines.gradient(lambda p: function(y_true, p, weight), y_pred)
    np.testing.assert_array_equal(slope, np.zeros(shape))


@each_weighted
def test_the_gradient_is_the_finite_difference_of_the_loop(name, rng):
    function, oracle = WEIGHTED[name]
    y_true, y_pred, weight = a_batch(rng, rows=3, outputs=2)
    slope = engines.gradient(lambda p: function(y_true, p, weight), y_pred)
    for at in np.ndindex(y_pred.shape):
        step = np.zeros(y_pred.shape)
        step[at] = 1e-5
        rise = oracle(y_true, y_pred + step, weight)
        fall = oracle(y_true, y_pred - step, weight)
        assert slope[at] == pytest.approx((rise - fall) / 2e-5, rel=1e-4, abs=1e-6)


@each_weighted
def test_a_graph_and_xla_give_what_eager_gives(name, rng):
    function, _ = WEIGHTED[name]
    rows = a_batch(rng)
    for run in engines.compiled(lambda *x: function(*x)).values():
        assert float(run(*rows)) == pytest.approx(float(function(*rows)), rel=1e-6)


def test_shapes_that_differ_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`y_pred` must have the shape of `y_true`"):
        functional.squared_error(np.ones((2, 1)), np.ones((3, 1)))
    with pytest.raises(
        ValueError, match=r"`sample_weight` must have .*sample_weight.shape=\(2,\)"
    ):
        functional.weighted_rmse(np.ones((2, 3)), np.ones((2, 3)), np.ones(2))


def test_whole_numbers_as_predictions_are_refused():
    with pytest.raises(TypeError, match=r"`y_pred` must be a float tensor"):
        functional.squared_error([1, 2], [1, 2])


def test_an_unknown_over_is_refused():
    with pytest.raises(ValueError, match=r"Invalid value for argument `over`"):
        functional.weighted_rmse([[1.0]], [[1.0]], [[1.0]], over="row")


# Groups -----------------------------------------------------------------------


@given(rows=rows_in_groups())
@few
def test_group_totals_are_those_of_a_plain_loop(rows):
    error, ids, weight, num_groups = rows
    errors, weights = functional.group_totals(error, ids, weight, num_groups=num_groups)
    expected = oracles.group_totals(error, ids, weight, num_groups)
    np.testing.assert_allclose(engines.as_numpy(errors), expected[0], rtol=1e-6)
    np.testing.assert_allclose(engines.as_numpy(weights), expected[1], rtol=1e-6)


def test_group_totals_of_two_batches_add_up(rng):
    error = rng.uniform(size=10).astype("float32")
    ids = rng.integers(-1, 3, 10)
    whole = functional.group_totals(error, ids, num_groups=3)
    first = functional.group_totals(error[:4], ids[:4], num_groups=3)
    second = functional.group_totals(error[4:], ids[4:], num_groups=3)
    for all_rows, one, other in zip(whole, first, second):
        np.testing.assert_allclose(
            engines.as_numpy(all_rows), engines.as_numpy(one + other), rtol=1e-6
        )


def test_group_means_are_those_of_fairlearn(rng):
    y_true, y_pred = rng.normal(size=(2, 50)).astype("float32")
    ids = rng.integers(0, 3, 50)
    weight = rng.uniform(size=50).astype("float32")
    frame = MetricFrame(
        metrics=mean_squared_error,
        y_true=y_true,
        y_pred=y_pred,
        sensitive_features=ids,
        sample_params={"sample_weight": weight},
    )
    means = functional.group_means(
        *functional.group_totals(
            functional.squared_error(y_true, y_pred), ids, weight, num_groups=3
        )
    )
    np.testing.assert_allclose(engines.as_numpy(means), frame.by_group, rtol=1e-5)
    spread = functional.group_gap(means, distance="absolute", between="range")
    assert float(spread) == pytest.approx(frame.difference(), rel=1e-5)


def test_the_published_example_of_fairlearn():
    error = functional.squared_error([0.3, 0.5, 0.1, 1.0], [0.3, 0.6, 0.6, 0.5])
    weighted = functional.group_totals(
        error, [0, 0, 1, 1], [1.0, 3.0, 1.0, 1.0], num_groups=2
    )
    plain = functional.group_totals(error, [0, 0, 1, 1], num_groups=2)
    for totals, difference in ((weighted, 0.2425), (plain, 0.245)):
        gap = functional.group_gap(functional.group_means(*totals), distance="absolute")
        assert float(gap) == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
@given(rows=rows_in_groups())
@few
def test_the_gap_is_that_of_a_plain_loop(distance, between, rows):
    error, ids, weight, num_groups = rows
    errors, weights = functional.group_totals(error, ids, weight, num_groups=num_groups)
    gap = functional.group_gap(
        functional.group_means(errors, weights),
        weights > 0,
        distance=distance,
        between=between,
        shares=weights,
    )
    expected = oracles.group_gap(error, ids, weight, num_groups, distance, between)
    # Means are at most 2, so 1e-6 is their rounding.
    assert float(gap) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_absolute_gap_over_pairs_is_a_mean_absolute_error():
    means = np.array([0.5, 2.0, 7.0], "float32")
    # Pairs (0,1), (0,2), (1,2).
    expected = mean_absolute_error(means[[0, 0, 1]], means[[1, 2, 2]])
    assert float(functional.group_gap(means, distance="absolute")) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
@pytest.mark.parametrize(
    ("means", "present"),
    [
        ([1.0, 1.0, 1.0], [True, True, True]),
        ([1.0], [True]),
        ([1.0, 2.0], [True, False]),
        ([0.0, 0.0], [False, False]),
    ],
    ids=["equal means", "one group", "one present", "none present"],
)
def test_a_gap_that_cannot_be_is_zero_with_a_finite_gradient(
    distance, between, means, present
):
    def gap(m):
        return functional.group_gap(
            m, ops.convert_to_tensor(present), distance=distance, between=between
        )

    assert float(gap(ops.convert_to_tensor(means))) == 0.0
    assert np.isfinite(engines.gradient(gap, means)).all()


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
def test_an_absent_group_has_no_gradient(distance, between):
    present = ops.convert_to_tensor([True, False, True])
    slope = engines.gradient(
        lambda m: functional.group_gap(m, present, distance=distance, between=between),
        [1.0, 0.0, 3.0],
    )
    assert slope[1] == 0.0
    assert slope[0] < 0 < slope[2]


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
def test_a_gap_as_graph_and_by_xla_is_the_eager_one(distance, between, rng):
    error = rng.uniform(size=30).astype("float32")
    ids = rng.integers(-1, 4, 30).astype("int32")

    def gap(error, ids):
        errors, weights = functional.group_totals(error, ids, num_groups=4)
        means = functional.group_means(errors, weights)
        return functional.group_gap(means, weights > 0, distance=distance, between=between)

    for run in engines.compiled(gap).values():
        assert float(run(error, ids)) == pytest.approx(float(gap(error, ids)), rel=1e-5)


def test_memory_grows_with_rows_plus_groups_not_with_their_product():
    # As a one-hot matrix this would be 4·10¹⁰ numbers.
    rows = num_groups = 200_000
    errors, weights = functional.group_totals(
        np.ones(rows, "float32"), np.arange(rows, dtype="int32"), num_groups=num_groups
    )
    gap = functional.group_gap(
        functional.group_means(errors, weights), weights > 0, distance="absolute"
    )
    assert float(gap) == pytest.approx(0.0, abs=1e-6)


def test_group_totals_refuse_what_is_not_one_number_a_row():
    with pytest.raises(ValueError, match=r"`group_ids` must have one row per row"):
        functional.group_totals([1.0, 2.0], [0], num_groups=2)
    with pytest.raises(ValueError, match=r"`error` must have one number per row"):
        functional.group_totals([[1.0], [2.0]], [[0], [1]], num_groups=2)
    with pytest.raises(ValueError, match=r"`num_groups` must be .*at least 1"):
        functional.group_totals([1.0], [0], num_groups=0)
    with pytest.raises(TypeError, match=r"`num_groups` must be a whole number"):
        functional.group_totals([1.0], [0], num_groups=2.0)


# Weights that meet values of another rank ---------------------------------------


def test_a_weight_per_row_serves_every_element():
    values = np.zeros((2, 3, 4), "float32")
    weight = functional.align_weight(ops.convert_to_tensor([1.0, 2.0]), values)
    assert tuple(weight.shape) == (2, 1, 1)


def test_a_weight_per_element_weighs_a_row_by_its_mean():
    weight = ops.convert_to_tensor([[1.0, 3.0], [0.0, 2.0]])
    values = ops.convert_to_tensor([0.0, 0.0])
    np.testing.assert_array_equal(
        engines.as_numpy(functional.align_weight(weight, values)), [2.0, 1.0]
    )


def test_a_masked_step_does_not_count_in_the_mean_of_a_row():
    values = ops.convert_to_tensor([[1.0, 3.0], [5.0, 7.0], [9.0, 9.0]])
    mask = ops.convert_to_tensor([[True, True], [True, False], [False, False]])
    np.testing.assert_array_equal(
        engines.as_numpy(functional.row_mean(values, mask)), [2.0, 5.0, 0.0]
    )


def test_the_mean_over_outputs_leaves_out_masked_elements(rng):
    from addloss_kit.functional.rows import last_axis_mean

    values = rng.normal(size=(6, 4)).astype("float32")
    mask = rng.random((6, 4)) < 0.5
    mask[0] = False
    expected = np.ma.array(values, mask=~mask).mean(axis=-1).filled(0.0)
    found = last_axis_mean(ops.convert_to_tensor(values), mask)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-7)


def test_a_single_mean_is_that_of_its_outputs_only_where_there_are_any():
    from addloss_kit.functional.rows import last_axis_mean

    values = ops.convert_to_tensor([[[1.0, 3.0], [5.0, 9.0]]])
    np.testing.assert_array_equal(engines.as_numpy(last_axis_mean(values)), [[2.0, 7.0]])
    # A mask of steps leaves the mean of their elements as it is.
    steps = ops.convert_to_tensor([[True, False]])
    found = engines.as_numpy(last_axis_mean(values, steps))
    np.testing.assert_array_equal(found, [[2.0, 7.0]])
    elements = ops.convert_to_tensor([[[True, False], [False, False]]])
    found = engines.as_numpy(last_axis_mean(values, elements))
    np.testing.assert_array_equal(found, [[1.0, 0.0]])
    rows = ops.convert_to_tensor([1.0, 3.0])
    np.testing.assert_array_equal(engines.as_numpy(last_axis_mean(rows)), [1.0, 3.0])


def test_a_mask_leaves_alone_a_weight_that_is_no_mean():
    weight, mask = ops.convert_to_tensor([2.0]), ops.convert_to_tensor([[False, False]])
    found = functional.align_weight(weight, ops.zeros((1,)), mask)
    np.testing.assert_array_equal(engines.as_numpy(found), [2.0])


def test_masked_steps_are_zero_and_rows_without_steps_weigh_nothing():
    from addloss_kit.functional.rows import row_weight, without_masked

    mask = ops.convert_to_tensor([[True, False], [False, False]])
    values = ops.convert_to_tensor([[1.0, np.inf], [2.0, 3.0]])
    (found,) = without_masked(mask, values)
    np.testing.assert_array_equal(engines.as_numpy(found), [[1.0, 0.0], [0.0, 0.0]])
    found = row_weight(None, ops.zeros((2,)), mask)
    np.testing.assert_array_equal(engines.as_numpy(found), [1.0, 0.0])


def test_a_step_counts_where_its_own_mask_and_the_other_one_say_so():
    from addloss_kit.functional.rows import own_mask

    values = ops.convert_to_tensor([1.0, 2.0, 3.0])
    given = ops.convert_to_tensor([True, True, False])
    assert own_mask(values) is None
    np.testing.assert_array_equal(engines.as_numpy(own_mask(values, given)), [1, 1, 0])
    values._keras_mask = ops.convert_to_tensor([False, True, True])
    np.testing.assert_array_equal(engines.as_numpy(own_mask(values)), [0, 1, 1])
    np.testing.assert_array_equal(engines.as_numpy(own_mask(values, given)), [0, 1, 0])


# Groups that are absent ----------------------------------------------------------


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
@pytest.mark.parametrize("mean_of_the_absent", [-100.0, 2.0, 100.0])
def test_the_mean_of_an_absent_group_does_not_matter(distance, between, mean_of_the_absent):
    options = {"distance": distance, "between": between}
    means = np.float32([1.0, mean_of_the_absent, 4.0, 5.0])
    present, shares = np.array([True, False, True, True]), np.float32([1.0, 9.0, 2.0, 4.0])
    for with_it, without in (({}, {}), ({"shares": shares}, {"shares": shares[present]})):
        gap = functional.group_gap(means, present, **options, **with_it)
        expected = functional.group_gap(means[present], **options, **without)
        assert float(gap) == pytest.approx(float(expected), rel=1e-6)
        slopes = functional.group_gap_slopes(means, present, **options, **with_it)
        expected = functional.group_gap_slopes(means[present], **options, **without)
        found = engines.as_numpy(slopes)
        np.testing.assert_allclose(found[present], engines.as_numpy(expected), atol=1e-6)
        assert found[1] == 0.0


def test_the_largest_and_the_smallest_mean_of_no_groups_are_zero():
    from addloss_kit.functional.groups import extremes

    means = ops.convert_to_tensor([2.0, 3.0])
    for present, expected in (
        ([True, True], [3.0, 2.0]),
        ([False, True], [3.0, 3.0]),
        ([False, False], [0.0, 0.0]),
    ):
        found = extremes(means, ops.convert_to_tensor(present))
        assert [float(x) for x in found] == expected
