"""Fuzz: a random predictor, losses, metrics, feed and loop, down the whole road.

    python tests/fuzz.py --seconds 60               # the seeds of the day
    python tests/fuzz.py --seed 123456 --cases 1    # one of them again

A case is a function of its seed. What is checked needs no other code as an oracle: it
trains to finite values, a training that was saved and loaded goes on as if it had not
been, all feeds evaluate alike, and what is exported predicts what was trained.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import pathlib
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import every_term
import keras
import numpy as np
from keras import ops

import addloss_kit as alk

NUM_GROUPS = every_term.NUM_GROUPS
STEPS, BATCH = 5, 8
IS_TORCH = keras.backend.backend() == "torch"

registered = keras.saving.register_keras_serializable("addloss_kit_fuzz")
registered(every_term.row_function)


@registered
def priced_mean(y_true, y_pred, price):
    """A scalar, with an argument of its own."""
    price = ops.reshape(price, (-1, *[1] * (len(y_pred.shape) - 1)))
    return ops.mean(price * ops.abs(y_true - y_pred))


@registered
def absolute_steps(y_true, y_pred):
    """A value per row, or per step of it."""
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@dataclasses.dataclass
class Case:
    """What was drawn, and what the predictor learns from."""

    seed: int
    predictor: keras.Model
    features: dict[str, np.ndarray]
    heads: dict[str, str]  # Kinds of outputs by name.
    drawn: dict[str, Any]


class Draw:
    """Draws by name, so that a failure can tell what it was."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.drawn: dict[str, Any] = {}

    def one(self, name: str, options: Any) -> Any:
        options = list(options)
        self.drawn[name] = options[self.rng.integers(len(options))]
        return self.drawn[name]

    def happens(self, name: str, chance: float = 0.5) -> bool:
        self.drawn[name] = bool(self.rng.random() < chance)
        return self.drawn[name]

    def some(self, options: Any, least: int, most: int) -> list[Any]:
        options = list(options)
        count = min(int(self.rng.integers(least, most + 1)), len(options))
        return [options[i] for i in self.rng.permutation(len(options))[:count]]


# The predictor ------------------------------------------------------------------------


def _feature(draw: Draw, kind: str, name: str, rows: int) -> tuple[Any, Any, Any]:
    """`(Input, what the layers go on with, values)`."""
    length = draw.rng.integers(1, STEPS + 1, rows)
    is_step = np.arange(STEPS) < length[:, None]
    if kind == "flat":
        x = keras.Input((4,), name=name)
        return x, x, draw.rng.normal(size=(rows, 4))
    if kind == "tokens":
        x = keras.Input((STEPS,), dtype="int32", name=name)
        values = is_step * draw.rng.integers(1, 6, (rows, STEPS))
        return x, keras.layers.Embedding(6, 4, mask_zero=True)(x), values
    x = keras.Input((STEPS, 4), name=name)
    values = is_step[..., None] * draw.rng.normal(size=(rows, STEPS, 4))
    return x, keras.layers.Masking()(x), values


def _pooled(draw: Draw, h: Any, number: int) -> Any:
    """One vector per row, of as many numbers as a flat feature."""
    if len(h.shape) == 2:
        return h
    how = draw.one(f"pool_{number}", ["gru", "lstm", "average"])
    if how == "average":
        return keras.layers.GlobalAveragePooling1D()(h)
    layer = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM}[how]
    return layer(4)(h)


def _trunk(draw: Draw, kinds: list[str], branches: list[Any], per_step: bool) -> Any:
    if per_step:
        h = branches[0]
        if draw.happens("recurrent"):
            h = keras.layers.GRU(4, return_sequences=True)(h)
        shared = keras.layers.Dense(4, activation="tanh", name="shared")
        h = shared(shared(h)) if draw.happens("shared") else shared(h)
    else:
        vectors = [_pooled(draw, h, i) for i, h in enumerate(branches)]
        if draw.happens("shared"):
            shared = keras.layers.Dense(4, activation="tanh", name="shared")
            vectors = [shared(h) for h in vectors]
        many = len(vectors) > 1
        h = keras.layers.Concatenate()(vectors) if many else vectors[0]
        h = keras.layers.Dense(5, activation="tanh", kernel_regularizer="l2")(h)
    if draw.happens("batch_norm", 0.4):
        h = keras.layers.BatchNormalization()(h)
    if draw.happens("dropout", 0.4):
        h = keras.layers.Dropout(0.2)(h)
    return h


_HEADS = {
    "one": (1, None),
    "two": (2, None),
    "positive": (1, "softplus"),
    "binary": (1, "sigmoid"),
    "classes": (3, "softmax"),
}


