"""The site: it builds without a warning, needs no network, and names what is public."""

import functools
import html.parser
import http.server
import importlib.util
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import pytest
from pages import python_blocks

import addloss_kit as alk

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOOLS = ("material", "mkdocs", "mkdocstrings", "latex2mathml")
HAS_TOOLS = all(importlib.util.find_spec(name) for name in TOOLS)
needs_tools = pytest.mark.skipif(not HAS_TOOLS, reason="needs the extra `docs`")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# No package of Python brings a browser; `.ci/run` installs one.
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", ".mkdocs.yml", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        # A word on the next major version of mkdocs, which setup.cfg excludes.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Page(html.parser.HTMLParser):
    """The text of a page, its anchors, and what a browser fetches for it."""

    def __init__(self, path):
        super().__init__()
        self.text, self.ids, self.fetched = "", set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        fetched = attrs.get("src")
        if tag == "link" and attrs.get("rel") not in ("next", "prev"):
            fetched = attrs.get("href")
        self.fetched.add(fetched)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(site):
    return {str(path.relative_to(site)): Page(path) for path in site.rglob("*.html")}


@needs_tools
def test_every_page_of_docs_is_in_the_navigation(site, pages):
    # A page that is not would be a warning; here: it was built at all.
    for path in DOCS.rglob("*.md"):
        relative = path.relative_to(DOCS)
        folder = relative.parent if relative.stem == "index" else relative.with_suffix("")
        assert str(folder / "index.html") in pages


@needs_tools
def test_no_page_shows_a_formula_as_tex(pages):
    raw = re.compile(r"\$\$|\\\(|\\\[|\\(?:frac|sum|bar|hat|mathrm|operatorname)\b")
    shown = {name: raw.findall(page.text) for name, page in pages.items()}
    assert {name: found for name, found in shown.items() if found} == {}


@needs_tools
def test_formulas_are_mathml(site):
    page = (site / "api" / "functional" / "index.html").read_text(encoding="utf-8")
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"' in page
    assert "<msqrt>" in page


@needs_tools
def test_nothing_is_fetched_from_another_host(site, pages):
    fetched = {link for page in pages.values() for link in page.fetched if link}
    assert fetched
    assert [link for link in fetched if re.match(r"(\w+:)?//", link)] == []
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import\s*)[\"']?(https?:)?//", text), style


MODULES = ("callbacks", "functional", "losses", "metrics")
# By an import of its own, which needs scikit-learn.
ESTIMATORS = ("sklearn.GroupClassifier", "sklearn.GroupRegressor")


def public_names():
    """Of the package and its public modules: `__all__`, or else the classes."""
    yield from (name for name in alk.__all__ if name not in MODULES)
    for name in MODULES:
        module = getattr(alk, name)
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        own = [key for key in classes if vars(module)[key].__module__ == module.__name__]
        yield from (f"{name}.{inner}" for inner in getattr(module, "__all__", own))


NAMES = [*public_names(), *ESTIMATORS]


@needs_tools
@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_on_a_page_of_the_api(name, pages):
    ids = {i for path, page in pages.items() if path.startswith("api") for i in page.ids}
    assert f"addloss_kit.{name}" in ids


@needs_tools
def test_every_public_name_has_its_source(site):
    text = "".join(p.read_text(encoding="utf-8") for p in (site / "api").rglob("*.html"))
    for name in (name.split(".")[-1] for name in NAMES):
        definition = rf'<span class="(nc|nf)">{name}</span>'
        assert re.search(definition, text), name


def test_the_landing_page_shows_blocks_of_the_readme():
    shown = [block.code for block in python_blocks(DOCS / "index.md")]
    assert len(shown) == 2
    assert set(shown) <= {block.code for block in python_blocks(ROOT / "README.md")}
    commands = re.compile(r"^```sh\n.*?^```$", re.DOTALL | re.MULTILINE)
    (start,) = commands.findall((DOCS / "index.md").read_text(encoding="utf-8"))
    assert start in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_landing_page_compares_with_others_as_the_readme_does():
    def section(page):
        text = page.read_text(encoding="utf-8")
        start = text.index("## What it does that others do not")
        return text[start : text.index("plain Keras is enough.", start)]

    as_in_docs = section(ROOT / "README.md").replace("](docs/", "](")
    assert section(DOCS / "index.md") == as_in_docs


def test_the_table_of_losses_names_every_term():
    page = (DOCS / "choosing.md").read_text(encoding="utf-8")
    # What builds terms from names and functions is not chosen.
    others = {"Field", "FunctionLoss", "KerasLoss", "SymbolicLoss", "WeightedResidualNorm"}
    terms = {name for name in alk.losses.__all__ if name[0].isupper()} - others
    assert terms <= set(re.findall(r"`losses\.(\w+)`", page))


def test_the_pictures_are_as_drawn(tmp_path):
    script = DOCS / "images" / "draw.py"
    copy = tmp_path / "draw.py"
    shutil.copy(script, copy)
    subprocess.run([sys.executable, str(copy)], check=True)
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    kept = {path.name: path.read_bytes() for path in (DOCS / "images").glob("*.svg")}
    assert drawn == kept


def test_the_changelog_is_headed_by_the_version():
    page = (DOCS / "changelog.md").read_text(encoding="utf-8")
    assert re.search(r"^## (.+)$", page, re.MULTILINE)[1] == alk.__version__


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address(site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


WIDE, PHONE = ({"width": width, "height": 844} for width in (1280, 390))
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def tab(address):
    """Of a browser, at the landing page; what it logs or fetches elsewhere is an error."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        # Without a sandbox: it is our own site, and the user may be root.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport=WIDE, reduced_motion="reduce")
        troubles, hosts = [], set()
        tab.on("console", lambda m: m.type == "error" and troubles.append(m.text))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        tab.goto(f"{address}/")
        yield tab
        browser.close()
    assert troubles == []
    assert hosts == {address.removeprefix("http://")}


@needs_tools
@needs_chromium
def test_no_page_is_wider_than_its_window(tab, address, pages):
    sizes = (WIDE, PHONE)
    for path in sorted(pages):
        tab.goto(f"{address}/{path.removesuffix('index.html')}")
        for size in sizes:
            tab.set_viewport_size(size)
            assert tab.evaluate(OVERFLOW) <= 0, (path, size)
        # Half of the pages are loaded on the phone, and then made wide.
        sizes = sizes[::-1]


@needs_tools
@needs_chromium
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_browser_finds_its_way(size, tab, address):
    tab.set_viewport_size(size)
    tab.reload()
    tab.locator("article").get_by_role("link", name="the guide").first.click()
    tab.wait_for_url("**/guide/")
    tab.goto(f"{address}/api/")
    tab.locator("article").get_by_role("link", name="Losses").click()
    tab.wait_for_url("**/api/losses/")
    tab.locator("label[for=__search]:visible, input.md-search__input:visible").first.click()
    tab.locator("input.md-search__input").press_sequentially("GroupGapConstraint")
    tab.locator(".md-search-result__link").first.wait_for()
