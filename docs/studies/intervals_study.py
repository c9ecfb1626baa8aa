"""How often each interval of a report holds the true value.

`python docs/studies/intervals_study.py` writes the tables of intervals.md, in minutes.

Simulated rows only. Residuals are normal, with a standard deviation for each group, so the
true errors are known: MSE σ², RMSE σ, signed error 0. Metrics without a formula are in
`bootstrap_study.py`, certificates in `certificate_study.py`.
"""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

import addloss_kit as alk

SIMULATIONS = 5000
ROWS = 200  # of each group
OF_A_CLUSTER = 5
MEANS = {"2 groups": (1.0, 1.5), "6 groups": (1.0, 1.2, 1.2, 1.2, 1.2, 1.6)}
TIED = {"2 groups, equal": (1.0, 1.0), "6 groups, equal": (1.0,) * 6}
CHANGES = {
    "2 groups apart": ((1.0, 3.0), (1.1, 2.0)),
    "2 groups near": ((1.0, 1.5), (1.1, 1.3)),
    "2 groups, equal": ((1.0, 1.0), (1.0, 1.0)),
    "6 groups apart": ((1.0, *[2.0] * 4, 4.0), (1.1, *[1.9] * 4, 3.0)),
    "6 groups near": ((1.0, *[1.2] * 4, 1.6), (*[1.1] * 5, 1.4)),
}
RATES = {"rates .1, .2": (0.1, 0.2), "rates .02, .3": (0.02, 0.3)}
# The target's variance is 4, of R².
TARGET = 2.0


@dataclasses.dataclass
class Tally:
    """Counts, for each quantity and setting, the intervals that hold the true value."""

    held: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    def add(self, setting, quantity, low, high, truth):
        low, high, truth = np.broadcast_arrays(low, high, truth)
        self.held[setting, quantity].extend(((low <= truth) & (truth <= high)).ravel())

    def jointly(self, setting, quantity, low, high, truth):
        self.held[setting, quantity].append(bool(np.all((low <= truth) & (truth <= high))))

    def table(self, part):
        """A row for each setting, a column for each quantity of this part."""
        found = {key: held for key, held in self.held.items() if key[1].startswith(part)}
        columns = list(dict.fromkeys(quantity for _, quantity in found))
        lines = [["setting", *columns], ["---", *["---:"] * len(columns)]]
        for setting in dict.fromkeys(setting for setting, _ in found):
            cells = [found.get((setting, quantity)) for quantity in columns]
            shares = ["" if c is None else f"{100 * np.mean(c):.1f}" for c in cells]
            lines.append([setting, *shares])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def drawn(rng, means, kind):
    """Targets, predictions and labels of a sample; MSEs are `means` in expectation."""
    ids = np.repeat(np.arange(len(means)), ROWS)
    labels = {}
    noise = rng.normal(size=len(ids))
    if kind == "clusters":
        # Half of the variance is of the cluster.
        cluster = np.arange(len(ids)) // OF_A_CLUSTER
        noise = np.sqrt(0.5) * (noise + rng.normal(size=cluster.max() + 1)[cluster])
        labels = {"clusters": cluster}
    if kind == "weights":
        labels = {"sample_weight": rng.exponential(size=len(ids))}
    if kind == "strata":
        labels = {"control_groups": np.arange(len(ids)) % 2}
    y = TARGET * rng.normal(size=len(ids))
    return ids, y, y - np.sqrt(np.asarray(means))[ids] * noise, labels


def of_errors(tally, rng, setting, means, kind):
    """The intervals of one report."""
    ids, y, y_pred, labels = drawn(rng, means, kind)
    errors = {"MSE": "mse", "RMSE": "rmse", "bias": "signed_error", "R²": "r2"}
    report = alk.group_report(y, y_pred, ids, error=errors, **labels)
    means = np.asarray(means)
    truths = {
        "MSE": means,
        "RMSE": np.sqrt(means),
        "bias": 0.0 * means,
        "R²": 1 - means / TARGET**2,
    }
    for heading, truth in truths.items():
        tally.add(setting, f"{heading}: group", *report.interval(heading), truth)
        gap = report.gap_of(heading)
        tally.add(setting, f"{heading}: gap", gap.low, gap.high, np.ptp(truth))
    tally.add(setting, "MSE: ratio", *report.ratio[1:], means.min() / means.max())
    tally.add(setting, "MSE: worst group", *report.worst_error[1:], means.max())
    for part in report.by_stratum.values():
        tally.add(setting, "MSE: gap in a stratum", *part.gap[1:], np.ptp(means))


