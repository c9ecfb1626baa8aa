"""Every code block of the recipes and of two guides runs, and prints what the page shows.

In a page, the blocks fenced as `python` run in order in one namespace. A comment on the
line before a fence, as `<!-- raises=TypeError -->`, may say:

- `raises=NotImplementedError`: the block must raise exactly that. It shows what today's
  Keras refuses; the day that Keras takes it, the page is out of date.
- `backend=tensorflow`: the block is raw TensorFlow code, and left out elsewhere.

A block fenced as `text` right after a block is what that block must print; after one that
raises, a part of `TypeName: message`. So a page cannot show an output that is not real.
"""

import builtins
import pathlib
import re

import keras
import pytest
from pages import FENCE, python_blocks

DOCS = pathlib.Path(__file__).parents[2] / "docs"
RECIPES = sorted((DOCS / "recipes").glob("*.md"))
INDEX = DOCS / "recipes" / "index.md"
RUNNABLE = [
    *(page for page in RECIPES if page != INDEX),
    DOCS / "migration.md",
    DOCS / "adding-a-loss.md",
]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _slug(heading):
    """The anchor of a heading, as GitHub and MkDocs make it."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def _anchors(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {_slug(heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="torch has no steps_per_execution and no compiled step, which the pages show.",
)
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_every_block_of_a_page_does_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": f"page_{page.stem.replace('-', '_')}"}

    for block in python_blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.options.get("backend", keras.backend.backend()) != keras.backend.backend():
            continue
        expected_error = block.options.get("raises")
        if expected_error is None:
            assert block.run(page, namespace) == block.output, where
            continue
        with pytest.raises(getattr(builtins, expected_error)) as caught:
            block.run(page, namespace)
        assert caught.type.__name__ == expected_error, where
        message = " ".join(f"{expected_error}: {caught.value}".split())
        assert " ".join(block.output.split()) in message, where


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_every_page_checks_something(page):
    blocks = list(python_blocks(page))

    assert any(b.output or "assert" in b.code or "raises" in b.options for b in blocks)


@pytest.mark.parametrize(
    "page", [*RECIPES, DOCS / "migration.md"], ids=lambda page: page.stem
)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page):
    for link in _LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def test_the_index_leads_to_every_page():
    linked = {link.partition("#")[0] for link in _LINK.findall(INDEX.read_text("utf-8"))}

    assert {page.name for page in RECIPES if page != INDEX} <= linked
