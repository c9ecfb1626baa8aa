"""Mutation testing: small faults in the core, each of which some test must notice.

    python tests/mutation.py --results mutants.jsonl --seconds 600 --sample 150 --seed 0

Runs until the time is up and goes on from the results file the next time, in the order
of the draw: those that have run are a sample, too. It is no test itself. `--show` prints
the counts and the survivors; `--named` runs only the mutants listed below, which survived
before.

First the tests run once without a mutant, which shows that they pass and which of them
run which lines; that is kept in `mutants.lines.json`, to be deleted when tests change.
Each mutant then meets the tests that run its line, the quickest first, up to `--each`
seconds of them. Needs the package `coverage`.

A tool of its own, because cosmic-ray and mutmut start a process per mutant, which imports
TensorFlow and Keras for longer than most tests here take. This one imports them once and
forks; the mutant is never written to a file.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "addloss_kit"
TIMEOUT = 400  # Seconds per mutant; one that never ends is noticed.

# The tests for each file; of all that run, the first that fails ends the run.
_FORMULAS = ["functional/test_formulas.py", "functional/test_functional.py"]
_TERMS = ["losses/test_finite_differences.py"]
_OPTIONS = ["losses/test_term_edges.py"]
_BOUNDS = ["losses/test_term_edges.py", "losses/test_overflow.py"]
_GAP = [
    "losses/test_losses_group_gap.py",
    "losses/test_group_gap_force.py",
    "losses/test_term_edges.py",
]
TESTS = {
    "functional/groups.py": _FORMULAS + ["functional/test_dtypes.py"],
    "functional/mmd.py": [
        *_FORMULAS,
        "losses/test_distribution_gap.py",
        "losses/test_masks.py",
    ],
    "functional/rows.py": [*_FORMULAS, "functional/test_dtypes.py", "losses/test_masks.py"],
    "functional/weighted.py": [*_FORMULAS, "functional/test_dtypes.py"],
    "losses/asymmetric.py": ["functional/test_formulas.py", "losses/test_asymmetric.py"],
    "losses/constraints.py": [*_BOUNDS, *_TERMS],
    "losses/contrastive.py": ["functional/test_formulas.py", "losses/test_contrastive.py"],
    "losses/distribution_gap.py": [*_TERMS, "losses/test_distribution_gap.py"],
    "losses/forces.py": [*_TERMS, *_GAP],
    "losses/group_gap.py": [*_TERMS, *_GAP],
    "losses/group_term.py": [*_TERMS, *_GAP],
    "losses/keras_loss.py": [
        *_TERMS,
        *_OPTIONS,
        "losses/test_functions_as_losses.py",
        "losses/test_keras_losses.py",
        "losses/test_masks.py",
    ],
    "losses/loss_term.py": [*_TERMS, *_OPTIONS, "losses/test_functions_as_losses.py"],
    "losses/multipliers.py": [*_BOUNDS, *_TERMS],
    "losses/resolve.py": ["losses/test_keras_losses.py", "losses/test_term_edges.py"],
    "losses/running_totals.py": [*_TERMS, *_GAP, "losses/test_stability.py"],
    "losses/weighted.py": [*_TERMS, "losses/test_losses_weighted.py"],
    "losses/worst_group.py": [*_TERMS, *_OPTIONS, "losses/test_worst_group.py"],
    "metrics.py": ["losses/test_term_edges.py", "test_metrics.py", "test_million_steps.py"],
    "model/compiled_loop.py": ["model/test_compiled_loop.py", "model/test_xla.py"],
    "data/packing.py": [
        "data/test_packing.py",
        "data/test_quiet_conversions.py",
        "test_bad_inputs.py",
    ],
}

# Faults that survived the tests once: (file, text, what stands there instead).
NAMED = {
    "totals without stop_gradient": (
        "losses/running_totals.py",
        "a_row * ops.stop_gradient(ops.cast(taken, dtype))",
        "a_row * ops.cast(taken, dtype)",
    ),
    "_MAX_FACTOR of 30": (
        "losses/running_totals.py",
        "_MAX_FACTOR = 3.0",
        "_MAX_FACTOR = 30.0",
    ),
    "width for an absent group": (
        "losses/constraints.py",
        "width = half * self.running.presence(totals)",
        "width = half",
    ),
    "never the first step": (
        "losses/constraints.py",
        "is_first = self.running.mass <= 0",
        "is_first = False",
    ),
    "always the first step": (
        "losses/constraints.py",
        "is_first = self.running.mass <= 0",
        "is_first = True",
    ),
    "penalty of an absent group, bounds": (
        "losses/constraints.py",
        "present * self.penalty / bound, bound)",
        "self.penalty / bound, bound)",
    ),
    "penalty of an absent group, gap": (
        "losses/constraints.py",
        "penalty = ops.divide_no_nan(self.penalty, unit) * present",
        "penalty = ops.divide_no_nan(self.penalty, unit) * ops.ones_like(present)",
    ),
    "no tolerance, bounds": (
        "losses/constraints.py",
        " * (\n            1.0 + self.tolerance\n        )",
        "",
    ),
    "no tolerance, gap": (
        "losses/constraints.py",
        "gap <= self.bound * (1.0 + self.tolerance)",
        "gap <= self.bound",
    ),
    "no tolerance, metric": (
        "metrics.py",
        "bound * (1.0 + self.tolerance)",
        "bound",
    ),
    "no lower clip of the forces": (
        "losses/multipliers.py",
        "near = ops.minimum(ops.maximum(x, -limit), limit)\n        return",
        "near = ops.minimum(x, limit)\n        return",
    ),
    "no lower clip in the energy": (
        "losses/multipliers.py",
        "near = ops.minimum(ops.maximum(here, -limit), limit)",
        "near = ops.minimum(here, limit)",
    ),
    "no compensation": ("metrics.py", "rest + cut_off", "rest"),
}

_COMPARE = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
_CALLS = {
    "maximum": "minimum",
    "minimum": "maximum",
    "max": "min",
    "min": "max",
    "any": "all",
    "all": "any",
    "logical_and": "logical_or",
    "logical_or": "logical_and",
    "sum": "mean",
    "ones_like": "zeros_like",
    "zeros_like": "ones_like",
}
_UNWRAPPED = ("stop_gradient", "abs", "square", "sqrt", "isfinite", "relu", "sign")


def mutations(node: ast.AST) -> list[ast.AST]:
    """What may stand in the place of a node."""
    made: list[ast.AST] = []
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = _COMPARE.get(type(node.ops[0]))
        if other:
            made.append(ast.Compare(node.left, [other()], node.comparators))
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        made.append(ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right))
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        made.append(ast.BoolOp(other, node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        made.append(node.operand)
    elif isinstance(node, ast.IfExp):
        made.append(ast.IfExp(node.test, node.orelse, node.body))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        made.append(ast.Constant(not node.value))
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        made.append(ast.Constant(node.value + 1))
        if node.value not in (0, 1):
            made.append(ast.Constant(node.value / 2))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = node.func.attr
        if name in _CALLS:
            func = ast.Attribute(node.func.value, _CALLS[name], ast.Load())
            made.append(ast.Call(func, node.args, node.keywords))
        if name in _UNWRAPPED and node.args:
            made.append(node.args[0])
        if name == "where" and len(node.args) == 3:
            first, second, third = node.args
            made.append(ast.Call(node.func, [first, third, second], node.keywords))
    return made


def _is_left_out(node: ast.AST) -> bool:
    """Messages, annotations, decorators and imports: no formula is in them."""
    return isinstance(node, (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom))


def places(tree: ast.AST) -> list[tuple[list[tuple[str, int | None]], int]]:
    """Each mutation as the way to its node and its number there."""
    found = []

    def visit(node: ast.AST, way: list[tuple[str, int | None]]) -> None:
        if _is_left_out(node):
            return
        found.extend((way, number) for number in range(len(mutations(node))))
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            if isinstance(value, list):
                for index, part in enumerate(value):
                    if isinstance(part, ast.AST):
                        visit(part, [*way, (field, index)])
            elif isinstance(value, ast.AST):
                visit(value, [*way, (field, None)])

    visit(tree, [])
    return found


def mutate(tree: ast.Module, way: list[tuple[str, int | None]], number: int) -> str:
    """Change the tree, and say what was changed."""
    parent, node = tree, tree
    for field, index in way:
        parent, node = node, getattr(node, field)
        if index is not None:
            node = node[index]
    new = ast.copy_location(mutations(copy.deepcopy(node))[number], node)
    told = f"{node.lineno}: {ast.unparse(node)[:90]} → {ast.unparse(new)[:90]}"
    field, index = way[-1]
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new
    ast.fix_missing_locations(tree)
    return told


def last_line(tree: ast.Module, way: list[tuple[str, int | None]]) -> int:
    node: Any = tree
    for field, index in way:
        node = getattr(node, field)
        if index is not None:
            node = node[index]
    return node.end_lineno


def sample(number: int, seed: int, only: str) -> list[dict]:
    """A random choice from the mutants of the files, in the order of the draw."""
    everything = []
    files = only.split(",") if only else list(TESTS)
    for file in files:
        tree = ast.parse((PACKAGE / file).read_text())
        for way, which in places(tree):
            label = mutate(copy.deepcopy(tree), way, which)
            last = last_line(tree, way)
            mutant = {"file": file, "mutant": label, "at": [way, which], "last_line": last}
            everything.append(mutant)
    print(f"{len(everything)} mutants in {len(files)} files")
    return random.Random(seed).sample(everything, min(number, len(everything)))


def code_of(mutant: dict) -> tuple[ast.Module, pathlib.Path]:
    path = PACKAGE / mutant["file"]
    source = path.read_text()
    if "at" in mutant:
        tree = ast.parse(source)
        mutate(tree, *mutant["at"])
        return tree, path
    _, old, new = NAMED[mutant["mutant"]]
    if source.count(old) != 1:
        raise SystemExit(f"{mutant['mutant']}: the text stands {source.count(old)} times.")
    return ast.parse(source.replace(old, new)), path


class _Loader(importlib.machinery.SourceFileLoader):
    tree: ast.Module

    def get_code(self, fullname):
        return compile(self.tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutant where its module is imported."""

    def __init__(self, name, tree, path):
        self.name, self.tree, self.path = name, tree, path

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        loader = _Loader(fullname, str(self.path))
        loader.tree = self.tree
        is_package = self.path.name == "__init__.py"
        spec = importlib.machinery.ModuleSpec(
            fullname, loader, origin=str(self.path), is_package=is_package
        )
        spec.has_location = True
        return spec


