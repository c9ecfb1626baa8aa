"""make_dataset: every row once, the same for a seed, every group in every batch."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from predictors import linear

import addloss_kit as alk
from addloss_kit.data.rows import Rows
from addloss_kit.model.compiled_loop import Loop


def rows_of(dataset, key="x"):
    """The rows of one pass, batch by batch."""
    return [batch[key].numpy().tolist() for batch in dataset]


def many_passes(dataset, passes, key="x"):
    """The rows of many passes `(passes, rows)`, read in the graph: no Python a step."""
    with pytest.warns(UserWarning, match="`map` makes a plain `tf.data.Dataset`"):
        mapped = dataset.map(lambda batch: batch[key])
    once = mapped.unbatch()
    rows = [row for row in once.repeat(passes).batch(100_000).as_numpy_iterator()]
    return np.concatenate(rows).reshape(passes, -1)


def flat(batches):
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize(
    "rows, batch_size",
    [(1, 1), (7, 7), (7, 9), (100, 8), (96, 8), (1600, 8), (1003, 4)],
)
def test_every_epoch_has_every_row_once(rows, batch_size):
    inputs = {"x": np.arange(rows), "y_true": np.arange(rows)[:, None] * 2.0}
    dataset = alk.make_dataset(inputs, batch_size, seed=0)
    for _ in range(2):
        batches = list(dataset)
        assert len(batches) == dataset.cardinality().numpy() == -(-rows // batch_size)
        sizes = [len(batch["x"]) for batch in batches]
        assert sizes == [batch_size] * (rows // batch_size) + (
            [rows % batch_size] if rows % batch_size else []
        )
        assert sorted(flat(b["x"].numpy() for b in batches)) == list(range(rows))
        for batch in batches:
            np.testing.assert_array_equal(
                2.0 * batch["x"].numpy()[:, None], batch["y_true"]
            )


def test_a_dropped_remainder_differs_from_epoch_to_epoch():
    dataset = alk.make_dataset({"x": np.arange(11)}, 4, drop_remainder=True, seed=0)
    left_out = [set(range(11)) - set(flat(rows_of(dataset))) for _ in range(6)]
    assert all(len(rows) == 3 for rows in left_out)
    assert len(set.union(*left_out)) > 3
    # Static, for XLA; JAX does not ask for it.
    size = None if keras.backend.backend() == "jax" else 4
    assert dataset.element_spec["x"].shape.as_list() == [size]


def test_without_shuffle_the_order_is_that_of_the_rows():
    dataset = alk.make_dataset({"x": np.arange(5)}, 2, shuffle=False)
    assert [rows_of(dataset) for _ in range(2)] == [[[0, 1], [2, 3], [4]]] * 2


def test_the_order_is_a_function_of_seed_and_epoch():
    inputs = {"x": np.arange(50)}
    first = alk.make_dataset(inputs, 8, seed=3)
    epochs = [rows_of(first) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    again = alk.make_dataset(inputs, 8, seed=3)
    assert [rows_of(again) for _ in range(3)] == epochs
    again.set_epoch(1)
    assert rows_of(again) == epochs[1]
    assert rows_of(alk.make_dataset(inputs, 8, seed=4)) != epochs[0]


@pytest.mark.parametrize("name, value", [("epoch", 5), ("seed", 4)])
def test_an_order_drawn_ahead_is_not_that_of_another_epoch(name, value):
    """While an epoch computes on JAX the order of the next one is drawn."""
    ahead, fresh = (
        alk.make_dataset({"x": np.arange(50)}, 8, seed=3).rows for _ in range(2)
    )
    ahead.draw_ahead()
    drawn = np.array(ahead.draw_epoch())
    np.testing.assert_array_equal(drawn, fresh.draw_epoch())
    assert ahead.epoch == 1
    ahead.draw_ahead()
    for rows in (ahead, fresh):
        setattr(rows, name, value)
    np.testing.assert_array_equal(ahead.draw_epoch(), fresh.draw_epoch())
    assert np.any(drawn != np.array(ahead.draw_epoch()))


def test_a_training_draws_as_many_orders_as_it_has_epochs(monkeypatch):
    drawn = []
    draw = Rows._draw

    def counting(rows):
        drawn.append(rows.epoch)
        return draw(rows)

    monkeypatch.setattr(Rows, "_draw", counting)
    model = alk.build_training_model(linear(2), "mse")
    model.compile("sgd", jit_compile=True)
    data = alk.pack_inputs(model, np.zeros((20, 2)), np.zeros(20))
    model.fit(data, batch_size=8, epochs=4, initial_epoch=1, verbose=0)
    if keras.backend.backend() != "torch":
        assert drawn == [1, 2, 3]


@pytest.mark.parametrize("rows", [16, 5000])
def test_a_look_at_the_first_batch_does_not_change_the_order(rows):
    dataset = alk.make_dataset({"x": np.arange(rows)}, 8, seed=3)
    first = next(iter(dataset))["x"].numpy().tolist()
    assert rows_of(dataset)[0] == first


def test_orders_are_as_likely_as_one_another():
    dataset = alk.make_dataset({"x": np.arange(4)}, 4, seed=0)
    counts = np.zeros((4, 4))
    for rows in many_passes(dataset, 400):
        counts[np.arange(4), rows] += 1
    # Each row is at each place 100 times of 400, ± 8.7; four times that is no chance.
    np.testing.assert_allclose(counts, 100, atol=35)


def test_without_a_seed_the_global_one_settles_the_order():
    def order():
        keras.utils.set_random_seed(5)
        return rows_of(alk.make_dataset({"x": np.arange(30)}, 8))

    assert order() == order()
    assert order() != rows_of(alk.make_dataset({"x": np.arange(30)}, 8))


def test_later_changes_of_the_arrays_do_not_reach_the_dataset():
    x = np.arange(4.0)
    dataset = alk.make_dataset({"x": x}, 2, shuffle=False)
    x[:] = 0.0
    assert rows_of(dataset) == [[0.0, 1.0], [2.0, 3.0]]


def test_later_changes_of_the_arrays_do_not_reach_a_training():
    model = alk.build_training_model(linear(3), "mse")
    model.compile(keras.optimizers.SGD(0.1))
    packed = alk.pack_inputs(model, np.ones((4, 3), "float32"), np.ones((4, 1), "float32"))
    dataset = alk.make_dataset(packed, 4, shuffle=False)
    before = model.evaluate(packed, verbose=0, return_dict=True)["mse"]
    packed["y_true"][:] = 100.0
    after = model.evaluate(dataset, verbose=0, return_dict=True)["mse"]
    assert after == pytest.approx(before)


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="TensorFlow's tensors: see test_aligned."
)
def test_rows_get_to_jax_by_one_copy():
    model = alk.build_training_model(linear(3), "mse")
    model.compile("sgd")
    packed = alk.pack_inputs(model, np.ones((9, 3), "float32"), np.ones((9, 1), "float32"))
    dataset = alk.make_dataset(packed, 4)
    tensors = Loop(model, "train", is_xla_asked_for=False).place(dataset.rows)
    for name, tensor in tensors.items():
        copy = dataset.rows.arrays[name]
        assert not np.shares_memory(copy, packed[name])
        assert tensor.unsafe_buffer_pointer() == copy.ctypes.data


def test_objects_are_copied_too():
    x = np.array(["a", "bc"], object)
    dataset = alk.make_dataset({"x": x}, 2, shuffle=False)
    x[:] = "d"
    assert rows_of(dataset) == [[b"a", b"bc"]]


def test_arrays_of_the_other_byte_order_train_as_those_of_the_own(rng):
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(6, 1))
    losses = []
    for order in "<>":
        keras.utils.set_random_seed(0)
        model = alk.build_training_model(linear(2), "mse")
        model.compile("sgd", jit_compile=True)
        given = {"x": x.astype(f"{order}f4"), "y_true": y.astype(f"{order}f4")}
        data = alk.make_dataset(given, 3, shuffle=False)
        losses += model.fit(data, verbose=0).history["loss"]
    assert losses[0] == losses[1]


def test_it_is_a_dataset_of_tensorflow_on_every_backend():
    dataset = alk.make_dataset({"x": np.arange(4)}, 2, shuffle=False)
    assert isinstance(dataset, tf.data.Dataset)
    assert (len(dataset), bool(dataset)) == (2, True)
    assert "element_spec" in repr(dataset)
    twice = tf.data.Dataset.zip((dataset, copy.copy(dataset)))
    for one, other in twice:
        np.testing.assert_array_equal(one["x"], other["x"])


# Resuming ---------------------------------------------------------------------------


def model_and_data(rng, sample_weight=False):
    predictor = linear(3)
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2)],
        sample_weight=sample_weight,
        metrics=[keras.metrics.MeanSquaredError(name="error")],
    )
    model.compile(keras.optimizers.Adam(0.01))
    x = rng.normal(size=(50, 3))
    ids = (np.arange(50) % 5 == 0).astype(int)
    weight = {"sample_weight": np.ones(50)} if sample_weight else {}
    return model, alk.pack_inputs(model, x, x.sum(1), group_ids=ids, **weight)


@pytest.mark.parametrize("balance", [False, True])
def test_a_killed_training_ends_where_an_unbroken_one_does(rng, tmp_path, balance):
    model, packed = model_and_data(rng)

    def dataset():
        return alk.make_dataset(packed, 16, seed=1, balance_groups=balance)

    start = model.get_weights()
    model.fit(dataset(), epochs=4, verbose=0)
    unbroken = model.get_weights()

    model.set_weights(start)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(dataset(), epochs=2, verbose=0)
    model.save(tmp_path / "half.keras")
    resumed = keras.models.load_model(tmp_path / "half.keras")
    resumed.fit(dataset(), initial_epoch=2, epochs=4, verbose=0)
    for wanted, got in zip(unbroken, resumed.get_weights()):
        np.testing.assert_array_equal(got, wanted)


def test_a_second_fit_goes_on_where_the_first_ended(rng):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(dataset.rows.epoch)

    model, packed = model_and_data(rng)
    dataset = alk.make_dataset(packed, 16, seed=1)
    model.fit(dataset, epochs=2, verbose=0, callbacks=[Watch()])
    model.fit(dataset, epochs=1, verbose=0, callbacks=Watch())
    assert seen == [0, 1, 2]


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch has no steps_per_execution."
)
@pytest.mark.parametrize("steps_per_execution", [3, 64])
def test_an_epoch_of_fit_is_one_pass(rng, steps_per_execution):
    model, packed = model_and_data(rng)
    # A step size of 0: the mean over the epoch is that over its rows.
    model.compile(keras.optimizers.SGD(0.0), steps_per_execution=steps_per_execution)
    wanted = model.evaluate(packed, batch_size=50, verbose=0, return_dict=True)["mse"]
    dataset = alk.make_dataset(packed, 16, seed=1)
    history = model.fit(dataset, epochs=3, verbose=0).history
    assert history["mse"] == pytest.approx([wanted] * 3, rel=1e-5)
    assert dataset.rows.epoch == 3


# Balancing --------------------------------------------------------------------------

# 90 % and 10 %, as in the groups that need it.
IDS = np.repeat([0, 1], [90, 10])


def balanced(ids=IDS, batch_size=10, **kwargs):
    inputs = {"x": np.arange(len(ids)), "group_ids": ids}
    inputs["sample_weight"] = np.ones(len(ids), "float32")
    return alk.make_dataset(inputs, batch_size, seed=0, **kwargs)


def shares(dataset):
    """The numbers of rows of each group, sorted by id, that all batches have."""
    counts = {
        tuple(np.unique(batch["group_ids"], return_counts=True)[1].tolist())
        for batch in dataset
    }
    assert len(counts) == 1, counts
    return counts.pop()


@pytest.mark.parametrize(
    "balance, counts",
    [
        (True, (5, 5)),
        ([3, 7], (3, 7)),
        ({0: 0.8, 1: 0.2}, (8, 2)),
        (np.array([1.0, 2.0]), (3, 7)),  # 3.33 and 6.67
        ({0: 1.0, 1: 1e-6}, (9, 1)),  # at least one
    ],
)
def test_every_batch_has_every_group_in_its_share(balance, counts):
    assert shares(balanced(balance_groups=balance)) == counts


def test_shares_that_do_not_divide_the_batch_are_off_by_less_than_a_row():
    counts = shares(balanced(np.repeat([0, 1, 2], [50, 30, 20]), 16, balance_groups=True))
    assert sorted(counts) == [5, 5, 6]


def test_rows_without_a_group_keep_their_share():
    ids = np.repeat([-1, 0, 1], [40, 50, 10])
    assert shares(balanced(ids, 10, balance_groups=True)) == (4, 3, 3)


def test_a_group_repeats_no_row_before_all_had_their_turn():
    dataset = balanced(balance_groups=True)
    for _ in range(3):
        rows = np.array(flat(rows_of(dataset)))
        # 10 batches of 5: the 10 rows of group 1 five times each, 50 of the other 90.
        _, times = np.unique(rows[rows >= 90], return_counts=True)
        assert times.tolist() == [5] * 10
        common = rows[rows < 90]
        assert len(set(common)) == len(common) == 50


def test_all_rows_of_a_large_group_come_in_time():
    dataset = balanced(balance_groups=True)
    seen = np.zeros(100)
    for rows in many_passes(dataset, 40):
        np.add.at(seen, rows, 1)
    # 50 of 90 rows an epoch: 22.2 times in 40 epochs, ± 3.1.
    np.testing.assert_allclose(seen[:90], 22.2, atol=13)
    np.testing.assert_array_equal(seen[90:], 200)


def test_a_balanced_epoch_has_as_many_steps_as_a_plain_one():
    ids = np.r_[IDS, 0, 0, 0]
    assert balanced(ids, balance_groups=True).cardinality().numpy() == 11
    dropped = balanced(ids, balance_groups=True, drop_remainder=True)
    assert dropped.cardinality().numpy() == 10


def test_a_balanced_order_repeats_for_a_seed():
    assert rows_of(balanced(balance_groups=True)) == rows_of(balanced(balance_groups=True))


def test_half_a_batch_has_half_of_each_group():
    # So that the replicas of a strategy see every group too.
    for batch in balanced(batch_size=20, balance_groups=True):
        assert batch["group_ids"][:10].numpy().sum() == 5


def test_undone_weights_give_each_row_its_part_of_the_mean():
    values = np.random.default_rng(0).normal(size=100)
    dataset = balanced(balance_groups=True, undo_weights=True)
    for batch in dataset:
        assert batch["sample_weight"].numpy().mean() == pytest.approx(1.0, abs=1e-6)
    # The rows of the large group are a sample of half of them in each epoch, so it
    # takes many epochs to see the mean.
    dataset.set_epoch(0)
    rows = many_passes(dataset, 300)
    dataset.set_epoch(0)
    weight = many_passes(dataset, 300, "sample_weight")
    means = (weight * values[rows]).sum(1) / weight.sum(1)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * means.std() / 300**0.5)
    assert means.std() < 0.1


def test_weights_of_ones_own_are_multiplied_element_by_element():
    weight = np.arange(1.0, 13.0).reshape(6, 2).astype("float32")
    ids = np.array([0, 0, 0, 0, 0, 1])
    inputs = {"x": np.arange(6), "group_ids": ids, "price_sample_weight": weight}
    dataset = alk.make_dataset(inputs, 2, balance_groups=True, undo_weights=True, seed=0)
    # Shares 5/6 and 1/6 of the data over 1/2 of the batch.
    factor = np.array([5 / 3, 1 / 3])[ids]
    for batch in dataset:
        np.testing.assert_allclose(
            batch["price_sample_weight"],
            (weight * factor[:, None])[batch["x"].numpy()],
            rtol=1e-6,
        )
    np.testing.assert_array_equal(weight.ravel(), np.arange(1.0, 13.0))


def test_balanced_data_train_a_model_and_show_the_unbalanced_error(rng):
    model, packed = model_and_data(rng, sample_weight=True)
    model.compile(keras.optimizers.SGD(0.0))
    dataset = alk.make_dataset(packed, 50, balance_groups=[4, 1], undo_weights=True, seed=0)
    history = model.fit(dataset, verbose=0).history
    plain = model.evaluate(packed, return_dict=True, verbose=0)
    # At the data's own shares all weights are 1, and the batch is all of the rows.
    assert history["error"][0] == pytest.approx(plain["error"], rel=1e-5)
    balanced_data = alk.make_dataset(
        packed, 20, balance_groups=True, undo_weights=True, seed=0
    )
    errors = [model.fit(balanced_data, verbose=0).history["error"][0] for _ in range(12)]
    assert np.mean(errors) == pytest.approx(plain["error"], rel=0.1)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"balance_groups": True, "shuffle": False}, "Leave `shuffle` at True"),
        ({"undo_weights": True}, "Pass both or none"),
        ({"balance_groups": True, "group_ids": "sex"}, "needs the ids in the entry `sex`"),
        ({"balance_groups": [1.0]}, r"shares_of=\[0\], groups=\[0, 1\]"),
        ({"balance_groups": [1.0, 0.0]}, r"must be positive.*balance_groups\[1\]=0"),
        ({"balance_groups": [1.0, np.nan]}, "must be positive"),
        ({"balance_groups": True, "batch_size": 1}, "groups=2, batch_size=1"),
        ({"balance_groups": True, "ids": np.full(9, -1)}, "ids that are all -1"),
        ({"batch_size": 101, "drop_remainder": True}, "at least one full batch"),
        ({"batch_size": 0}, "`batch_size` must be a whole number"),
    ],
)
def test_what_cannot_be_done_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        balanced(**kwargs)


def test_weights_need_a_place():
    inputs = {"group_ids": np.array([0, 1])}
    with pytest.raises(ValueError, match="Build the model with `sample_weight=True`"):
        alk.make_dataset(inputs, 2, balance_groups=True, undo_weights=True)


def test_arrays_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="`b` must have one row per row of `a`"):
        alk.make_dataset({"a": np.zeros(2), "b": np.zeros(3)}, 1)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's own"
)
def test_a_strategy_sees_the_same_order():
    dataset = alk.make_dataset({"x": np.arange(40)}, 8, seed=2)
    plain = [rows_of(dataset) for _ in range(2)]
    dataset.set_epoch(0)
    spread = tf.distribute.OneDeviceStrategy("/cpu:0").experimental_distribute_dataset(
        dataset
    )
    assert [rows_of(spread) for _ in range(2)] == plain
