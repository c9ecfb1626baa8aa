"""What NumPy and pandas convert without a word is refused, with the first culprit."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

import addloss_kit as alk
from addloss_kit.data.checking import InputChecker, InputSpec

BACKEND = keras.backend.backend()


def a_model(dtype="float32", losses="mse", outputs=1):
    x = keras.Input((2,), name="x", dtype=dtype)
    h = keras.layers.Dense(outputs)(
        keras.layers.Lambda(lambda t: ops.cast(t, "float32"))(x)
    )
    return alk.build_training_model(keras.Model(x, h), losses)


# Input dtype, number, and the source's dtype: none of the numbers fits.
TOO_LARGE = [
    ("uint8", 300.0, "float64"),
    ("uint8", -1.0, "float32"),
    ("uint8", 256, "int64"),
    ("int8", 128, "uint8"),
    ("int32", 3e9, "float64"),
    ("int32", 2.0**31, "float32"),
    ("int64", 1e19, "float64"),
    ("int64", 2.0**63, "float64"),
    ("int64", 2**63, "uint64"),
    ("float16", 70_000.0, "float32"),
    ("float16", 70_000, "int64"),
    ("float32", 1e39, "float64"),
    ("float32", 10**39, "object"),
    ("bool", 2, "int64"),
    ("bool", 0.5, "float32"),
]


@pytest.mark.parametrize(("wanted", "number", "dtype"), TOO_LARGE)
def test_a_number_that_does_not_fit_is_refused(wanted, number, dtype):
    x = np.zeros((3, 2), dtype)
    x[1, 0] = number
    with pytest.raises(ValueError, match=r"`x` does not fit into .* 1 numbers.*at row 1\."):
        alk.pack_inputs(a_model(wanted), x, np.zeros(3))


@pytest.mark.parametrize(
    "wanted", ["uint8", "int32", "int64", "float16", "float32", "bool"]
)
@pytest.mark.parametrize(
    "dtype", ["uint8", "int64", "float32", "float64", "object", "bool"]
)
def test_numbers_that_fit_keep_their_value(wanted, dtype):
    x = np.array([[0, 1], [1, 0]], dtype)
    packed = alk.pack_inputs(a_model(wanted), x, np.zeros(2))
    np.testing.assert_array_equal(packed["x"], [[0, 1], [1, 0]])
    assert packed["x"].dtype == wanted


SPARSE = keras.losses.SparseCategoricalCrossentropy
CLASS_LOSSES = {
    "by name": "sparse_categorical_crossentropy",
    "object": SPARSE(from_logits=True),
    "general": keras.losses.CategoricalGeneralizedCrossEntropy(),
    "gap": [alk.losses.KerasLoss(SPARSE()), alk.losses.GroupGap(2, error=SPARSE())],
}


@pytest.mark.parametrize("culprit", [-1, 3, 3e9, 2**40])
@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_a_class_that_the_prediction_lacks_is_refused(loss, culprit):
    model = a_model(losses=CLASS_LOSSES[loss], outputs=3)
    ids = {"group_ids": [0, 1, 0, 1]} if loss == "gap" else {}
    with pytest.raises(ValueError, match=r"`y_true` (must hold|does not).* 1 .*at row 2\."):
        alk.pack_inputs(model, np.zeros((4, 2)), [0, 1, culprit, 2], **ids)


def test_an_ignored_class_is_no_culprit():
    model = a_model(losses=SPARSE(ignore_class=-1), outputs=3)
    packed = alk.pack_inputs(model, np.zeros((3, 2)), [0, -1, 2])
    np.testing.assert_array_equal(packed["y_true"], [0, -1, 2])
    with pytest.raises(ValueError, match=r"the first being -2 at row 1"):
        alk.pack_inputs(model, np.zeros((3, 2)), [0, -2, 2])


def test_a_class_that_only_one_of_two_losses_ignores_is_a_culprit():
    losses = [SPARSE(ignore_class=-1, name="one"), SPARSE(name="two")]
    model = a_model(losses=losses, outputs=3)
    with pytest.raises(ValueError, match=r"the first being -1 at row 1"):
        alk.pack_inputs(model, np.zeros((3, 2)), [0, -1, 2])


def test_the_labels_of_a_loss_without_classes_are_of_any_number():
    model = a_model(losses=keras.losses.Circle(), outputs=3)
    packed = alk.pack_inputs(model, np.zeros((3, 2)), [0, 7, 200])
    np.testing.assert_array_equal(packed["y_true"], [0, 7, 200])


REFUSED = {
    "masked": (
        np.ma.masked_array([1.0, 2.0, 999.0], [False, False, True]),
        ValueError,
        r"`y_true` must have no masked entries.*1 masked entries, the first at row 2",
    ),
    "nullable": (
        pd.array([1, 2, None], dtype="Int64"),
        ValueError,
        r"`y_true` must be finite.*nan at row 2",
    ),
    "nullable float": (
        pd.Series([1.0, 2.0, None], dtype="Float64"),
        ValueError,
        r"`y_true` must be finite.*nan at row 2",
    ),
    "complex": (np.array([1.0, 2.0, 1j]), TypeError, r"real numbers.*complex128"),
    "complex objects": (np.array([1.0, 2, 1j], object), TypeError, "must be numbers"),
    "texts among numbers": (np.array([1, "2", 3.0], object), TypeError, "must be numbers"),
    "a set": (np.array([1, 2, {3}], object), TypeError, "must be numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_number_is_refused(name):
    y, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        alk.pack_inputs(a_model(), np.zeros((3, 2)), y)


def test_a_nullable_id_without_a_value_is_refused():
    model = a_model(losses=["mse", alk.losses.GroupGap(2)])
    ids = pd.Series([0, 1, None], dtype="Int64")
    with pytest.raises(
        ValueError, match=r"`group_ids` must be whole numbers.*nan at row 2"
    ):
        alk.pack_inputs(model, np.zeros((3, 2)), np.zeros(3), group_ids=ids)


def test_a_masked_array_without_masked_entries_is_packed():
    y = np.ma.masked_array([1.0, 2.0, 3.0])
    packed = alk.pack_inputs(a_model(), np.zeros((3, 2)), y)
    np.testing.assert_array_equal(packed["y_true"][:, 0], [1, 2, 3])


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has 32 bits, and refuses: see below.")
def test_large_whole_numbers_among_objects_keep_their_digits():
    x = np.array([[2**60 + 1, 0]], object)
    packed = alk.pack_inputs(a_model("int64"), x, [0.0])
    assert int(packed["x"][0, 0]) == 2**60 + 1


WIDE = [
    ("int64", 2**31 + 5),
    ("int64", -(2**40)),
    ("uint64", 2**32),
    ("float64", 1e300),
]


@pytest.mark.skipif(BACKEND != "jax", reason="Others have 64 bits, so nothing is lost.")
@pytest.mark.parametrize("feed", ["pack_inputs", "fit", "arrays on disk", "a stream"])
@pytest.mark.parametrize(("wanted", "number"), WIDE)
def test_what_jax_would_wrap_is_refused(wanted, number, feed, tmp_path):
    model = a_model(wanted)
    model.compile("sgd")
    x = np.zeros((3, 2), wanted)
    x[1, 0] = number
    y = np.zeros((3, 1), "float32")
    if feed == "arrays on disk":
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(
        ValueError, match=r"`x` does not fit into .*32.*JAX_ENABLE_X64.*row 1"
    ):
        if feed == "fit":
            model.fit({"x": x, "y_true": y}, verbose=0)
        elif feed == "a stream":
            model.fit((b for b in [{"x": x, "y_true": y}]), verbose=0)
        else:
            alk.pack_inputs(model, x, y)


def test_tables_of_different_indexes_are_refused():
    x = pd.DataFrame(np.zeros((3, 2)), index=[0, 1, 2])
    y = pd.Series([1.0, 2.0, 3.0], index=[0, 2, 1])
    message = (
        r"`y_true` and `x` must have the same index.*reset_index\(drop=True\).*"
        r"row=1, x=1, y_true=2"
    )
    with pytest.raises(ValueError, match=message):
        alk.pack_inputs(a_model(), x, y)
    alk.pack_inputs(a_model(), x, y.reindex(x.index))
    alk.pack_inputs(a_model(), x, y.to_numpy())


def test_columns_of_different_indexes_are_refused():
    one, other = pd.Series(["a", "b"]), pd.Series(["c", "d"], index=[1, 0])
    with pytest.raises(ValueError, match=r"must have the same index"):
        alk.encode_groups([one, other])


def test_combinations_that_read_the_same_are_refused():
    with pytest.raises(ValueError, match=r"must not have the same name.*\['a & b & c'\]"):
        alk.encode_groups({"one": ["a & b", "a"], "two": ["c", "b & c"]})


def test_categories_that_read_the_same_are_refused():
    with pytest.raises(ValueError, match=r"must not have the same name.*\['1'\]"):
        alk.encode_groups(pd.Categorical([1, "1"]))


@pytest.mark.parametrize("columns", [1, 2])
def test_a_masked_label_is_no_group(columns):
    labels = np.ma.masked_array([["a", "x"], ["b", "x"]], [[False, False], [True, False]])
    ids, names = alk.encode_groups(labels[:, 0] if columns == 1 else labels)
    assert ids.tolist() == [0, -1]
    assert names == (["a"] if columns == 1 else ["a & x"])


def test_a_masked_id_is_no_group():
    ids = np.ma.masked_array([[0], [1], [1]], [[False], [False], [True]])
    report = alk.group_report([0.0, 0.0, 0.0], [1.0, 2.0, 9.0], ids, bootstrap=0)
    # The row of the 9 would make the second mean (4 + 81) / 2.
    assert report.by_group == {"0": 1.0, "1": 4.0}


def test_masked_texts_are_refused():
    checker = InputChecker({"x": InputSpec((None, 1), "string")})
    x = np.ma.masked_array([["a"], ["b"]], [[False], [True]])
    with pytest.raises(ValueError, match=r"`x` must have no masked entries"):
        checker.check({"x": x})
