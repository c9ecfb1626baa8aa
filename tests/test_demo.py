"""The demo: what it prints is true, what it writes is whole, what it lacks it says."""

import contextlib
import io
import re
import runpy
import subprocess
import sys

import keras
import matplotlib.image
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import mean_squared_error

from addloss_kit import __version__, cli, demo, group_report
from addloss_kit.demo import run

EPOCHS = 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One short run of the command: `(exit status, output folder, what it printed)`."""
    folder = tmp_path_factory.mktemp("demo") / "made" / "by the demo"
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(run, "CURVE_WEIGHTS", (1.0,))  # each is one training more
        status = cli.main(["demo", "--output", str(folder), "--epochs", str(EPOCHS)])
    return status, folder, printed.getvalue()


def printed_row(text, name):
    """The first two numbers (before and after) of a row of the comparison."""
    line = re.search(rf"^{name} +(\S+) +(\S+)", text, re.MULTILINE)
    return float(line.group(1)), float(line.group(2))


def test_a_fresh_process_without_the_kit_predicts_the_same(finished):
    status, _, printed = finished
    assert status == 0
    assert "predicts\nthe same (largest difference" in printed


def test_the_printed_errors_are_those_of_the_exported_predictor(finished):
    _, folder, printed = finished
    _, test = run.load_rows(run.SEED)
    predictor = keras.saving.load_model(folder / "predictor.keras")
    y_pred = predictor.predict(test.x, verbose=0)[:, 0]
    for k, name in enumerate(run.GROUP_NAMES):
        rows = test.group_ids == k
        expected = mean_squared_error(test.y[rows], y_pred[rows])
        # Printed with four digits.
        assert printed_row(printed, name)[1] == pytest.approx(expected, rel=1e-3)
    expected = mean_squared_error(test.y, y_pred)
    assert printed_row(printed, "overall")[1] == pytest.approx(expected, rel=1e-3)


def test_the_printed_gap_is_the_difference_of_the_printed_errors(finished):
    _, _, printed = finished
    benign, malignant = (printed_row(printed, name) for name in run.GROUP_NAMES)
    gap = printed_row(printed, "gap")
    # Three printed numbers, each rounded to four digits.
    assert gap == pytest.approx(np.abs(np.subtract(malignant, benign)), abs=3e-3)


def test_both_trainings_and_the_curve_show_a_bar_to_the_end(finished):
    _, _, printed = finished
    assert printed.count(f"{EPOCHS}/{EPOCHS}") == 2
    assert "2/2" in printed


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


def test_the_rows_are_those_of_the_data_set_split_with_equal_shares():
    frame = load_breast_cancer(as_frame=True).frame
    train, test = run.load_rows(seed=0)
    features = [name for name in frame.columns if name.startswith("mean ")]
    expected = frame.sort_values(features)
    x = np.concatenate([train.x, test.x])
    order = np.lexsort(x.T[::-1])
    np.testing.assert_array_equal(x[order], expected[features].to_numpy("float32"))
    ids = np.concatenate([train.group_ids, test.group_ids])[order]
    np.testing.assert_array_equal(ids == 1, expected["target"].to_numpy() == 0)
    y = np.concatenate([train.y, test.y])[order]
    assert np.corrcoef(y, expected["worst compactness"])[0, 1] == pytest.approx(1.0)
    assert train.y.mean() == pytest.approx(0.0, abs=1e-12)
    assert train.y.std() == pytest.approx(1.0)
    assert train.group_ids.mean() == pytest.approx(test.group_ids.mean(), abs=0.005)


def compared(before, after):
    """The comparison of two predictions with these squared errors by group."""
    ids = [0, 0, 1, 1]
    reports = [
        group_report([0.0] * 4, np.repeat(np.sqrt(errors), 2), ids, group_names="ab")
        for errors in (before, after)
    ]
    return reports[1].compare(reports[0])


@pytest.mark.parametrize(
    "after, words",
    [
        ((0.1, 0.3), "at no cost"),
        ((0.05, 0.3), "at no cost"),
        ((0.2, 0.4), "only by hurting the better-off group"),
        ((0.3, 0.5), "only by hurting the better-off group"),
        ((0.4, 0.3), "So 75% of it came from hurting the better-off group"),
        ((0.15, 0.25), "So 75% of it came from helping the worse-off group"),
        ((0.1, 0.4), "did not close"),
        ((0.1, 0.6), "did not close"),
    ],
)
def test_the_demo_says_at_whose_cost_the_gap_closed(after, words):
    assert words in run.whose_change(compared((0.1, 0.4), after))


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
