"""GroupGap: the plug-in against loops, the running totals against theirs."""

import engines
import keras
import numpy as np
import oracles
import pytest
from keras import ops
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import GroupGap


def rows_in_groups(rng, rows=40, num_groups=2, outputs=1):
    x = rng.normal(size=(rows, 3)).astype("float32")
    ids = rng.integers(0, num_groups, rows).astype("int32")
    y = (x[:, :outputs] + rng.normal(size=(rows, outputs)) * (1 + ids[:, None])).astype(
        "float32"
    )
    return x, y, ids


def a_model(term, outputs=1, **options):
    predictor = linear(3, outputs)
    model = alk.build_training_model(predictor, term, **options)
    return predictor, model


# One group is told of (tests/test_edges.py), and works.
ONE_GROUP = "ignore:.*with one group it is always 0:UserWarning"


# momentum=0: the plug-in --------------------------------------------------------


@pytest.mark.filterwarnings(ONE_GROUP)
@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("between", ["pairs", "range", "overall"])
@pytest.mark.parametrize("num_groups", [1, 2, 5])
def test_the_plug_in_is_the_gap_of_the_loop(distance, between, num_groups, rng):
    _, y, ids = rows_in_groups(rng, num_groups=num_groups, outputs=2)
    y_pred = np.zeros_like(y)
    weight = rng.uniform(0.1, 2.0, 40)
    term = GroupGap(num_groups, momentum=0, distance=distance, between=between)
    value = float(term(y, y_pred, ids, weight))
    error = oracles.squared_errors(y, y_pred)
    expected = oracles.group_gap(error, ids, weight, num_groups, distance, between)
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize(
    ("error", "per_row"),
    [
        ("absolute_error", lambda t, p: np.abs(t - p).mean(-1)),
        ("mae", lambda t, p: np.abs(t - p).mean(-1)),
        (keras.losses.MeanSquaredError, lambda t, p: np.square(t - p).mean(-1)),
        (
            keras.losses.Huber(delta=0.3),
            lambda t, p: np.where(
                np.abs(t - p) <= 0.3,
                0.5 * np.square(t - p),
                0.3 * np.abs(t - p) - 0.5 * 0.3**2,
            ).mean(-1),
        ),
    ],
    ids=["absolute_error", "mae", "a class", "an object"],
)
def test_the_error_may_be_any_keras_loss(error, per_row, rng):
    _, y, ids = rows_in_groups(rng, outputs=2)
    y_pred = np.zeros_like(y)
    value = float(GroupGap(2, momentum=0, error=error)(y, y_pred, ids))
    expected = oracles.group_gap(per_row(y, y_pred), ids, np.ones(40), 2)
    assert value == pytest.approx(expected, rel=1e-5)


def test_a_row_of_no_group_counts_nowhere(rng):
    _, y, ids = rows_in_groups(rng)
    junk = np.concatenate([y, np.full((5, 1), 100.0)]).astype("float32")
    padded_ids = np.concatenate([ids, np.full(5, -1)])
    term = GroupGap(2, momentum=0)
    assert float(term(junk, 0 * junk, padded_ids)) == pytest.approx(
        float(term(y, 0 * y, ids)), rel=1e-6
    )


def test_only_ratios_of_weights_matter(rng):
    _, y, ids = rows_in_groups(rng)
    weight = rng.uniform(0.1, 2.0, 40)
    term = GroupGap(2, momentum=0)
    assert float(term(y, 0 * y, ids, 100 * weight)) == pytest.approx(
        float(term(y, 0 * y, ids, weight)), rel=1e-5
    )


def test_the_order_of_rows_does_not_matter(rng):
    _, y, ids = rows_in_groups(rng)
    order = rng.permutation(40)
    term = GroupGap(2, momentum=0)
    assert float(term(y[order], 0 * y, ids[order])) == pytest.approx(
        float(term(y, 0 * y, ids)), rel=1e-5
    )


def test_an_absent_group_is_left_out_or_taken_as_zero_by_name():
    y, y_pred, ids = [[0.0], [0.0]], [[2.0], [2.0]], [0, 0]
    assert float(GroupGap(2, momentum=0)(y, y_pred, ids)) == 0.0
    zero_error = GroupGap(2, momentum=0, absent_group="zero_error")
    assert float(zero_error(y, y_pred, ids)) == 16.0


@pytest.mark.filterwarnings(ONE_GROUP)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize(
    "case",
    ["perfect fit", "zero weights", "absent group", "one row", "one group", "no group"],
)
def test_values_and_gradients_stay_finite(momentum, distance, case):
    rows = 1 if case == "one row" else 4
    num_groups = 1 if case == "one group" else 2
    y = np.ones((rows, 1), "float32")
    y_pred = y.copy() if case == "perfect fit" else y + np.arange(1, rows + 1)[:, None]
    ids = np.arange(rows) % num_groups
    if case in ("absent group", "no group"):
        ids = np.zeros(rows, "int32") - (case == "no group")
    weight = np.full(rows, 0.0 if case == "zero weights" else 1.0, "float32")

    def value(p):
        # A term of its own each time: under `jax.grad` its state holds tracers.
        term = GroupGap(num_groups, momentum=momentum, distance=distance)
        return term(y, p, ids, weight, training=True)

    assert np.isfinite(float(value(y_pred.astype("float32"))))
    if keras.backend.backend() != "jax":  # Assigning state needs a stateless scope there.
        assert np.isfinite(engines.gradient(value, y_pred)).all()


