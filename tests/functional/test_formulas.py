"""Every formula against plain float64 loops, where numbers are extreme or missing.

Weights are 0 or from 1e-3 to 1e15, errors from 1e-30 to 1e15; groups are absent, ids
-1, steps masked. `ADDLOSS_KIT_EXAMPLES=1000` draws as many cases of each.
"""

import itertools
import math
import os

import engines
import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import addloss_kit as alk
from addloss_kit import functional

EXAMPLES = int(os.environ.get("ADDLOSS_KIT_EXAMPLES", "40"))
many = settings(max_examples=EXAMPLES, deadline=None, derandomize=True)

SMALLEST = 1e-37  # What is smaller, float32 flushes to 0.
DISTANCES = ["squared", "absolute"]
BETWEEN = ["pairs", "range", "overall"]
PRICE = st.sampled_from([0.0, 1e-3, 0.5, 1.0, 3.0, 100.0])


def extreme(rng, kind, low, high, shape):
    """Positive numbers as float32: all alike, all of one size, or of any size."""
    if kind == "ones":
        return np.ones(shape, "float32")
    exponent = rng.uniform(low, high, size=shape if kind == "wild" else ())
    return np.float32(10.0**exponent * rng.uniform(1.0, 2.0, size=shape))


@st.composite
def batches(draw, steps=(None, 1, 3), power=2):
    """Arrays of a batch. `power` is that of the residual in the error."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows = draw(st.sampled_from([1, 2, 5, 8]))
    time, outputs = draw(st.sampled_from(steps)), draw(st.sampled_from([1, 3]))
    shape = (rows, outputs) if time is None else (rows, time, outputs)
    kinds = st.sampled_from(["ones", "alike", "wild"])
    residual = extreme(rng, draw(kinds), -30 / power, 15 / power - 0.5, shape)
    residual *= rng.choice(np.float32([-1, 0, 1, 1]), size=shape)
    # Halves of one number: their difference is exact.
    share = rng.choice(np.float32([0, 0.5, 1]), size=shape)
    rank = draw(st.sampled_from(range(1, len(shape) + 1)))
    weight = extreme(rng, draw(kinds), -3, 14.5, shape[:rank])
    weight *= rng.choice(np.float32([0, 1, 1, 1]), size=weight.shape)
    if draw(st.sampled_from(["some", "some", "none"])) == "none":
        weight *= 0
    num_groups = draw(st.integers(1, 4))
    present = rng.permutation(np.arange(-1, num_groups))[: draw(st.integers(1, 5))]
    mask = None
    if time is not None and draw(st.booleans()):
        mask = rng.random((rows, time)) < draw(st.sampled_from([0.0, 0.5, 0.9]))
    return {
        "y_true": (share - 1) * residual,
        "y_pred": share * residual,
        "weight": weight,
        "ids": rng.choice(present, size=rows).astype("int32"),
        "num_groups": num_groups,
        "mask": mask,
    }


def is_counted(case):
    """Which elements count, as an array of the prediction's shape."""
    counts = np.ones(case["y_pred"].shape, bool)
    return counts if case["mask"] is None else counts & case["mask"][..., None]


def per_element(case):
    """The weight of every element, in float64."""
    weight = case["weight"].astype("float64")
    missing = case["y_pred"].ndim - weight.ndim
    weight = weight.reshape(weight.shape + (1,) * missing)
    return np.broadcast_to(weight, case["y_pred"].shape)


def with_junk(case):
    """The predictions, infinite where they are masked."""
    return np.where(is_counted(case), case["y_pred"], np.float32(np.inf))


def number(tensor):
    return float(engines.as_numpy(tensor))


def assert_close(found, expected, rtol=2e-5, atol=SMALLEST):
    found = engines.as_numpy(found)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def by_loops(values, weight=None, counts=None):
    """For each row: the mean of its values, and of its weights, over what counts."""
    counts = np.ones(values.shape, bool) if counts is None else counts
    weight = np.ones(values.shape) if weight is None else weight
    means, weights = [], []
    for value, w, counted in zip(values, weight, counts):
        kept = [(v, u) for v, u, c in zip(value.flat, w.flat, counted.flat) if c]
        means.append(sum(v for v, _ in kept) / len(kept) if kept else 0.0)
        weights.append(sum(u for _, u in kept) / len(kept) if kept else 0.0)
    return means, weights


# Weighted errors -----------------------------------------------------------------


@given(case=batches())
@many
def test_squared_error(case):
    found = functional.squared_error(case["y_true"], case["y_pred"])
    assert_close(found, oracles.squared_errors(case["y_true"], case["y_pred"]))


