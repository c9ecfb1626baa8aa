"""encode_groups: what a label is, and that test data get the ids of training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addloss_kit import encode_groups

pd = pytest.importorskip("pandas", reason="the test extra has pandas")


@pytest.mark.parametrize(
    "labels, ids, names",
    [
        (["m", "f", "m"], [1, 0, 1], ["f", "m"]),
        (np.array(["m", "f", "m"]), [1, 0, 1], ["f", "m"]),
        (pd.Series(["m", "f", "m"]), [1, 0, 1], ["f", "m"]),
        (pd.Series(["m", "f", None], dtype="string"), [1, 0, -1], ["f", "m"]),
        ([True, False, True], [1, 0, 1], ["False", "True"]),
        (np.array([True, False]), [1, 0], ["False", "True"]),
        (pd.Series([True, None], dtype="boolean"), [0, -1], ["True"]),
        ([10, 9, 10], [1, 0, 1], ["9", "10"]),
        (np.array([10, 9, -3]), [2, 1, 0], ["-3", "9", "10"]),
        (np.array([10.0, np.nan, 9.0]), [1, -1, 0], ["9", "10"]),
        (np.array([0.5, 0.25]), [1, 0], ["0.25", "0.5"]),
        (pd.Series([10, None, 9], dtype="Int64"), [1, -1, 0], ["9", "10"]),
        (["b", None, float("nan"), pd.NA, pd.NaT, "a"], [1, -1, -1, -1, -1, 0], ["a", "b"]),
        (np.array(["2020-01-02", "NaT"], "datetime64[D]"), [0, -1], ["2020-01-02"]),
        (np.array([b"b", b"a"]), [1, 0], ["a", "b"]),
        ([None, None], [-1, -1], []),
        ([], [], []),
    ],
)
def test_labels_of_any_kind_become_ids(labels, ids, names):
    got, got_names = encode_groups(labels)
    assert got.dtype == np.int32
    assert got.tolist() == ids
    assert got_names == names


@pytest.mark.parametrize("wrap", [pd.Series, pd.Categorical, pd.CategoricalIndex])
def test_a_categorical_keeps_its_order_and_its_unseen_categories(wrap):
    labels = pd.Categorical(["old", None, "young"], ["young", "middle", "old"])
    ids, names = encode_groups(wrap(labels))
    assert ids.tolist() == [2, -1, 0]
    assert names == ["young", "middle", "old"]


def test_intervals_are_groups():
    ids, names = encode_groups(pd.cut(pd.Series([35, 61, 44]), [30, 40, 50, 60]))
    assert ids.tolist() == [0, -1, 1]
    assert names == ["(30, 40]", "(40, 50]", "(50, 60]"]


SEX = ["M", "F", "F", "F", None]
AGE = ["30-40", "40-50", "30-40", None, "30-40"]


@pytest.mark.parametrize(
    "columns",
    [
        pd.DataFrame({"sex": SEX, "age": AGE}),
        {"sex": SEX, "age": AGE},
        [np.array(SEX, object), pd.Series(AGE)],
        np.array([SEX, AGE], object).T,
        list(zip(SEX, AGE)),
        pd.DataFrame({"sex": pd.Categorical(SEX), "age": pd.Categorical(AGE)}),
    ],
    ids=["frame", "dict", "list of arrays", "2-D array", "rows", "categoricals"],
)
def test_several_columns_make_the_intersections_that_occur(columns):
    ids, names = encode_groups(columns)
    assert names == ["F & 30-40", "F & 40-50", "M & 30-40"]
    assert ids.tolist() == [2, 1, 0, -1, -1]


def test_three_columns_agree_with_pandas_ngroup(rng):
    frame = pd.DataFrame(rng.integers(0, 4, size=(300, 3)), columns=list("abc"))
    ids, names = encode_groups(frame)
    assert ids.tolist() == frame.groupby(["a", "b", "c"]).ngroup().tolist()
    assert len(names) == frame.drop_duplicates().shape[0]


def test_fixed_names_give_test_data_the_ids_of_training():
    _, names = encode_groups(["c", "a", "b"])
    ids, again = encode_groups(pd.Series(["b", None, "b"]), group_names=names)
    assert ids.tolist() == [1, -1, 1]
    assert again == names == ["a", "b", "c"]


def test_fixed_names_hold_for_numbers_that_a_missing_entry_made_floats():
    _, names = encode_groups(np.array([3, 7]))
    assert encode_groups(np.array([7.0, np.nan]), group_names=names)[0].tolist() == [1, -1]


def test_fixed_names_hold_for_intersections():
    frame = pd.DataFrame({"sex": ["F", "M", "M"], "old": [True, False, True]})
    _, names = encode_groups(frame)
    assert encode_groups(frame.iloc[[2]], group_names=names)[0].tolist() == [2]


def test_an_unknown_label_is_named_with_its_row():
    with pytest.raises(
        ValueError, match=r"be in `group_names`.*labels\[1\]='x', group_names=\['a'\]"
    ):
        encode_groups(["a", "x"], group_names=["a"])


def test_an_unseen_category_need_not_be_in_names():
    labels = pd.Categorical(["a"], ["a", "never"])
    assert encode_groups(labels, group_names=["a"])[0].tolist() == [0]


@pytest.mark.parametrize(
    "labels, message",
    [
        ({"a": [1, 2], "b": [1]}, "`column 1 of labels` must have one row per row of"),
        (np.zeros((2, 2, 2)), "one label per row"),
        ({}, "must have a column"),
        (np.array(3), "one label per row"),
    ],
)
def test_what_is_no_column_of_labels_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        encode_groups(labels)


def test_equal_names_are_refused():
    with pytest.raises(ValueError, match="differ from one another"):
        encode_groups(["a"], group_names=["a", "a"])


@given(st.lists(st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=2)), max_size=30))
def test_ids_and_names_give_the_labels_back(labels):
    ids, names = encode_groups(labels)
    back = [None if i < 0 else names[i] for i in ids]
    assert back == [None if label is None else str(label) for label in labels]
