"""A recipe of the gap between two groups' MSE, on its own data: 20,000 rows."""

import engines
import keras
import numpy as np
import pytest
from sklearn.datasets import make_regression
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import train_test_split

import addloss_kit as alk
from addloss_kit.losses import GroupGap


@pytest.fixture(scope="module")
def parts():
    """Training, validation and test rows: 40, 10 and 50 % of 20,000."""
    x, y = make_regression(n_samples=20_000, n_features=10, noise=0.2, random_state=42)
    ids = np.random.default_rng(42).integers(0, 2, len(y))
    rest, test = train_test_split(np.arange(len(y)), test_size=0.5, random_state=42)
    train, val = train_test_split(rest, test_size=0.2, random_state=42)
    return {
        name: (x[rows].astype("float32"), y[rows].astype("float32"), ids[rows])
        for name, rows in (("train", train), ("val", val), ("test", test))
    }


def a_predictor():
    return keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(1),
        ]
    )


def group_errors(predictor, x, y, ids):
    y_pred = predictor.predict(x, batch_size=4096, verbose=0)[:, 0]
    return [mean_squared_error(y[ids == k], y_pred[ids == k]) for k in (0, 1)]


def test_the_rows_are_split_50_40_10(parts):
    rows = {name: len(y) for name, (_, y, _) in parts.items()}
    assert rows == {"test": 10_000, "train": 8_000, "val": 2_000}


def test_training_on_the_gap_generalises_and_keeps_the_best_weights(parts):
    predictor = a_predictor()
    model = alk.build_training_model(
        predictor, GroupGap(2), metrics=alk.metrics.GroupGap(2, distance="absolute")
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        steps_per_execution=engines.STEPS_PER_EXECUTION,
    )
    packed = {
        name: alk.pack_inputs(model, x, y, group_ids=ids)
        for name, (x, y, ids) in parts.items()
    }
    before = np.diff(group_errors(predictor, *parts["train"]))
    stopping = keras.callbacks.EarlyStopping(
        "val_group_gap", mode="min", patience=5, restore_best_weights=True
    )
    history = model.fit(
        packed["train"],
        y=None,
        validation_data=packed["val"],
        batch_size=64,
        epochs=20,
        callbacks=[stopping],
        verbose=0,
    ).history

    gaps = {name: np.diff(group_errors(predictor, *parts[name]))[0] for name in parts}
    print(f"gap before {before[0]:.1f}, after", {k: f"{v:.1f}" for k, v in gaps.items()})
    assert abs(gaps["train"]) < abs(before[0])
    # The best epoch's weights are back: the gap is the smallest that was logged.
    assert abs(gaps["val"]) == pytest.approx(min(history["val_group_gap"]), rel=1e-4)
    # No more than sampling tells the parts apart: y² has a spread of about 20,000.
    for name in ("val", "test"):
        x, y, ids = parts[name]
        y_pred = predictor.predict(x, batch_size=4096, verbose=0)[:, 0]
        error = np.square(y - y_pred)
        spread = np.sqrt(sum(error[ids == k].var() / (ids == k).sum() for k in (0, 1)))
        assert abs(gaps[name] - gaps["train"]) < 3 * spread


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_without_momentum_a_full_batch_gives_the_formula_of_the_recipe(distance, parts):
    predictor = a_predictor()
    model = alk.build_training_model(predictor, GroupGap(2, momentum=0, distance=distance))
    model.compile("adam")
    x, y, ids = parts["train"]
    packed = alk.pack_inputs(model, x, y, group_ids=ids)
    first, second = group_errors(predictor, x, y, ids)
    gap = abs(first - second)
    # In training, before the first step, and in evaluation.
    loss, _ = model.evaluate(packed, batch_size=len(x), verbose=0)
    trained = model.fit(packed, batch_size=len(x), epochs=1, verbose=0).history["loss"][0]
    # The roundings of a float32 sum of n errors, added one after another, as some backends
    # do, walk √n steps; the gap is as well known as the means.
    slack = len(x) ** 0.5 * 2.0**-24 * (first + second)
    for value in (loss, trained):
        absolute = np.sqrt(value) if distance == "squared" else value
        assert absolute == pytest.approx(gap, abs=slack)
