"""Keyword arguments with a better name: the earlier one works on, and says so."""

import collections
import inspect
import typing
import warnings

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit import _types
from addloss_kit._renamed import renamed

ROWS = np.array([[0.0], [0.5], [2.0], [3.0]], "float32")
IDS = np.array([0, 0, 1, 1])

# For each name that was renamed: what takes it, and a value of the argument.
RENAMED = {
    ("AsymmetricAbsoluteError", "over"): (alk.losses.AsymmetricAbsoluteError, (), 2.0),
    ("AsymmetricAbsoluteError", "under"): (alk.losses.AsymmetricAbsoluteError, (), 2.0),
    ("GroupDistributionGap", "length"): (alk.losses.GroupDistributionGap, (2,), 0.7),
    ("group_mmd", "length"): (
        lambda **given: alk.functional.group_mmd(ROWS, IDS, num_groups=2, **given),
        (),
        0.7,
    ),
    ("align_weight", "weight"): (
        lambda **given: alk.functional.align_weight(values=ROWS[:, 0], **given),
        (),
        ROWS,
    ),
    ("encode_groups", "names"): (
        lambda **given: alk.encode_groups(["b"], **given)[0],
        (),
        ["a", "b"],
    ),
}
TERMS = [key for key, (made, _, _) in RENAMED.items() if isinstance(made, type)]
NEW_NAME = {
    "over": "over_price",
    "under": "under_price",
    "length": "bandwidth",
    "weight": "sample_weight",
    "names": "group_names",
}


def public_callables():
    """The functions and classes that a user calls, by name."""
    for family in (alk, alk.functional, alk.losses, alk.metrics):
        for name in family.__all__:
            thing = getattr(family, name)
            if callable(thing):
                yield f"{family.__name__}.{name}", thing


def as_numbers(result):
    """What a call gave, or the value of the term that it constructed."""
    if isinstance(result, alk.losses.LossTerm):
        arguments = {"y_true": ROWS[::-1], "y_pred": ROWS, "group_ids": IDS}
        taken = {n: x for n, x in arguments.items() if result.accepts(n)}
        result = result(**taken)
    return keras.ops.convert_to_numpy(result)


def test_every_renamed_argument_is_tested_here():
    found = set()
    for _, thing in public_callables():
        made_by = thing.__init__ if isinstance(thing, type) else thing
        for earlier, name in getattr(made_by, "new_names", {}).items():
            found.add((thing.__name__, earlier))
            assert NEW_NAME[earlier] == name
    assert found == set(RENAMED)


@pytest.mark.parametrize("key", RENAMED, ids=".".join)
def test_the_earlier_name_does_the_same_and_warns_of_the_new_one(key):
    make, arguments, value = RENAMED[key]
    owner, earlier = key
    name = NEW_NAME[earlier]
    expected = as_numbers(make(*arguments, **{name: value}))

    with pytest.warns(
        DeprecationWarning, match=f"^`{earlier}` of `{owner}` is deprecated. Use `{name}`.$"
    ) as caught:
        result = make(*arguments, **{earlier: value})

    assert len(caught) == 1
    assert caught[0].filename == __file__  # the user's line
    np.testing.assert_array_equal(as_numbers(result), expected)


@pytest.mark.parametrize("key", RENAMED, ids=".".join)
def test_both_names_at_once_are_refused(key):
    make, arguments, value = RENAMED[key]
    _, earlier = key
    name = NEW_NAME[earlier]

    with pytest.raises(TypeError, match=f"`{earlier}` is the earlier name of `{name}`"):
        make(*arguments, **{earlier: value, name: value})


@pytest.mark.parametrize("key", TERMS, ids=".".join)
def test_a_config_of_an_earlier_release_loads_without_a_warning(key):
    make, arguments, value = RENAMED[key]
    _, earlier = key
    term = make(*arguments, **{NEW_NAME[earlier]: value})
    config = term.get_config()
    config[earlier] = config.pop(NEW_NAME[earlier])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = make.from_config(config)

    assert again.get_config() == term.get_config()


@pytest.mark.parametrize("key", TERMS, ids=".".join)
def test_the_attribute_of_the_earlier_name_is_read_with_a_warning(key):
    make, arguments, value = RENAMED[key]
    _, earlier = key
    term = make(*arguments, **{NEW_NAME[earlier]: value})

    with pytest.warns(DeprecationWarning, match=f"Use `{NEW_NAME[earlier]}`") as caught:
        assert getattr(term, earlier) == value
    assert caught[0].filename == __file__


def test_the_loss_of_a_term_is_computed_as_before_without_a_word_on_training():
    term = alk.losses.KerasLoss("mse")
    y_true, y_pred = keras.ops.zeros((2, 1)), keras.ops.ones((2, 1))
    assert float(term.compute_loss(y_true=y_true, y_pred=y_pred)) == 1.0
    assert float(term.compute_loss(True, y_true=y_true, y_pred=y_pred)) == 1.0


def test_arguments_by_place_mean_what_they_meant():
    term = alk.losses.AsymmetricAbsoluteError(5.0, 0.5)
    assert (term.over_price, term.under_price) == (5.0, 0.5)
    weight = alk.functional.align_weight(ROWS, ROWS[:, 0])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), ROWS[:, 0])


def test_a_subclass_takes_the_earlier_name_too():
    @renamed(speed="pace")
    class Walk:
        def __init__(self, pace):
            self.pace = pace

    class Stroll(Walk):
        def __init__(self, **options):
            super().__init__(**options)

    with pytest.warns(DeprecationWarning, match="`speed` of `Walk` .* Use `pace`"):
        assert Stroll(speed=3).pace == 3


def test_an_option_has_the_same_words_wherever_it_is_taken():
    words = {
        annotation: name
        for name, annotation in vars(_types).items()
        if typing.get_origin(annotation) is typing.Literal and name != "Auto"
    }
    taken = collections.defaultdict(lambda: collections.defaultdict(list))
    for where, thing in public_callables():
        made_by = thing.__init__ if isinstance(thing, type) else thing
        for parameter in inspect.signature(made_by).parameters.values():
            annotation = str(parameter.annotation).removesuffix(" | None")
            taken[parameter.name][annotation].append(where)
    for name, annotations in taken.items():
        if set(annotations) & set(words.values()):
            assert len(annotations) == 1, f"`{name}` is {dict(annotations)}"
