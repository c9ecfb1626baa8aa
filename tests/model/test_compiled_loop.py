"""Many steps in one compiled loop end where Keras's own step by step does."""

import every_term
import keras
import numpy as np
import pytest
from engines import KERAS_S_OWN
from predictors import linear

import addloss_kit as alk
from addloss_kit.data.aligned import aligned_copy
from addloss_kit.model.compiled_loop import Loop, can_loop

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


@pytest.fixture(autouse=True)
def any_number_of_steps_is_worth_it(monkeypatch):
    monkeypatch.setattr("addloss_kit.model.feeding.WORTH_COMPILING", 0)


@pytest.fixture
def loops(monkeypatch):
    """What compiled loops have run: `(rows per batch, first batch, batches)` each."""
    asked, run = [], Loop.run

    def spy(self, arrays, order, size, first, count, state):
        asked.append((size, first, count))
        return run(self, arrays, order, size, first, count, state)

    monkeypatch.setattr(Loop, "run", spy)
    return asked


@pytest.mark.slow
def test_every_term_trains_as_by_keras_s_own_steps(loops):
    found = []
    for is_loop in (False, True):
        keras.utils.set_random_seed(0)
        asked = {"steps_per_execution": 4, "jit_compile": True} if is_loop else KERAS_S_OWN
        model = every_term.build(keras.optimizers.SGD(0.01), **asked)
        packed = every_term.data(model, ROWS)
        data = alk.make_dataset(packed, BATCH, seed=1)
        held_out = alk.make_dataset(packed, 25, shuffle=False)
        found.append(fit(model, is_loop, data, held_out, epochs=2))
        assert bool(loops) == is_loop
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
        assert data.rows.epoch == 3
    assert_alike(found[1], found[0])


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


def test_evaluate_gives_what_the_arrays_give(loops):
    model = a_model(metrics=["mae"])
    packed = packed_rows(model)
    data = alk.make_dataset(packed, BATCH, seed=1)
    by_loop = model.evaluate(data, verbose=0, return_dict=True)
    assert sum(count for *_, count in loops) == STEPS
    by_arrays = model.evaluate(packed, batch_size=BATCH, verbose=0, return_dict=True)
    # Other batches, so other gaps within them.
    for name in ("mse", "mae"):
        assert by_loop[name] == pytest.approx(by_arrays[name], rel=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
def test_who_does_not_ask_for_a_compiled_loop_gets_none(compile_arguments, loops):
    model = a_model()
    data = alk.make_dataset(packed_rows(model), BATCH, seed=1)
    model.compile("sgd", **compile_arguments)
    model.fit(data, verbose=0)
    assert loops == []


def test_torch_has_no_loop(monkeypatch):
    model = a_model()
    assert can_loop(model)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert not can_loop(model)


def test_an_order_on_the_device_is_a_copy():
    order = aligned_copy(np.arange(100, dtype="int32"))  # Where JAX would not copy it.
    placed = Loop(a_model(), "train", False).place_tensor(order)
    order[:] = 0
    np.testing.assert_array_equal(np.asarray(placed), np.arange(100))


def test_rows_on_the_device_are_copies():
    model = a_model()
    aligned = {name: aligned_copy(array) for name, array in packed_rows(model).items()}
    rows = alk.make_dataset(aligned, BATCH).rows
    placed = Loop(model, "train", False).place(rows)
    for name, array in aligned.items():
        array[...] = 0
        assert np.asarray(placed[name]).any()


def test_what_packing_converted_is_not_copied_again(monkeypatch):
    model = a_model()
    wide = {name: array.astype("float64") for name, array in packed_rows(model).items()}
    packed = alk.pack_inputs(model, wide)
    assert {array.dtype.name for array in packed.values()} == {"float32", "int32"}
    taken = []
    monkeypatch.setattr(
        Loop,
        "place",
        lambda loop, rows, place=Loop.place: taken.append(place(loop, rows)) or taken[-1],
    )
    before = {name: array.copy() for name, array in packed.items()}
    model.compile("sgd", jit_compile=True)
    model.fit(packed, batch_size=BATCH, epochs=2, verbose=0)
    for name, array in packed.items():
        assert np.shares_memory(np.asarray(taken[0][name]), array), name
        np.testing.assert_array_equal(array, before[name])


# The plain call ------------------------------------------------------------------


def a_plain_model(optimizer=None, layers=(), **compile_arguments):
    keras.utils.set_random_seed(0)
    predictor = keras.Sequential(
        [keras.Input((3,), name="x"), keras.layers.Dense(4), *layers, keras.layers.Dense(1)]
    )
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2)],
        metrics=[alk.metrics.GroupError(2), "mae"],
    )
    model.compile(optimizer or keras.optimizers.Adam(0.01), **compile_arguments)
    return model


