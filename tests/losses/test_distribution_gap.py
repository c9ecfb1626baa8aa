"""GroupDistributionGap: the U-statistic against loops, its lack of bias, its edges."""

import itertools

import keras
import numpy as np
import oracles
import pytest
from engines import as_numpy, compiled, gradient
from predictors import linear

import addloss_kit as alk
from addloss_kit.functional import group_mmd
from addloss_kit.losses import GroupDistributionGap


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
@pytest.mark.parametrize("num_groups", [2, 3, 6])
@pytest.mark.parametrize("outputs", [1, 3])
def test_it_is_the_u_statistic_of_the_loops(kernel, num_groups, outputs, rng):
    y_pred = rng.normal(size=(24, outputs)).astype("float32")
    ids = rng.integers(-1, num_groups, size=24)
    weight = rng.uniform(0, 2, size=24).astype("float32")
    weight[3] = 0

    value = group_mmd(
        y_pred, ids, weight, num_groups=num_groups, kernel=kernel, bandwidth=0.7
    )

    expected = oracles.group_mmd(y_pred, ids, weight, num_groups, kernel, 0.7)
    assert float(value) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
def test_rows_with_the_same_prediction_are_at_no_distance(kernel, rng):
    # Half of the rows of one group are those of the other.
    y_pred = np.r_[rng.normal(size=8), rng.normal(size=4) + 2].astype("float32")
    y_pred[6:8] = y_pred[:2]
    ids = np.repeat([0, 1], 6)

    value = group_mmd(y_pred, ids, num_groups=2, kernel=kernel, bandwidth=0.7)

    expected = oracles.group_mmd(y_pred[:, None], ids, np.ones(12), 2, kernel, 0.7)
    assert float(value) == pytest.approx(expected, abs=1e-6)


def test_without_weights_the_gaussian_one_is_that_of_scikit_learn(rng):
    from sklearn.metrics.pairwise import rbf_kernel

    a, b = rng.normal(size=(7, 2)), rng.normal(size=(5, 2)) + 1

    value = group_mmd(
        np.r_[a, b].astype("float32"), [0] * 7 + [1] * 5, num_groups=2, bandwidth=0.8
    )

    gamma = 1 / (2 * 0.8**2)
    within = [
        (rbf_kernel(g, gamma=gamma).sum() - len(g)) / (len(g) * (len(g) - 1))
        for g in (a, b)
    ]
    expected = sum(within) - 2 * rbf_kernel(a, b, gamma=gamma).mean()
    assert float(value) == pytest.approx(expected, abs=1e-6)


def test_the_mean_over_all_batches_is_the_value_of_all_rows(rng):
    # Unbiased: every way to draw two rows of each group, 6 · 6 batches.
    y_pred = np.r_[rng.normal(size=4), rng.normal(size=4) + 1].astype("float32")
    ids = np.array([0] * 4 + [1] * 4)

    values = [
        float(group_mmd(y_pred[[*a, *b]], ids[[*a, *b]], num_groups=2, bandwidth=1.0))
        for a in itertools.combinations(range(4), 2)
        for b in itertools.combinations(range(4, 8), 2)
    ]

    everything = float(group_mmd(y_pred, ids, num_groups=2, bandwidth=1.0))
    assert np.mean(values) == pytest.approx(everything, abs=1e-6)
    assert min(values) < 0 < everything


@pytest.mark.parametrize(
    "ids", [[0, 0, 0, 0], [0, 0, 0, 1], [-1, -1, -1, -1], [0, 1, 2, 3]]
)
def test_without_two_groups_of_two_rows_nothing_is_pushed(ids):
    y_pred = np.array([0.0, 1.0, 2.0, 3.0], "float32")

    def value(at):
        return group_mmd(at, ids, num_groups=4, bandwidth=1.0)

    assert float(value(y_pred)) == 0
    np.testing.assert_array_equal(gradient(value, y_pred), np.zeros(4))


def test_a_group_with_one_row_leaves_the_others_as_they_are(rng):
    y_pred = rng.normal(size=9).astype("float32")
    ids = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])

    with_it = group_mmd(y_pred, ids, num_groups=3, bandwidth=1.0)
    without = group_mmd(y_pred[:8], ids[:8], num_groups=2, bandwidth=1.0)

    assert float(with_it) == pytest.approx(float(without), abs=1e-6)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