class _Witness:
    """A plug-in of pytest: which lines of the package each test runs, and how long."""

    def __init__(self) -> None:
        import coverage

        self.coverage = coverage.Coverage(data_file=None, source=[str(PACKAGE)])
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logstart(self, nodeid):
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report):
        former = self.seconds.get(report.nodeid, 0.0)
        self.seconds[report.nodeid] = former + report.duration

    def lines(self) -> dict[str, dict[int, list[str]]]:
        """The tests that run it, by file and line."""
        data = self.coverage.get_data()
        return {
            os.path.relpath(path, PACKAGE): data.contexts_by_lineno(path)
            for path in data.measured_files()
        }


def forked(run, output: str | os.PathLike[str] = os.devnull) -> str:
    """What becomes of a run in a fork: `"passed"`, `"failed"` or `"timeout"`."""
    child = os.fork()
    if child == 0:
        with open(output, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = 3
        try:
            code = int(run())
        except BaseException:
            code = 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return "timeout"
    return "passed" if status == 0 else "failed"


def pytest_of(tests: list[str], plugins: list[Any]) -> int:
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    return int(pytest.main([*options, *tests], plugins=plugins))


def witnessed(tests: list[str]) -> tuple[dict, dict[str, float]]:
    """Of a run without a mutant: the tests by file and line, and their seconds."""
    with tempfile.TemporaryDirectory() as folder:
        told, said = (pathlib.Path(folder) / name for name in ("told.json", "said.txt"))

        def run() -> int:
            witness = _Witness()
            witness.coverage.start()
            code = pytest_of([f"tests/{test}" for test in tests], [witness])
            witness.coverage.stop()
            told.write_text(json.dumps([witness.lines(), witness.seconds]))
            return code

        # A fault that is noticed means nothing where the tests fail without one.
        if forked(run, said) != "passed":
            said_last = said.read_text(errors="replace")[-3000:]
            raise SystemExit(f"Without a mutant, some of {tests} fail:\n{said_last}")
        lines, seconds = json.loads(told.read_text())
        return lines, seconds


def tests_of(
    mutant: dict, lines: dict, seconds: dict[str, float], budget: float
) -> list[str]:
    """The tests that run the line, the quickest first, up to so many seconds of them."""
    if "at" not in mutant:
        return [f"tests/{test}" for test in TESTS[mutant["file"]]]
    first, last = int(mutant["mutant"].split(":")[0]), mutant["last_line"]
    of_file = lines.get(mutant["file"], {})
    found = {test for n in range(first, last + 1) for test in of_file.get(str(n), [])}
    if not found - {""}:  # runs at import, for all of them
        found = {test for of_line in of_file.values() for test in of_line}
    chosen: list[str] = []
    for test in sorted(found - {""}, key=lambda test: seconds.get(test, 0.0)):
        budget -= seconds.get(test, 0.0)
        if budget < 0 and chosen:
            break
        chosen.append(test)
    return chosen


def run_tests(mutant: dict, tests: list[str]) -> tuple[str, float]:
    """What becomes of a mutant, and the seconds it took."""

    def run() -> int:
        signal.alarm(TIMEOUT)
        tree, path = code_of(mutant)
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        sys.meta_path.insert(0, _Finder(name, tree, path))
        return pytest_of(tests, [])

    start = time.monotonic()
    end = {"passed": "survived", "failed": "killed", "timeout": "timeout"}
    return end[forked(run)], time.monotonic() - start


def show(results: list[dict]) -> None:
    by_file: dict[str, list[dict]] = {}
    for result in results:
        by_file.setdefault(result["file"], []).append(result)
    print("| file | mutants | noticed |\n|---|---|---|")
    for file, found in sorted(by_file.items()):
        print(f"| `{file}` | {len(found)} | {sum(r['end'] != 'survived' for r in found)} |")
    print(f"all: {len(results)}, {sum(r['end'] != 'survived' for r in results)} noticed\n")
    for result in results:
        if result["end"] == "survived":
            print(f"survived: {result['file']}:{result['mutant']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, default="mutants.jsonl")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--each", type=float, default=60, help="seconds of tests")
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files, joined by commas")
    parser.add_argument("--named", action="store_true")
    parser.add_argument("--again", action="store_true", help="run survivors once more")
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    results = {}
    if arguments.results.exists():
        for line in arguments.results.read_text().splitlines():
            result = json.loads(line)
            results[result["file"], result["mutant"]] = result
    if arguments.show:
        show(list(results.values()))
        return
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.environ.setdefault("ADDLOSS_KIT_EXAMPLES", "15")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    if arguments.named:
        mutants = [{"file": NAMED[name][0], "mutant": name} for name in NAMED]
    else:
        mutants = sample(arguments.sample, arguments.seed, arguments.only)
    # Once, for all forks; nothing runs in TensorFlow or JAX before them, whose threads a
    # fork would lack. Not Hypothesis, whose plugin wants to be imported by pytest.
    import fairlearn.metrics  # noqa: F401
    import keras  # noqa: F401
    import pytest  # noqa: F401
    import scipy.optimize  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tensorflow  # noqa: F401

    def is_left(mutant: dict) -> bool:
        former = results.get((mutant["file"], mutant["mutant"]))
        return not former or (arguments.again and former["end"] == "survived")

    left = [mutant for mutant in mutants if is_left(mutant)]
    tests = sorted({test for mutant in left for test in TESTS[mutant["file"]]})
    kept = arguments.results.with_suffix(".lines.json")
    if not kept.exists():
        kept.write_text(json.dumps(witnessed(tests)))
    lines, seconds_of = json.loads(kept.read_text())
    for mutant in left:
        if time.monotonic() > end:
            print("The time is up; run it again to go on.")
            return
        tests = tests_of(mutant, lines, seconds_of, arguments.each)
        what, seconds = run_tests(mutant, tests)
        result = {**mutant, "end": what, "seconds": round(seconds, 1)}
        with arguments.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{what:9}{seconds:6.1f} s  {mutant['file']}:{mutant['mutant']}", flush=True)
    print("All mutants have run.")


if __name__ == "__main__":
    main()
