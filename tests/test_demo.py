"""The demo: what it prints is true, what it writes is whole, what it lacks it says."""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import recall_score

from addloss_kit import __version__, cli, demo, group_report
from addloss_kit.demo import noisy_rows, rare_group, run

EPOCHS = 3
COMMAND = Path(run.__file__).parents[1] / "bin" / "addloss-kit"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One short run of the command: `(exit status, output folder, what it printed)`."""
    folder = tmp_path_factory.mktemp("demo") / "made" / "by the demo"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = cli.main(["demo", "--output", str(folder), "--epochs", str(EPOCHS)])
    return status, folder, printed.getvalue()


def test_a_fresh_process_without_the_kit_predicts_the_same(finished):
    status, _, printed = finished
    assert status == 0
    assert "predicts\nthe same (largest difference" in printed


def test_the_certificate_is_about_the_exported_predictor(finished):
    _, folder, printed = finished
    _, test = rare_group.load_rows(run.SEED)
    predictor = keras.saving.load_model(folder / "predictor.keras")
    digits = predictor.predict(test.x, verbose=0).argmax(axis=1)
    recalls = recall_score(test.digits, digits, average=None)
    estimate = re.search(r"\((\S+) on 899 rows", printed).group(1)
    # Printed with four digits.
    assert float(estimate) == pytest.approx(1 - recalls.min(), rel=1e-3)


def test_weights_bring_the_fit_nearer_to_the_truth():
    comparison = noisy_rows.compare_weights(run.EPOCHS, seed=100)
    assert set(comparison.verdicts.values()) == {"better"}
    assert (comparison.after.means < 0.5 * comparison.before.means).all()


def test_a_change_is_the_paired_mean_with_its_interval():
    random = np.random.default_rng(0)
    digits = np.repeat(np.arange(10), 20)
    before, after = random.normal(size=(2, 200))
    reports = [
        group_report(np.zeros(200), residuals, digits) for residuals in (before, after)
    ]
    changes = rare_group.changes(*reports)
    difference = after**2 - before**2
    rows = {
        "digit 8": digits == 8,
        "other digits": digits != 8,
        "all": digits >= 0,
    }
    assert list(changes) == list(rows)
    for part, is_counted in rows.items():
        counted = difference[is_counted]
        assert changes[part].value == pytest.approx(counted.mean())
        margin = 1.96 * np.sqrt(counted.var(ddof=1) / counted.size)
        assert changes[part].margin == pytest.approx(margin)


def test_the_table_holds_every_change(finished):
    _, _, printed = finished
    for label in (rare_group.GAP, rare_group.WORST, rare_group.BOUNDED):
        line = re.search(rf"^{label} .*±.*$", printed, re.MULTILINE).group()
        assert len(re.findall(r"[+-]\d\.\d{3} ± \d\.\d{3}", line)) == 3


def test_the_picture_is_large_and_not_blank(finished):
    _, folder, _ = finished
    pixels = matplotlib.image.imread(folder / "demo.png")
    height, width = pixels.shape[:2]
    assert height >= 600 and width >= 1200
    colours = np.rint(255 * pixels[..., :3]).astype("int64") @ [1, 256, 65536]
    assert len(np.unique(colours)) > 100


def test_nothing_but_the_picture_and_the_predictor_is_written(finished):
    _, folder, _ = finished
    assert sorted(p.name for p in folder.iterdir()) == ["demo.png", "predictor.keras"]


def test_the_digits_are_split_in_halves_and_the_rare_one_is_rare_in_training_only():
    data = load_digits()
    train, test = rare_group.load_rows(seed=0)
    of_all, held_out = np.bincount(data.target), np.bincount(test.digits)
    np.testing.assert_allclose(held_out, of_all / 2, atol=1)
    expected = of_all - held_out
    expected[rare_group.RARE_DIGIT] = rare_group.RARE_ROWS
    np.testing.assert_array_equal(np.bincount(train.digits), expected)
    known = {row.tobytes(): digit for row, digit in zip(data.data, data.target)}
    for rows in (train, test):
        pixels = (16 * rows.x).astype("float64")
        assert [known[row.tobytes()] for row in pixels] == rows.digits.tolist()
    # No row is in both halves, but for equal pictures in the data.
    shared = {row.tobytes() for row in train.x} & {row.tobytes() for row in test.x}
    assert len(shared) <= len(data.data) - len(np.unique(data.data, axis=0))


def compared(after):
    """What the demo says of these squared errors, from 0.1 and 0.4, by group."""
    ids = np.repeat([0, 1], 50)
    noise = np.tile([0.99, 1.01], 50)
    reports = [
        group_report(
            np.zeros(100),
            np.sqrt(np.repeat(errors, 50)) * noise,
            ids,
            group_names=["digit 0", "digit 1"],
        )
        for errors in ((0.1, 0.4), after)
    ]
    return run.whose_change(*reports)


@pytest.mark.parametrize(
    "after, words",
    [
        ((0.1, 0.3), "better: 1; clearly worse: none."),
        ((0.05, 0.3), "better: 0, 1; clearly worse: none."),
        ((0.2, 0.4), "better: none; clearly worse: 0. Levelling down."),
        ((0.2, 0.3), "better: 1; clearly worse: 0."),
        ((0.1, 0.4), "better: none; clearly worse: none."),
    ],
)
def test_the_demo_says_whose_error_changed(after, words):
    assert compared(after).endswith(words)


def test_the_version_needs_no_tensorflow_and_little_time():
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        answer = subprocess.run(
            [sys.executable, COMMAND, "--version"], capture_output=True, text=True
        )
        times.append(time.perf_counter() - begin)
        assert (answer.stdout.strip(), answer.stderr) == (__version__, "")
    assert min(times) < 0.5


def test_the_installed_command_logs_nothing_of_tensorflow(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    code = "import runpy, sys; start = runpy.run_path(sys.argv[1])['start']; start()"
    script = [sys.executable, "-c", code, str(COMMAND)]
    answer = subprocess.run(
        script, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    assert answer.stderr == ""


def test_the_command_is_installed():
    installed = Path(sysconfig.get_path("scripts"), "addloss-kit")
    answer = subprocess.run([installed, "--version"], capture_output=True, text=True)
    assert answer.stdout.strip() == __version__


def test_the_fresh_process_cannot_import_the_kit():
    blocked = run._LOAD_AND_PREDICT.split("import keras")[0] + "import addloss_kit"
    command = [sys.executable, "-c", blocked]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert "ModuleNotFoundError" in answer.stderr


@pytest.mark.parametrize("module", ["sklearn", "matplotlib"])
def test_without_its_extra_packages_the_demo_says_how_to_install_them(
    module, monkeypatch, capsys, tmp_path
):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["demo", "--output", str(tmp_path / "made")]) == 1
    message = capsys.readouterr().err
    assert "pip install 'addloss_kit[demo]'" in message
    assert "no matplotlib" in message or "no scikit-learn" in message
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "wrong", [["--epochs", "0"], ["--loss-weight", "-1"], ["--seed", "-1"], ["--bogus"]]
)
def test_wrong_arguments_are_refused_before_any_work(wrong, capsys, monkeypatch):
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", *wrong])
    assert stop.value.code == 2
    assert wrong[0].strip("-").replace("-", "_") in capsys.readouterr().err.replace(
        "loss-weight", "loss_weight"
    )


def test_the_arguments_reach_the_demo_and_its_verdict_the_shell(monkeypatch, tmp_path):
    seen = {}

    def run_demo(output, **arguments):
        seen.update(arguments, output=output)
        return False

    monkeypatch.setattr(demo, "run_demo", run_demo)
    status = cli.main(
        ["demo", "--output", str(tmp_path), "--epochs", "7", "--seed", "3"]
        + ["--loss-weight", "0.25"]
    )
    assert status == 1
    assert seen == {"output": tmp_path, "epochs": 7, "seed": 3, "loss_weight": 0.25}


def test_the_module_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["addloss_kit", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("addloss_kit", run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_without_a_command_the_help_is_shown(capsys):
    assert cli.main([]) == 0
    assert "demo" in capsys.readouterr().out