@pytest.mark.parametrize("name", ["mse", "rmse", "residual_norm"])
@pytest.mark.parametrize("over", ["batch", "sample"])
@given(case=batches())
@many
def test_weighted_errors(name, over, case):
    options = {} if name == "mse" else {"over": over}
    arrays = case["y_true"], case["y_pred"], per_element(case).astype("float32")
    found = getattr(functional, f"weighted_{name}")(*arrays, **options)
    assert_close(found, getattr(oracles, f"weighted_{name}")(*arrays, **options))


@pytest.mark.parametrize("kind", ["WeightedMSE", "WeightedRMSE", "WeightedResidualNorm"])
@pytest.mark.parametrize("over", ["batch", "sample"])
@pytest.mark.parametrize("is_shared", [False, True])
@given(case=batches())
@many
def test_weighted_terms(kind, over, is_shared, case):
    options = {} if kind == "WeightedMSE" else {"over": over}
    weight = per_element(case)
    if is_shared:
        assume(np.any(weight[0]))  # All 0 is refused.
        shape = case["y_pred"].shape[1:]
        weight = np.broadcast_to(weight[0], case["y_pred"].shape)
        term = getattr(alk.losses, kind)(weights=weight[0].reshape(shape), **options)
        arrays = case["y_true"], with_junk(case)
    else:
        term = getattr(alk.losses, kind)(**options)
        arrays = case["y_true"], with_junk(case), weight.astype("float32")
    masks = {} if case["mask"] is None else {"mask": case["mask"]}
    name = {"WeightedMSE": "mse", "WeightedRMSE": "rmse"}.get(kind, "residual_norm")
    expected = getattr(oracles, f"weighted_{name}")(
        case["y_true"], case["y_pred"], weight * is_counted(case), **options
    )
    assert_close(term(*arrays, **masks), expected)


@given(x=st.floats(-(2.0**99), 2.0**99, width=32))
@many
def test_safe_sqrt(x):
    assert_close(functional.safe_sqrt(np.float32(x)), math.sqrt(x) if x > 1e-38 else 0.0)


# Weights and rows ----------------------------------------------------------------


@pytest.mark.parametrize("wanted", [1, 2, 3])
@given(case=batches())
@many
def test_align_weight(wanted, case):
    weight, mask = case["weight"], case["mask"]
    # The mask of a row's steps has a place for each of its weights, or none at all.
    if mask is not None and weight.shape[:2] != mask.shape:
        mask = None
    rows, rank = weight.shape[0], weight.ndim
    values = np.zeros((rows, 2, 2)[:wanted], "float32")
    found = functional.align_weight(weight, values, mask)
    if rank <= wanted:
        assert_close(found, weight.reshape(weight.shape + (1,) * (wanted - rank)))
        return
    counts = np.ones(weight.shape, bool)
    if mask is not None and mask.ndim > wanted:
        counts = counts & mask.reshape(mask.shape + (1,) * (rank - mask.ndim))
    expected = np.zeros(weight.shape[:wanted])
    for at in np.ndindex(expected.shape):
        kept = [float(w) for w, c in zip(weight[at].flat, counts[at].flat) if c]
        expected[at] = sum(kept) / len(kept) if kept else 0.0
    assert_close(found, expected)


@given(case=batches())
@many
def test_row_mean(case):
    counts = is_counted(case)
    found = functional.row_mean(np.abs(with_junk(case)), case["mask"])
    assert_close(found, by_loops(np.abs(np.float64(case["y_pred"])), None, counts)[0])


# Losses that Keras's rule reduces ------------------------------------------------


def reduced(values, case, reduction):
    """Σ w·l over a number of steps, or over Σ w; as loops over rows and steps."""
    counts, weight = is_counted(case), per_element(case)
    total = number_of = weights = 0.0
    for at in np.ndindex(values.shape[:-1]):
        if counts[at].all():
            w = sum(weight[at]) / len(weight[at])
            total += w * sum(values[at]) / len(values[at])
            number_of += 1
            weights += w
    if reduction == "sum":
        return total
    below = weights if reduction == "mean_with_sample_weight" else number_of
    return total / below if below else 0.0


def in_double(case):
    return np.float64(case["y_true"]), np.float64(case["y_pred"])


def call(term, case):
    masks = {} if case["mask"] is None else {"mask": case["mask"]}
    return term(case["y_true"], with_junk(case), sample_weight=case["weight"], **masks)


