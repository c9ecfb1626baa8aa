"""From arrays of any kind to the dict that `fit` takes, and what is refused."""

import keras
import numpy as np
import pandas as pd
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit.losses import GroupGap, WeightedRMSE


def a_model(losses="mse", outputs=1, **options):
    predictor = linear(2, outputs)
    return alk.build_training_model(predictor, losses, **options)


@pytest.fixture(scope="module")
def grouped():
    return a_model(["mse", GroupGap(2)], sample_weight=True)


def two_outputs():
    x = keras.Input((2,), name="x")
    outputs = {"price": keras.layers.Dense(1)(x), "demand": keras.layers.Dense(1)(x)}
    return alk.build_training_model(
        keras.Model(x, outputs), {"price": "mse", "demand": "mae"}, sample_weight=True
    )


X, Y, IDS, WEIGHT = [[1, 2], [3, 4], [5, 6]], [7, 8, 9], [0, 1, -1], [1, 2, 3]


def test_arrays_get_the_names_shapes_and_dtypes_of_the_inputs(grouped):
    packed = alk.pack_inputs(grouped, X, Y, group_ids=IDS, sample_weight=WEIGHT)
    assert {name: (a.shape, str(a.dtype)) for name, a in packed.items()} == {
        "x": ((3, 2), "float32"),
        "y_true": ((3, 1), "float32"),
        "sample_weight": ((3,), "float32"),
        "group_ids": ((3,), "int32"),
    }
    np.testing.assert_array_equal(packed["y_true"][:, 0], Y)


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        tuple,
        lambda a: np.asarray(a, "object"),
        lambda a: np.asarray(a, "float64"),
        keras.ops.convert_to_tensor,
        lambda a: (pd.DataFrame if np.ndim(a) == 2 else pd.Series)(a, index=[4, 5, 6]),
    ],
    ids=["numpy", "tuple", "object", "float64", "tensor", "pandas"],
)
def test_arrays_may_be_of_any_kind(grouped, convert):
    packed = alk.pack_inputs(
        grouped,
        convert(X),
        convert(Y),
        group_ids=convert(IDS),
        sample_weight=convert(WEIGHT),
    )
    expected = alk.pack_inputs(grouped, X, Y, group_ids=IDS, sample_weight=WEIGHT)
    for name in expected:
        np.testing.assert_array_equal(packed[name], expected[name])
        assert packed[name].dtype == expected[name].dtype


def test_a_weight_per_row_is_spread_over_the_elements():
    model = a_model(WeightedRMSE(), outputs=3)
    packed = alk.pack_inputs(model, X, np.ones((3, 3)), sample_weight=[1, 2, 3])
    np.testing.assert_array_equal(
        packed["sample_weight"], np.repeat([[1.0], [2.0], [3.0]], 3, axis=1)
    )
    column = alk.pack_inputs(model, X, np.ones((3, 3)), sample_weight=[[1], [2], [3]])
    np.testing.assert_array_equal(column["sample_weight"], packed["sample_weight"])


def test_several_outputs_take_dicts_by_name():
    model = two_outputs()
    packed = alk.pack_inputs(
        model,
        X,
        {"price": Y, "demand": [0, 0, 0]},
        sample_weight={"price": WEIGHT, "demand": [1, 1, 1]},
    )
    assert sorted(packed) == [
        "demand_sample_weight",
        "demand_y_true",
        "price_sample_weight",
        "price_y_true",
        "x",
    ]
    np.testing.assert_array_equal(packed["price_y_true"][:, 0], Y)


def test_features_may_be_a_dict_by_name(grouped):
    packed = alk.pack_inputs(grouped, {"x": X}, Y, group_ids=IDS, sample_weight=WEIGHT)
    np.testing.assert_array_equal(packed["x"], X)


def test_what_is_packed_can_be_fitted(grouped):
    grouped.compile("sgd")
    packed = alk.pack_inputs(grouped, X, Y, group_ids=IDS, sample_weight=WEIGHT)
    assert np.isfinite(grouped.fit(packed, y=None, verbose=0).history["loss"]).all()


