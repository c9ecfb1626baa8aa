"""What holds the code together: floors, the cost of an import, public names."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import addloss_kit

ROOT = pathlib.Path(addloss_kit.__file__).parent

# From the bottom up. A file imports only from floors below its own; on one floor only
# inside one folder, of which the package itself is one. (The table in
# docs/decisions.md, its floors taken apart where they have an order of their own.)
FLOORS = (
    ("_version", "_checks", "fields"),
    ("functional", "distribution", "atomic", "data"),
    ("errors",),
    ("losses", "metrics", "loss_tracker", "compiled_loop"),
    ("endpoint", "graph", "resumable", "training_model", "loading"),
    ("linking", "pairing", "predictor_graph"),
    ("building", "exporting"),
    ("reports",),
    ("demo",),
    ("cli", "__main__"),
)
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}
RUN_TIME = {"addloss_kit", "keras", "numpy", "tensorflow"}
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path):
    """`losses/weighted.py` → `losses.weighted`, `losses/__init__.py` → `losses`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path, is_deferred_too):
    """Full names of all that a file imports, at the top or in functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if is_deferred_too else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports by a relative name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_has_a_floor():
    names = {name_of(path).split(".")[0] for path in MODULES} - {""}
    assert names == set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "addloss_kit")
def test_a_file_imports_only_from_floors_below(path):
    mine = name_of(path).split(".")[0]
    if mine == "":
        return  # The public names come from every floor.
    my_folder = path.parent
    for imported in imports_of(path, is_deferred_too=True):
        package, *rest = imported.split(".")
        if package != "addloss_kit":
            continue
        assert rest, "`import addloss_kit` inside the package hides what is used"
        theirs = rest[0]
        assert theirs in FLOOR_OF, f"{mine} imports {theirs} from the package's root"
        their_folder = ROOT / theirs if (ROOT / theirs).is_dir() else ROOT
        is_below = FLOOR_OF[theirs] < FLOOR_OF[mine]
        is_beside = FLOOR_OF[theirs] == FLOOR_OF[mine] and their_folder == my_folder
        assert is_below or is_beside, f"{name_of(path)} imports {imported} from above"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "addloss_kit")
def test_the_run_time_dependencies_are_tensorflow_keras_and_numpy(path):
    allowed = RUN_TIME | set(sys.stdlib_module_names)
    packages = {name.split(".")[0] for name in imports_of(path, is_deferred_too=False)}
    assert packages <= allowed


def run(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        **environment,
    )


def test_an_import_loads_no_optional_package():
    # Keras itself loads some where they are installed, so it goes first.
    done = run(
        "import sys, keras; before = set(sys.modules)\n"
        "import addloss_kit\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'matplotlib', 'sklearn', 'pandas', 'onnx', 'scipy'}))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_keras_2_is_told_from_keras_3(tmp_path):
    (tmp_path / "keras.py").write_text("__version__ = '2.15.0'\n")
    done = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport addloss_kit")
    assert done.returncode != 0
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: addloss_kit needs Keras 3, but `import keras`")
    assert "gives Keras 2.15.0. Unset TF_USE_LEGACY_KERAS" in message


def public_modules():
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            is_assignment = isinstance(node, ast.Assign)
            if is_assignment and ast.unparse(node.targets[0]) == "__all__":
                yield pytest.param(path, tree, id=name_of(path) or "addloss_kit")


@pytest.mark.parametrize(("path", "tree"), list(public_modules()))
def test_all_names_what_a_module_offers(path, tree):
    module = importlib.import_module(f"addloss_kit.{name_of(path)}".rstrip("."))
    offered = set()
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            # `import a as a` is the spelling of a re-export.
            offered |= {alias.name for alias in node.names if alias.name == alias.asname}
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            offered.add(node.name)
    offered = {name for name in offered if not name.startswith("_")}
    assert sorted(module.__all__) == list(module.__all__) == sorted(offered)
    for name in module.__all__:
        assert getattr(module, name).__doc__


def test_the_public_modules_are_these():
    names = {param.id for param in public_modules()}
    assert names >= {"addloss_kit", "functional", "losses", "metrics", "data"}
