"""Masked steps count nowhere, neither their error nor their weight: terms, metrics."""

import inspect

import engines
import keras
import numpy as np
import oracles
import pytest
from keras import ops

import addloss_kit as alk
from addloss_kit.model.bindings import BoundMetric, KerasMetricConsumer

ROWS, STEPS, OUTPUTS, GROUPS, PADDING = 9, 4, 2, 3, 7


def per_step(y_true, y_pred):
    """A value per step."""
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


TERMS = {
    "keras mean": lambda: alk.losses.KerasLoss("mse"),
    "keras sum": lambda: alk.losses.KerasLoss(keras.losses.Huber(reduction="sum")),
    "keras weighted mean": lambda: alk.losses.KerasLoss(
        keras.losses.MeanAbsoluteError(reduction="mean_with_sample_weight")
    ),
    "function": lambda: alk.losses.FunctionLoss(per_step),
    "mse": alk.losses.WeightedMSE,
    "rmse": alk.losses.WeightedRMSE,
    "rmse per row": lambda: alk.losses.WeightedRMSE(over="sample"),
    "residual norm": alk.losses.WeightedResidualNorm,
    "residual norm per row": lambda: alk.losses.WeightedResidualNorm(over="sample"),
    "asymmetric": alk.losses.AsymmetricAbsoluteError,
    "contrastive": alk.losses.Contrastive,
    "gap": lambda: alk.losses.GroupGap(GROUPS, max_force=float("inf")),
    "plug-in gap": lambda: alk.losses.GroupGap(GROUPS, momentum=0.0, error="mae"),
    "worst group": lambda: alk.losses.WorstGroup(GROUPS),
    "bounded": lambda: alk.losses.BoundedGroupLoss(GROUPS, bound=0.01),
    "gap constraint": lambda: alk.losses.GroupGapConstraint(GROUPS, bound=0.001),
    "distributions": lambda: alk.losses.GroupDistributionGap(GROUPS),
    "distributions, laplacian": lambda: alk.losses.GroupDistributionGap(
        GROUPS, kernel="laplacian", bandwidth=1.0
    ),
}
# These take a weight per element only.
PER_ELEMENT = ("mse", "rmse", "rmse per row", "residual norm", "residual norm per row")
METRICS = {
    "group error": lambda: alk.metrics.GroupError(GROUPS),
    "group gap": lambda: alk.metrics.GroupGap(GROUPS),
    "bound": lambda: alk.metrics.BoundIsMet(GROUPS, bound=1.0),
    "keras function": lambda: keras.metrics.MeanMetricWrapper(
        keras.losses.mean_squared_error, name="mse"
    ),
    "keras mean": keras.metrics.MeanAbsoluteError,
    "keras root": keras.metrics.RootMeanSquaredError,
    "keras regression": keras.metrics.LogCoshError,
    "keras similarity": keras.metrics.CosineSimilarity,
}
WEIGHTS = {"none": None, "row": 1, "step": 2, "element": 3}


def rows(rng, rank):
    """Sequences of 1 to 4 steps, and one of none, which is padding altogether."""
    shape = (ROWS, STEPS, OUTPUTS)
    lengths = np.array([1, 2, 3, 4, 4, 3, 2, 1, 0])
    given = {
        "y_true": rng.uniform(size=shape),
        "y_pred": rng.uniform(size=shape),
        "group_ids": np.arange(ROWS) % GROUPS,
        "mask": np.arange(STEPS)[None, :] < lengths[:, None],
    }
    if rank is not None:
        given["sample_weight"] = rng.uniform(0.5, 2.0, size=shape[:rank])
    return as_floats(given)


def as_floats(given):
    return {k: x.astype("float32") if x.dtype == "float64" else x for k, x in given.items()}


