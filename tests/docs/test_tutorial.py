"""The notebook runs from top to bottom, and its story holds."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"

pytest.importorskip("sklearn")


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_says():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names = {}
    for number, cell in enumerate(code):
        exec(compile(cell, f"cell {number}", "exec"), names)
    comparison = names["comparison"]
    assert comparison.before.means.argmax() == 8
    assert comparison.after.means[8] < comparison.before.means[8]
    assert not comparison.is_levelling_down
    assert [i.name for i in names["predictor"].inputs] == ["pixels"]


def test_the_outputs_are_small_and_hold_no_log_lines():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs
    assert all(output.get("name") == "stdout" for output in outputs)
    assert NOTEBOOK.stat().st_size < 20_000