def train_plainly(model, rows=ROWS, **arguments):
    keras.utils.set_random_seed(1)
    packed = packed_rows(model, rows)
    given = {"batch_size": BATCH, "epochs": 3, "verbose": 0, **arguments}
    if keras.backend.backend() == "jax":
        given["shuffle"] = False  # Keras's own order of arrays is another
    history = model.fit(packed, **given).history
    return {**history, **every_term.state(model)}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"shuffle": False},
        {"validation_split": 0.3},
        {"rows": 80},
        {"rows": 5},
        {"batch_size": None},
        {"initial_epoch": 1},
    ],
    ids=str,
)
def test_a_plain_fit_takes_the_loop_and_ends_where_keras_s_own_steps_do(arguments, loops):
    by_loop = train_plainly(a_plain_model(), **arguments)
    assert loops
    loops.clear()
    by_keras = train_plainly(a_plain_model(**KERAS_S_OWN), **arguments)
    assert not loops
    assert_alike(by_loop, by_keras)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=5),
        lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
        lambda: keras.optimizers.SGD(0.01, momentum=0.9, global_clipnorm=0.5),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01)),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    ],
    ids=["average", "accumulation", "clipping", "loss scaling", "decay"],
)
def test_what_wraps_an_optimizer_works_in_the_loop(make_optimizer, loops):
    by_loop = train_plainly(a_plain_model(make_optimizer()))
    assert loops
    by_keras = train_plainly(a_plain_model(make_optimizer(), **KERAS_S_OWN))
    assert_alike(by_loop, by_keras)


@pytest.mark.slow
# From Keras 3.16 on, a recurrent layer says that it passes no mask on.
@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask attached:UserWarning")
def test_a_recurrent_net_on_masked_sequences_trains_alike(loops):
    def train(**compile_arguments):
        keras.utils.set_random_seed(0)
        x = keras.Input((5, 2), name="x")
        hidden = keras.layers.LSTM(3)(keras.layers.Masking()(x))
        predictor = keras.Model(x, keras.layers.Dense(1)(hidden))
        model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
        model.compile(keras.optimizers.SGD(0.05), **compile_arguments)
        rng = np.random.default_rng(0)
        steps = rng.normal(size=(30, 5, 2)) * (np.arange(5) < 3)[:, None]
        packed = alk.pack_inputs(
            model, steps, steps.sum((1, 2)), group_ids=np.arange(30) % 2
        )
        given = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
        history = model.fit(packed, **given).history
        return {**history, **every_term.state(model)}

    by_loop = train()
    assert loops
    assert_alike(by_loop, train(**KERAS_S_OWN))


def test_a_second_fit_of_equal_shapes_traces_and_compiles_nothing():
    traces = []

    def counted(y_true, y_pred):
        traces.append(1)
        return keras.ops.abs(y_true - y_pred)

    predictor = linear(3)
    model = alk.build_training_model(predictor, [counted, alk.losses.GroupGap(2)])
    model.compile("adam")
    train_plainly(model)
    assert traces
    traces.clear()
    train_plainly(model)
    assert not traces


