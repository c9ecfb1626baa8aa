"""A training that was interrupted ends where it would have ended, bit for bit."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from predictors import linear

import addloss_kit as alk
from addloss_kit import atomic
from addloss_kit.callbacks import CheckpointAndResume

BACKEND = keras.backend.backend()
WORKER = pathlib.Path(__file__).parents[1] / "workers" / "train_and_be_killed.py"
EPOCHS = 3


def new_training():
    """`(model, packed)` with every kind of state, from the same start at each call."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = keras.Input((3,), name="x")
    hidden = layers.Dense(4, "relu")(inputs)
    hidden = layers.BatchNormalization()(hidden)
    # Torch draws its dropout from a generator of its own, which Keras cannot save.
    hidden = layers.Dropout(0.0 if BACKEND == "torch" else 0.3)(hidden)
    predictor = keras.Model(inputs, layers.Dense(1)(hidden))
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2), alk.losses.GroupGapConstraint(2, bound=0.01)],
        metrics=[alk.metrics.GroupError(2)],
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 6)
    # No graph: tracing would take longer than these few steps. The training that is
    # killed, below, has one.
    model.compile(keras.optimizers.Adam(schedule), run_eagerly=True)
    x, ids = rng.normal(size=(48, 3)), rng.integers(0, 2, 48)
    return model, alk.pack_inputs(model, x, x[:, 0] + ids, group_ids=ids)


def fit(model, packed, feed, **options):
    if feed == "dataset":
        data = alk.make_dataset(packed, 24, seed=5)
    else:
        data, options = packed, {"batch_size": 24, "shuffle": False, **options}
    return model.fit(data, epochs=EPOCHS, verbose=0, **options)


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assert_same_end(model, history, uninterrupted):
    whole, whole_history = uninterrupted
    for one, other in zip(state(model), state(whole)):
        np.testing.assert_array_equal(one, other)
    first = history.epoch[0]
    assert first > 0
    for name, values in history.history.items():
        assert values == whole_history.history[name][first:], name


@pytest.fixture(scope="module", params=["arrays", "dataset"])
def feed(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(feed):
    model, packed = new_training()
    return model, fit(model, packed, feed)


class Stop(keras.callbacks.Callback):
    """Ends the training in the middle of an epoch, as a kill would."""

    def __init__(self, epoch):
        super().__init__()
        self.at, self.epoch = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.at:
            raise KeyboardInterrupt


def test_backup_and_restore_resumes_where_it_stopped(feed, uninterrupted, tmp_path):
    model, packed = new_training()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(model, packed, feed, callbacks=[backup, Stop(1)])
    resumed, packed = new_training()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    history = fit(resumed, packed, feed, callbacks=[backup])
    assert history.epoch == [1, 2]
    assert_same_end(resumed, history, uninterrupted)


@pytest.mark.parametrize("at", [1, 2])
def test_checkpoint_and_resume_resumes_where_it_stopped(at, feed, uninterrupted, tmp_path):
    path = tmp_path / "training.ckpt"
    model, packed = new_training()
    with pytest.raises(KeyboardInterrupt):
        fit(model, packed, feed, callbacks=[CheckpointAndResume(path), Stop(at)])
    assert [p.name for p in tmp_path.iterdir()] == ["training.ckpt"]
    resumed, packed = new_training()
    history = fit(resumed, packed, feed, callbacks=[CheckpointAndResume(path)])
    assert history.epoch == list(range(at, EPOCHS))
    assert_same_end(resumed, history, uninterrupted)
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="the order is Keras's there")
@pytest.mark.parametrize("form", ["a dict", "make_dataset"])
@pytest.mark.parametrize("jit_compile", [True, False])
def test_the_order_of_rows_is_resumed_without_a_seed_of_the_users(
    form, jit_compile, tmp_path
):
    if BACKEND == "jax" and form == "a dict" and not jit_compile:
        pytest.skip("the order is Keras's there")

    def trained(path, stop):
        model, packed = new_training()
        model.compile("sgd", jit_compile=jit_compile, steps_per_execution=4)
        callbacks = [CheckpointAndResume(path)]
        if stop:
            callbacks.append(keras.callbacks.LambdaCallback(on_epoch_begin=raise_at_2))
        data = alk.make_dataset(packed, 8) if form == "make_dataset" else packed
        options = {} if form == "make_dataset" else {"batch_size": 8}
        model.fit(data, epochs=4, callbacks=callbacks, verbose=0, **options)
        return state(model)

    def raise_at_2(epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt

    whole = trained(tmp_path / "whole", stop=False)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "part", stop=True)
    np.random.seed(12345)  # a new process draws another seed
    for one, other in zip(trained(tmp_path / "part", stop=False), whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def checkpoint(tmp_path):
    """`(path, resume)` of a training of one epoch."""
    path = tmp_path / "training.ckpt"
    model, packed = new_training()

    def fit_to(epochs):
        saving = CheckpointAndResume(path, delete_checkpoint=False)
        return model.fit(packed, epochs=epochs, callbacks=[saving], verbose=0)

    fit_to(1)
    return path, fit_to


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_and_nothing_is_trained(checkpoint):
    path, fit_to = checkpoint
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    flips = [(int(at), int(bit)) for at, bit in zip(
        rng.integers(0, len(whole), 1000), rng.integers(0, 8, 1000))]  # fmt: skip
    saving = CheckpointAndResume(path)
    model, _ = new_training()
    start = state(model)
    unnoticed = []
    for at, bit in flips:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            saving.resume(model)
        except OSError as error:
            assert "truncated, damaged" in str(error)
            for one, other in zip(state(model), start, strict=True):
                np.testing.assert_array_equal(one, other)
        else:
            unnoticed.append(at)
            start = state(model)
    # Bits that mean nothing: dates and the like in the headers of the archive.
    assert len(unnoticed) < 10
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="truncated, damaged.*Delete it"):
        fit_to(2)
    path.write_bytes(whole)
    assert fit_to(2).epoch == [1]


