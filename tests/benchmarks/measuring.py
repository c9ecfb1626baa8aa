"""How the benchmark times trainings, interleaved, and looks at fresh processes."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

HERE = pathlib.Path(__file__).parent
Train = Callable[[int], Any]
Make = Callable[[], Train]

# Steps of an epoch for each size of batch: what an epoch costs by itself, some
# milliseconds, shows, and does not dominate.
SIZES = {64: 2048, 1024: 256, 8192: 64}
# Steps before any are timed: on TensorFlow the kit compiles its loop once a model has been
# asked for as many.
WARM_UP = 1000


def step_rates(
    entries: Mapping[str, tuple[Make, int]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Steps per second of each entry, one number a round.

    Args:
        entries: By label, what makes the training, and the steps of its epoch.
        rounds: Rounds.
        seconds: About how long an entry runs in a round.
    """
    trains, epochs = {}, {}
    for label, (make, steps) in entries.items():
        trains[label] = make()
        trains[label](-(-WARM_UP // steps))
        start = time.perf_counter()
        trains[label](1)
        epochs[label] = max(1, round(seconds / (time.perf_counter() - start)))
    rates: dict[str, list[float]] = {label: [] for label in entries}
    shuffler = random.Random(0)
    for _ in range(rounds):
        for label in shuffler.sample(list(entries), len(entries)):
            start = time.perf_counter()
            trains[label](epochs[label])
            taken = time.perf_counter() - start
            rates[label].append(epochs[label] * entries[label][1] / taken)
    return rates


def ratio(rates: Mapping[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[one], rates[other]))


def cost_of_a_fit(make: Make, epochs: int = 8, rounds: int = 5) -> float:
    """Seconds that a `fit` takes beyond its epochs: checks, and a copy of the rows."""
    train = make()
    train(-(-WARM_UP // SIZES[8192]))
    found = []
    for _ in range(rounds):
        times = []
        for number in (1, 1 + epochs):
            start = time.perf_counter()
            train(number)
            times.append(time.perf_counter() - start)
        found.append(times[0] - (times[1] - times[0]) / epochs)
    return statistics.median(found)


def best_ratio(
    rates: Mapping[str, list[float]], one: str, other: str, is_most: bool
) -> float:
    """The ratio of the best rounds: nearer to that of an idle machine than the median."""
    best = min if is_most else max
    return best(rates[one]) / best(rates[other])


def medians(rates: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in rates.items()}


def entry(name: str, **sizes: int) -> tuple[Make, int]:
    import contenders

    task = contenders.Task(**sizes)
    return functools.partial(getattr(contenders, name), task), task.steps


def search(
    name: str, settings: list, batch: int, steps: int, short: int
) -> list[tuple[Any, float]]:
    """Settings of a contender with their steps per second, fastest first.

    All run an epoch of `short` steps twice; the three best then run whole epochs in turn.
    """
    import contenders

    make = getattr(contenders, name)

    def given(setting: Any, steps: int) -> tuple[Make, int]:
        return functools.partial(make, contenders.Task(batch, steps=steps), setting), steps

    quick = {}
    for setting in settings:
        train = given(setting, short)[0]()
        train(1)
        start = time.perf_counter()
        train(1)
        quick[setting] = short / (time.perf_counter() - start)
    order = sorted(quick, key=lambda setting: -quick[setting])
    best = {str(setting): given(setting, steps) for setting in order[:3]}
    whole = medians(step_rates(best, 3, 0.3))
    first = sorted(order[:3], key=lambda setting: -whole[str(setting)])
    return [
        *((setting, whole[str(setting)]) for setting in first),
        *((setting, quick[setting]) for setting in order[3:]),
    ]


def process(kind: str, name: str) -> dict:
    command = [sys.executable, str(HERE / "measure_process.py"), kind, name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise RuntimeError(f"{kind} {name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, sys.path))
    found = {**os.environ, "PYTHONPATH": paths, **more}
    # An installed package has its bytecode: without it an import compiles it each time.
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def processes(kind: str, names: list[str], repeats: int) -> dict[str, list[float]]:
    """What fresh processes show, in turn."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            found[name].append(next(iter(process(kind, name).values())))
    return found


def import_times(repeats: int) -> dict[str, list[float]]:
    """Seconds that `import keras` and `import addloss_kit` take in a fresh process."""
    code = "import time; s = time.perf_counter(); import {}; print(time.perf_counter() - s)"
    found: dict[str, list[float]] = {"keras": [], "addloss_kit": []}
    for _ in range(repeats):
        for name, times in found.items():
            command = [sys.executable, "-c", code.format(name)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment()
            )
            times.append(float(done.stdout.splitlines()[-1]))
    return found


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def can_compile_torch(seconds: float = 120.0) -> bool:
    """Whether `torch.compile` works here, its import and C++ compiler included."""
    command = [sys.executable, str(HERE / "measure_process.py"), "first", "torch_compiled"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=seconds, env=environment()
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