def of_changes(tally, rng, setting, before, after, kind, is_paired):
    """The intervals of a comparison. Paired residuals are correlated by 0.8."""
    ids, y, y_pred, labels = drawn(rng, before, kind)
    if is_paired:
        residual = (y - y_pred) / np.sqrt(np.asarray(before))[ids]
        noise = 0.8 * residual + 0.6 * rng.normal(size=len(ids))
        other = y - np.sqrt(np.asarray(after))[ids] * noise
        new = alk.group_report(y, other, ids, **labels)
    else:
        other_ids, other_y, other, others = drawn(rng, after, kind)
        new = alk.group_report(other_y, other, other_ids, **others)
    comparison = new.compare(alk.group_report(y, y_pred, ids, **labels))
    change = np.subtract(after, before)
    tally.jointly(setting, "changes of all groups", *comparison.interval(), change)
    gap = comparison.gap_change
    tally.add(
        setting, "change of the gap", gap.low, gap.high, np.ptp(after) - np.ptp(before)
    )


def of_rates(tally, rng, setting, rates):
    """The intervals of the share of wrong classes, for a few rows and for more."""
    for rows in (20, ROWS):
        ids = np.repeat([0, 1], rows)
        is_wrong = (rng.random(len(ids)) < np.asarray(rates)[ids]).astype(int)
        report = alk.group_report(0 * is_wrong, is_wrong, ids, error="error_rate")
        name = f"{setting}, {rows} rows"
        tally.add(name, "error rate: group", *report.interval(), rates)
        gap = report.gap
        tally.add(name, "error rate: gap", gap.low, gap.high, np.ptp(rates))


def of_few(tally, rng):
    """MSEs of few rows: as many groups of one report as there are simulations."""
    for setting, rows, kind in (
        ("30 rows", 30, "rows"),
        ("60 rows, weights", 60, "weights"),
        ("30 clusters", 30 * OF_A_CLUSTER, "clusters"),
    ):
        ids = np.repeat(np.arange(SIMULATIONS), rows)
        residual, labels = rng.normal(size=len(ids)), {}
        if kind == "weights":
            labels["sample_weight"] = rng.exponential(size=len(ids))
        if kind == "clusters":
            labels["clusters"] = cluster = np.arange(len(ids)) // OF_A_CLUSTER
            shared = rng.normal(size=cluster.max() + 1)[cluster]
            residual = np.sqrt(0.5) * (residual + shared)
        of_groups(tally, setting, "few rows: normal residuals", ids, residual, 1, labels)
    for rows in (30, ROWS):
        ids = np.repeat(np.arange(SIMULATIONS), rows)
        residual = np.exp(0.5 * rng.normal(size=len(ids)))
        heading = "few rows: lognormal errors"
        of_groups(tally, f"{rows} rows", heading, ids, residual, np.exp(0.5), {})


def of_groups(tally, setting, quantity, ids, residual, truth, labels):
    report = alk.group_report(0 * residual, residual, ids, **labels)
    tally.add(setting, quantity, *report.interval(), truth)
    errors = 1.96 * report.standard_errors
    by_normal = report.means - errors, report.means + errors
    tally.add(setting, f"{quantity}, ± 1.96", *by_normal, truth)


def main():
    tally = Tally()
    rng = np.random.default_rng(0)
    for _ in range(SIMULATIONS):
        for setting, means in (MEANS | TIED).items():
            of_errors(tally, rng, setting, means, "rows")
        for kind in ("weights", "clusters", "strata"):
            of_errors(tally, rng, f"2 groups, {kind}", MEANS["2 groups"], kind)
        for setting, (before, after) in CHANGES.items():
            for is_paired, how in ((True, "paired"), (False, "two samples")):
                name = f"{setting}, {how}"
                of_changes(tally, rng, name, before, after, "rows", is_paired)
        name = "2 groups apart, clusters, two samples"
        of_changes(tally, rng, name, *CHANGES["2 groups apart"], "clusters", False)
        for setting, rates in RATES.items():
            of_rates(tally, rng, setting, rates)
    of_few(tally, np.random.default_rng(1))
    for part in ("MSE", "few", "RMSE", "bias", "R²", "change", "error rate"):
        print(tally.table(part), "\n")


if __name__ == "__main__":
    main()