def refused(model, message, error=ValueError, **changes):
    given = {"x": X, "y": Y, "group_ids": IDS, "sample_weight": WEIGHT, **changes}
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(error, match=message):
        alk.pack_inputs(model, **given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_ids": None}, r"also needs \['group_ids'\]. Pass `group_ids=`"),
        ({"y": None}, r"also needs \['y_true'\]. Pass `y=`"),
        ({"sample_weight": None}, r"needs \['sample_weight'\]. Pass `sample_weight=`"),
        ({"delta": [1, 2, 3]}, r"no Input `delta`. Its Inputs are"),
        ({"y": [1, 2]}, r"`y_true` must have one row per row of `x`.*\(2,\).*\(3, 2\)"),
        ({"y": 3.0}, r"`y_true` must have one entry per row"),
        ({"y": np.ones((3, 2))}, r"`y_true` must have shape \(None, 1\)"),
        ({"x": np.ones((3, 5))}, r"`x` must have shape \(None, 2\).*\(3, 5\)"),
        ({"y": [1, np.nan, np.inf]}, r"`y_true` must be finite.*2 others.*nan at row 1"),
        ({"y": [1, None, 2]}, r"`y_true` must be finite.*1 others.*at row 1"),
        ({"sample_weight": [1, -2, 3]}, r"at least 0.*1 negative.*-2 at row 1"),
        ({"group_ids": [0, 1, 2]}, r"lie in \[0, 2\) for num_groups=2.*1 ids.*2 at row 2"),
        ({"group_ids": [0, -2, 1]}, r"or be -1 for no group.*-2 at row 1"),
        ({"group_ids": [0, 0.5, 1]}, r"`group_ids` must be whole numbers.*0.5 at row 1"),
        ({"group_ids": [0, np.nan, 1]}, r"`group_ids` must be whole numbers.*nan at row 1"),
        ({"group_ids": [0, 2**40, 1]}, r"`group_ids` does not fit into int32"),
        ({"x": [[1e39, 1], [1, 1], [1, 1]]}, r"`x` does not fit into float32. Scale it"),
        ({"x": {"z": X}}, r"`x` names \['z'\], but the model's features are \['x'\]"),
        ({"y": {"price": Y}}, r"`y` names `price`, but the model expects"),
        ({"x": {"x": X, "y_true": Y}}, r"Input `y_true` is given twice"),
        ({"x": np.ones((0, 2)), "y": [], "group_ids": [], "sample_weight": []}, "one row"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_culprit(grouped, changes, message):
    refused(grouped, message, **changes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_whose_sum_overflows_are_finite_and_others_among_them_are_not(bad):
    model, targets = a_model(), np.full(9, 3e38, "float32")
    packed = alk.pack_inputs(model, np.zeros((9, 2)), targets)
    np.testing.assert_array_equal(packed["y_true"][:, 0], targets)
    targets[4] = bad
    with pytest.raises(ValueError, match=rf"`y_true` must be finite.*{bad} at row 4"):
        alk.pack_inputs(model, np.zeros((9, 2)), targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_ids": ["a", "b", "a"]}, r"`group_ids` must be numbers.*= encode_groups"),
        ({"group_ids": np.array(["a", "b", "a"], object)}, r"`group_ids` must be numbers"),
        ({"y": ["1", "2", "3"]}, r"`y_true` must be numbers, float32"),
        ({"x": [[1, 2], [3], [4, 5]]}, r"`x` must be numbers"),
        ({"x": pd.to_datetime(["2020-01-01"] * 3)}, r"`x` must be numbers"),
    ],
)
def test_what_is_no_number_is_refused(grouped, changes, message):
    refused(grouped, message, TypeError, **changes)


def test_weights_for_a_model_without_them_are_refused():
    refused(
        a_model(), r"no Input for `sample_weight`. Build it with `sample_weight=True`",
        group_ids=None,
    )  # fmt: skip


def test_targets_for_several_outputs_must_be_named():
    with pytest.raises(ValueError, match=r"`y` must be a dict by output name, for"):
        alk.pack_inputs(two_outputs(), X, np.ones((3, 2)))


def test_an_array_that_fits_is_not_copied(grouped):
    x = np.ones((3, 2), "float32")
    packed = alk.pack_inputs(grouped, x, Y, group_ids=IDS, sample_weight=WEIGHT)
    assert np.shares_memory(packed["x"], x)


@pytest.mark.parametrize("convert", [list, np.array])
def test_rows_without_targets_are_not_taken_for_the_inputs_in_their_order(convert):
    # As many rows as the model has Inputs.
    with pytest.raises(ValueError, match=r"The model also needs \['y_true'\]"):
        alk.pack_inputs(a_model(), convert([[1.0, 2.0], [3.0, 4.0]]))


def test_a_list_of_arrays_holds_the_inputs_in_their_order():
    packed = alk.pack_inputs(a_model(), [np.array(X), np.array(Y)])
    assert packed["x"].tolist() == X
    assert packed["y_true"][:, 0].tolist() == Y


def test_targets_for_a_model_without_them_are_refused():
    x = keras.Input((2,), name="x")
    price = keras.Input((1,), name="price")
    y_pred = keras.layers.Dense(1, name="y_pred")(x)
    model = alk.build_training_model(
        keras.Model(x, y_pred),
        lambda y_pred, price: price - y_pred,
        inputs={"price": price},
    )
    with pytest.raises(ValueError, match=r"no Input for `y`. It feeds one that is named"):
        alk.pack_inputs(model, X, Y, price=Y)


def test_one_row_is_no_list_of_outputs():
    packed = alk.pack_inputs(a_model(), [[1, 2]], [5.0])
    np.testing.assert_array_equal(packed["y_true"], [[5.0]])


def test_targets_of_several_outputs_may_be_a_list_in_the_order_of_their_inputs():
    model = two_outputs()
    weights = {"price": [1, 1, 1], "demand": [2, 2, 2]}
    first, second = [n for n in model.input_checker.specs if n.endswith("y_true")]
    packed = alk.pack_inputs(model, X, [[1, 2, 3], [4, 5, 6]], sample_weight=weights)
    assert packed[first][:, 0].tolist() == [1, 2, 3]
    assert packed[second][:, 0].tolist() == [4, 5, 6]
    assert packed["demand_sample_weight"].tolist() == [2, 2, 2]
    by_name = {first: [1, 2, 3], second.removesuffix("_y_true"): [4, 5, 6]}
    again = alk.pack_inputs(model, X, by_name, sample_weight=weights)
    for name in (first, second):
        np.testing.assert_array_equal(again[name], packed[name])


def test_what_several_outputs_need_is_told_as_it_is_passed():
    with pytest.raises(ValueError) as refusal:
        alk.pack_inputs(two_outputs(), X)
    for way in ("`y={'price': ...}`", "`sample_weight={'demand': ...}`"):
        assert way in str(refusal.value)


def test_another_attribute_is_told_by_the_name_of_its_input():
    model = a_model(["mse", GroupGap(2, group_ids="old_group_ids")])
    with pytest.raises(ValueError, match=r"also needs .* Pass `old_group_ids=`"):
        alk.pack_inputs(model, X, Y)


def test_a_misspelt_input_is_told_the_one_that_is_not_given(grouped):
    with pytest.raises(ValueError, match=r"no Input `group_id`.*Did you mean `group_ids`"):
        alk.pack_inputs(grouped, X, Y, sample_weight=WEIGHT, group_id=IDS)
    with pytest.raises(ValueError, match=r"no Input `group_id`\. Its .*\]\. Received"):
        alk.pack_inputs(grouped, X, Y, sample_weight=WEIGHT, group_ids=IDS, group_id=IDS)
