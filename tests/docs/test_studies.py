"""The scripts of the studies and of the benchmark, which take too long to be run."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# What a change of the package leaves behind in a script: a name, an argument, or a module
# that is gone. That they are typed is not asked of them.
ASKED = ("[attr-defined]", "[call-arg]", "[name-defined]")
GONE = 'module named "addloss_kit'


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["docs/studies", "tests/benchmarks"])
def test_they_call_what_there_is(folder):
    pytest.importorskip("mypy")
    scripts = sorted(path.name for path in (ROOT / folder).glob("*.py"))
    assert len(scripts) > 3
    options = ["--config-file=", "--check-untyped-defs", "--show-error-codes"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *scripts],
        cwd=ROOT / folder,
        env={**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode < 2, done.stderr
    lines = done.stdout.splitlines()
    own = [line for line in lines if line.startswith(tuple(scripts))]
    assert [line for line in own if line.endswith(ASKED) or GONE in line] == []
