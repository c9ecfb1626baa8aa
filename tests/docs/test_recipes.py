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
import contextlib
import io
import pathlib
import re
from dataclasses import dataclass

import keras
import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
RECIPES = sorted((DOCS / "recipes").glob("*.md"))
INDEX = DOCS / "recipes" / "index.md"
RUNNABLE = [
    *(page for page in RECIPES if page != INDEX),
    DOCS / "migration.md",
    DOCS / "adding-a-loss.md",
]

_FENCE = re.compile(
    r"^(?:<!-- ([^\n]*) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass
class Block:
    """A fenced block of Python with what its page says of it."""

    code: str
    options: dict
    output: str
    line: int


def _blocks(page):
    text = page.read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    for fence, follower in zip(fences, [*fences[1:], None]):
        if fence[2] != "python":
            continue
        options = dict(option.split("=") for option in (fence[1] or "").split())
        output = ""
        if follower is not None and follower[2] == "text":
            between = text[fence.end() : follower.start()]
            output = follower[3] if not between.strip() else ""
        yield Block(fence[3], options, output, text.count("\n", 0, fence.start()) + 1)


def _run(block, page, namespace):
    # At its own place in the page, so that a traceback (and AutoGraph) finds the lines.
    code = compile("\n" * block.line + block.code, str(page), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


def _slug(heading):
    """The anchor of a heading, as GitHub and MkDocs make it."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def _anchors(page):
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return {_slug(heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="torch has no steps_per_execution and no compiled step, which the pages show.",
)
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_every_block_of_a_page_does_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": f"page_{page.stem.replace('-', '_')}"}

    for block in _blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.options.get("backend", keras.backend.backend()) != keras.backend.backend():
            continue
        expected_error = block.options.get("raises")
        if expected_error is None:
            assert _run(block, page, namespace) == block.output, where
            continue
        with pytest.raises(getattr(builtins, expected_error)) as caught:
            _run(block, page, namespace)
        assert caught.type.__name__ == expected_error, where
        message = " ".join(f"{expected_error}: {caught.value}".split())
        assert " ".join(block.output.split()) in message, where


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_every_page_checks_something(page):
    blocks = list(_blocks(page))

    assert any(b.output or "assert" in b.code or "raises" in b.options for b in blocks)


@pytest.mark.parametrize(
    "page", [*RECIPES, DOCS / "migration.md"], ids=lambda page: page.stem
)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page):
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
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
