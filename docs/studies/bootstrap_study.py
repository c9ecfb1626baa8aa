"""How often the bootstrap intervals of a report hold the true value.

`python docs/studies/bootstrap_study.py` writes the table of reports.md in ten minutes.

Simulated rows only: 200 of each of two groups, normal, lognormal or 0 and 1. The true value
of a metric is that of 4,000,000 rows.
"""

import numpy as np
from sklearn import metrics as sk

import addloss_kit as alk

SIMULATIONS = 500
RESAMPLES = 100
ROWS = 200


def normal(rng, rows, scale):
    y = rng.normal(size=rows)
    return y, 0.8 * y + scale * rng.normal(size=rows)


def skewed(rng, rows, scale):
    y = np.exp(0.5 * rng.normal(size=rows))
    return y, y * np.exp(scale * rng.normal(size=rows))


def scores(rng, rows, scale):
    y = (rng.random(rows) < 0.4).astype(float)
    return y, y + scale * 3 * rng.normal(size=rows)


def rmse(y_true, y_pred, sample_weight=None):
    return np.sqrt(np.mean((y_true - y_pred) ** 2))


def r2(y_true, y_pred, sample_weight=None):
    return 1 - np.mean((y_true - y_pred) ** 2) / np.var(y_true)


def median_error(y_true, y_pred, sample_weight=None):
    return np.median(np.abs(y_true - y_pred))


CASES = {
    "RMSE": (rmse, normal),
    "RMSE, skewed": (rmse, skewed),
    "R²": (r2, normal),
    "R², skewed": (r2, skewed),
    "median absolute error": (median_error, normal),
    "AUC": (sk.roc_auc_score, scores),
}
SCALES = (0.3, 0.5)


def drawn(rng, draw, rows):
    """Targets, predictions and ids, groups one after another."""
    parts = [draw(rng, rows, scale) for scale in SCALES]
    y, y_pred = (np.concatenate(part) for part in zip(*parts))
    return y, y_pred, np.repeat([0, 1], rows)


def coverage(name):
    """Shares of the intervals of a group, of the gap, and by the formula, that hold."""
    metric, draw = CASES[name]
    rng = np.random.default_rng(1)
    truth = np.array([metric(*draw(rng, 4_000_000, scale)) for scale in SCALES])
    errors = {"MSE": "mse", "metric": metric}
    if name.startswith(("RMSE", "R²")):
        errors["formula"] = "rmse" if name.startswith("RMSE") else "r2"
    held = {(h, what): 0 for h in list(errors)[1:] for what in ("group", "gap")}
    rng = np.random.default_rng(0)
    for number in range(SIMULATIONS):
        report = alk.group_report(
            *drawn(rng, draw, ROWS), error=errors, bootstrap=RESAMPLES, seed=number
        )
        for heading in list(errors)[1:]:
            low, high = report.interval(heading)
            held[heading, "group"] += np.mean((low <= truth) & (truth <= high))
            gap = report.gap_of(heading)
            held[heading, "gap"] += gap.low <= abs(truth[1] - truth[0]) <= gap.high
    return {key: 100 * count / SIMULATIONS for key, count in held.items()}


if __name__ == "__main__":
    print("| metric | a group | the gap | a group, by the formula | the gap |")
    print("|---|---:|---:|---:|---:|")
    for name in CASES:
        shares = coverage(name)
        cells = [
            f"{shares[key]:.1f}" if key in shares else "–"
            for key in [(h, w) for h in ("metric", "formula") for w in ("group", "gap")]
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