def test_a_hook_per_batch_is_called_for_every_batch():
    seen = []
    hook = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append((batch, logs["loss"]))
    )
    train_plainly(a_plain_model(), epochs=1, callbacks=[hook])
    assert [batch for batch, _ in seen] == list(range(STEPS))
    assert np.isfinite([loss for _, loss in seen]).all()


def test_callbacks_that_watch_epochs_cost_no_speed(tmp_path, loops):
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.EarlyStopping("loss", mode="min"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate),
    ]
    train_plainly(a_plain_model(), epochs=1, callbacks=callbacks)
    assert len(loops) < STEPS
    assert keras.saving.load_model(tmp_path / "model.keras").count_params()


def test_what_compile_was_asked_for_is_saved(tmp_path):
    for asked in ({}, KERAS_S_OWN, {"steps_per_execution": 4, "jit_compile": True}):
        model = a_plain_model(**asked)
        model.save(tmp_path / "model.keras")
        loaded = alk.load_training_model(tmp_path / "model.keras")
        assert loaded.speed == model.speed


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow only")
def test_a_model_that_xla_refuses_falls_back_and_says_so():
    import tensorflow as tf

    @keras.saving.register_keras_serializable("tests")
    class Refused(keras.layers.Layer):
        def call(self, x):
            # No kernel for it in XLA.
            text = tf.strings.as_string(x)
            return x + 0.0 * tf.strings.to_number(text)

    with pytest.warns(UserWarning, match="XLA cannot compile this model"):
        by_loop = train_plainly(a_plain_model(layers=[Refused()]))
    by_keras = train_plainly(a_plain_model(layers=[Refused()], **KERAS_S_OWN))
    assert_alike(by_loop, by_keras)

    asked_for = a_plain_model(layers=[Refused()], jit_compile=True)
    # Not a warning, which is an error here, too.
    refusals = (tf.errors.OpError, NotImplementedError, ValueError)
    with pytest.raises(refusals, match="AsString|XLA|compil"):
        train_plainly(asked_for)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only there XLA is a choice"
)
def test_the_warning_ends_with_the_beginning_of_xla_s_message(monkeypatch):
    compile_loop = Loop._tensorflow_loop

    def refuse(self, *given):
        if self.is_xla:
            raise NotImplementedError("x" * 300 + "\nand more")
        return compile_loop(self, *given)

    monkeypatch.setattr(Loop, "_tensorflow_loop", refuse)
    with pytest.warns(UserWarning, match="XLA said: x{200}$"):
        train_plainly(a_plain_model(), epochs=1)


def test_the_progress_bar_counts_the_batches(capsys):
    train_plainly(a_plain_model(), epochs=1, verbose=1)
    shown = capsys.readouterr().out
    assert f"{STEPS}/{STEPS}" in shown


@pytest.mark.slow
def test_two_equal_trainings_on_one_dataset_are_equal():
    model = a_plain_model()
    data = alk.make_dataset(packed_rows(model), BATCH, seed=1)
    found = []
    for _ in range(2):
        model = a_plain_model()
        found.append(model.fit(data, epochs=2, verbose=0).history)
        model.evaluate(data, verbose=0)
    assert found[0] == found[1]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow only")
