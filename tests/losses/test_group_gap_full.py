"""GroupGap at its limits: many groups, any error, several outputs, small batches."""

import itertools

import keras
import numpy as np
import oracles
import pytest
from engines import as_numpy
from exact_problems import LinearProblem
from scipy.optimize import minimize

import addloss_kit as alk
from addloss_kit.losses import GroupGap, GroupGapConstraint, WorstGroup

MANY = 100_000


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
def test_of_two_hundred_groups_no_pair_is_forgotten(distance, between, rng):
    ids = rng.integers(0, 200, size=1000)
    errors = rng.uniform(0, 2, size=1000)
    weight = rng.uniform(0, 2, size=1000)
    target = np.zeros((1000, 1), "float32")
    term = GroupGap(200, distance=distance, between=between, momentum=0.0)

    value = float(term(target, np.sqrt(errors)[:, None], ids, weight))

    expected = oracles.group_gap(errors, ids, weight, 200, distance, between)
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
def test_of_a_hundred_thousand_groups_those_in_the_batch_count(distance, between, rng):
    present = rng.choice(MANY, size=8, replace=False)
    ids = present[rng.integers(0, 8, size=32)]
    errors = rng.uniform(0, 2, size=32)
    term = GroupGap(MANY, distance=distance, between=between, momentum=0.0)

    value = float(term(np.zeros((32, 1)), np.sqrt(errors)[:, None], ids))

    # The oracle on the eight groups by themselves.
    small = np.searchsorted(np.sort(present), ids)
    expected = oracles.group_gap(errors, small, np.ones(32), 8, distance, between)
    assert value == pytest.approx(expected, rel=1e-4)


TERMS = {
    "GroupGap": GroupGap,
    "GroupGap, absolute": lambda k: GroupGap(k, distance="absolute"),
    "WorstGroup": WorstGroup,
    "BoundedGroupLoss": lambda k: alk.losses.BoundedGroupLoss(k, bound=1.0),
    "GroupGapConstraint": lambda k: GroupGapConstraint(k, bound=0.1),
}


def tensors_of_a_step(term, batch):
    """Number of elements of every tensor that a compiled step holds."""
    target = np.zeros((batch, 1), "float32")
    guess = np.ones((batch, 1), "float32")
    ids = np.zeros(batch, "int32")
    term.build()
    if keras.backend.backend() == "jax":
        import jax

        def step(state, guess):
            pairs = list(zip(term.weights, state))
            with keras.StatelessScope(state_mapping=pairs) as scope:
                value = term(target, guess, ids, training=True)
            return value, [scope.get_current_value(w) for w in term.weights]

        graph = jax.make_jaxpr(jax.grad(step, argnums=1, has_aux=True))(
            [w.value for w in term.weights], guess
        )
        return [v.aval.size for e in _equations(graph.jaxpr) for v in e.outvars]
    import tensorflow as tf

    def step(guess):
        with tf.GradientTape() as tape:
            tape.watch(guess)
            value = term(target, guess, ids, training=True)
        return tape.gradient(value, guess)

    graph = tf.function(step).get_concrete_function(tf.TensorSpec((batch, 1))).graph
    return [
        tensor.shape.num_elements()
        for operation in graph.get_operations()
        for tensor in operation.outputs
        if tensor.shape.is_fully_defined()
    ]


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                if hasattr(inner, "jaxpr"):
                    yield from _equations(inner.jaxpr)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras runs torch without a graph."
)
@pytest.mark.parametrize("name", TERMS)
def test_no_tensor_of_a_step_is_larger_than_batch_and_groups(name):
    batch, num_groups = 64, 1000

    sizes = tensors_of_a_step(TERMS[name](num_groups), batch)

    # Two columns, error and weight, and one segment for rows of no group.
    assert max(sizes) <= 2 * (num_groups + 1) + 2 * batch
    assert num_groups in sizes


