"""Names, shapes and dtypes of the training-only Inputs."""

import pytest

from addloss_kit import fields
from addloss_kit.fields import Field


@pytest.mark.parametrize(
    ("argument", "output", "name"),
    [
        ("y_true", None, "y_true"),
        ("y_true", "price", "price_y_true"),
        ("sample_weight", "price", "price_sample_weight"),
        ("delta", "price", "price_delta"),
        ("group_ids", "price", "group_ids"),
        ("group_ids", None, "group_ids"),
    ],
)
def test_an_input_has_the_name_of_the_argument_that_it_feeds(argument, output, name):
    assert fields.input_name(argument, output) == name


def test_two_wishes_merge_where_one_is_silent():
    shaped = Field(shape=(3,), role="y_true", reason="mse")
    typed = Field(dtype="int32", num_groups=4)
    assert shaped.merge(typed, "y_true") == Field(
        shape=(3,), dtype="int32", role="y_true", num_groups=4, reason=""
    )


@pytest.mark.parametrize(
    ("key", "mine", "theirs"),
    [("shape", (3,), ()), ("dtype", "float32", "int32"), ("num_groups", 2, 3)],
)
def test_wishes_that_contradict_each_other_are_refused_by_their_reasons(key, mine, theirs):
    one = Field(**{key: mine}, reason="group_gap")
    other = Field(**{key: theirs}, reason="group_error")
    with pytest.raises(
        ValueError, match=rf"`ids` cannot have two values of `{key}`"
    ) as caught:
        one.merge(other, "ids")
    for part in ("group_gap", "group_error", str(mine), str(theirs)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("WeightedRMSE", "weighted_rmse"),
        ("GroupGap", "group_gap"),
        ("MeanSquaredError", "mean_squared_error"),
        ("mse", "mse"),
        ("CTC", "ctc"),
    ],
)
def test_a_class_is_named_as_keras_names_layers(name, snake):
    assert fields.snake_case(name) == snake


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("y_true", True),
        ("price_y_true", True),
        ("group_ids", True),
        ("a_sample_weight", True),
        ("x", False),
        ("y_true_lag", False),
        ("weight", False),
    ],
)
def test_training_only_names_are_told_by_their_ends(name, is_one):
    assert fields.has_training_only_name(name) is is_one
