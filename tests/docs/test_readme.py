"""What the README and the guide show runs, and what they name exists."""

import pathlib
import re
import runpy

import matplotlib
import pytest
from pages import python_blocks

import addloss_kit as alk

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = ["README.md", "docs/guide.md", "docs/reports.md"]


@pytest.mark.parametrize("page", SHOWN)
def test_every_python_block_of_the_page_runs_one_after_the_other(
    page, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    blocks = list(python_blocks(ROOT / page))
    assert blocks
    namespace = {"__name__": "__main__"}
    for block in blocks:
        block.run(ROOT / page, namespace)


@pytest.mark.parametrize("page", SHOWN)
def test_every_link_to_a_file_leads_to_one(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), link


def test_a_release_says_where_the_project_is_and_links_there(monkeypatch):
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **said: None)
    url = "https://example.org/someone/addloss_kit"
    module = runpy.run_path(str(ROOT / "setup.py"))
    said = module["published_at"](url)
    tag = f"v{alk.__version__}"
    readme = said["long_description"]
    before, after = (re.findall(r"(!?)\[[^]]*\]\(([^)]+)", t) for t in (README, readme))
    assert len(before) > 20
    for (is_picture, link), (_, absolute) in zip(before, after, strict=True):
        if "://" not in link:
            link = f"{url}/{'raw' if is_picture else 'blob'}/{tag}/{link}"
        assert absolute == link
    # Nothing else has changed.
    assert re.sub(rf"{url}/(raw|blob)/{tag}/", "", readme) == README
    names = said["project_urls"]
    assert set(names) == {"Source", "Documentation", "Changelog", "Issues"}
    for address in names.values():
        assert address.startswith(url)
        if "/blob/" in address:
            assert (ROOT / address.partition(f"/{tag}/")[2]).exists()


def test_the_readme_names_every_public_function_and_class():
    named = set(re.findall(r"`([A-Za-z_.]+)", README))
    for name in alk.__all__:
        assert any(n == name or n.startswith(f"{name}.") for n in named), name


def test_every_loss_metric_and_function_that_the_readme_names_exists():
    for family, name in re.findall(r"\b(losses|metrics|functional)\.([A-Za-z_]+)", README):
        assert hasattr(getattr(alk, family), name), f"{family}.{name}"


def test_the_readme_has_two_set_up_commands_of_one_line_each():
    (shell,) = re.findall(r"^```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    commands = [line for line in shell.splitlines() if line and not line.startswith("#")]
    assert len(commands) == 2
    assert commands[0].endswith("addloss-kit demo")
    assert "pytest" in commands[1]
    assert all(command.startswith("python3 -m venv .venv && ") for command in commands)
