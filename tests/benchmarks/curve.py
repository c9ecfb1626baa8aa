"""What a trade-off curve costs beyond its trainings.

`python tests/benchmarks/curve.py` prints the time of a curve with repeats over that of as
many `fit` calls of one compiled model, measured before and after it.
"""

import time

import keras
import numpy as np

import addloss_kit as alk

ROWS, EPOCHS, BATCH, VALUES, REPEATS = 20_000, 80, 64, (0.1, 1.0, 10.0), 2


def main():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS + 2000, 10)).astype("float32")
    ids = (rng.random(len(x)) < 0.3).astype("int32")
    y = x[:, 0] + ids * x[:, 1] + 0.3 * rng.normal(size=len(x))
    predictor = keras.Sequential(
        [
            keras.Input((10,), name="x"),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(1),
        ]
    )
    model = alk.build_training_model(predictor, ["mse", alk.losses.GroupGap(2)])
    model.compile("adam")
    train = alk.pack_inputs(model, x[:ROWS], y[:ROWS], group_ids=ids[:ROWS])
    held_out = alk.pack_inputs(model, x[ROWS:], y[ROWS:], group_ids=ids[ROWS:])
    options = {"batch_size": BATCH, "patience": None, "seed": 0, "verbose": 0}

    def curve(epochs, values, repeats):
        begin = time.perf_counter()
        alk.tradeoff_curve(
            model,
            "group_gap",
            train,
            held_out,
            values,
            epochs=epochs,
            repeats=repeats,
            **options,
        )
        return time.perf_counter() - begin

    def fit():
        batches = alk.make_dataset(train, BATCH, seed=0)
        begin = time.perf_counter()
        model.fit(batches, epochs=EPOCHS, verbose=0)
        return time.perf_counter() - begin

    compiling = curve(EPOCHS, VALUES[:1], 1)
    fit()
    trainings = (len(VALUES) + 1) * REPEATS
    ratios = []
    for _ in range(3):
        before, whole, after = fit(), curve(EPOCHS, VALUES, REPEATS), fit()
        ratios.append(whole / (trainings * (before + after) / 2))
        print(f"{trainings} trainings: {whole:.2f} s, fit {before:.2f} and {after:.2f} s")
    print(f"first curve of 2 trainings, with compilation: {compiling:.2f} s")
    print(f"curve ÷ (trainings × fit): {sorted(ratios)[1]:.2f} of {np.round(ratios, 2)}")


if __name__ == "__main__":
    main()
