"""`pack_dataset`: batches in any form become dicts by Input name, in the same kind."""

import types

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.losses import GroupGap

ROWS, BATCH = 12, 4


def build(losses, **options):
    x = keras.Input((2,), name="x")
    model = alk.build_training_model(
        keras.Model(x, keras.layers.Dense(1)(x)), losses, **options
    )
    model.compile("sgd")
    return model


@pytest.fixture(scope="module")
def model():
    return build(["mse", GroupGap(2)], sample_weight=True)


@pytest.fixture(scope="module")
def two():
    """Two features, two outputs."""
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    both = keras.layers.Concatenate()([a, b])
    outputs = {name: keras.layers.Dense(1, name=name)(both) for name in ("price", "sold")}
    model = alk.build_training_model(
        keras.Model([a, b], outputs), {"price": "mse", "sold": "mae"}, sample_weight=True
    )
    model.compile("sgd")
    return model


@pytest.fixture
def arrays(rng):
    return {
        "x": rng.normal(size=(ROWS, 2)).astype("float32"),
        "y": rng.normal(size=ROWS).astype("float32"),
        "sample_weight": rng.uniform(0.5, 2, ROWS).astype("float32"),
        "group_ids": np.arange(ROWS) % 2,
    }


def cut(arrays):
    def part(first):
        return keras.tree.map_structure(lambda a: a[first : first + BATCH], arrays)

    return [part(first) for first in range(0, ROWS, BATCH)]


def names_in(batch):
    return {name: np.asarray(value) for name, value in batch.items()}


def totals(model, stream):
    steps = ROWS // BATCH if isinstance(stream, types.GeneratorType) else None
    return model.evaluate(stream, steps=steps, verbose=0, return_dict=True)


def in_memory(model, arrays):
    packed = alk.pack_inputs(
        model,
        arrays["x"],
        arrays["y"],
        sample_weight=arrays["sample_weight"],
        group_ids=arrays.get("group_ids"),
    )
    return model.evaluate(packed, batch_size=BATCH, verbose=0, return_dict=True)


