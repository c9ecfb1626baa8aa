"""The pages of docs/tools run where their package is installed, and print what they say."""

import importlib.util
import pathlib
import re

import keras
import matplotlib
import pytest
from pages import FENCE, python_blocks

TOOLS = pathlib.Path(__file__).parents[2] / "docs" / "tools"
PAGES = sorted(page for page in TOOLS.glob("*.md") if page.stem != "index")
# What a page needs beyond the extra `test`, or under another name than its own.
NEEDS = {
    "fairlearn": "fairlearn",
    "keras-tuner": "keras_tuner",
    "mlflow": "mlflow",
    "optuna": "optuna",
    "scikit-learn": "sklearn",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}


def test_every_page_says_what_it_needs():
    assert {page.stem for page in PAGES} == set(NEEDS)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="The tools do not know the backend."
)
@pytest.mark.filterwarnings(
    # Of the tools themselves, and of what they import.
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_does_what_the_page_says(page, tmp_path, monkeypatch):
    if importlib.util.find_spec(NEEDS[page.stem]) is None:
        pytest.skip(f"needs {NEEDS[page.stem]}")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    namespace = {"__name__": f"page_{page.stem.replace('-', '_')}"}
    for block in python_blocks(page):
        assert block.run(page, namespace) == block.output, f"{page.name}, line {block.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_checks_something(page):
    assert any(b.output or "assert" in b.code for b in python_blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_to_a_page_leads_to_one(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)#\s]+)", prose):
        assert "://" in link or (page.parent / link).resolve().exists(), link
