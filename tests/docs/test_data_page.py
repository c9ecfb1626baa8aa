"""Every block of the page on data runs, and prints or raises what the page says."""

import builtins
import importlib.util
import pathlib
import re

import pytest
from pages import FENCE, python_blocks

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "data.md"


def test_every_block_does_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page_data"}
    for block in python_blocks(PAGE):
        where = f"{PAGE.name}, line {block.line}"
        needed = block.options.get("needs")
        if needed is not None and importlib.util.find_spec(needed) is None:
            continue
        raised = block.options.get("raises")
        if raised is None:
            assert block.run(PAGE, namespace) == block.output, where
            continue
        with pytest.raises(getattr(builtins, raised)) as caught:
            block.run(PAGE, namespace)
        assert " ".join(block.output.split()) in str(caught.value), where


def test_every_link_leads_to_a_page():
    prose = FENCE.sub("", PAGE.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)#\s]+)", prose):
        assert (PAGE.parent / link).exists(), link
