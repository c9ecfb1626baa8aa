"""Run the demo: two tasks, their reports, a picture, an export and its check."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from addloss_kit.demo import noisy_rows, rare_group
from addloss_kit.demo.figure import write_figure
from addloss_kit.demo.rare_group import PLAIN, WORST, Change
from addloss_kit.exporting import export_inference_model
from addloss_kit.reports import GroupReport

EPOCHS = 60
LOSS_WEIGHT = rare_group.GAP_WEIGHT
# The first of the ten splits in docs/studies/demo.md; settings were chosen on others.
SEED = 1

# Run in a fresh Python process that cannot import this package.
_LOAD_AND_PREDICT = """
import sys
sys.modules["addloss_kit"] = None
import keras, numpy
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


def missing_packages() -> list[str]:
    """The extra packages of the demo that are not installed."""
    needed = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}
    return [name for mod, name in needed.items() if importlib.util.find_spec(mod) is None]


def run_demo(
    output: pathlib.Path,
    *,
    epochs: int = EPOCHS,
    seed: int = SEED,
    loss_weight: float = LOSS_WEIGHT,
) -> bool:
    """Compare weights with none, and terms by group with none; export, check.

    Args:
        output: Folder for `demo.png` and `predictor.keras`; created if necessary.
        epochs: Passes over the training rows, at least 1.
        seed: Seed of the data's split, the initial weights and the row order.
        loss_weight: Factor of the gap in the loss, at least 0.

    Returns:
        Whether a fresh process without this package predicts the same from the
        exported file.
    """
    begin = time.perf_counter()
    print(
        "1 of 2: a weight for each row and output. Made rows whose noise is known, from\n"
        "0.05 to 5; weights are 1 / variance. The held-out targets have no noise."
    )
    weights = noisy_rows.compare_weights(epochs, seed)
    print(f"\nBefore: RMSE; after: weighted RMSE.\n\n{weights}\n")

    train, test = rare_group.load_rows(seed)
    rare = f"digit {rare_group.RARE_DIGIT}"
    print(
        f"2 of 2: groups. scikit-learn's digits; {rare} is rare in training "
        f"({rare_group.RARE_ROWS} of {len(train.digits)} rows).\n"
        f"A small net, and terms that look at the error of each digit."
    )
    models = rare_group.fit_terms(train, epochs=epochs, seed=seed, gap_weight=loss_weight)
    reports = {label: rare_group.report(model, test) for label, model in models.items()}
    changes = {
        label: rare_group.changes(reports[PLAIN], after)
        for label, after in reports.items()
        if label != PLAIN
    }
    print(f"\n{changes_table(changes, len(test.digits))}\n")
    for label in changes:
        print(f"{label}: {whose_change(reports[PLAIN], reports[label])}")
    certificate = rare_group.certify(models[WORST], test)
    print(f"\nCertificate of {WORST}, all ten digits:\n{certificate}\n")

    output.mkdir(parents=True, exist_ok=True)
    file = output / "predictor.keras"
    predictor = export_inference_model(models[WORST], file)
    write_figure(output / "demo.png", weights, changes, reports)
    difference = _difference_in_fresh_process(
        file, test.x, predictor.predict(test.x, verbose=0)
    )
    is_same = difference <= 1e-5
    print(
        f"Written to {output}: demo.png, predictor.keras (of {WORST}).\n"
        "A fresh Python that cannot import addloss_kit loaded predictor.keras and "
        f"predicts\n{'the same' if is_same else 'SOMETHING ELSE'} "
        f"(largest difference {difference:.1g}). "
        f"Total time: {time.perf_counter() - begin:.0f} s."
    )
    return is_same


def changes_table(changes: dict[str, dict[str, Change]], rows: int) -> str:
    """Each term's changes, one line a term."""
    parts = list(next(iter(changes.values())))
    lines = [
        f"Cross-entropy on {rows} held-out rows, minus that of the plain fit (95 %):",
        f"{'':<16}" + "".join(f"{part:>18}" for part in parts),
    ]
    lines += [
        f"{label:<16}" + "".join(f"{by_part[part]!s:>18}" for part in parts)
        for label, by_part in changes.items()
    ]
    return "\n".join(lines)


def whose_change(before: GroupReport, after: GroupReport) -> str:
    """In words, which digits' errors changed beyond noise, jointly over all ten."""
    comparison = after.compare(before)
    verdicts = comparison.verdicts.items()
    said = []
    for verdict in ("better", "worse"):
        names = [name.removeprefix("digit ") for name, v in verdicts if v == verdict]
        said.append(f"{verdict}: {', '.join(names) or 'none'}")
    what = f"digits clearly {said[0]}; clearly {said[1]}"
    return what + (". Levelling down." if comparison.is_levelling_down else ".")


def _difference_in_fresh_process(
    filepath: pathlib.Path, x: np.ndarray, predictions: np.ndarray
) -> float:
    """Largest difference to the predictions of a process without this package."""
    with tempfile.TemporaryDirectory() as folder:
        features, predicted = (pathlib.Path(folder) / f"{n}.npy" for n in ("x", "y_pred"))
        np.save(features, x)
        command = [sys.executable, "-c", _LOAD_AND_PREDICT]
        subprocess.run(
            [*command, str(filepath.resolve()), str(features), str(predicted)],
            cwd=folder,
            check=True,
            stderr=subprocess.PIPE,
        )
        return float(np.abs(np.load(predicted) - predictions).max())