def draw_case(seed: int, draw: Draw) -> Case:
    """A functional predictor and its features."""
    rows = int(draw.one("rows", range(17, 36)))
    per_step = draw.happens("per_step", 0.3)
    count = 1 if per_step else int(draw.one("inputs", [1, 2, 3]))
    kinds = ["steps", "tokens"] if per_step else ["flat", "flat", "steps", "tokens"]
    drawn = [draw.one(f"input_{i}", kinds) for i in range(count)]
    made = [_feature(draw, kind, f"x{i}", rows) for i, kind in enumerate(drawn)]
    h = _trunk(draw, drawn, [m[1] for m in made], per_step)
    heads = {}
    outputs = {}
    for i in range(int(draw.one("outputs", [1, 1, 2, 3]))):
        kind = draw.one(f"output_{i}", ["one", "two"] if per_step else list(_HEADS))
        units, activation = _HEADS[kind]
        outputs[f"out{i}"] = keras.layers.Dense(
            units, activation=activation, name=f"out{i}"
        )(h)
        heads[f"out{i}"] = kind
    inputs = [m[0] for m in made]
    structure = draw.one("structure", ["list", "dict"])
    if structure == "dict":
        predictor = keras.Model({x.name: x for x in inputs}, outputs, name="predictor")
    else:
        predictor = keras.Model(inputs, list(outputs.values()), name="predictor")
    return Case(
        seed=seed,
        predictor=predictor,
        features={x.name: m[2] for x, m in zip(inputs, made)},
        heads=heads,
        drawn=draw.drawn,
    )


# Losses and metrics -------------------------------------------------------------------


def _possible_losses(kind: str, per_step: bool, weighted: bool) -> list[Any]:
    """Fresh terms that fit an output of that kind."""
    if kind == "binary":
        return [
            "binary_crossentropy",
            alk.losses.GroupGap(NUM_GROUPS, error="binary_crossentropy"),
            alk.losses.GroupDistributionGap(NUM_GROUPS),
            alk.losses.WorstGroup(NUM_GROUPS, error="binary_crossentropy"),
        ]
    if kind == "classes":
        error = "sparse_categorical_crossentropy"
        return [
            error,
            alk.losses.GroupGap(NUM_GROUPS, error=error),
            alk.losses.WorstGroup(NUM_GROUPS, error=error),
            alk.losses.BoundedGroupLoss(NUM_GROUPS, bound=0.5, error=error),
        ]
    # It takes a weight per element, and not every weight is one; pairs are alike or not.
    left_out = {"mean_function", "contrastive"}
    if kind != "two" or per_step:
        left_out.add("weights_per_output")  # There are two of them, for each row.
    if per_step:  # Functions of whole rows, where masked steps cannot be left out.
        left_out.add("row_function")
    terms = [t for t in every_term.every_term() if t.name not in left_out]
    if kind == "positive":
        terms.append(alk.losses.Contrastive(margin=1.0))
    # One number for a batch has no rows to leave out or to weight.
    return [*terms, absolute_steps, *([] if per_step or weighted else [priced_mean])]


def _possible_metrics(kind: str, output: str) -> list[Any]:
    error = {
        "binary": "binary_crossentropy",
        "classes": "sparse_categorical_crossentropy",
    }.get(kind, "mse")
    usual = {"binary": "binary_accuracy", "classes": "sparse_categorical_accuracy"}
    return [
        usual.get(kind, "mae"),
        alk.metrics.GroupError(NUM_GROUPS, error=error, name="errors"),
        alk.metrics.GroupGap(NUM_GROUPS, error=error, name="epoch_gap"),
        alk.metrics.BoundIsMet(NUM_GROUPS, bound=0.7, error=error, name="is_met"),
    ]


_OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "sgd": lambda: keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=2),
    "accumulating": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "clipped": lambda: keras.optimizers.RMSprop(0.01, global_clipnorm=1.0),
    "scheduled": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.9)
    ),
}
_LOOPS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "keras": {"jit_compile": False, "steps_per_execution": 1},
    "compiled": {"jit_compile": True, "steps_per_execution": 4},
}


def _weight(draw: Draw, number: float) -> Any:
    if number < 0.2:  # A warm-up, as a schedule.
        return keras.optimizers.schedules.PolynomialDecay(0.1, 4, 1.0)
    return float(number)