def test_a_plug_in_as_graph_and_by_xla_is_the_eager_one(rng):
    _, y, ids = rows_in_groups(rng)
    term = GroupGap(2, momentum=0)
    for run in engines.compiled(lambda *x: term(*x)).values():
        assert float(run(y, 0 * y, ids)) == pytest.approx(
            float(term(y, 0 * y, ids)), rel=1e-6
        )


# Running totals -----------------------------------------------------------------


def running_gaps(batches, num_groups, momentum):
    """The squared gap of the running means after each batch, by a plain loop."""
    error, weight = np.zeros(num_groups), np.zeros(num_groups)
    values = []
    for errors, ids in batches:
        for k in range(num_groups):
            mine = [e for e, i in zip(errors, ids) if i == k]
            error[k] = momentum * error[k] + (1 - momentum) * sum(mine) / len(ids)
            weight[k] = momentum * weight[k] + (1 - momentum) * len(mine) / len(ids)
        seen = [error[k] / weight[k] for k in range(num_groups) if weight[k] > 0]
        pairs = [(a - b) ** 2 for i, a in enumerate(seen) for b in seen[:i]]
        values.append(sum(pairs) / len(pairs) if pairs else 0.0)
    return values


def test_the_value_in_training_is_the_gap_of_the_running_means(rng):
    num_groups, momentum = 3, 0.8
    _, y, ids = rows_in_groups(rng, rows=60, num_groups=num_groups)
    ids[:12] = 0  # The first batches lack two of the groups.
    term = GroupGap(num_groups, momentum=momentum)
    starts = range(0, 60, 6)
    values = [
        float(term(y[i : i + 6], 0 * y[i : i + 6], ids[i : i + 6], training=True))
        for i in starts
    ]
    expected = running_gaps(
        [
            (oracles.squared_errors(y[i : i + 6], 0 * y[i : i + 6]), ids[i : i + 6])
            for i in starts
        ],
        num_groups,
        momentum,
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_outside_training_the_value_is_that_of_the_batch_and_no_state_moves(rng):
    _, y, ids = rows_in_groups(rng)
    term = GroupGap(2)
    term(y, 5 + 0 * y, ids, training=True)
    before = [engines.as_numpy(v) for v in term.variables]
    value = float(term(y, 0 * y, ids))
    expected = oracles.group_gap(oracles.squared_errors(y, 0 * y), ids, np.ones(40), 2)
    assert value == pytest.approx(expected, rel=1e-5)
    for old, new in zip(before, term.variables):
        np.testing.assert_array_equal(old, engines.as_numpy(new))


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="state cannot be assigned inside `jax.grad`"
)
def test_the_gradients_of_small_batches_average_to_that_of_all_rows(rng):
    # The plug-in's do not: that is why the running totals exist.
    _, y, ids = rows_in_groups(rng, rows=1000, num_groups=4)

    def average_gradient(term, size):
        """d gap / d b of the prediction `b` for all rows, averaged over batches."""
        slopes = []
        for i in range(0, 1000, size):
            rows = slice(i, i + size)

            def gap(b, rows=rows):
                y_pred = ops.broadcast_to(b, (size, 1))
                return term(y[rows], y_pred, ids[rows], training=True)

            slopes.append(engines.gradient(gap, [0.5]))
        return np.mean(slopes)

    exact = average_gradient(GroupGap(4, momentum=0), 1000)
    plug_in = average_gradient(GroupGap(4, momentum=0), 10)
    # The state stands at the means of all rows, and hardly moves from there.
    running = GroupGap(4, momentum=1 - 1e-6)
    running(y, 0.5 + 0 * y, ids, training=True)
    mass = float(running.running.mass.value)
    for variable in running.variables:
        variable.assign(variable / mass)
    ours = average_gradient(running, 10)
    print(f"gradient: all rows {exact:.4f}, plug-in {plug_in:.4f}, running {ours:.4f}")
    assert ours == pytest.approx(exact, rel=0.02)
    assert abs(plug_in / exact - 1) > 0.1


def test_padding_with_rows_without_weight_changes_neither_value_nor_state(rng):
    _, y, ids = rows_in_groups(rng)
    y = np.concatenate([y, np.full((24, 1), 9.0)]).astype("float32")
    ids = np.concatenate([ids, np.ones(24)]).astype("int32")
    weight = np.repeat([1.0, 0.0], [40, 24]).astype("float32")
    plain, padded = GroupGap(2), GroupGap(2)
    expected = float(plain(y[:40], 0 * y[:40], ids[:40], weight[:40], training=True))
    value = float(padded(y, 0 * y, ids, weight, training=True))
    assert value == pytest.approx(expected, rel=1e-6)
    for one, other in zip(plain.variables, padded.variables):
        np.testing.assert_allclose(
            engines.as_numpy(one), engines.as_numpy(other), rtol=1e-6
        )


