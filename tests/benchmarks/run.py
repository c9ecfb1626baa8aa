"""The benchmark: everything is compared in one run, interleaved.

    python tests/benchmarks/run.py [--quick] [--json FILE] [--plot FILE.png]

Each round runs every contender once, in an order of its own; a ratio is the median
over the rounds of the ratio within a round, so that what else the machine does
falls on both sides. Where a few percent are asked for there are more rounds of shorter
trainings, and plain Keras against itself to show what the noise is. `--quick` takes
about five minutes, the whole about fifteen on two CPU cores. `KERAS_BACKEND=jax` runs
what is not TensorFlow's own on JAX. It is no test: a busy
machine fails nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = pathlib.Path(__file__).parent
# What the kit is measured by: (numerator, denominator, at least).
GOALS = [
    ("kit_gap_xla", "eager_loop", 100.0),
    ("kit_gap_xla", "torch_loop", 5.0),
    ("kit_gap_xla", "tensorflow_limit", 0.8),
    # The same without XLA, and against a limit with it.
    ("kit_gap_dataset", "eager_loop", 100.0),
    ("kit_gap_dataset", "torch_loop", 5.0),
    ("kit_gap_dataset", "tensorflow_limit", 0.8),
    ("kit_gap_xla", "tensorflow_limit_xla", 0.8),
    ("kit_gap_xla", "jax_scan", 0.8),
]
# As before, of numbers that are nearly equal, with the steps of an epoch.
PAIRS = [
    ("kit_mse_fit", "plain_fit", 256, 0.98),
    ("kit_mse_dataset", "plain_dataset", 1024, 0.98),
    ("kit_mse_xla", "plain_dataset_xla", 1024, 0.98),
    ("plain_dataset", "plain_dataset", 1024, 1.0),
]
MAIN = [
    "eager_loop",
    "function_loop",
    "torch_loop",
    "plain_fit",
    "kit_mse_fit",
    "kit_gap_fit",
    "plain_dataset",
    "kit_mse_dataset",
    "kit_gap_dataset",
    "kit_running_gap_dataset",
    "plain_dataset_xla",
    "kit_mse_xla",
    "kit_gap_xla",
    "kit_running_gap_xla",
    "tensorflow_limit",
    "tensorflow_limit_xla",
    "jax_scan",
]
GRID = ["plain_dataset", "kit_mse_xla", "kit_gap_xla", "tensorflow_limit_xla"]
# Written in TensorFlow, so left out where Keras runs on JAX.
BY_HAND = {"eager_loop", "function_loop", "tensorflow_limit", "tensorflow_limit_xla"}


def step_rates(entries: dict, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Steps per second of each entry, one number a round.

    Args:
        entries: `(contender, Task)` by label.
        rounds: Rounds.
        seconds: About how long an entry runs in a round.
    """
    import contenders

    trains, epochs = {}, {}
    for label, (name, task) in entries.items():
        train = getattr(contenders, name)(task)
        train(1)
        start = time.perf_counter()
        train(1)
        epochs[label] = max(1, round(seconds / (time.perf_counter() - start)))
        trains[label] = train
    rates: dict[str, list[float]] = {label: [] for label in entries}
    shuffler = random.Random(0)
    for _ in range(rounds):
        for label in shuffler.sample(list(entries), len(entries)):
            start = time.perf_counter()
            trains[label](epochs[label])
            taken = time.perf_counter() - start
            _, task = entries[label]
            rates[label].append(epochs[label] * task.steps / taken)
    return rates


def ratio(rates: dict, one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[one], rates[other]))


def installed(names: list[str]) -> list[str]:
    import keras

    needs = {"torch_loop": "torch", "jax_scan": "jax"}
    left_out = set() if keras.backend.backend() == "tensorflow" else BY_HAND
    found = [n for n in names if importlib.util.find_spec(needs.get(n, "keras"))]
    return [name for name in found if name not in left_out]


def in_process(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, str(HERE / "measure_process.py"), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return json.loads(done.stdout.splitlines()[-1])


def process_costs(names: list[str], repeats: int) -> dict:
    """Peak memory and compile time, medians over fresh processes."""
    found: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            found[name].append(in_process(name, "1024", "1", "2", "128"))
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }


def import_times(repeats: int) -> dict:
    """Seconds that `import keras` and `import addloss_kit` take in a fresh process."""
    code = "import time; s = time.perf_counter(); import {}; print(time.perf_counter() - s)"
    found: dict[str, list[float]] = {"keras": [], "addloss_kit": []}
    for _ in range(repeats):
        for name, times in found.items():
            done = subprocess.run(
                [sys.executable, "-c", code.format(name)],
                capture_output=True,
                text=True,
                check=True,
            )
            times.append(float(done.stdout.splitlines()[-1]))
    by_pair = [b / a for a, b in zip(found["keras"], found["addloss_kit"])]
    medians = {name: statistics.median(times) for name, times in found.items()}
    return {**medians, "ratio": statistics.median(by_pair)}