@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"]
)
@given(case=batches())
@many
def test_a_loss_of_keras(reduction, case):
    from keras.losses import MeanSquaredError

    y_true, y_pred = in_double(case)
    term = alk.losses.KerasLoss(MeanSquaredError(reduction=reduction))
    assert_close(call(term, case), reduced((y_true - y_pred) ** 2, case, reduction))


@given(case=batches(power=1), over=PRICE, under=PRICE)
@many
def test_asymmetric_absolute_error(case, over, under):
    assume(over + under > 0)
    y_true, y_pred = in_double(case)
    excess = y_pred - y_true
    term = alk.losses.AsymmetricAbsoluteError(over_price=over, under_price=under)
    # An error times a price may be smaller than float32 goes, before the weight.
    atol = max(SMALLEST, 1e-37 * per_element(case).max())
    values = np.where(excess > 0, over * excess, -under * excess)
    expected = reduced(values, case, "sum_over_batch_size")
    assert_close(call(term, case), expected, atol=atol)


@given(case=batches(), margin=st.sampled_from([1e-3, 1.0, 1e7]))
@many
def test_contrastive(case, margin):
    case["y_true"] = np.float32(case["y_true"] > 0)
    case["y_pred"] = np.abs(case["y_pred"])
    y_true, y_pred = in_double(case)
    shortfall = np.maximum(np.float64(np.float32(margin)) - y_pred, 0)
    values = np.where(y_true > 0, y_pred**2, shortfall**2)
    expected = reduced(values, case, "sum_over_batch_size")
    # The shortfall has the rounding error of the margin.
    largest = per_element(case).max() * margin**2 * 1e-6
    assert_close(call(alk.losses.Contrastive(margin), case), expected, atol=largest)


@given(case=batches(steps=(None,)))
@many
def test_functions_as_losses(case):
    weight = np.float32(per_element(case)[:, 0])
    y_true, y_pred = in_double(case)

    def rows(y_true, y_pred, price):
        return price * (y_true - y_pred)[:, 0] ** 2

    term = alk.losses.FunctionLoss(rows)
    values = [w * (t - p) ** 2 for w, t, p in zip(weight, y_true[:, 0], y_pred[:, 0])]
    found = term(case["y_true"], case["y_pred"], weight)
    assert_close(found, sum(map(float, values)) / len(values))


# Groups --------------------------------------------------------------------------


@given(case=batches(steps=(None,)))
@many
def test_group_totals_and_means(case):
    error = oracles.squared_errors(case["y_true"], case["y_pred"])
    error, weight = np.float32(error), np.float32(per_element(case)[:, 0])
    expected = oracles.group_totals(error, case["ids"], weight, case["num_groups"])
    errors, weights = functional.group_totals(
        error, case["ids"], weight, num_groups=case["num_groups"]
    )
    assert_close(errors, expected[0])
    assert_close(weights, expected[1])
    means = [e / w if w else 0.0 for e, w in zip(*expected)]
    assert_close(functional.group_means(errors, weights), means)


@st.composite
def means_of_groups(draw, is_mild=False):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    number = draw(st.integers(1, 6))
    kind = draw(st.sampled_from(["ones", "alike"] if is_mild else ["alike", "wild"]))
    means = extreme(rng, kind, -30, 15, number) * rng.choice(np.float32([0, 1, 1]), number)
    if is_mild:
        means = np.float32(means * rng.uniform(0.5, 2.0, number))
    weight = extreme(rng, kind, -3, 15, number) if not is_mild else np.ones(number, "f4")
    weight = np.float32(weight * rng.uniform(0.5, 1.0, number))
    return means, weight * (rng.random(number) < draw(st.sampled_from([0.0, 0.6, 1.0])))


def gap_of_means(means, weight, distance, between):
    """One row a group: its error is the mean."""
    ids = range(len(means))
    return oracles.group_gap(means, ids, weight, len(means), distance, between)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("between", BETWEEN)
@given(case=means_of_groups())
@many
def test_group_gap(distance, between, case):
    means, weight = case
    found = functional.group_gap(
        means, weight > 0, distance=distance, between=between, shares=weight
    )
    # What a center or a difference rounds, is of the size of the largest mean.
    largest = np.float64(np.max(np.where(weight > 0, means, 0)))
    atol = 1e-8 * largest**2 if distance == "squared" else 1e-6 * largest
    expected = gap_of_means(np.float64(means), np.float64(weight), distance, between)
    assert_close(found, expected, atol=max(atol, SMALLEST))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("between", BETWEEN)