@pytest.mark.parametrize("bandwidth", [None, 1.0])
def test_equal_predictions_have_no_gap_and_a_finite_gradient(kernel, bandwidth):
    def value(at):
        return group_mmd(at, [0, 0, 1, 1], num_groups=2, kernel=kernel, bandwidth=bandwidth)

    same = np.full(4, 3.0, "float32")

    assert float(value(same)) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(gradient(value, same), 0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
def test_without_a_bandwidth_units_do_not_matter(kernel, rng):
    y_pred = rng.normal(size=12).astype("float32")
    ids = np.arange(12) % 2

    one = float(group_mmd(y_pred, ids, num_groups=2, kernel=kernel))
    thousand = float(group_mmd(1000 * y_pred, ids, num_groups=2, kernel=kernel))

    assert thousand == pytest.approx(one, rel=1e-4)


def test_padding_order_and_scale_of_weights_do_not_matter(rng):
    y_pred = rng.normal(size=10).astype("float32")
    ids, weight = np.arange(10) % 3, rng.uniform(0.5, 2, size=10).astype("float32")
    order = rng.permutation(13)
    padded = np.r_[y_pred, [99.0] * 3].astype("float32")[order]
    padded_ids = np.r_[ids, [0, 1, 2]][order]
    padded_weight = np.r_[3 * weight, [0.0] * 3].astype("float32")[order]

    for bandwidth in (1.0, None):
        one = group_mmd(y_pred, ids, weight, num_groups=3, bandwidth=bandwidth)
        other = group_mmd(
            padded, padded_ids, padded_weight, num_groups=3, bandwidth=bandwidth
        )
        assert float(other) == pytest.approx(float(one), abs=2e-6)


def test_as_a_graph_and_by_xla_it_is_the_eager_one(rng):
    y_pred = rng.normal(size=8).astype("float32")
    ids = (np.arange(8) % 2).astype("int32")

    def value(at):
        return group_mmd(at, ids, num_groups=2)

    for function in compiled(value).values():
        assert float(function(y_pred)) == pytest.approx(float(value(y_pred)), abs=1e-6)


def test_training_makes_predictions_tell_less_about_the_group(rng):
    ids = np.arange(400) % 2
    x = rng.normal(size=(400, 2)).astype("float32")
    x[:, 1] += 2 * ids
    predictor = linear(2, name=None)
    model = alk.build_training_model(
        predictor, ["mse", GroupDistributionGap(2)], loss_weights=[1.0, 5.0]
    )
    model.compile(keras.optimizers.Adam(0.02))
    packed = alk.pack_inputs(model, x, x.sum(axis=1), group_ids=ids)

    model.fit(packed, y=None, batch_size=40, epochs=30, verbose=0)

    # The answer is x₀ + x₁; x₁ tells of the group, x₀ does not. Without the term the slopes
    # are equal; on all rows at once the second ends at half of the first.
    slopes = as_numpy(predictor.layers[-1].kernel)[:, 0]
    assert abs(slopes[1]) < 0.75 * abs(slopes[0])


def test_the_term_takes_weights_ids_of_no_group_and_survives_its_config(rng):
    term = GroupDistributionGap(2, kernel="laplacian", bandwidth=0.5, group_ids="site")
    again = GroupDistributionGap.from_config(term.get_config())
    y_pred = rng.normal(size=(8, 2)).astype("float32")
    ids = np.array([0, 1, 0, 1, -1, 0, 1, -1])
    weight = rng.uniform(0.5, 2, size=8).astype("float32")

    value = float(again(y_pred, ids, weight))

    expected = oracles.group_mmd(y_pred, ids, weight, 2, "laplacian", 0.5)
    assert value == pytest.approx(expected, abs=2e-6)
    assert again.name == "site_group_distribution_gap"
    assert again.source("group_ids") == "site"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "linear"}, "argument `kernel`"),
        ({"bandwidth": 0.0}, "`bandwidth` must be positive"),
        ({"bandwidth": -1.0}, "`bandwidth` must be positive"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GroupDistributionGap(2, **options)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
def test_the_bandwidth_of_the_batch_has_no_gradient(kernel, rng):
    y_pred, ids = rng.normal(size=6).astype("float32"), [0, 0, 0, 1, 1, 1]
    square = (y_pred[:, None] - y_pred[None, :]) ** 2
    bandwidth = float(np.sqrt(square.sum() / 30))  # 6 · 5 pairs

    def value(y_pred, **options):
        return group_mmd(y_pred, ids, num_groups=2, kernel=kernel, **options)

    found = gradient(value, y_pred)
    fixed = gradient(lambda at: value(at, bandwidth=bandwidth), y_pred)
    np.testing.assert_allclose(found, fixed, rtol=1e-4, atol=1e-6)


def test_a_row_of_masked_steps_alone_is_no_row(rng):
    y_pred = rng.normal(size=(7, 2, 1)).astype("float32")
    mask = np.array([[True, True]] * 5 + [[True, False], [False, False]])
    ids = np.array([0, 0, 0, 1, 1, 1, 0])
    options = {"num_groups": 2, "bandwidth": 1.0}

    with_it = group_mmd(y_pred, ids, mask=mask, **options)
    without = group_mmd(y_pred[:6], ids[:6], mask=mask[:6], **options)

    assert float(with_it) == pytest.approx(float(without), rel=1e-5)
    assert float(without) != 0