@pytest.mark.parametrize(
    ("error", "per_row"),
    [
        (
            "sparse_categorical_crossentropy",
            lambda y, p: -np.log(p[np.arange(len(y)), y]),
        ),
        ("hinge", lambda y, p: np.maximum(1 - np.where(y > 0, 1, -1) * p[:, 0], 0)),
    ],
)
def test_classes_have_gaps_too(error, per_row, rng):
    logits = rng.normal(size=(30, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ids = rng.integers(0, 3, size=30)
    if error == "hinge":
        classes, probabilities = rng.integers(0, 2, size=30), logits[:, :1]
        target = classes[:, None]
    else:
        target = classes = rng.integers(0, 3, size=30)
    term = GroupGap(3, error=error, momentum=0.0)

    value = float(term(target, probabilities, ids))

    errors = per_row(classes, probabilities)
    expected = oracles.group_gap(errors, ids, np.ones(30), 3)
    assert value == pytest.approx(expected, rel=1e-4)


def test_two_outputs_share_the_ids_and_have_each_a_gap_of_its_own(rng):
    x = keras.Input((3,), name="x")
    price, demand = (keras.layers.Dense(1, name=n)(x) for n in ("price", "demand"))
    model = alk.build_training_model(
        keras.Model(x, {"price": price, "demand": demand}),
        {
            "price": ["mse", GroupGap(2, momentum=0.0)],
            "demand": ["mse", GroupGap(2, momentum=0.0, distance="absolute")],
        },
    )
    model.compile("sgd")
    features = rng.normal(size=(20, 3)).astype("float32")
    target = {name: rng.normal(size=(20, 1)) for name in ("price", "demand")}
    ids = np.arange(20) % 2
    packed = alk.pack_inputs(model, features, target, group_ids=ids)

    logs = model.evaluate(packed, batch_size=20, return_dict=True, verbose=0)

    guesses = model.predict(packed, verbose=0)
    for name, distance in (("price", "squared"), ("demand", "absolute")):
        errors = oracles.squared_errors(target[name], guesses[name])
        expected = oracles.group_gap(errors, ids, np.ones(20), 2, distance)
        assert logs[f"{name}_group_gap"] == pytest.approx(expected, rel=1e-4)


def test_the_published_group_errors_of_fairlearn():
    # fairlearn's documentation: weights 1, 3, 1, 1 give .0075 and .25, so .2425;
    # without weights .245.
    target = np.array([[0.3], [0.5], [0.1], [1.0]], "float32")
    guess = np.array([[0.3], [0.6], [0.6], [0.5]], "float32")
    ids = [0, 0, 1, 1]
    gap = GroupGap(2, distance="absolute", momentum=0.0)
    errors = alk.metrics.GroupError(2, group_names=["a", "b"])
    errors.update_state(target, guess, ids, np.array([1.0, 3.0, 1.0, 1.0]))

    weighted = float(gap(target, guess, ids, np.array([1.0, 3.0, 1.0, 1.0])))

    assert weighted == pytest.approx(0.2425, abs=1e-6)
    assert float(gap(target, guess, ids)) == pytest.approx(0.245, abs=1e-6)
    found = {name: float(value) for name, value in errors.result().items()}
    assert found == pytest.approx({"group_error_a": 0.0075, "group_error_b": 0.25})


def test_the_published_squared_losses_of_fairlearn():
    errors = alk.functional.squared_error([0.0, 0.3, 1.0, 0.9], [0.1, 0.2, 0.9, 1.3])

    np.testing.assert_allclose(as_numpy(errors), [0.01, 0.01, 0.01, 0.16], atol=1e-6)


def test_the_published_roots_of_keras():
    # Of its RootMeanSquaredError: √6, and √13 weighted.
    target, guess = np.array([[2.0], [4], [6]]), np.array([[1.0], [3], [2]])
    ones = np.ones((3, 1))
    weight = np.array([[0.0], [0.2], [0.8]])

    plain = alk.functional.weighted_rmse(target, guess, ones)
    weighted = alk.functional.weighted_rmse(target, guess, weight)

    assert float(plain) == pytest.approx(np.sqrt(6), rel=1e-6)
    assert float(weighted) == pytest.approx(np.sqrt(13), rel=1e-6)


def test_the_plug_in_of_a_small_batch_is_too_large_by_the_variance_of_its_means():
    # E[(ē₀ − ē₁)²] = Δ² + σ₀²/n₀ + σ₁²/n₁, over every batch of two rows a group
    # drawn with replacement.
    errors = {0: np.array([1.0, 2.0, 6.0]), 1: np.array([0.0, 4.0])}
    draws = [list(itertools.product(e, repeat=2)) for e in errors.values()]
    term = GroupGap(2, momentum=0.0)

    values = [
        float(term(np.zeros((4, 1)), np.sqrt(np.r_[a, b])[:, None], [0, 0, 1, 1]))
        for a in draws[0]
        for b in draws[1]
    ]

    true = (errors[0].mean() - errors[1].mean()) ** 2
    noise = errors[0].var() / 2 + errors[1].var() / 2
    assert np.mean(values) == pytest.approx(true + noise, rel=1e-5)


def test_from_batches_of_16_it_ends_where_all_rows_at_once_end():
    # Oracle: L-BFGS on MSE + 5·gap² of all rows. The plug-in ends 5 % and more above.
    problem = LinearProblem((0.8, 0.2), seed=0, rows=1600)

    def objective(w):
        means, slopes = problem.means(w), problem.slopes(w)
        gap = means[0] - means[1]
        slope = problem.shares @ slopes + 10 * gap * (slopes[0] - slopes[1])
        return problem.mse(w) + 5 * gap**2, slope

    best = minimize(objective, problem.least_squares, jac=True, method="L-BFGS-B").fun
    excess = {}
    for momentum in (0.0, 0.99):
        weights, _ = problem.train(
            ["mse", GroupGap(2, momentum=momentum)],
            epochs=30,
            batch_size=16,
            loss_weights=[1.0, 5.0],
        )
        excess[momentum] = objective(weights)[0] / best - 1

    assert excess[0.99] < 0.01
    assert excess[0.0] > 0.05
