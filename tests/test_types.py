"""What a type checker makes of the package, and of a script that uses it."""

import configparser
import pathlib
import shutil
import subprocess
import sys
import typing

import pytest

import addloss_kit as alk
from addloss_kit import _types
from addloss_kit.exporting.formats import FORMATS

ROOT = pathlib.Path(alk.__file__).parent

SCRIPT = '''
import keras
import numpy as np
from keras import ops

import addloss_kit as alk
from addloss_kit.losses import Field, GroupGap, LossTerm


@keras.saving.register_keras_serializable("script")
class Shortfall(LossTerm):
    """What a prediction lacks, by a price for each row."""

    def totals(
        self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor, price: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        lacking = price * ops.relu(y_true - y_pred)
        return ops.sum(lacking), ops.sum(ops.ones_like(lacking))

    def value(
        self,
        totals: tuple[keras.KerasTensor, keras.KerasTensor],
        training: bool = False,
    ) -> keras.KerasTensor:
        return 0.5 * super().value(totals, training)

    def field(self, argument: str, prediction: keras.KerasTensor) -> Field:
        shape = (1,) if argument == "price" else tuple(prediction.shape[1:])
        return Field(shape=shape, reason=self.name)


def train(rows: int) -> keras.Model:
    x = np.ones((rows, 3))
    predictor = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model: alk.TrainingModel = alk.build_training_model(
        predictor,
        [Shortfall(), "mse", GroupGap(2, distance="absolute", between="range")],
        loss_weights=[1.0, 1.0, 0.1],
        metrics=[alk.metrics.GroupError(2, group_names=["a", "b"])],
    )
    model.compile("adam")
    ids, names = alk.encode_groups(["a", "b"] * (rows // 2))
    packed: dict[str, np.ndarray] = alk.pack_inputs(
        model, x, x[:, :1], group_ids=ids, price=np.ones((rows, 1))
    )
    history = model.fit(packed, epochs=2, verbose=0)
    losses: list[float] = history.history["loss"]
    assert len(losses) == 2
    exported = alk.export_inference_model(model, format=None)
    report = alk.group_report(x[:, 0], exported.predict(x, verbose=0)[:, 0], ids)
    gap: float = report.gap.value
    assert gap >= 0.0
    return exported


if __name__ == "__main__":
    train(8)
'''
CONFIG = """
[mypy]
strict = True

# Keras has no types.
[mypy-keras.*]
ignore_missing_imports = True
"""


def check(folder, script):
    """What mypy, in its strict mode, says of a script that imports the package."""
    # A copy, as an installation is: mypy does not follow an editable one, and asks those
    # on the path for their `py.typed`.
    installed = folder / "installed" / "addloss_kit"
    if not installed.exists():
        shutil.copytree(ROOT, installed, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "mypy.ini").write_text(CONFIG, encoding="utf-8")
    (folder / "script.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "script.py"],
        cwd=folder,
        env={"PYTHONPATH": str(installed.parent), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_script_that_uses_the_package_type_checks(tmp_path):
    pytest.importorskip("mypy")
    said = check(tmp_path, SCRIPT)
    assert said.startswith("Success"), said


def test_a_word_that_no_option_has_is_a_type_error(tmp_path):
    pytest.importorskip("mypy")
    said = check(tmp_path, SCRIPT.replace('between="range"', 'between="ranges"'))
    assert "script.py" in said
    assert "Literal['ranges']" in said.replace('"', "'")
    assert "Found 1 error" in said, said


@pytest.mark.slow
def test_that_script_runs():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_formats_are_those_that_the_type_names():
    assert tuple(FORMATS) == typing.get_args(_types.ExportFormat)


def test_the_wheel_carries_the_mark_of_a_typed_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT.parent / "setup.cfg", encoding="utf-8")
    assert setup["options.package_data"]["addloss_kit"].split() == ["py.typed"]
    assert (ROOT / "py.typed").exists()