def draw_model(case: Case, draw: Draw, loop: str | None = None) -> alk.TrainingModel:
    """The compiled training model of a case."""
    per_step = case.drawn["per_step"]
    weighted = draw.happens("sample_weight")
    chosen, watched, weights = {}, {}, {}
    for output, kind in case.heads.items():
        terms = draw.some(_possible_losses(kind, per_step, weighted), 1, 3)
        chosen[output] = terms
        weights[output] = [_weight(draw, draw.rng.uniform(0.05, 1.0)) for _ in terms]
        watched[output] = draw.some(_possible_metrics(kind, output), 0, 2)
    draw.drawn["losses"] = {o: [_name(t) for t in ts] for o, ts in chosen.items()}
    draw.drawn["metrics"] = {o: [_name(m) for m in ms] for o, ms in watched.items()}
    if len(case.heads) == 1:
        (chosen,), (watched,), (weights,) = (
            list(d.values()) for d in (chosen, watched, weights)
        )
    model = alk.build_training_model(
        case.predictor,
        chosen,
        loss_weights=weights,
        metrics=watched,
        sample_weight=weighted,
    )
    if draw.happens("add_loss", 0.25):
        first = keras.tree.flatten(model.output)[0]
        model = alk.add_loss(model, ops.mean(ops.square(first)), name="symbolic")
    optimizer = _OPTIMIZERS[draw.one("optimizer", _OPTIMIZERS)]()
    drawn = draw.one("loop", ["keras"] if IS_TORCH else list(_LOOPS))
    case.drawn["loop"] = loop or drawn
    model.compile(optimizer, **_LOOPS[case.drawn["loop"]])
    return model


def _name(thing: Any) -> str:
    return getattr(thing, "name", None) or getattr(thing, "__name__", None) or str(thing)


# Rows and feeds -----------------------------------------------------------------------


def _values(draw: Draw, name: str, field: Any, case: Case, rows: int) -> np.ndarray:
    output = next((o for o in case.heads if name.startswith(f"{o}_")), None)
    kind = case.heads[output or next(iter(case.heads))]
    shape = (rows, *field.shape)
    if field.role == "group_ids":
        # Every group is there, and one row has none.
        ids = draw.rng.choice(NUM_GROUPS, size=rows, p=[0.6, 0.25, 0.15])
        ids[: NUM_GROUPS + 1] = [*range(NUM_GROUPS), -1]
        return draw.rng.permutation(ids).reshape(shape)
    if field.role != "y_true":
        return draw.rng.uniform(0.5, 2.0, shape)
    if kind == "classes":
        return draw.rng.integers(0, 3, shape)
    if kind in ("binary", "positive"):
        return draw.rng.integers(0, 2, shape)
    first = next(iter(case.features.values()))
    signal = np.sign(first.reshape(rows, -1).sum(1) - first.mean())
    return draw.rng.normal(size=shape) + signal.reshape(-1, *[1] * (len(shape) - 1))


def draw_rows(case: Case, draw: Draw, model: alk.TrainingModel) -> dict[str, np.ndarray]:
    """Packed rows for the model."""
    rows = case.drawn["rows"]
    given = {
        name: _values(draw, name, field, case, rows)
        for name, field in model.training_fields.items()
    }
    return alk.pack_inputs(model, {**case.features, **given})


def _batches(packed: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    rows = len(next(iter(packed.values())))
    starts = range(0, rows, BATCH)
    return [{name: a[s : s + BATCH] for name, a in packed.items()} for s in starts]


class _Batches(keras.utils.PyDataset):
    def __init__(self, packed: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.batches = _batches(packed)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray]]:
        return (self.batches[index],)


def _generator(packed: dict[str, np.ndarray]) -> Any:
    while True:
        yield from _batches(packed)


def _stream(packed: dict[str, np.ndarray], repeats: bool = False) -> Any:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(packed).batch(BATCH)
    return dataset.repeat() if repeats else dataset


def _fed(feed: str, packed: dict[str, np.ndarray], training: bool) -> dict[str, Any]:
    """Arguments of `fit` or `evaluate`; the order of the rows repeats."""
    length = {"steps_per_epoch" if training else "steps": len(_batches(packed))}
    order = {"shuffle": False} if training else {}
    if feed == "dict":
        return {"x": packed, "batch_size": BATCH, **order}
    if feed == "dataset":
        shuffles = {"shuffle": training, "seed": 7}
        return {"x": alk.make_dataset(packed, BATCH, **shuffles)}
    if feed == "balanced":
        balance = {"balance_groups": True, "seed": 7} if training else {"shuffle": False}
        return {"x": alk.make_dataset(packed, BATCH, **balance)}
    if feed == "stream":
        return {"x": _stream(packed)}
    if feed == "PyDataset":
        return {"x": _Batches(packed), **order}
    return {"x": _generator(packed), **length}


_FEEDS = ["dict", "dataset", "stream", "PyDataset", "generator"]


# The checks ---------------------------------------------------------------------------


class _SaveAfterFirst(keras.callbacks.Callback):
    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 0:
            self.model.save(self.path)


def _is_close(got: Any, wanted: Any, what: str, tolerance: float = 2e-4) -> None:
    got, wanted = np.asarray(got, "float64"), np.asarray(wanted, "float64")
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=2e-5, err_msg=what)


