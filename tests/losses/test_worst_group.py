"""WorstGroup: against SciPy's min-max, the published update, and its own promises."""

import keras
import numpy as np
import pytest
from exact_problems import LinearProblem
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import WorstGroup


def errors_as_rows(errors):
    """Targets and predictions whose squared errors are the given ones."""
    errors = np.asarray(errors, "float32")
    return np.zeros((len(errors), 1), "float32"), np.sqrt(errors)[:, None]


def train_step(term, errors, ids, **arguments):
    target, guess = errors_as_rows(errors)
    return float(term(target, guess, np.asarray(ids), training=True, **arguments))


def weights_of(term):
    return np.array([float(v) for v in term.watched().values()])


def test_it_ends_at_the_smallest_possible_worst_error_from_batches_of_32():
    # Oracle: SLSQP on all rows.
    problem = LinearProblem((0.6, 0.25, 0.15), seed=8)
    smallest, best = problem.smallest_worst()
    np.testing.assert_allclose(problem.means(best), smallest, rtol=1e-3)  # all three bind

    weights, _ = problem.train([WorstGroup(3)], epochs=50)

    assert problem.means(problem.least_squares).max() > 1.5 * smallest
    assert problem.means(weights).max() == pytest.approx(smallest, rel=0.02)


def test_with_every_group_in_equal_numbers_a_step_is_the_published_one():
    # Sagawa et al. 2020, algorithm 1: q ∝ q·exp(step·error), then Σ q·error.
    term = WorstGroup(3, step_size=0.5, momentum=0.0)
    batches = [[1.0, 4.0, 2.0], [3.0, 0.5, 1.0], [0.0, 1.0, 2.0]]
    q = np.ones(3) / 3
    for errors in batches:
        q = q * np.exp(0.5 * np.array(errors))
        q /= q.sum()

        value = train_step(term, errors, [0, 1, 2])

        np.testing.assert_allclose(weights_of(term), q, rtol=1e-5)
        assert value == pytest.approx(q @ np.array(errors), rel=1e-5)


def test_a_group_that_a_batch_lacks_neither_gains_nor_loses_by_it():
    # Both groups have the same error, group 1 in one batch of five: were q only
    # multiplied where the group is present, group 0 would take it all.
    term = WorstGroup(2, step_size=0.5)
    for step in range(20):
        train_step(term, [2.0] * 4, [0, 0, 0, 1] if step % 5 == 0 else [0, 0, 0, 0])

    np.testing.assert_allclose(weights_of(term), [0.5, 0.5], rtol=1e-5)


def test_the_log_weight_of_an_absent_group_stays(rng):
    term = WorstGroup(3)
    train_step(term, [1.0, 2.0, 3.0], [0, 1, 2])
    before = np.array(keras.ops.convert_to_numpy(term.log_weights))

    train_step(term, [2.0, 2.5], [0, 1])

    moved = keras.ops.convert_to_numpy(term.log_weights) - before
    # Only differences mean anything: the largest is kept at 0.
    steps = moved - moved[2]
    assert steps[2] == 0 and steps[0] != 0 and steps[1] != 0


def test_a_group_never_seen_has_no_weight():
    term = WorstGroup(3)
    train_step(term, [1.0, 2.0], [0, 2])

    weights = weights_of(term)

    assert weights[1] == 0
    assert weights.sum() == pytest.approx(1.0)


def test_outside_training_nothing_moves_and_the_batch_is_weighed():
    term = WorstGroup(2, step_size=1.0, momentum=0.0)
    train_step(term, [1.0, 2.0], [0, 1])
    q = weights_of(term)
    target, guess = errors_as_rows([3.0, 5.0])

    value = float(term(target, guess, np.array([0, 1])))

    assert value == pytest.approx(q @ [3.0, 5.0], rel=1e-5)
    np.testing.assert_array_equal(weights_of(term), q)


def test_extreme_errors_leave_finite_weights():
    term = WorstGroup(2, step_size=1.0)
    for _ in range(3):
        value = train_step(term, [1e6, 1e-6], [0, 1])

    assert np.isfinite(value)
    np.testing.assert_allclose(weights_of(term), [1.0, 0.0], atol=1e-6)


def test_the_worst_of_classes_by_cross_entropy(rng):
    x = rng.normal(size=(96, 3)).astype("float32")
    ids = rng.integers(0, 12, size=96)
    predictor = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")]
    )
    model = alk.build_training_model(predictor, WorstGroup(12, error="binary_crossentropy"))
    model.compile("adam")
    packed = alk.pack_inputs(model, x, (x[:, :1] > 0) * 1.0, group_ids=ids)

    history = model.fit(packed, y=None, batch_size=16, verbose=0).history

    # Of more than ten groups the history shows one number.
    assert 1 / 12 <= history["worst_group_largest_weight"][0] <= 1
    assert not any("weight_0" in key for key in history)


def test_training_goes_on_from_the_file_where_it_stood(tmp_path, rng):
    x = rng.normal(size=(40, 3)).astype("float32")
    ids = rng.integers(0, 2, size=40)
    predictor = linear(3, name=None)
    model = alk.build_training_model(predictor, WorstGroup(2, step_size=0.1))
    model.compile("adam")
    packed = alk.pack_inputs(model, x, x[:, :1], group_ids=ids)
    model.fit(packed, y=None, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")

    first = model.fit(packed, y=None, batch_size=8, shuffle=False, verbose=0).history
    second = again.fit(packed, y=None, batch_size=8, shuffle=False, verbose=0).history

    assert first == second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "`step_size` must be positive"),
        ({"step_size": -1.0}, "`step_size` must be positive"),
        ({"momentum": 1.0}, "`momentum` must lie in"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WorstGroup(2, **options)


def test_a_batch_without_the_heaviest_group_is_of_those_that_it_has():
    term = WorstGroup(2)
    term.build()
    term.log_weights.assign([0.0, -80.0])  # exp(-160) would be 0 in float32
    target, guess = errors_as_rows([4.0, 6.0])
    assert float(term(target, guess, np.array([1, 1]))) == pytest.approx(5.0)