FORMS = {
    "a tuple": (lambda b: tuple(b.values()), ("x", "y", "sample_weight", "group_ids")),
    "a list": (lambda b: list(b.values()), ["x", "y", "sample_weight", "group_ids"]),
    "one with a part too many": (
        lambda b: (np.arange(BATCH), *b.values()),
        (None, "x", "y", "sample_weight", "group_ids"),
    ),
    "Input names": (
        lambda b: (b["group_ids"], b["y"], b["x"], b["sample_weight"]),
        ("group_ids", "y_true", "x", "sample_weight"),
    ),
    "a dict by word": (lambda b: b, None),
    "a dict by Input name": (
        lambda b: {"y_true": b["y"], **{n: a for n, a in b.items() if n != "y"}},
        None,
    ),
    "a tuple of one dict": (lambda b: (b,), None),
    "a nested dict": (
        lambda b: {"features": {"x": b["x"]}, **{n: a for n, a in b.items() if n != "x"}},
        None,
    ),
    "other keys": (
        lambda b: {"f": b["x"], "t": b["y"], "w": b["sample_weight"], "g": b["group_ids"],
                   "row": np.arange(BATCH)},
        {"f": "x", "t": "y", "w": "sample_weight", "g": "group_ids"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_batch_gives_the_totals_of_the_arrays(form, model, arrays):
    change, columns = FORMS[form]
    packed = alk.pack_dataset(model, [change(b) for b in cut(arrays)], columns=columns)
    assert list(packed[0]) == ["x", "y_true", "sample_weight", "group_ids"]
    assert totals(model, packed) == pytest.approx(in_memory(model, arrays), rel=1e-5)


@pytest.mark.parametrize("form", ["a tuple", "a dict by word", "a nested dict"])
def test_so_does_a_tf_dataset(form, model, arrays):
    import tensorflow as tf

    change, columns = FORMS[form]
    rows = tf.data.Dataset.from_tensor_slices(change(arrays))
    packed = alk.pack_dataset(model, rows.batch(BATCH), columns=columns)
    assert isinstance(packed, tf.data.Dataset)
    assert int(packed.cardinality()) == ROWS // BATCH
    assert totals(model, packed) == pytest.approx(in_memory(model, arrays), rel=1e-5)


def test_several_features_and_outputs_have_names_or_an_order(two, rng):
    a, b = rng.normal(size=(ROWS, 2)), rng.normal(size=(ROWS, 3))
    y = {"price": rng.normal(size=ROWS), "sold": rng.normal(size=ROWS)}
    weight = {"price": np.ones(ROWS), "sold": rng.uniform(size=ROWS)}
    packed = alk.pack_inputs(two, {"a": a, "b": b}, y, sample_weight=weight)
    expected = two.evaluate(packed, batch_size=BATCH, verbose=0, return_dict=True)
    parts = ("x", "y", "sample_weight")
    by_name = cut(({"a": a, "b": b}, y, weight))
    in_order = cut(([a, b], list(y.values()), list(weight.values())))
    nested = [dict(zip(parts, batch)) for batch in by_name]
    flat = cut((a, b, y["price"], y["sold"], weight["price"], weight["sold"]))
    words = ("a", "b", "price_y_true", "sold_y_true")
    words = (*words, "price_sample_weight", "sold_sample_weight")
    for batches, columns in (
        (by_name, parts), (in_order, parts), (nested, None), (flat, words)
    ):  # fmt: skip
        found = totals(two, alk.pack_dataset(two, batches, columns=columns))
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_stream_keeps_its_kind(model, arrays):
    import tensorflow as tf

    change, columns = FORMS["a tuple"]
    batches = [change(batch) for batch in cut(arrays)]

    class Batches(keras.utils.PyDataset):
        ended = 0

        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return batches[index]

        def on_epoch_end(self):
            self.ended += 1

    def pack(stream):
        return alk.pack_dataset(model, stream, columns=columns)

    assert isinstance(pack(iter(batches)), types.GeneratorType)
    assert isinstance(pack(b for b in batches), types.GeneratorType)
    assert isinstance(pack(batches), keras.utils.PyDataset)
    given = Batches(workers=2)
    packed = pack(given)
    assert isinstance(packed, keras.utils.PyDataset) and packed.workers == 2
    packed.on_epoch_end()
    assert given.ended == 1
    assert isinstance(pack(dict(enumerate(batches)).values()), tf.data.Dataset)


def test_the_first_batch_of_a_generator_is_not_lost(model, arrays):
    change, columns = FORMS["a tuple"]
    seen = []

    def batches():
        for number, batch in enumerate(cut(arrays)):
            seen.append(number)
            yield change(batch)

    packed = alk.pack_dataset(model, batches(), columns=columns)
    assert seen == [0]
    found = np.concatenate([batch["x"] for batch in packed])
    np.testing.assert_array_equal(found, arrays["x"])
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("kind", ["a list", "an iterable"])
def test_what_can_be_iterated_over_again_trains_for_several_epochs(kind, model, arrays):
    change, columns = FORMS["a tuple"]
    batches = [change(batch) for batch in cut(arrays)]
    given = batches if kind == "a list" else dict(enumerate(batches)).values()
    packed = alk.pack_dataset(model, given, columns=columns)
    history = model.fit(packed, epochs=2, validation_data=packed, verbose=0).history
    assert len(history["val_loss"]) == 2


def test_what_make_dataset_returned_stays_resumable(model, arrays):
    packed = alk.pack_inputs(
        model,
        arrays["x"],
        arrays["y"],
        sample_weight=arrays["sample_weight"],
        group_ids=arrays["group_ids"],
    )
    dataset = alk.make_dataset(packed, BATCH)
    assert alk.pack_dataset(model, dataset) is dataset


def test_sequences_of_different_lengths_may_come_from_an_iterable(rng):
    x = keras.Input((None, 2), name="x")
    model = alk.build_training_model(keras.Model(x, keras.layers.Dense(1)(x)), "mse")
    model.compile("sgd")
    batches = {
        steps: (rng.normal(size=(BATCH, steps, 2)), rng.normal(size=(BATCH, steps, 1)))
        for steps in (3, 5)
    }
    packed = alk.pack_dataset(model, batches.values(), columns=("x", "y"))
    model.fit(packed, verbose=0)


BAD = {
    "no columns": (("x",), None, "`columns` must say what the parts"),
    "too few columns": (("x", "y"), ("x",), "one word per part of a batch"),
    "an unknown word": (("x", "y"), ("x", "target"), "`columns` must name each part once"),
    "a word twice": (("x", "y"), ("x", "x"), "`columns` must name each part once"),
    "a target missing": (("x",), ("x",), r"also needs \['y_true'\].*`y=`"),
    "weights without an Input": (
        ("x", "y", "sample_weight"),
        ("x", "y", "sample_weight"),
        "no Input for `sample_weight`.*`sample_weight=True`",
    ),
    "labels": (("x", "labels"), ("x", "y"), "`y_true` must be numbers|real numbers"),
}


@pytest.mark.parametrize("kind", ["a list", "a tf.data.Dataset", "a generator"])
@pytest.mark.parametrize("bad", BAD)
def test_a_stream_that_does_not_fit_is_told_at_once(bad, kind, arrays):
    import tensorflow as tf

    parts, columns, message = BAD[bad]
    arrays = {**arrays, "labels": np.array(["a", "b"] * (ROWS // 2))}
    chosen = tuple(arrays[part] for part in parts)
    stream = cut(chosen)
    if kind == "a tf.data.Dataset":
        stream = tf.data.Dataset.from_tensor_slices(chosen).batch(BATCH)
    elif kind == "a generator":
        stream = (batch for batch in stream)
    with pytest.raises((ValueError, TypeError), match=message):
        alk.pack_dataset(build("mse"), stream, columns=columns)
