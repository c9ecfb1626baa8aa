"""What holds the code together: floors, the cost of an import, public names."""

import ast
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

import addloss_kit

ROOT = pathlib.Path(addloss_kit.__file__).parent

# From the bottom up. A file imports only from floors below its own, or from its own
# folder. (The table in docs/decisions.md.)
FLOORS = (
    ("_types",),
    ("_version", "_checks", "fields", "atomic"),
    ("_renamed",),
    ("keras_internals",),
    ("functional", "serialization"),
    ("per_sample_error", "data"),
    ("per_group",),
    ("losses", "metrics", "callbacks"),
    ("model",),
    ("building", "exporting"),
    ("reports",),
    ("demo", "sklearn"),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}
RUN_TIME = {"addloss_kit", "keras", "numpy", "tensorflow"}
# Rooms for those who have an optional package. `import addloss_kit` does not enter them.
OPTIONAL = {"sklearn": {"sklearn"}}
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


def test_the_page_of_decisions_has_the_same_floors():
    page = (ROOT.parent / "docs" / "decisions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (`.*`) \|$", page, re.MULTILINE)
    shown = {int(number): tuple(re.findall(r"`(\w+)`", names)) for number, names in rows}
    assert shown == dict(enumerate(FLOORS, start=1))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "addloss_kit")
def test_a_file_imports_only_from_floors_below(path):
    mine = name_of(path).split(".")[0]
    if mine == "":
        return  # The public names come from every floor.
    for imported in imports_of(path, is_deferred_too=True):
        package, *rest = imported.split(".")
        if package != "addloss_kit":
            continue
        assert rest, "`import addloss_kit` inside the package hides what is used"
        theirs = rest[0]
        assert theirs in FLOOR_OF, f"{mine} imports {theirs} from the package's root"
        is_inside = theirs == mine and (ROOT / mine).is_dir()
        assert is_inside or FLOOR_OF[theirs] < FLOOR_OF[mine], (
            f"{name_of(path)} imports {imported} from above"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "addloss_kit")
def test_the_run_time_dependencies_are_tensorflow_keras_and_numpy(path):
    allowed = RUN_TIME | set(sys.stdlib_module_names)
    allowed |= OPTIONAL.get(name_of(path).split(".")[0], set())
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


def edges():
    """Which file imports which, at the top or in functions."""
    names = {name_of(path) for path in MODULES}
    for path in MODULES:
        for imported in imports_of(path, is_deferred_too=True):
            parts = imported.split(".")[1:]
            if imported.split(".")[0] != "addloss_kit" or name_of(path) == "":
                continue
            while parts and ".".join(parts) not in names:
                parts.pop()
            if parts and ".".join(parts) != name_of(path):
                yield name_of(path), ".".join(parts)


def test_no_file_imports_itself_by_way_of_others():
    below = {}
    for one, other in edges():
        below.setdefault(one, set()).add(other)
    finished = set()

    def walk(name, path):
        assert name not in path, f"a circle: {' → '.join([*path, name])}"
        if name not in finished:
            for other in below.get(name, ()):
                walk(other, [*path, name])
            finished.add(name)

    for name in list(below):
        walk(name, [])


def test_the_package_shows_its_public_names_only():
    shown = [name for name in dir(addloss_kit) if not name.startswith("__")]
    assert shown == addloss_kit.__all__


# What Keras, TensorFlow and onnxruntime keep private; each has a test of its own in
# tests/keras_internals.
PRIVATE = re.compile(
    r"\b(_keras_history|_inbound_nodes|_flatten_layers|_loss_tracker|_compile_loss"
    r"|_compile_metrics|_use_cached_eval_dataset|_maybe_symbolic_build|_fn_kwargs"
    r"|get_keras_mask|set_keras_mask|_variant_tensor|keras\.src|convert_phase"
    r"|onnxruntime_pybind11_state|_initialize_ddp)\b"
    r"|[\"']_fn[\"']|layer, [\"']_losses[\"']"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "addloss_kit")
def test_private_names_of_others_are_used_in_one_room(path):
    if name_of(path).startswith("keras_internals"):
        return
    code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))  # without comments
    assert PRIVATE.findall(code) == []


def names_defined(tree):
    """Functions, classes, variables and attributes that a file gives their names."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":
            yield ast.unparse(node.args[1]).strip("'")


def test_private_attributes_outside_that_room_are_the_package_s_own():
    # Even those that the list above does not know. `_asdict` of named tuples is public.
    trees = {name_of(p): ast.parse(p.read_text(encoding="utf-8")) for p in MODULES}
    own = {name for tree in trees.values() for name in names_defined(tree)} | {"_asdict"}
    foreign = [
        (name, node.attr)
        for name, tree in trees.items()
        if not name.startswith("keras_internals")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr not in own
        if node.attr.startswith("_") and not node.attr.startswith("__")
    ]
    assert foreign == []
