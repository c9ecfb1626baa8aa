"""The benchmark: makes the tables of `docs/performance.md`.

    python tests/benchmarks/run.py [--quick] [--json FILE] [--plot FILE.png]
    python tests/benchmarks/run.py --pairs
    python tests/benchmarks/run.py --large
    python tests/benchmarks/run.py --search

It runs once for TensorFlow and once for JAX, where that is installed, each in a process
of its own. A short search finds the settings with which Keras and PyTorch are fastest;
then each round runs every contender once, in an order of its own. A ratio is the median
over the rounds of the ratio within a round, so that what else the machine does falls
on both sides; the ratio of the best rounds stands beside it. Where a few percent are
asked for there are more rounds, and contenders against themselves to show the noise.

`--quick` has fewer rounds and one size of batch. `--pairs` measures only what has most
rounds: the kit against the loop by hand at each size. `--large` trains on 20 million rows,
for memory; it needs 6 GB. `--search` tells only how fast Keras is at each setting.
`--from FILE` shows and plots an earlier result. It is no test: a busy machine fails
nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from measuring import (
    SIZES,
    best_ratio,
    can_compile_torch,
    cost_of_a_fit,
    entry,
    environment,
    has,
    import_times,
    medians,
    process,
    processes,
    ratio,
    search,
    step_rates,
)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# (numerator, denominator, at least) for each batch, by backend.
GOALS = {
    "tensorflow": {
        64: [("kit_gap", "keras_best", 2.0), ("kit_gap", "torch_best", 8.0)],
        1024: [("kit_gap", "keras_best", 1.0)],
        8192: [("kit_gap", "keras_best", 1.0)],
    },
    "jax": {
        64: [("kit_gap", "keras_best", 1.2), ("kit_gap", "torch_best", 8.0)],
        1024: [("kit_gap", "keras_best", 1.0)],
        8192: [("kit_gap", "keras_best", 1.0)],
    },
}
# As before, with more rounds: the kit against the loop by hand at every size of batch and
# number of outputs, and at batch 64 what shows the noise.
BY_HAND_IN = {"tensorflow": "epoch_by_hand", "jax": "jax_scan"}
SIZED = [(batch, outputs) for batch in SIZES for outputs in (1, 100)]
# (one, other, at least) at batch 64, by the loop by hand of the backend.
PAIRS = [
    ("kit_mse", "by_hand", None),
    ("by_hand", "by_hand", None),
    ("kit_keras_loop", "keras_loop", 0.98),
    ("keras_loop", "keras_loop", None),
]
# What is fast enough for the table of sizes; at batch 64 the slow ones join.
FAST = ["kit_gap", "kit_mse", "epoch_by_hand", "jax_scan"]
SLOW = ["kit_keras_loop", "keras_loop", "epoch_gathered_first", "eager_loop"]
# Written in TensorFlow, so left out where Keras runs on JAX.
BY_HAND = {"eager_loop", "epoch_by_hand", "epoch_gathered_first"}
# Step by step they are too slow for the epochs of the others.
FEWER_STEPS = {"eager_loop": 128, "keras_loop": 512, "kit_keras_loop": 512}


# One backend --------------------------------------------------------------------


def run_backend(is_quick: bool, are_pairs_all: bool, save: Callable[[dict], None]) -> dict:
    """Everything for the backend of this process; `save` gets what is there so far."""
    import contenders
    import keras

    backend = keras.backend.backend()
    rounds, seconds = (3, 0.2) if is_quick else (5, 0.6)
    sizes = {64: SIZES[64]} if is_quick else SIZES
    result: dict = {"machine": machine(), "settings": {}, "cells": {}, "ratios": []}

    rates: dict[str, list[float]] = {}

    def goal(
        what: str, one: str, other: str, wanted: float | None, is_most: bool = False
    ) -> None:
        of_best = best_ratio(rates, one, other, is_most)
        found = {"median": ratio(rates, one, other), "best": of_best}
        result["ratios"].append({"what": what, **found, "goal": wanted, "is_most": is_most})
        save(result)

    hand = BY_HAND_IN[backend]
    pairs = [
        ("kit_gap", "by_hand", 0.9, *sized) for sized in SIZED[: 1 if is_quick else None]
    ]
    for one, other, wanted, batch, outputs in [*pairs, *((*pair, 64, 1) for pair in PAIRS)]:
        one, other = (hand if name == "by_hand" else name for name in (one, other))
        if not (is_here(one, backend) and is_here(other, backend)):
            continue
        what = f"{one} / {other}, batch {batch:,}, {counted(outputs)}"
        say(f"{backend}: {what}")
        task = {"batch": batch, "outputs": outputs, "steps": SIZES[batch]}
        task |= {"steps": 1024} if "keras_loop" in (one, other) else {}
        pair = {"one": entry(one, **task), "other": entry(other, **task)}
        # One `fit` a round, and each checks and copies up to 210 MB of targets.
        rates = step_rates(pair, 8 if is_quick else 16, seconds * (3 if outputs > 1 else 1))
        goal(what, "one", "other", wanted)
    if are_pairs_all:
        return result
    of_keras, of_torch = contenders.SETTINGS, contenders.TORCH_SETTINGS
    if not has("torch"):
        of_torch = []
    elif not can_compile_torch():
        of_torch = [setting for setting in of_torch if not setting.is_compiled]
    for batch, steps in sizes.items():
        say(f"{backend}: search, batch {batch}")
        makers: dict[str, Any] = {}
        ranked = search("keras_mse", of_keras, batch, steps, min(steps, 256))
        # Larger batches try what did well with smaller ones.
        of_keras = [setting for setting, _ in ranked[:4]]
        found = {"keras_best": ranked}
        makers["keras_best"] = ("keras_mse", ranked[0][0])
        if of_torch:
            found["torch_best"] = search("torch_gap", of_torch, batch, steps, 64)
            of_torch = [setting for setting, _ in found["torch_best"][:2]]
            makers["torch_best"] = ("torch_gap", of_torch[0])
        result["settings"][str(batch)] = {
            name: [[str(setting), rate] for setting, rate in ranks]
            for name, ranks in found.items()
        }
        for outputs in (1, 100):
            if is_quick and outputs == 100:
                continue
            say(f"{backend}: batch {batch}, {outputs} outputs")
            is_first = batch == 64 and outputs == 1
            sized = {"batch": batch, "outputs": outputs, "steps": steps}
            names = [n for n in FAST + SLOW * is_first if is_here(n, backend)]
            entries = {name: entry(name, **sized) for name in names}
            for name, fewer in FEWER_STEPS.items():
                if name in entries:
                    entries[name] = entry(name, **{**sized, "steps": fewer})
            task = contenders.Task(**sized)
            for label, (name, setting) in makers.items():
                make = getattr(contenders, name)
                entries[label] = functools.partial(make, task, setting), steps
            rates = step_rates(entries, rounds, seconds * (3 if outputs > 1 else 1))
            result["cells"][f"{batch}, {outputs}"] = medians(rates)
            size = f"batch {batch:,}, {counted(outputs)}"
            for one, other, wanted in GOALS[backend][batch]:
                if other in rates:
                    least = None if other == "torch_best" and outputs > 1 else wanted
                    goal(f"{one} / {other}, {size}", one, other, least)
            if "eager_loop" in rates:
                goal(f"kit_gap / eager_loop, {size}", "kit_gap", "eager_loop", 250.0)
    say(f"{backend}: what a fit costs once")
    result["once"] = {
        f"{outputs} outputs": cost_of_a_fit(
            entry("kit_gap", batch=8192, outputs=outputs, steps=SIZES[8192])[0]
        )
        for outputs in (1, 100)
    }
    say(f"{backend}: groups")
    by_groups = {
        f"{groups:,} groups": entry("kit_gap", batch=8192, groups=groups, steps=64)
        for groups in (2, 100, 100_000)
    }
    rates = step_rates(by_groups, 2 * rounds, seconds)
    result["groups"] = medians(rates)
    few, _, many = by_groups
    goal(f"{many} / {few}, batch 8,192", many, few, 0.9)
    repeats = 1 if is_quick else 3
    for kind, what, most in (
        ("memory", "peak memory", 1.02),
        ("first", "time to the end of a first epoch of 288 rows", 1.5),
    ):
        say(f"{backend}: {what}")
        rates = processes(kind, ["keras_loop", "kit_mse", "kit_gap"], repeats)
        result[kind] = medians(rates)
        for name in ("kit_mse", "kit_gap"):
            wanted = most if name == "kit_gap" else None
            goal(f"{what}, {name} / keras_loop", name, "keras_loop", wanted, True)
    say(f"{backend}: import")
    rates = import_times(2 if is_quick else 7)
    result["import"] = medians(rates)
    goal("import, kit / Keras", "addloss_kit", "keras", 1.03, True)
    result["load_at_end"] = os.getloadavg()
    save(result)
    return result


def counted(outputs: int) -> str:
    return f"{outputs} output{'s' * (outputs > 1)}"


def is_here(name: str, backend: str) -> bool:
    if name == "jax_scan":
        return has("jax")
    return backend == "tensorflow" or name not in BY_HAND


def machine() -> dict:
    import keras

    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "load": os.getloadavg(),
    }


def say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


# All backends -------------------------------------------------------------------


def run_all(options: list[str], asked: list[str], path: str | None) -> dict[str, dict]:
    results = {}
    for backend in asked:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "result.json"
            command = [sys.executable, __file__, "--only", backend, "--json", str(file)]
            subprocess.run(
                command + options,
                check=True,
                env=environment(KERAS_BACKEND=backend),
            )
            results[backend] = json.loads(file.read_text())
        if path:
            write(pathlib.Path(path), results)
    return results


def large(asked: list[str]) -> None:
    """20 million rows of 20 features, batch 8,192."""
    for backend in asked:
        os.environ["KERAS_BACKEND"] = backend
        for name in ("kit_gap", "keras_loop"):
            say(f"{backend}: {name}")
            print(f"{backend}, {name}: {json.dumps(process('large', name))}", flush=True)


WORDS = {"torch_best": "PyTorch, at its best", "keras_best": "Keras, `mse`, at its best"}


def words(name: str) -> str:
    import contenders

    return WORDS.get(name) or getattr(contenders, name).__doc__.splitlines()[0].rstrip(".")


def write(file: pathlib.Path, result: dict) -> None:
    file.write_text(json.dumps(result, indent=1))


def show(results: Mapping[str, dict]) -> None:
    for backend, result in results.items():
        print(f"\n## {backend}\n{json.dumps(result['machine'])}")
        for batch, found in result["settings"].items():
            for name, ranked in found.items():
                listed = "; ".join(f"{setting}: {rate:,.0f}" for setting, rate in ranked)
                print(f"\nbatch {batch}, {name}: {listed}")
        cells = list(result["cells"].values())
        if cells:
            print("\n| training | " + " | ".join(result["cells"]) + " |")
            print("|---" * (1 + len(cells)) + "|")
        for name in cells[0] if cells else ():
            rates = [cell.get(name) for cell in cells]
            listed = " | ".join("" if r is None else f"{r:,.0f}" for r in rates)
            print(f"| {words(name)} | {listed} |")
        for part in ("once", "groups", "memory", "first", "import"):
            if part in result:
                print(f"\n{part}: {json.dumps(result[part])}")
        print("\n| ratio | median | of the best rounds | goal |\n|---|---:|---:|---:|")
        for row in result["ratios"]:
            wanted = row["goal"]
            sign = "" if wanted is None else f"{'≤' if row['is_most'] else '≥'} {wanted:g}"
            print(f"| {row['what']} | {row['median']:.3g} | {row['best']:.3g} | {sign} |")


def plot(results: Mapping[str, dict], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        len(results),
        1,
        figsize=(9, 3.6 * len(results)),
        layout="constrained",
        sharex=True,
        squeeze=False,
    )
    titles = {"tensorflow": "TensorFlow", "jax": "JAX"}
    for axes, (backend, result) in zip(panels.flat, results.items()):
        rates = next(iter(result["cells"].values()))
        names = sorted(rates, key=rates.get)
        colors = ["tab:blue" if n.startswith("kit") else "tab:gray" for n in names]
        labels = [words(name).replace("`", "") for name in names]
        bars = axes.barh(labels, [rates[name] for name in names], color=colors)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.set(xscale="log", title=f"Keras on {titles.get(backend, backend)}")
        axes.set_xlim(right=4 * max(rates.values()))
    panels[-1, 0].set_xlabel("steps per second (batches of 64 rows), higher is better")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, batch 64 only")
    parser.add_argument("--pairs", action="store_true", help="only against loops by hand")
    parser.add_argument("--large", action="store_true", help="only 20 million rows")
    parser.add_argument("--search", action="store_true", help="only Keras's settings")
    parser.add_argument("--only", metavar="BACKEND", help="`tensorflow` or `jax`")
    parser.add_argument("--json", help="write the result to this file")
    parser.add_argument("--from", dest="given", help="show the result in this file")
    parser.add_argument("--plot", help="write a bar chart of the step rates to this PNG")
    options = parser.parse_args()
    asked = [options.only] if options.only else ["tensorflow", *["jax"] * has("jax")]
    if options.large:
        large(asked)
    elif options.search:
        import contenders

        ranked = search("keras_mse", contenders.SETTINGS, 64, SIZES[64], 256)
        for setting, rate in ranked:
            print(f"{setting}: {rate:,.0f} steps/s")
    elif options.only:
        os.environ["KERAS_BACKEND"] = options.only
        file = pathlib.Path(options.json or os.devnull)
        result = run_backend(options.quick, options.pairs, lambda r: write(file, r))
        if not options.json:
            show({options.only: result})
    else:
        if options.given:
            results = json.loads(pathlib.Path(options.given).read_text())
        else:
            passed = ["--quick"] * options.quick + ["--pairs"] * options.pairs
            results = run_all(passed, asked, options.json)
        show(results)
        if options.plot:
            plot(results, options.plot)


if __name__ == "__main__":
    main()