def packing(rows: int, repeats: int) -> dict:
    """Seconds to check and pack the rows, and to move them once, batch by batch."""
    import contenders
    import numpy as np

    import addloss_kit as alk

    task = contenders.Task(batch=64, steps=rows // 64)
    x, y, group_ids = task.arrays()
    losses = ["mse", alk.losses.GroupGap(task.groups)]
    model = alk.build_training_model(contenders.network(task), losses)
    packs, moves = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        packed = alk.pack_inputs(model, x, y, group_ids=group_ids)
        packs.append(time.perf_counter() - start)
        data = alk.make_dataset(packed, task.batch, seed=0)
        start = time.perf_counter()
        data.reduce(np.int64(0), lambda count, _: count + 1).numpy()
        moves.append(time.perf_counter() - start)
    return {
        "pack_s": statistics.median(packs),
        "epoch_of_batches_s": statistics.median(moves),
        "ratio": statistics.median(a / b for a, b in zip(packs, moves)),
    }


def run_all(is_quick: bool) -> dict:
    from contenders import Task

    rounds, seconds = (3, 0.2) if is_quick else (9, 0.4)
    main = installed(MAIN)
    say("step rates")
    # Step by step it is too slow for the epochs of the others.
    tasks = {name: Task(steps=64 if name == "eager_loop" else 2048) for name in main}
    rates = step_rates({name: (name, tasks[name]) for name in main}, rounds, seconds)
    result: dict = {"machine": machine(), "main": medians(rates), "ratios": {}}
    for one, other, goal in GOALS:
        if one in rates and other in rates:
            result["ratios"][f"{one} / {other}"] = [ratio(rates, one, other), goal]
    for one, other, steps, goal in PAIRS:
        say(f"{one} / {other}")
        entries = {"one": (one, Task(steps=steps)), "other": (other, Task(steps=steps))}
        rates = step_rates(entries, 10 if is_quick else 60, seconds=0.3)
        result["ratios"][f"{one} / {other}"] = [ratio(rates, "one", "other"), goal]
    say("groups")
    result["groups"] = {}
    for name in ("kit_gap_dataset", "kit_gap_xla"):
        by_groups = {
            f"{name}, {groups} groups": (name, Task(8192, 1, groups, 64))
            for groups in (2, 100, 100_000)
        }
        rates = step_rates(by_groups, 2 * rounds, seconds)
        result["groups"].update(medians(rates))
        few, _, many = by_groups
        result["ratios"][f"{name}, 100,000 groups / 2"] = [ratio(rates, many, few), 0.8]
    if not is_quick:
        result["grid"] = grid(rounds=5, seconds=seconds)
    say("memory and compilation")
    costs = process_costs(["plain_fit", "kit_mse_fit"], repeats=1 if is_quick else 3)
    result["process"] = costs
    peak = costs["kit_mse_fit"]["peak_mib"] / costs["plain_fit"]["peak_mib"]
    result["ratios"]["peak memory, kit / plain (at most)"] = [peak, 1.05]
    say("import")
    result["import"] = import_times(repeats=2 if is_quick else 7)
    result["ratios"]["import, kit / keras (at most)"] = [result["import"]["ratio"], 1.05]
    say("packing")
    result["packing"] = packing(1_000_000, repeats=1 if is_quick else 3)
    pack = result["packing"]["ratio"]
    result["ratios"]["pack a million rows / one epoch of batches (at most)"] = [pack, 1.0]
    return result


def grid(rounds: int, seconds: float) -> dict:
    """Every batch size with every number of outputs and groups."""
    from contenders import Task

    found = {}
    for batch, steps in ((64, 2048), (1024, 256), (8192, 64)):
        for outputs in (1, 100):
            say(f"batch {batch}, {outputs} outputs")
            task = Task(batch, outputs, 2, steps)
            entries = {name: (name, task) for name in installed(GRID)}
            for groups in (100, 100_000):
                more = Task(batch, outputs, groups, steps)
                entries[f"kit_gap_xla, {groups} groups"] = ("kit_gap_xla", more)
            rates = step_rates(entries, rounds, seconds)
            found[f"batch {batch}, {outputs} outputs"] = medians(rates)
    return found


def medians(rates: dict) -> dict:
    return {name: statistics.median(found) for name, found in rates.items()}


def machine() -> dict:
    import keras
    import tensorflow as tf

    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "tensorflow": tf.__version__,
        "load": os.getloadavg()[0],
    }


def say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


def show(result: dict) -> None:
    import contenders

    print(json.dumps(result["machine"]))
    print("\n| batch 64, 1 output, 2 groups | steps/s |\n|---|---|")
    for name, rate in result["main"].items():
        words = getattr(contenders, name).__doc__.splitlines()[0].rstrip(".")
        print(f"| {words} | {rate:,.0f} |")
    for part in ("groups", "process", "import", "packing"):
        print(f"\n{part}: {json.dumps(result[part])}")
    for sizes, rates in result.get("grid", {}).items():
        print(f"\n{sizes}: " + ", ".join(f"{n} {r:,.0f}" for n, r in rates.items()))
    print("\n| ratio | measured | goal |\n|---|---|---|")
    for name, (value, goal) in result["ratios"].items():
        print(f"| {name} | {value:.3g} | {goal:g} |")


def plot(result: dict, path: str) -> None:
    import contenders
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted(result["main"], key=result["main"].get)
    words = [getattr(contenders, n).__doc__.splitlines()[0].rstrip(".") for n in names]
    colors = ["tab:blue" if n.startswith("kit") else "tab:gray" for n in names]
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    bars = axes.barh(words, [result["main"][n] for n in names], color=colors)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set(xscale="log", xlabel="steps per second (batch 64), higher is better")
    axes.margins(x=0.1)
    axes.set_xlim(right=6 * max(result["main"].values()))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no grid")
    parser.add_argument("--json", help="write the result to this file")
    parser.add_argument("--plot", help="write a bar chart of the step rates to this PNG")
    options = parser.parse_args()
    found = run_all(options.quick)
    show(found)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(found, indent=1))
    if options.plot:
        plot(found, options.plot)
