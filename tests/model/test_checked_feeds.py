"""What `pack_inputs` refuses is refused however it is fed, before a weight has moved."""

import functools
import pathlib
import tempfile
import types
import warnings

import keras
import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.losses import GroupGap

BATCH = 5
ROWS = 3 * BATCH
BACKEND = keras.backend.backend()


def distance(y_true, y_pred, limit):
    return keras.ops.abs(y_true - y_pred)[:, 0] * limit


def make_model():
    x = keras.Input((2,), name="x")
    predictor = keras.Model(x, keras.layers.Dense(1)(x))
    model = alk.build_training_model(
        predictor, ["mse", GroupGap(2), distance], sample_weight=True
    )
    model.compile("sgd")
    return model


@pytest.fixture(scope="module")
def model():
    return make_model()


@functools.cache
def model_that_packs():
    """`pack_dataset` asks it for its Inputs only."""
    return make_model()


@pytest.fixture
def good(rng):
    return {
        "x": rng.normal(size=(ROWS, 2)).astype("float32"),
        "y_true": rng.normal(size=(ROWS, 1)).astype("float32"),
        "sample_weight": rng.uniform(0.5, 2, ROWS).astype("float32"),
        "group_ids": (np.arange(ROWS) % 2).astype("int32"),
        "limit": np.ones(ROWS, "float32"),
    }


# Feeds: from arrays by name to what `fit` takes. -----------------------------------


def batches_of(arrays):
    rows = len(next(iter(arrays.values())))
    for first in range(0, rows, BATCH):
        yield {name: array[first : first + BATCH] for name, array in arrays.items()}


