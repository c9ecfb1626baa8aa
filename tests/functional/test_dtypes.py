"""Every function takes whole numbers, booleans and any float, and truncates none."""

import keras
import numpy as np
import oracles
import pytest
from keras import ops
from predictors import linear

import addloss_kit as alk
from addloss_kit import functional

ERRORS = [0, 1, 1, 0, 1, 1]
IDS = [0, 0, 1, 1, 1, -1]
WEIGHTS = [0.25, 0.5, 0.125, 0.5, 0.75, 2.0]
PAIRS = [[1, 0], [0, 1], [1, 1]]
MASK = [[True, False], [True, True], [False, True]]
FRACTIONS = [[0.25, 0.5], [0.5, 0.125], [1.5, 0.75]]

# For each function: a call whose first argument has the dtype, and whose weights are
# fractions.
CALLS = {
    "align_weight": lambda x: functional.align_weight(np.float32(FRACTIONS), x(ERRORS[:3])),
    "row_mean": lambda x: functional.row_mean(x(PAIRS), np.array(MASK)),
    "group_totals": lambda x: functional.group_totals(
        x(ERRORS), np.array(IDS), np.float32(WEIGHTS), num_groups=2
    ),
    "group_means": lambda x: functional.group_means(x([1, 0, 1]), np.float32([4, 1, 8])),
    "group_gap": lambda x: functional.group_gap(x([1, 0, 1])),
    "group_gap, absolute": lambda x: functional.group_gap(
        x([1, 0, 1]), x([1, 1, 1]), distance="absolute"
    ),
    "group_gap, overall": lambda x: functional.group_gap(
        x([1, 0, 1]), between="overall", shares=x([1, 1, 1])
    ),
    "group_gap_slopes": lambda x: functional.group_gap_slopes(
        x([1, 0, 1]), between="overall", shares=np.float32([0.5, 0.25, 0.25])
    ),
    "group_mmd": lambda x: functional.group_mmd(
        x(ERRORS), np.array(IDS), np.float32(WEIGHTS), num_groups=2
    ),
    "safe_sqrt": lambda x: functional.safe_sqrt(x([1, 0, 1])),
}
TARGETS = {
    "squared_error": lambda x, y: functional.squared_error(x(PAIRS), y),
    "weighted_mse": lambda x, y: functional.weighted_mse(x(PAIRS), y, x(PAIRS)),
    "weighted_rmse": lambda x, y: functional.weighted_rmse(x(PAIRS), y, x(PAIRS)),
    "weighted_residual_norm": lambda x, y: functional.weighted_residual_norm(
        x(PAIRS), y, x(PAIRS)
    ),
}


def numbers(result):
    parts = result if isinstance(result, tuple) else (result,)
    return [ops.convert_to_numpy(part) for part in parts]


def test_every_function_is_tested_here():
    assert {name.split(",")[0] for name in CALLS} | set(TARGETS) == set(functional.__all__)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float16", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_the_dtype_of_an_argument_changes_no_value(name, dtype):
    expected = numbers(CALLS[name](lambda values: np.array(values, "float32")))
    actual = numbers(CALLS[name](lambda values: np.array(values).astype(dtype)))
    for one, other in zip(actual, expected):
        np.testing.assert_allclose(one, other, rtol=1e-6)
        is_double = dtype == "float64" and keras.backend.backend() != "jax"
        assert one.dtype == ("float64" if is_double else "float32")


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float16", "float64"])
@pytest.mark.parametrize("name", TARGETS)
def test_the_dtype_of_targets_and_weights_changes_no_value(name, dtype):
    y_pred = np.float32(FRACTIONS)
    expected = TARGETS[name](lambda values: np.array(values, "float32"), y_pred)
    actual = TARGETS[name](lambda values: np.array(values).astype(dtype), y_pred)
    np.testing.assert_allclose(*map(numbers, (actual, expected)), rtol=1e-6)


def test_half_precision_does_not_overflow():
    y_pred = np.full((4, 1), 300.0, "float16")
    error = functional.squared_error(np.zeros((4, 1), "float16"), y_pred)
    np.testing.assert_allclose(numbers(error)[0], 90_000.0)


def test_integer_errors_with_fractional_weights_are_those_of_a_plain_loop():
    actual = functional.group_totals(ERRORS, IDS, WEIGHTS, num_groups=2)
    expected = oracles.group_totals(ERRORS, IDS, WEIGHTS, 2)
    np.testing.assert_allclose([numbers(x)[0] for x in actual], expected)


@pytest.mark.parametrize("dtype", ["int64", "uint32", "uint8", "float32"])
def test_an_id_outside_the_groups_is_no_group_in_any_dtype(dtype):
    outside = {"int64": 2**32, "uint32": 2**32 - 1, "uint8": 255, "float32": 0.5}[dtype]
    ids = np.array([0, 1, outside], dtype)
    if keras.backend.backend() == "jax" and dtype in ("int64", "uint32"):
        pytest.skip("JAX has no 64-bit integers unless asked for.")
    _, weights = functional.group_totals([1.0, 1.0, 1.0], ids, num_groups=300)
    weights = numbers(weights)[0]
    expected = [1.0, 1.0] + [0.0] * 298
    if dtype == "uint8":
        expected[255] = 1.0
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize(
    ("dtype", "outside"),
    [
        ("int32", [-1, 2, 3, 7]),
        ("int64", [-1, 3, -(2**32), 2**32 + 1]),
        ("uint64", [3, 2**63, 2**64 - 1]),
        ("uint8", [3, 255]),
        ("float32", [-1.0, -0.5, 0.5, 2.0, 7.0]),
    ],
)
def test_ids_below_and_above_the_groups_are_of_none(dtype, outside):
    if keras.backend.backend() == "jax" and dtype in ("int64", "uint64"):
        pytest.skip("JAX has no 64-bit integers unless asked for.")
    ids = np.array([0, 1, *outside], dtype)
    _, weights = functional.group_totals(np.ones(len(ids)), ids, num_groups=2)
    np.testing.assert_array_equal(numbers(weights)[0], [1.0, 1.0])


@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float32", "float64"])
def test_a_dtype_is_kept_only_if_it_is_wider_than_floatx(floatx):
    from addloss_kit.functional.rows import at_least_floatx

    bits = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}
    former = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        for dtype in [*bits, "int64", "bool"]:
            found = at_least_floatx(keras.KerasTensor((1,), dtype=dtype))
            assert found == (dtype if bits.get(dtype, 0) > bits[floatx] else floatx)
    finally:
        keras.config.set_floatx(former)


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "float16", "float64"])
def test_weights_that_are_undone_are_fractions_in_any_dtype(dtype):
    arrays = {
        "group_ids": np.repeat([0, 1], [90, 10]),
        "sample_weight": np.ones(100, dtype),
    }
    dataset = alk.make_dataset(arrays, 10, balance_groups=True, undo_weights=True, seed=0)
    batch = next(iter(dataset))
    ids, weight = (np.asarray(batch[name]) for name in arrays)
    # Half the rows are of each group, 90 % and 10 % should be.
    np.testing.assert_allclose(weight, np.where(ids == 0, 1.8, 0.2), rtol=1e-6)


def test_an_integer_input_for_weights_is_refused():
    predictor = linear(2, name=None)
    with pytest.raises(ValueError, match=r"`sample_weight` may be fractions.*dtype=int32"):
        alk.build_training_model(
            predictor,
            "mse",
            sample_weight=True,
            inputs={"sample_weight": keras.Input((), dtype="int32")},
        )