def test_a_checkpoint_of_another_model_is_refused(checkpoint):
    path, _ = checkpoint
    predictor = linear(3, 2, name=None)
    model = alk.build_training_model(predictor, "mse")
    model.compile("sgd")
    packed = alk.pack_inputs(model, np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="is of another model. Build and compile"):
        model.fit(packed, callbacks=[CheckpointAndResume(path)], verbose=0)


def test_a_folder_that_cannot_be_written_keeps_the_former_checkpoint(
    checkpoint, monkeypatch
):
    path, fit_to = checkpoint
    whole = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile.write", full)
    with pytest.raises(OSError, match="epoch 1 could not be written. The former"):
        fit_to(2)
    monkeypatch.undo()
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["training.ckpt"]
    assert fit_to(2).epoch == [1]


def test_a_model_checkpoint_resumes_where_it_stopped(feed, uninterrupted, tmp_path):
    model, packed = new_training()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch:03d}.keras")
    with pytest.raises(KeyboardInterrupt):
        fit(model, packed, feed, callbacks=[checkpoint, Stop(2)])
    saved = sorted(tmp_path.glob("*.keras"))
    assert [path.stem for path in saved] == ["001", "002"]
    resumed = alk.load_training_model(saved[-2])
    history = fit(resumed, packed, feed, initial_epoch=1)
    assert_same_end(resumed, history, uninterrupted)


def test_a_backup_that_ends_half_way_leaves_the_former_one(
    feed, uninterrupted, tmp_path, monkeypatch
):
    model, packed = new_training()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    written = []

    def cut_short(place):
        written.append(place)
        if len(written) == 2:
            os.truncate(place, os.path.getsize(place) // 2)
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_write_through", cut_short)
    with pytest.raises(KeyboardInterrupt):
        fit(model, packed, feed, callbacks=[backup])
    resumed, packed = new_training()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    history = fit(resumed, packed, feed, callbacks=[backup])
    assert history.epoch == [1, 2]
    assert_same_end(resumed, history, uninterrupted)


@pytest.mark.skipif(BACKEND == "torch", reason="torch's dropout has its own generator")
def test_dropout_goes_on_from_its_saved_seed(tmp_path):
    def dropped(model):
        layer = next(x for x in model.layers if isinstance(x, layers.Dropout))
        drawn = layer(np.ones((1, 64), "float32"), training=True)
        return keras.ops.convert_to_numpy(drawn)

    model, _ = new_training()
    first = dropped(model)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    expected = dropped(model)
    assert not np.array_equal(first, expected)
    loaded = alk.load_training_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(dropped(loaded), expected)
    restored, _ = new_training()
    restored.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(dropped(restored), expected)


def test_an_optimizer_that_has_not_begun_is_saved_and_loaded_too(tmp_path):
    model, packed = new_training()
    model.save(tmp_path / "model.keras")
    loaded = alk.load_training_model(tmp_path / "model.keras")
    fit(model, packed, "arrays")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert int(loaded.optimizer.iterations) == 6


def test_weights_of_a_predictor_load_into_a_training_without_seeds(tmp_path):
    model, _ = new_training()
    before = model.get_weights()
    # As files have it that Keras wrote by itself, without the states of generators.
    store = {}
    model.save_own_variables(store)
    assert len(store) == len(model._seed_states())
    model.load_own_variables({})
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX does not survive a fork")
@pytest.mark.parametrize(
    ("callback", "feed"),
    [
        ("checkpoint", "dataset"),
        ("own", "dataset"),
        ("own", "parquet"),
        ("own", "balanced"),
    ],
)
def test_killed_at_random_moments_it_ends_as_if_left_in_peace(callback, feed, tmp_path):
    if feed in ("parquet", "balanced"):
        pytest.importorskip("pyarrow")
    # `ModelCheckpoint` writes one file an epoch, whole or not at all, so any moment
    # will do. `BackupAndRestore` writes two: see docs/deployment.md.
    seed = np.random.SeedSequence().generate_state(1)[0] % 2**31
    command = [
        sys.executable,
        WORKER,
        tmp_path,
        feed,
        callback,
        "6",
        "2",
        str(seed),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(output.splitlines()[-1]) >= 1, f"{seed=}"
    peace, war = (np.load(tmp_path / name / "final.npz") for name in ("peace", "war"))
    for name in peace.files:
        np.testing.assert_array_equal(war[name], peace[name], f"{seed=}")
    expected = dict(epochs(tmp_path / "peace"))
    assert sorted({epoch for epoch, _ in epochs(tmp_path / "war")})[-1] == 5
    assert all(logs == expected[epoch] for epoch, logs in epochs(tmp_path / "war"))


def epochs(folder):
    """`[epoch, logs]` of each epoch that came to its end."""
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