def test_a_few_steps_are_not_compiled_by_xla(monkeypatch, loops):
    monkeypatch.setattr("addloss_kit.model.feeding.WORTH_COMPILING", 1000)
    model = a_plain_model()
    few = train_plainly(model, epochs=2)
    assert not loops
    many = train_plainly(a_plain_model(), epochs=100)
    assert loops
    assert few["loss"] == pytest.approx(many["loss"][:2], rel=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow only")
def test_a_few_steps_again_and_again_are_compiled_by_xla(monkeypatch, loops):
    steps = -(-ROWS // BATCH)
    monkeypatch.setattr("addloss_kit.model.feeding.WORTH_COMPILING", 3 * steps)
    model = a_plain_model()
    train_plainly(model, epochs=1)
    train_plainly(model, epochs=1)
    assert not loops
    train_plainly(model, epochs=1)
    assert loops


# On JAX every `fit` is looped, as Keras's own step is compiled there, too.
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow only")
def test_fewer_steps_of_many_rows_are_compiled_by_xla(monkeypatch, loops):
    monkeypatch.setattr("addloss_kit.model.feeding.WORTH_COMPILING", 10)
    packed = packed_rows(a_plain_model(), 5 * 4096)
    for batch_size, epochs, is_looped in ((4096, 1, True), (4096 * 5, 1, False)):
        model = a_plain_model()
        model.fit(packed, batch_size=batch_size, epochs=epochs, verbose=0)
        assert bool(loops) == is_looped
        loops.clear()


def a_stream(packed, batch=BATCH, is_known=True, drop_remainder=False):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(packed).batch(batch, drop_remainder)
    return dataset if is_known else dataset.filter(lambda batch: True)


@pytest.mark.slow
@pytest.mark.parametrize("is_known", [True, False], ids=["known size", "unknown size"])
@pytest.mark.parametrize(("rows", "batch"), [(75, 8), (64, 8), (5, 8), (200, 1)])
def test_a_stream_takes_the_loop_by_blocks_and_ends_as_by_keras(
    rows, batch, is_known, loops
):
    results = []
    for is_loop in (True, False):
        model = a_model()
        if not is_loop:
            model.compile(keras.optimizers.Adam(0.01), **KERAS_S_OWN)
        # Keras's own loop counts a step too many of an epoch whose size it does not know:
        # the optimizer's `iterations` grow where the stream ends.
        is_told = is_known or not is_loop
        stream = a_stream(packed_rows(model, rows), batch, is_told)
        other = a_stream(packed_rows(model, 20), batch)
        history = model.fit(stream, epochs=3, validation_data=other, verbose=0).history
        logs = model.evaluate(other, return_dict=True, verbose=0)
        results.append({**history, **logs, **every_term.state(model)})
        if is_loop:  # three epochs, three validations and an evaluation took it
            taken = sum(count for _, _, count in loops)
            assert taken == 3 * -(-rows // batch) + 4 * -(-20 // batch)
    assert_alike(*results)


def test_a_stream_of_batches_of_a_static_size_ends_as_by_keras(loops):
    results = []
    for compile_arguments in ({}, KERAS_S_OWN):
        model = a_model()
        model.compile(keras.optimizers.Adam(0.01), **compile_arguments)
        stream = a_stream(packed_rows(model, 75), drop_remainder=True)
        # As Keras takes a batch, too: a tuple.
        model.fit(stream.map(lambda batch: (batch,)), epochs=2, verbose=0)
        results.append({**model.history.history, **every_term.state(model)})
    assert sum(count for _, _, count in loops) == 2 * (75 // BATCH)
    assert_alike(*results)


def test_a_stream_of_batches_of_many_sizes_ends_as_by_keras():
    import tensorflow as tf

    sizes = [8, 8, 3, 8, 5, 5, 8, 1]
    results = []
    for compile_arguments in ({}, KERAS_S_OWN):
        model = a_model()
        model.compile(keras.optimizers.Adam(0.01), **compile_arguments)
        model.speed.loop(model, "train")  # so that few steps are worth it
        packed = packed_rows(model, sum(sizes))
        ends = np.cumsum(sizes)

        def batches(packed=packed, ends=ends):
            for end, size in zip(ends, sizes):
                yield {name: array[end - size : end] for name, array in packed.items()}

        signature = {
            name: tf.TensorSpec((None, *array.shape[1:]), array.dtype)
            for name, array in packed.items()
        }
        stream = tf.data.Dataset.from_generator(batches, output_signature=signature)
        stream = stream.apply(tf.data.experimental.assert_cardinality(len(sizes)))
        model.fit(stream, epochs=2, verbose=0)
        results.append({**model.history.history, **every_term.state(model)})
    assert_alike(*results)
