"""The pages that reports write of themselves: a figure for each error, and room for it."""

import re
import shutil

import numpy as np
import pytest

import addloss_kit as alk

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def a_report(rng, num_groups, **options):
    rows = 60 * num_groups
    y, y_pred = (rng.random(rows) < 0.4).astype(int), rng.random(rows)
    names = [f"a group with a long name, {k}" for k in range(num_groups)]
    ids = np.arange(rows) % num_groups
    return alk.group_report(y, y_pred, ids, group_names=names, **options)


def page_of(shown, tmp_path):
    pytest.importorskip("matplotlib", reason="in the test extra")
    path = tmp_path / "page.html"
    shown.to_html(path)
    return path.read_text(encoding="utf-8")


def heights(page):
    return [float(h) for h in re.findall(r'<svg[^>]* height="([\d.]+)pt"', page)]


def test_each_error_that_was_asked_for_has_a_figure_and_the_strata_have_one(rng, tmp_path):
    one = page_of(a_report(rng, 2), tmp_path)  # RMSE and MAE come without one.
    errors = {"wrong": "error_rate", "TPR": "true_positive_rate", "R²": "r2"}
    several = a_report(rng, 2, error=errors, control_groups=np.arange(120) % 3)
    page = page_of(several, tmp_path)
    assert len(heights(one)) == 1 and len(heights(page)) == 4
    assert page.index("Gap within each stratum") < page.rindex("<svg")


def test_a_figure_grows_with_the_groups(rng, tmp_path):
    few, many = (a_report(rng, groups) for groups in (3, 30))
    for shown in (lambda r: r, lambda r: r.compare(r)):
        low, high = (heights(page_of(shown(r), tmp_path))[0] for r in (few, many))
        assert high - low == pytest.approx(27 * 0.32 * 72)


# A browser alone knows how wide a page becomes; CI installs it by the system's packages.
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_on_a_phone_only_tables_scroll_and_figures_fit(rng, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="in the docs extra")
    errors = {name: name for name in ("error_rate", "selection_rate", "rmse", "r2")}
    page_of(a_report(rng, 4, error=errors), tmp_path)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 390, "height": 844})
        tab.goto((tmp_path / "page.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        widths = "[...document.querySelectorAll('svg')].map(s => s.clientWidth)"
        assert max(tab.evaluate(widths)) <= 390
        table = tab.locator(".table").first
        table.evaluate("table => table.scrollLeft = 200")
        # The names stay.
        left = table.locator("td").first.evaluate("cell => cell.getBoundingClientRect().x")
        assert left == table.evaluate("table => table.getBoundingClientRect().x")
        browser.close()