def padded(given, rng, weight):
    """The same rows with more masked steps, of other values and of this weight."""
    longer = dict(given)
    for name in ("y_true", "y_pred"):
        steps = rng.uniform(-1e3, 1e3, size=(ROWS, PADDING, OUTPUTS))
        longer[name] = np.concatenate([given[name], steps], axis=1)
    longer["mask"] = np.concatenate([given["mask"], np.zeros((ROWS, PADDING), bool)], 1)
    own = given.get("sample_weight")
    if own is not None and own.ndim > 1:
        steps = np.full((ROWS, PADDING, *own.shape[2:]), weight)
        longer["sample_weight"] = np.concatenate([own, steps], axis=1)
    return as_floats(longer)


def overwritten(given, rng, weight):
    """The same rows with other values and this weight where they are masked."""
    other = dict(given)
    is_masked = ~given["mask"]
    for name in ("y_true", "y_pred"):
        other[name] = given[name].copy()
        other[name][is_masked] = rng.uniform(-1e3, 1e3, size=(is_masked.sum(), OUTPUTS))
    own = given.get("sample_weight")
    if own is not None and own.ndim > 1:
        other["sample_weight"] = own.copy()
        other["sample_weight"][is_masked] = weight
    return as_floats(other)


def of_term(make, given):
    """Value in evaluation and in training, and the gradient with respect to y_pred."""
    parameters = inspect.signature(make().totals).parameters
    if not any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        given = {k: v for k, v in given.items() if k in parameters}
    else:
        given = {k: v for k, v in given.items() if k != "group_ids"}
    tensors = {k: ops.convert_to_tensor(v) for k, v in given.items()}
    y_pred = tensors.pop("y_pred")
    value = float(make()(y_pred=y_pred, **tensors))
    slope = engines.gradient(
        lambda x: make()(y_pred=x, training=True, **tensors), given["y_pred"]
    )
    return value, slope