def _same_logs(got: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    assert got.keys() == wanted.keys(), f"{what}: {sorted(got)} for {sorted(wanted)}"
    for name in wanted:
        _is_close(got[name], wanted[name], f"{what}: {name}")


def _evaluated(model: Any, feed: str, packed: dict[str, np.ndarray]) -> dict[str, float]:
    return model.evaluate(**_fed(feed, packed, False), verbose=0, return_dict=True)


def check(seed: int, folder: pathlib.Path, loop: str | None = None) -> Case:
    """Draw a case and check it.

    Args:
        seed: Which case.
        folder: Where to save models.
        loop: A loop in the place of the one that is drawn.

    Returns:
        The case. An exception that it raises has the case as a note.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed % 2**32)
    draw = Draw(seed)
    try:
        case = draw_case(seed, draw)
        model = draw_model(case, draw, loop)
        packed = draw_rows(case, draw, model)
        has_groups = "group_ids" in packed
        feeds = [*_FEEDS, "balanced"] if has_groups else _FEEDS
        feed = draw.one("feed", feeds)
        _check(case, model, packed, feed, folder)
    except BaseException as error:
        drawn = ", ".join(f"{name}={value}" for name, value in draw.drawn.items())
        # Python 3.10 has no notes.
        error.args = (f"seed {seed}: {drawn}\n{error}",)
        raise
    return case


def _check(
    case: Case,
    model: alk.TrainingModel,
    packed: dict[str, np.ndarray],
    feed: str,
    folder: pathlib.Path,
) -> None:
    half, whole = folder / "half.keras", folder / "whole.keras"
    history = model.fit(
        **_fed(feed, packed, True), epochs=2, callbacks=[_SaveAfterFirst(half)], verbose=0
    ).history
    for name, values in history.items():
        assert np.isfinite(values).all(), f"{name} is {values}"
    state = every_term.state(model)
    for name, values in state.items():
        assert np.isfinite(values).all(), f"{name} is not finite"

    resumed = alk.load_training_model(half)
    again = resumed.fit(
        **_fed(feed, packed, True), initial_epoch=1, epochs=2, verbose=0
    ).history
    second = {name: values[1:] for name, values in history.items()}
    _same_logs(again, second, "resumed")
    for (name, value), wanted in zip(every_term.state(resumed).items(), state.values()):
        _is_close(value, wanted, f"resumed: {name}")

    logs = _evaluated(model, "dict", packed)
    # Two of the others, as each costs a new trace.
    for other in np.random.default_rng(case.seed).permutation(_FEEDS[1:])[:2]:
        _same_logs(_evaluated(model, other, packed), logs, f"evaluated from {other}")
    model.save(whole)
    loaded = alk.load_training_model(whole)
    _same_logs(_evaluated(loaded, "dict", packed), logs, "loaded")

    features = {name: packed[name] for name in case.features}
    ours = keras.tree.flatten(model.predict(packed, batch_size=BATCH, verbose=0))
    alk.export_inference_model(loaded, folder / "predictor.keras", sample=features)
    exported = keras.saving.load_model(folder / "predictor.keras")
    x: Any = features if case.drawn["structure"] == "dict" else list(features.values())
    for which, predictor in {"exported": exported, "predictor": case.predictor}.items():
        theirs = keras.tree.flatten(predictor.predict(x, verbose=0))
        assert len(theirs) == len(ours)
        for mine, other in zip(ours, theirs):
            _is_close(other, mine, which)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=10**6)
    parser.add_argument("--seed", type=int, help="the first; by default that of the day")
    parser.add_argument("--loop", choices=list(_LOOPS), help="instead of a random one")
    parser.add_argument("--go-on", action="store_true", help="after a failure")
    arguments = parser.parse_args()
    first = arguments.seed
    if first is None:
        first = int(datetime.date.today().strftime("%Y%m%d")) * 1000
    # As in the tests, but where Keras says what masks its own layers lose.
    warnings.filterwarnings("ignore", ".*was passed an input with a mask attached to it")
    end = time.monotonic() + arguments.seconds
    failures = 0
    number = 0
    while number < arguments.cases and time.monotonic() < end:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                case = check(first + number, pathlib.Path(folder), arguments.loop)
            except Exception:
                print(f"FAILED on {keras.backend.backend()}: seed {first + number}")
                traceback.print_exc()
                failures += 1
                if not arguments.go_on:
                    raise SystemExit(1) from None
            else:
                drawn = {name: case.drawn[name] for name in ("loop", "feed", "losses")}
                took = time.monotonic() - start
                print(f"ok {took:4.1f} s  seed {case.seed}: {drawn}", flush=True)
        number += 1
    print(f"{number} cases, {failures} failures on {keras.backend.backend()}")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