def as_dataset(arrays):
    import tensorflow as tf

    signature = {
        name: tf.TensorSpec((None, *array.shape[1:]), array.dtype)
        for name, array in arrays.items()
    }
    dataset = tf.data.Dataset.from_generator(
        lambda: batches_of(arrays), output_signature=signature
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(ROWS // BATCH))


class Batches(keras.utils.PyDataset):
    def __init__(self, arrays, **options):
        super().__init__(**options)
        self.batches = list(batches_of(arrays))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return (self.batches[index],)


FOLDER = tempfile.TemporaryDirectory()


def on_disk(arrays):
    folder = pathlib.Path(tempfile.mkdtemp(dir=FOLDER.name))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in arrays}


def as_parquet(arrays):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table, columns = {}, {}
    for name, array in arrays.items():
        flat = array.reshape(ROWS, -1)
        parts = [f"{name} {k}" for k in range(flat.shape[1])]
        table.update(zip(parts, flat.T))
        columns[WORDS.get(name, name)] = parts if len(parts) > 1 else parts[0]
    path = pathlib.Path(tempfile.mkdtemp(dir=FOLDER.name)) / "rows.parquet"
    parquet.write_table(pyarrow.table(table), path, row_group_size=BATCH)
    options = {"columns": columns, "shuffle_rows": 0}
    return alk.parquet_dataset(path, model_that_packs(), BATCH, **options)


def as_loader(arrays):
    torch = pytest.importorskip("torch")
    rows = [{n: a[i] for n, a in arrays.items()} for i in range(ROWS)]
    return torch.utils.data.DataLoader(rows, batch_size=BATCH)


ARRAYS = {
    "a dict": lambda arrays: arrays,
    "arrays in order": lambda arrays: list(arrays.values()),
    "make_dataset": lambda arrays: alk.make_dataset(arrays, BATCH, shuffle=False),
    "arrays on disk": on_disk,
}
STREAMS = {
    "a tf.data.Dataset": as_dataset,
    "a PyDataset": Batches,
    "a PyDataset with workers": lambda arrays: Batches(arrays, workers=2),
    "a generator": lambda arrays: ((batch,) for batch in batches_of(arrays)),
    "a torch DataLoader": as_loader,
    "Parquet files": as_parquet,
}


# Batches as other code has them, which `pack_dataset` names.
WORDS = {"y_true": "y"}


def tuples_of(arrays):
    return [tuple(batch.values()) for batch in batches_of(arrays)]


def words_of(arrays):
    return tuple(WORDS.get(name, name) for name in arrays)


class Tuples(keras.utils.PyDataset):
    def __init__(self, arrays):
        super().__init__()
        self.batches = tuples_of(arrays)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class Reiterable:
    """An object that is no generator, and can be iterated over again."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def as_loader_of_tuples(arrays):
    torch = pytest.importorskip("torch")
    rows = [tuple(array[i] for array in arrays.values()) for i in range(ROWS)]
    return torch.utils.data.DataLoader(rows, batch_size=BATCH)


def as_grain(arrays):
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(tuples_of(arrays)).to_iter_dataset()


OF_TUPLES = {
    "a tf.data.Dataset": lambda arrays: as_dataset(arrays).map(
        lambda batch: tuple(batch[name] for name in arrays)
    ),
    "a PyDataset": Tuples,
    "a generator": lambda arrays: (batch for batch in tuples_of(arrays)),
    "an iterator": lambda arrays: iter(tuples_of(arrays)),
    "a list": tuples_of,
    "an iterable": lambda arrays: Reiterable(tuples_of(arrays)),
    "a torch DataLoader": as_loader_of_tuples,
    "a Grain dataset": as_grain,
}


def packed_as(kind):
    def feed(arrays):
        stream = OF_TUPLES[kind](arrays)
        return alk.pack_dataset(model_that_packs(), stream, columns=words_of(arrays))

    return feed


STREAMS.update({f"{kind}, packed": packed_as(kind) for kind in OF_TUPLES})
FEEDS = {**ARRAYS, **STREAMS}

# Bad values: in the last batch, so that a look at the first does not show them. -----


def put(name, value, dtype=None):
    def change(arrays):
        array = arrays[name].astype(dtype or arrays[name].dtype)
        array[-2] = value
        return {**arrays, name: array}

    return change


BAD = {
    "an id out of range": (put("group_ids", 2), r"`group_ids` must lie in \[0, 2\)"),
    "a negative id": (put("group_ids", -2), r"`group_ids` must lie in \[0, 2\)"),
    "a fractional id": (put("group_ids", 0.5, "float32"), "must be whole numbers"),
    "an id that is NaN": (put("group_ids", np.nan, "float32"), "must be whole numbers"),
    "an id beyond int32": (put("group_ids", 2**32, "int64"), "`group_ids`"),
    "a NaN target": (put("y_true", np.nan), "`y_true` must be finite"),
    "an infinite target": (put("y_true", np.inf), "`y_true` must be finite"),
    "a target beyond float32": (put("y_true", 1e300, "float64"), "`y_true` does not fit"),
    "a NaN weight": (put("sample_weight", np.nan), "`sample_weight` must be finite"),
    "an infinite weight": (put("sample_weight", np.inf), "`sample_weight` must be finite"),
    "a negative weight": (put("sample_weight", -1.0), "`sample_weight` must be at least 0"),
    "a NaN argument": (put("limit", np.nan), "`limit` must be finite"),
    "an infinite argument": (put("limit", -np.inf), "`limit` must be finite.*large number"),
    "a target of another shape": (
        lambda arrays: {**arrays, "y_true": np.repeat(arrays["y_true"], 3, axis=1)},
        r"`y_true` must have shape \(None, 1\)",
    ),
    "a feature too many": (
        lambda arrays: {**arrays, "x": np.repeat(arrays["x"], 2, axis=1)},
        r"`x` must have shape \(None, 2\)",
    ),
    "strings": (
        lambda arrays: {**arrays, "group_ids": arrays["group_ids"].astype(str)},
        "`group_ids` must be ",
    ),
    "an unknown entry": (
        lambda arrays: {**arrays, "price": arrays["y_true"]},
        "`price` is not one of them|takes a dict with that many arrays|"
        "each part once.*price|The model has no Input `price`",
    ),
    "a missing entry": (
        lambda arrays: {n: a for n, a in arrays.items() if n != "limit"},
        "`limit` is missing|takes a dict with that many arrays|needs .'limit'.",
    ),
}


def fit(model, feed, good):
    # Keras cannot know how many batches a generator has.
    steps = ROWS // BATCH if isinstance(feed, types.GeneratorType) else None
    model.fit(feed, epochs=1, steps_per_epoch=steps, verbose=0)


METHODS = {
    "fit": fit,
    "validation_data": lambda model, feed, good: model.fit(
        good, validation_data=feed, epochs=1, verbose=0
    ),
    "evaluate": lambda model, feed, good: model.evaluate(feed, verbose=0),
    "predict": lambda model, feed, good: model.predict(feed, verbose=0),
}


def moves(model):
    return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


def skip_what_cannot_be(feed):
    for package in ("torch", "Grain"):
        if package in feed:
            pytest.importorskip(package.lower())


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("bad", BAD)
def test_fit_refuses_it_however_it_is_fed(bad, feed, model, good):
    skip_what_cannot_be(feed)
    change, message = BAD[bad]
    before = moves(model)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        METHODS["fit"](model, FEEDS[feed](change(good)), good)
    if feed in ARRAYS:
        for old, new in zip(before, moves(model), strict=True):
            np.testing.assert_array_equal(old, new)
    elif bad not in ("strings", "an unknown entry", "a missing entry") and (
        "shape" not in message
    ):
        # Workers of those load batches in an order of their own.
        number = "a batch" if "torch" in feed or "Grain" in feed else "batch 2"
        where = "row group 2 of" if "Parquet" in feed else f"{number} of `fit`"
        assert f"In {where}" in str(caught.value)


@pytest.fixture(scope="module")
def looped():
    """A model for which few steps are worth the compiled loop."""
    if BACKEND == "torch":  # there Keras's own loop refuses it, as the other tests show
        pytest.skip("torch has no compiled loop.")
    model = make_model()
    for kind in ("train", "test"):
        model.speed.loop(model, kind)
    return model


def a_batch_short(name):
    """Batches of which the last has a row less of one array, than of the others."""

    def feed(arrays):
        dataset = as_dataset(arrays)

        def cut(number, batch):
            import tensorflow as tf

            rows = tf.where(number == 2, BATCH - 1, BATCH)
            return {**batch, name: batch[name][:rows]}

        return dataset.enumerate().map(cut)

    return feed


LOOPED = ["a tf.data.Dataset", "a tf.data.Dataset, packed", "an iterable, packed"]


@pytest.mark.parametrize("feed", LOOPED)
@pytest.mark.parametrize("bad", BAD)
def test_the_compiled_loop_refuses_it_before_a_step_of_its_stack(bad, feed, looped, good):
    change, message = BAD[bad]
    before = moves(looped)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        METHODS["fit"](looped, FEEDS[feed](change(good)), good)
    for old, new in zip(before, moves(looped), strict=True):
        np.testing.assert_array_equal(old, new)
    is_value = bad not in ("strings", "an unknown entry", "a missing entry")
    if is_value and "shape" not in message:
        assert "In batch 2 of `fit`" in str(caught.value)


@pytest.mark.parametrize("method", ["validation_data", "evaluate"])
@pytest.mark.parametrize("bad", ["an id out of range", "a NaN target", "a NaN argument"])
def test_so_do_compiled_loops_over_test_data(bad, method, looped, good):
    change, message = BAD[bad]
    with pytest.raises(ValueError, match=f"In batch 2 of `{method}`.*{message}"):
        METHODS[method](looped, as_dataset(change(good)), good)


def test_a_looped_stream_of_other_dtypes_and_ranks_trains_as_packed_arrays(good):
    if BACKEND == "torch":
        pytest.skip("torch has no compiled loop.")
    others = {
        "x": good["x"].astype("float64"),
        "y_true": good["y_true"][:, 0].astype("float64"),
        "sample_weight": good["sample_weight"][:, None],
        "group_ids": good["group_ids"].astype("float32"),
        "limit": good["limit"].astype("int64"),
    }
    found = []
    for feed in (as_dataset(others), alk.make_dataset(good, BATCH, shuffle=False)):
        keras.utils.set_random_seed(1)
        model = make_model()
        model.speed.loop(model, "train")
        model.fit(feed, epochs=2, verbose=0)
        found.append(moves(model))
    for mine, packed in zip(*found, strict=True):
        np.testing.assert_allclose(mine, packed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["x", "y_true", "group_ids"])
@pytest.mark.parametrize("is_looped", [True, False])
def test_a_batch_whose_arrays_differ_in_length_is_refused(name, is_looped, request, good):
    model = request.getfixturevalue("looped" if is_looped else "model")
    with pytest.raises(
        ValueError, match="In batch 2 of `fit`: .* must have one row per row"
    ):
        METHODS["fit"](model, a_batch_short(name)(good), good)


@pytest.mark.parametrize("feed", ["a dict", "a tf.data.Dataset", "a PyDataset"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", ["an id out of range", "a NaN target", "a NaN argument"])
def test_every_method_refuses_it(bad, method, feed, model, good):
    change, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        METHODS[method](model, FEEDS[feed](change(good)), good)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch", "predict_on_batch"])
@pytest.mark.parametrize("bad", BAD)
def test_so_do_single_batches(bad, method, model, good):
    change, message = BAD[bad]
    before = moves(model)
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(model, method)(change(good))
    for old, new in zip(before, moves(model), strict=True):
        np.testing.assert_array_equal(old, new)


NOT_NAMED = [f for f in STREAMS if "packed" not in f and "Parquet" not in f]


@pytest.mark.parametrize("feed", NOT_NAMED)
def test_targets_beside_the_dict_are_refused_in_every_stream(feed, model, good):
    skip_what_cannot_be(feed)

    class Beside(Batches):
        def __getitem__(self, index):
            return self.batches[index], np.zeros((BATCH, 1)), np.ones(BATCH)

    if feed == "a tf.data.Dataset":
        stream = as_dataset(good).map(lambda batch: (batch, batch["y_true"]))
    elif "PyDataset" in feed:
        stream = Beside(good)
    elif feed == "a generator":
        stream = ((batch, batch["y_true"]) for batch in batches_of(good))
    else:
        torch = pytest.importorskip("torch")
        rows = [({n: a[i] for n, a in good.items()}, 0.0) for i in range(ROWS)]
        collate = torch.utils.data.default_collate
        stream = torch.utils.data.DataLoader(
            rows, batch_size=BATCH, collate_fn=lambda rows: tuple(collate(rows))
        )
    with pytest.raises(ValueError, match=r"would ignore all but the first.*'group_ids'"):
        fit(model, stream, good)


# Keras, of a Grain dataset of unknown length, at the end of the first epoch.
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("feed", FEEDS)
def test_good_values_train_alike_however_they_are_fed(feed, good):
    skip_what_cannot_be(feed)

    def trained(data):
        keras.utils.set_random_seed(1)
        model = make_model()
        size = None if hasattr(data, "element_spec") or feed in STREAMS else BATCH
        steps = ROWS // BATCH if isinstance(data, types.GeneratorType) else None
        model.fit(data, batch_size=size, steps_per_epoch=steps, shuffle=False, verbose=0)
        return moves(model)

    for mine, packed in zip(
        trained(FEEDS[feed](good)),
        trained(alk.make_dataset(good, BATCH, shuffle=False)),
        strict=True,
    ):
        np.testing.assert_allclose(mine, packed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("feed", FEEDS)
def test_a_batch_size_that_would_be_ignored_is_told(feed, model, good):
    skip_what_cannot_be(feed)
    is_stream = feed in STREAMS or hasattr(FEEDS[feed](good), "element_spec")
    steps = ROWS // BATCH if "generator" in feed else None
    calls = {
        "fit": {"steps_per_epoch": steps, "shuffle": False},
        "evaluate": {"steps": steps},
        "predict": {"steps": steps},
    }
    for method, options in calls.items():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            getattr(model, method)(FEEDS[feed](good), batch_size=3, verbose=0, **options)
        messages = [str(w.message) for w in told if "batch_size" in str(w.message)]
        assert len(messages) == is_stream
        for message in messages:
            assert message.startswith(f"`{method}` ignores `batch_size`")
            assert message.endswith("Received: batch_size=3.")


def test_a_batch_size_beside_a_stream_may_be_that_of_the_validation_arrays(model, good):
    train = alk.make_dataset(good, BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(train, batch_size=3, validation_data=good, verbose=0)
    with pytest.warns(UserWarning, match="ignores `validation_batch_size`"):
        model.fit(train, validation_data=train, validation_batch_size=3, verbose=0)


def test_a_weight_per_row_is_repeated_in_a_stream_as_in_pack_inputs(good):
    x = keras.Input((3, 2), name="x")
    predictor = keras.Model(x, keras.layers.Dense(1)(x))
    model = alk.build_training_model(
        predictor,
        "mse",
        inputs={"sample_weight": keras.Input((3,), name="sample_weight")},
        sample_weight=True,
    )
    model.compile("sgd")
    arrays = {
        "x": np.repeat(good["x"][:, None], 3, axis=1),
        "y_true": np.repeat(good["y_true"][:, None], 3, axis=1),
        "sample_weight": good["sample_weight"],
    }
    whole = model.evaluate(arrays, batch_size=BATCH, verbose=0, return_dict=True)
    for feed in ("a tf.data.Dataset", "a PyDataset", "a generator"):
        stream = STREAMS[feed](arrays)
        steps = ROWS // BATCH if feed == "a generator" else None
        found = model.evaluate(stream, steps=steps, verbose=0, return_dict=True)
        assert found["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_a_batch_of_weights_of_0_is_fine_but_not_all_rows(model, good):
    weight = good["sample_weight"].copy()
    weight[:BATCH] = 0
    model.fit(as_dataset({**good, "sample_weight": weight}), verbose=0)
    with pytest.raises(ValueError, match="must not be 0 for all rows"):
        model.fit({**good, "sample_weight": 0 * weight}, verbose=0)


def test_an_unbatched_dataset_and_one_of_another_rank_are_told_at_once(model, good):
    import tensorflow as tf

    with pytest.raises(ValueError, match=r"`x` must have shape \(None, 2\)"):
        model.fit(tf.data.Dataset.from_tensor_slices(good), verbose=0)
    # After a good stream, too: Keras's own message was "as_list() is not defined".
    model.fit(as_dataset(good), verbose=0)
    deep = as_dataset({**good, "x": good["x"][:, None, None]})
    with pytest.raises(ValueError, match=r"`x` must have shape \(None, 2\)"):
        model.fit(deep, verbose=0)


def test_a_list_of_batches_is_no_stream_that_keras_takes(model, good):
    class Iterable:
        def __iter__(self):
            return batches_of(good)

    with pytest.raises(TypeError, match=r"`fit` takes arrays.*from a\s+generator"):
        model.fit(Iterable(), verbose=0)


@pytest.mark.parametrize("bad_batch", [0, 2])
def test_after_an_error_in_a_stream_the_model_has_the_weights_of_the_last_step(
    bad_batch, model, good
):
    def batches():
        for number, batch in enumerate(batches_of(good)):
            if number == bad_batch:
                raise RuntimeError("no more")
            yield (batch,)

    before = moves(model)
    with pytest.raises(Exception, match="no more"):  # TensorFlow makes it its own
        model.fit(batches(), steps_per_epoch=ROWS // BATCH, verbose=0)
    after = moves(model)
    is_equal = [np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
    assert all(is_equal) == (bad_batch == 0)
    model.fit(good, batch_size=BATCH, verbose=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Only `tf.function` traces again.")
def test_targets_of_either_rank_may_follow_each_other(good):
    model = make_model()
    model.compile("sgd", jit_compile=False, steps_per_execution=1)
    flat = {**good, "y_true": good["y_true"][:, 0]}
    kinds = {**good, "group_ids": good["group_ids"][:, None]}
    totals = [
        model.evaluate(as_dataset(arrays), verbose=0) for arrays in (good, flat, kinds) * 3
    ]
    for total in totals:
        np.testing.assert_allclose(total, totals[0], rtol=1e-6)