@pytest.mark.parametrize("weight", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("rank", WEIGHTS)
@pytest.mark.parametrize("name", TERMS)
def test_masked_steps_change_neither_value_nor_gradient(name, rank, weight, rng):
    if name in PER_ELEMENT and rank != "element":
        pytest.skip("The term takes a weight per element only.")
    given = rows(rng, WEIGHTS[rank])
    value, slope = of_term(TERMS[name], given)
    assert np.abs(slope).sum() > 0
    np.testing.assert_array_equal(slope[~given["mask"]], 0.0)
    for others in (padded(given, rng, weight), overwritten(given, rng, weight)):
        other_value, other_slope = of_term(TERMS[name], others)
        np.testing.assert_allclose(other_value, value, rtol=1e-5)
        np.testing.assert_allclose(other_slope[:, :STEPS], slope, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(other_slope[~others["mask"]], 0.0)


def of_metric(make, given):
    metric = make()
    given = dict(given)
    mask = ops.convert_to_tensor(given.pop("mask"))
    tensors = {k: ops.convert_to_tensor(v) for k, v in given.items()}
    # As Keras marks what a layer returns.
    tensors["y_pred"] = keras.layers.Lambda(
        lambda x: x, mask=lambda inputs, _: mask, output_shape=lambda shape: shape
    )(tensors["y_pred"])
    bound = BoundMetric(metric, {})
    if isinstance(bound.consumer, KerasMetricConsumer):
        del tensors["group_ids"]
    BoundMetric(metric, {name: name for name in tensors}).update(tensors)
    result = metric.result()
    values = list(result.values()) if isinstance(result, dict) else [result]
    return np.array([float(value) for value in values])


@pytest.mark.parametrize("weight", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("rank", WEIGHTS)
@pytest.mark.parametrize("name", METRICS)
def test_masked_steps_change_no_metric(name, rank, weight, rng):
    given = rows(rng, WEIGHTS[rank])
    value = of_metric(METRICS[name], given)
    for others in (padded(given, rng, weight), overwritten(given, rng, weight)):
        np.testing.assert_allclose(of_metric(METRICS[name], others), value, rtol=1e-5)


@pytest.mark.parametrize("make", [keras.metrics.AUC, keras.metrics.Precision])
def test_a_metric_of_keras_that_ignores_masks_counts_only_the_steps_that_count(make, rng):
    mask = np.arange(STEPS)[None, :] < rng.integers(1, STEPS + 1, size=ROWS)[:, None]
    y_true = rng.integers(0, 2, size=(ROWS, STEPS, 1)).astype("float32")
    y_pred = rng.uniform(size=(ROWS, STEPS, 1)).astype("float32")
    own = make()
    own.update_state(y_true[mask], y_pred[mask])
    actual = of_metric(
        make, {"y_true": y_true, "y_pred": y_pred, "mask": mask, "group_ids": y_true}
    )
    np.testing.assert_allclose(actual, [float(own.result())], rtol=1e-5)


@pytest.mark.parametrize("rank", WEIGHTS)
def test_group_errors_with_a_mask_are_those_of_a_plain_loop(rank, rng):
    given = rows(rng, WEIGHTS[rank])
    errors, weights = [], []
    for row in range(ROWS):
        steps = [step for step in range(STEPS) if given["mask"][row, step]]
        per_step = [
            oracles.squared_errors([given["y_true"][row, s]], [given["y_pred"][row, s]])[0]
            for s in steps
        ]
        errors.append(sum(per_step) / len(steps) if steps else 0.0)
        if rank == "none":
            weights.append(1.0 if steps else 0.0)
        elif rank == "row":
            weights.append(float(given["sample_weight"][row]) if steps else 0.0)
        else:
            own = [float(np.mean(given["sample_weight"][row, s])) for s in steps]
            weights.append(sum(own) / len(own) if own else 0.0)
    totals, sums = oracles.group_totals(errors, given["group_ids"], weights, GROUPS)
    actual = of_metric(METRICS["group error"], given)
    np.testing.assert_allclose(actual, np.divide(totals, sums), rtol=1e-5)


def test_two_rows_are_compared_on_the_steps_that_both_have():
    y_pred = ops.convert_to_tensor([[1.0, 5.0], [1.0, 9.0], [3.0, 0.0], [3.0, 0.0]])
    mask = ops.convert_to_tensor([[1, 0], [1, 0], [1, 1], [1, 1]])
    options = {"num_groups": 2, "bandwidth": 1.0}
    ids = [0, 0, 1, 1]
    masked = alk.functional.group_mmd(y_pred, ids, mask=mask, **options)
    first_step = alk.functional.group_mmd(y_pred[:, :1], ids, **options)
    np.testing.assert_allclose(float(masked), float(first_step), rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "binary_crossentropy"])
def test_a_mask_per_element_leaves_elements_out(loss, rng):
    y_true = rng.integers(0, 2, size=(5, 4)).astype("float32")
    y_pred = rng.uniform(size=(5, 4)).astype("float32")
    mask = rng.uniform(size=(5, 4)) < 0.6
    own = keras.losses.get(loss)
    expected = np.mean([float(own([t], [p])) for t, p in zip(y_true[mask], y_pred[mask])])
    actual = alk.losses.KerasLoss(loss)(y_true, y_pred, mask=ops.convert_to_tensor(mask))
    np.testing.assert_allclose(float(actual), expected, rtol=1e-5)


def test_a_mask_per_element_is_refused_where_a_loss_cannot_apply_it(rng):
    y = rng.uniform(size=(5, 4)).astype("float32")
    with pytest.raises(
        ValueError, match=r"mask of the prediction's shape cannot be applied"
    ):
        alk.losses.KerasLoss("cosine_similarity")(y, y, mask=ops.ones((5, 4), "bool"))


def test_a_function_that_averages_over_steps_is_refused_with_a_mask(rng):
    y = rng.uniform(size=(5, 4, 2)).astype("float32")
    mask = ops.ones((5, 4), "bool")
    term = alk.losses.FunctionLoss(lambda y_true, y_pred: ops.mean(y_pred, axis=(1, 2)))
    with pytest.raises(ValueError, match=r"masked steps cannot be left out.*mask.shape"):
        term(y_true=y, y_pred=y, mask=mask)
