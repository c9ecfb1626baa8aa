"""Many steps in one compiled loop end where Keras's own step by step does."""

import every_term
import keras
import numpy as np
import pytest

import addloss_kit as alk

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch has no steps_per_execution."
)

ROWS, BATCH = 75, 8  # Ten batches, the last of three rows.
STEPS = 10


def a_model(layers=(), optimizer=None, steps_per_execution=4, **build_arguments):
    keras.utils.set_random_seed(0)
    predictor = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            keras.layers.Dense(4, activation="tanh"),
            *layers,
            keras.layers.Dense(1),
        ]
    )
    model = alk.build_training_model(
        predictor, ["mse", alk.losses.GroupGap(2)], **build_arguments
    )
    model.compile(
        optimizer or keras.optimizers.Adam(0.01),
        steps_per_execution=steps_per_execution,
        jit_compile=True,
    )
    return model


def packed_rows(model, rows=ROWS):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3))
    return alk.pack_inputs(model, x, x.sum(1), group_ids=np.arange(rows) % 5 == 0)


def fit(model, is_loop, data, validation_data=None, **arguments):
    """Train by the loop, or by Keras's own steps, which a number of steps asks for."""
    if not is_loop:
        arguments["steps_per_epoch"] = int(data.cardinality())
        if validation_data is not None:
            arguments["validation_steps"] = int(validation_data.cardinality())
    history = model.fit(
        data, y=None, validation_data=validation_data, verbose=0, **arguments
    ).history
    return {**history, **every_term.state(model)}


def assert_alike(got, wanted):
    assert got.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(
            got[name], wanted[name], rtol=1e-6, atol=1e-6, err_msg=name
        )


def draws(dataset):
    """The sizes of executions for which the dataset is asked, as they are asked for."""
    asked, blocks = [], dataset.blocks

    def spy(steps_per_execution):
        asked.append(steps_per_execution)
        return blocks(steps_per_execution)

    dataset.blocks = spy
    return asked


def test_every_term_trains_as_by_keras_s_own_steps():
    found = []
    for is_loop in (False, True):
        keras.utils.set_random_seed(0)
        model = every_term.build(
            keras.optimizers.SGD(0.01), steps_per_execution=4, jit_compile=True
        )
        packed = every_term.data(model, ROWS)
        data = alk.make_dataset(packed, BATCH, seed=1)
        held_out = alk.make_dataset(packed, 50, shuffle=False)
        asked = [draws(data), draws(held_out)]
        found.append(fit(model, is_loop, data, held_out, epochs=2))
        assert asked == ([[4], [4]] if is_loop else [[], []])
    assert_alike(found[1], found[0])


@pytest.mark.parametrize(
    "rows, batch, steps_per_execution",
    [(75, 8, 3), (75, 8, 64), (80, 8, 5), (80, 8, 4), (5, 8, 4), (8, 8, 2), (9, 8, 2)],
)
def test_any_number_of_steps_and_rows_gives_the_same(rows, batch, steps_per_execution):
    found = []
    for is_loop in (False, True):
        model = a_model(steps_per_execution=steps_per_execution)
        data = alk.make_dataset(packed_rows(model, rows), batch, seed=1)
        found.append(fit(model, is_loop, data, epochs=3))
        assert int(data.set_epoch.__self__.numpy()) == 3
    assert_alike(found[1], found[0])


def test_blocks_that_are_too_large_are_taken_in_parts(monkeypatch):
    found = []
    for size in (1, 500, 1 << 20):
        monkeypatch.setattr("addloss_kit.data.batching._BLOCK_BYTES", size)
        model = a_model(steps_per_execution=7)
        packed = packed_rows(model)
        data = alk.make_dataset(packed, BATCH, seed=1)
        blocks, _ = next(iter(data.blocks(7)))
        held = sum(int(np.prod(block.shape)) * 4 for block in blocks.values())
        one_batch = sum(array[:BATCH].nbytes for array in packed.values())
        assert held <= max(size, one_batch)
        found.append(fit(model, True, data, epochs=2))
    assert_alike(found[1], found[0])
    assert_alike(found[2], found[0])


@pytest.mark.parametrize("layer", ["BatchNormalization", "Dropout"])
def test_layers_with_a_state_see_every_step(layer):
    found = []
    for is_loop in (False, True):
        made = {
            "BatchNormalization": lambda: keras.layers.BatchNormalization(momentum=0.9),
            "Dropout": lambda: keras.layers.Dropout(0.5, seed=1),
        }[layer]()
        model = a_model([made])
        data = alk.make_dataset(packed_rows(model), BATCH, seed=1)
        found.append(fit(model, is_loop, data, epochs=2))
    assert_alike(found[1], found[0])


def test_half_precision_scales_its_loss_as_by_keras_s_own_steps():
    found = []
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for is_loop in (False, True):
            model = a_model()
            data = alk.make_dataset(packed_rows(model), BATCH, seed=1)
            found.append(fit(model, is_loop, data, epochs=2))
    finally:
        keras.config.set_dtype_policy("float32")
    for name, wanted in found[0].items():
        # Its activations have three digits.
        np.testing.assert_allclose(found[1][name], wanted, rtol=2e-3, atol=1e-3)