def test_a_batch_without_rows_moves_nothing(rng):
    _, y, ids = rows_in_groups(rng)
    term = GroupGap(2)
    value = float(term(y, 0 * y, ids, training=True))
    before = [engines.as_numpy(v) for v in term.variables]
    nothing = np.zeros(40, "float32")
    assert float(term(y, 9 + 0 * y, ids, nothing, training=True)) == pytest.approx(value)
    for old, new in zip(before, term.variables):
        np.testing.assert_array_equal(old, engines.as_numpy(new))


def test_the_state_is_saved_and_a_reloaded_model_goes_on_where_it_stood(rng, tmp_path):
    x, y, ids = rows_in_groups(rng)
    _, model = a_model(["mse", GroupGap(2)])
    model.compile("adam")
    packed = alk.pack_inputs(model, x, y, group_ids=ids)
    model.fit(packed, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(
        model.endpoint.terms[1].variables, loaded.endpoint.terms[1].variables
    ):
        assert np.any(engines.as_numpy(one) != 0)
        np.testing.assert_array_equal(engines.as_numpy(one), engines.as_numpy(other))
    went_on = model.fit(packed, batch_size=8, shuffle=False, verbose=0).history
    resumed = loaded.fit(packed, batch_size=8, shuffle=False, verbose=0).history
    assert went_on == resumed


def test_two_attributes_have_two_gaps_of_their_own(rng):
    x, y, sex = rows_in_groups(rng)
    age = rng.integers(0, 3, 40)
    predictor, model = a_model(
        [
            GroupGap(2, group_ids="sex", momentum=0),
            GroupGap(3, group_ids="age", momentum=0),
        ],
    )
    model.compile("sgd")
    packed = alk.pack_inputs(model, x, y, sex=sex, age=age)
    logs = model.evaluate(packed, batch_size=40, verbose=0, return_dict=True)
    error = oracles.squared_errors(y, predictor.predict(x, verbose=0))
    for name, ids, num_groups in (("sex", sex, 2), ("age", age, 3)):
        assert logs[f"{name}_group_gap"] == pytest.approx(
            oracles.group_gap(error, ids, np.ones(40), num_groups), rel=1e-5
        )


def test_weights_per_row_reach_the_gap_of_a_model(rng):
    x, y, ids = rows_in_groups(rng)
    weight = rng.uniform(0.1, 2.0, 40)
    predictor, model = a_model(GroupGap(2, momentum=0), sample_weight=True)
    model.compile("sgd")
    packed = alk.pack_inputs(model, x, y, group_ids=ids, sample_weight=weight)
    loss, _ = model.evaluate(packed, batch_size=40, verbose=0)
    error = oracles.squared_errors(y, predictor.predict(x, verbose=0))
    assert loss == pytest.approx(oracles.group_gap(error, ids, weight, 2), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_groups": 0}, "`num_groups` must be a whole number of at least 1"),
        ({"momentum": 1.0}, r"`momentum` must lie in \[0, 1\)"),
        ({"momentum": -0.1}, r"`momentum` must lie in \[0, 1\)"),
        ({"distance": "cubed"}, "Invalid value for argument `distance`"),
        ({"between": "all"}, "Invalid value for argument `between`"),
        ({"absent_group": "nan"}, "Invalid value for argument `absent_group`"),
        ({"error": "squared_eror"}, "Check the spelling.*'squared_eror'"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GroupGap(**{"num_groups": 2, **options})


def test_the_config_gives_the_same_term_again():
    term = GroupGap(
        3,
        error=keras.losses.Huber(delta=0.3),
        distance="absolute",
        between="range",
        momentum=0.5,
        absent_group="zero_error",
        group_ids="sex",
        name="mine",
    )
    again = GroupGap.from_config(term.get_config())
    assert again.get_config() == term.get_config()
    assert again.error.loss.get_config() == term.error.loss.get_config()
    assert float(again.error.loss([[0.0]], [[1.0]])) == pytest.approx(0.3 - 0.045)


def test_the_memory_at_the_start_is_a_twentieth_of_the_steps():
    term = GroupGap(2, distance="absolute")
    target, ids = np.zeros((2, 1), "float32"), np.array([0, 1])
    total = weight = 0.0
    for step, error in enumerate([1.0, 3.0, 2.0]):
        guess = np.float32([[0.0], [np.sqrt(error)]])
        found = float(term(target, guess, ids, training=True))
        keep = (1 + step) / (20 + step)
        total = keep * total + (1 - keep) * error
        weight = keep * weight + (1 - keep)
        assert found == pytest.approx(total / weight, rel=1e-6)
