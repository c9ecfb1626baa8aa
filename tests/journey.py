"""The whole road once, on the backend that `KERAS_BACKEND` names: run as a script.

`python journey.py FOLDER` writes two models there and prints one line of JSON.
"""

import json
import pathlib
import sys

import keras
import numpy as np
from sklearn.metrics import mean_squared_error

import addloss_kit as alk

folder = pathlib.Path(sys.argv[1])
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(203, 4))
ids = rng.integers(0, 2, 203)
weight = rng.uniform(0.5, 2.0, 203)
y = x.sum(1) + rng.normal(size=203) * (1 + ids)

predictor = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, "relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.1),
        keras.layers.Dense(1),
    ]
)
model = alk.build_training_model(
    predictor,
    losses=["mse", alk.losses.GroupGap(2), alk.losses.WeightedRMSE()],
    loss_weights=[1.0, 0.5, 0.1],
    metrics=[alk.metrics.GroupError(2), alk.metrics.GroupGap(2, name="gap"), "mae"],
    sample_weight=True,
)
model.compile(keras.optimizers.Adam(0.01))
packed = alk.pack_inputs(model, x, y, group_ids=ids, sample_weight=weight)
train = {name: array[:150] for name, array in packed.items()}
held_out = {name: array[150:] for name, array in packed.items()}
history = model.fit(
    train, y=None, validation_data=held_out, batch_size=16, epochs=3, verbose=0
).history

# Per-group metrics over many batches are those of scikit-learn on all rows.
logs = model.evaluate(packed, batch_size=16, verbose=0, return_dict=True)
y_pred = predictor.predict(x.astype("float32"), verbose=0)[:, 0]
expected = [
    mean_squared_error(y[ids == k], y_pred[ids == k], sample_weight=weight[ids == k])
    for k in (0, 1)
]
group_errors = [logs["group_error_0"], logs["group_error_1"]]

# Saved, loaded and trained on: the running totals go on where they stood.
model.save(folder / "model.keras")
loaded = keras.saving.load_model(folder / "model.keras")
loaded_logs = loaded.evaluate(packed, batch_size=16, verbose=0, return_dict=True)
state = [keras.ops.convert_to_numpy(v) for v in model.endpoint.terms[1].variables]
loaded_state = [keras.ops.convert_to_numpy(v) for v in loaded.endpoint.terms[1].variables]
resumed = loaded.fit(train, y=None, batch_size=16, verbose=0).history

alk.export_inference_model(model, folder / "predictor.keras")
inference = keras.saving.load_model(folder / "predictor.keras")
predicted = inference.predict(x.astype("float32"), verbose=0)[:, 0]

print(
    json.dumps(
        {
            "backend": keras.backend.backend(),
            "history": history,
            "group_errors": group_errors,
            "expected": expected,
            "largest_difference_after_loading": max(
                abs(loaded_logs[name] - logs[name]) for name in logs
            ),
            "state_is_equal": all(
                np.array_equal(a, b) and a.any() for a, b in zip(state, loaded_state)
            ),
            "resumed_mse": resumed["mse"][0],
            "largest_difference_of_the_export": float(np.abs(predicted - y_pred).max()),
            "inference_inputs": len(inference.inputs),
        }
    )
)