@given(case=means_of_groups(is_mild=True))
@many
def test_group_gap_slopes(distance, between, case):
    means, weight = np.float64(case[0]), np.float64(case[1])
    scale = np.max(means) or 1.0
    known = means[weight > 0]
    # Away from the kinks, where a slope is one of many.
    center = np.sum(means * weight) / max(np.sum(weight), 1e-300)
    points = [*known, center] if between == "overall" and len(known) > 1 else known
    assume(all(abs(a - b) > 1e-3 * scale for a, b in itertools.combinations(points, 2)))
    step = 1e-5 * scale * np.eye(len(means))
    expected = [
        gap_of_means(means + s, weight, distance, between)
        - gap_of_means(means - s, weight, distance, between)
        for s in step
    ]
    found = functional.group_gap_slopes(
        case[0], case[1] > 0, distance=distance, between=between, shares=case[1]
    )
    atol = 1e-5 * scale if distance == "squared" else 1e-5
    assert_close(found, np.array(expected) / (2e-5 * scale), atol=atol)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("absent_group", ["skip", "zero_error"])
@given(case=batches())
@many
def test_the_plug_in_gap_of_a_batch(distance, between, absent_group, case):
    num_groups, counts = max(2, case["num_groups"]), is_counted(case)
    y_true, y_pred = in_double(case)
    error, weight = by_loops((y_true - y_pred) ** 2, per_element(case), counts)
    weight = [w if c.any() else 0.0 for w, c in zip(weight, counts)]
    error, ids = list(error), list(case["ids"])
    if absent_group == "zero_error":
        # A row of no error and hardly any weight in every group.
        error += [0.0] * num_groups
        ids += range(num_groups)
        weight += [1e-200] * num_groups
    expected = oracles.group_gap(error, ids, weight, num_groups, distance, between)
    term = alk.losses.GroupGap(
        num_groups,
        momentum=0.0,
        distance=distance,
        between=between,
        absent_group=absent_group,
    )
    masks = {} if case["mask"] is None else {"mask": case["mask"]}
    found = term(case["y_true"], with_junk(case), case["ids"], case["weight"], **masks)
    largest = max(error)
    atol = 1e-8 * largest**2 if distance == "squared" else 1e-6 * largest
    assert_close(found, expected, rtol=5e-5, atol=max(atol, SMALLEST))


@given(case=batches())
@many
def test_the_worst_group_outside_training(case):
    # All q are equal at first: the mean over the present groups.
    counts, num_groups = is_counted(case), max(2, case["num_groups"])
    y_true, y_pred = in_double(case)
    error, weight = by_loops((y_true - y_pred) ** 2, per_element(case), counts)
    errors, weights = oracles.group_totals(error, case["ids"], weight, num_groups)
    means = [e / w for e, w in zip(errors, weights) if w > 0]
    masks = {} if case["mask"] is None else {"mask": case["mask"]}
    found = alk.losses.WorstGroup(num_groups)(
        case["y_true"], with_junk(case), case["ids"], case["weight"], **masks
    )
    assert_close(found, sum(means) / len(means) if means else 0.0)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian"])
@pytest.mark.parametrize("bandwidth", [None, "some"])
@given(case=batches())
@many
def test_group_mmd(kernel, bandwidth, case):
    num_groups, counts = max(2, case["num_groups"]), is_counted(case)
    case["y_pred"] = case["y_pred"] - case["y_true"]
    # Squares of distances below 1e-18 vanish in float32, and so do all bandwidths.
    size = np.abs(case["y_pred"]).max()
    assume(size > 1e-10)
    if bandwidth is not None:
        bandwidth = float(np.float32(0.3 * size))
    _, weight = by_loops(case["y_pred"], per_element(case), counts)
    weight = np.float32(weight)
    expected = oracles.group_mmd(
        case["y_pred"],
        case["ids"],
        np.float64(weight),
        num_groups,
        kernel,
        bandwidth,
        counts,
    )
    options = {"num_groups": num_groups, "kernel": kernel, "bandwidth": bandwidth}
    found = functional.group_mmd(
        with_junk(case), case["ids"], weight, mask=case["mask"], **options
    )
    assert_close(found, expected, rtol=0, atol=2e-5)
    options.pop("num_groups")
    term = alk.losses.GroupDistributionGap(num_groups, **options)
    masks = {} if case["mask"] is None else {"mask": case["mask"]}
    assert_close(
        term(with_junk(case), case["ids"], weight, **masks), expected, rtol=0, atol=2e-5
    )
