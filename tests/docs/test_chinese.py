"""The Chinese pages show the English ones' code, which other tests run."""

from pathlib import Path

import pytest
from pages import FENCE

ROOT = Path(__file__).parents[2]
CHINESE = ROOT / "docs" / "zh"
START = Path("index.md")
PAGES = sorted(page.relative_to(CHINESE) for page in CHINESE.rglob("*.md"))


def fences(page):
    """Every block of code or output on the page, with its options."""
    return [fence.groups() for fence in FENCE.finditer(page.read_text(encoding="utf-8"))]


def english(page):
    """The page that `page` of `docs/zh/` translates."""
    return ROOT / "README.md" if page == START else ROOT / "docs" / page


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_chinese_page_has_the_code_of_the_english_one(page):
    assert fences(CHINESE / page) == fences(english(page))


# The start page is shorter than the English one.
@pytest.mark.parametrize("page", [page for page in PAGES if page != START], ids=str)
def test_a_chinese_page_has_the_sections_of_its_recipe(page):
    levels = [
        [len(line.split()[0]) for line in outside_code(path) if line.startswith("#")]
        for path in (CHINESE / page, english(page))
    ]
    assert levels[0] == levels[1]


def outside_code(page):
    """The page's lines without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