def test_evaluate_gives_what_the_arrays_give():
    model = a_model(metrics=["mae"])
    packed = packed_rows(model)
    data = alk.make_dataset(packed, BATCH, seed=1)
    asked = draws(data)
    by_loop = model.evaluate(data, verbose=0, return_dict=True)
    assert asked == [4]
    by_arrays = model.evaluate(packed, batch_size=BATCH, verbose=0, return_dict=True)
    # Other batches, so other gaps within them.
    for name in ("mse", "mae"):
        assert by_loop[name] == pytest.approx(by_arrays[name], rel=1e-6)


def test_a_training_that_stops_goes_on_as_one_that_does_not(tmp_path):
    def dataset(model):
        return alk.make_dataset(packed_rows(model), BATCH, seed=1)

    unbroken = a_model()
    unbroken.fit(dataset(unbroken), epochs=4, verbose=0)
    model = a_model()
    model.fit(dataset(model), epochs=2, verbose=0)
    model.save(tmp_path / "half.keras")
    resumed = keras.models.load_model(tmp_path / "half.keras")
    resumed.fit(dataset(resumed), initial_epoch=2, epochs=4, verbose=0)
    assert_alike(every_term.state(resumed), every_term.state(unbroken))


def test_callbacks_see_the_last_step_of_each_execution_and_may_stop():
    class Stop(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append((batch, float(logs["loss"])))
            self.model.stop_training = batch == 7

    model, stop = a_model(), Stop()
    data = alk.make_dataset(packed_rows(model), BATCH, seed=1)
    model.fit(data, epochs=3, verbose=0, callbacks=[stop])
    assert [batch for batch, _ in stop.seen] == [3, 7]
    assert all(np.isfinite(loss) for _, loss in stop.seen)


def test_the_step_size_is_that_of_the_moment():
    found = []
    for is_loop in (False, True):
        schedule = keras.optimizers.schedules.CosineDecay(0.05, 3 * STEPS)
        model = a_model(optimizer=keras.optimizers.SGD(schedule))
        data = alk.make_dataset(packed_rows(model), BATCH, seed=1)
        found.append(fit(model, is_loop, data, epochs=2))
        model.compile(keras.optimizers.SGD(0.01), steps_per_execution=4, jit_compile=True)
        halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        again = fit(model, is_loop, data, epochs=2, callbacks=[halve])
        found[-1].update({f"{name}, again": value for name, value in again.items()})
    assert_alike(found[1], found[0])


def test_other_data_trains_before_and_after():
    found = []
    for is_loop in (False, True):
        model = a_model()
        packed = packed_rows(model)
        data = alk.make_dataset(packed, BATCH, seed=1)
        model.fit(packed, batch_size=BATCH, shuffle=False, verbose=0)
        fit(model, is_loop, data)
        model.fit(packed, batch_size=BATCH, shuffle=False, verbose=0)
        found.append(fit(model, is_loop, data))
    assert_alike(found[1], found[0])


def test_a_callback_may_evaluate_other_data_within():
    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.by_rows = self.model.evaluate(
                packed, batch_size=BATCH, verbose=0, return_dict=True
            )
            self.at_once = self.model.test_on_batch(packed, return_dict=True)

    model, look = a_model(), Look()
    packed = packed_rows(model)
    data, held_out = (alk.make_dataset(packed, BATCH, seed=1) for _ in range(2))
    history = model.fit(
        data, validation_data=held_out, epochs=2, verbose=0, callbacks=[look]
    ).history
    wanted = history["val_mse"][-1]
    assert look.by_rows["mse"] == pytest.approx(wanted, rel=1e-6)
    assert float(look.at_once["mse"]) == pytest.approx(wanted, rel=1e-6)


def test_an_error_within_leaves_a_model_that_trains():
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise OSError("the disk is full")

    model = a_model()
    packed = packed_rows(model)
    data = alk.make_dataset(packed, BATCH, seed=1)
    with pytest.raises(OSError, match="the disk is full"):
        model.fit(data, verbose=0, callbacks=[Fail()])
    assert model.train_function is None
    history = model.fit(packed, batch_size=BATCH, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    "compile_arguments",
    [
        {"steps_per_execution": 1, "jit_compile": True},
        {"steps_per_execution": 4, "jit_compile": False},
        {"steps_per_execution": 4, "run_eagerly": True},
    ],
)
def test_who_does_not_ask_for_a_compiled_loop_gets_none(compile_arguments):
    model = a_model()
    data = alk.make_dataset(packed_rows(model), BATCH, seed=1)
    asked = draws(data)
    model.compile("sgd", **compile_arguments)
    model.fit(data, verbose=0)
    assert asked == []


def test_blocks_that_are_drawn_ahead_hold_the_passes_in_order_and_count_none():
    inputs = {"x": np.arange(21)}
    by_batch = alk.make_dataset(inputs, 4, seed=3)
    wanted = [batch["x"].numpy().tolist() for _ in range(3) for batch in by_batch]
    dataset, found = alk.make_dataset(inputs, 4, seed=3), []
    for batches, block in dataset.blocks(4):
        for number in range(int(block["count"])):
            found.append(batches["x"][number].numpy().tolist())
        if len(found) == len(wanted):
            break
    assert found == wanted
    assert int(dataset.set_epoch.__self__.numpy()) == 0
