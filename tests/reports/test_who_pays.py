"""Changes between two reports: intervals, p-values, the change of the gap, and who pays."""

import html.parser
import json

import numpy as np
import pytest
from scipy import stats

import addloss_kit as alk
from addloss_kit.reports.gap_change import change_of_gap


def reports(rng, sizes, before, after, shared=0.8):
    """Two reports of absolute errors with these means, paired by a shared noise."""
    ids = np.repeat(np.arange(len(sizes)), sizes)
    common = rng.normal(size=len(ids))
    errors = [
        np.asarray(means)[ids]
        + shared * common
        + np.sqrt(1 - shared**2) * rng.normal(size=len(ids))
        for means in (before, after)
    ]
    # Signed: the "error" of a row is its prediction, as the target is 0.
    return [
        alk.group_report(np.zeros(len(ids)), e, ids, error=lambda y, p: p) for e in errors
    ]


def test_intervals_and_p_values_are_those_of_paired_rows_corrected_by_sidak(rng):
    before, after = reports(rng, [60, 90, 40], [1, 1, 1], [1.1, 0.9, 1.0])
    found = after.compare(before)
    for k in range(3):
        rows = before.group_ids == k
        difference = (after.row_errors - before.row_errors)[rows]
        error = difference.std(ddof=1) / np.sqrt(rows.sum())
        p = 2 * stats.norm.sf(abs(difference.mean() / error))
        assert found.p_values[k] == pytest.approx(1 - (1 - p) ** 3, rel=1e-9)
        reach = stats.norm.isf((1 - 0.95 ** (1 / 3)) / 2) * error
        low, high = (bound[k] for bound in found.interval())
        assert (low, high) == pytest.approx(
            (difference.mean() - reach, difference.mean() + reach)
        )
        verdict = found.verdicts[str(k)]
        assert (verdict != "no clear change") == (found.p_values[k] < 0.05)


def test_the_change_of_a_clear_gap_is_that_of_two_paired_means(rng):
    before, after = reports(rng, [400, 300, 300], [0, 5, 10], [0, 5, 9.8])
    found = after.compare(before).gap_change
    difference = after.row_errors - before.row_errors
    groups = [difference[before.group_ids == k] for k in (2, 0)]
    value = groups[0].mean() - groups[1].mean()
    error = np.sqrt(sum(g.var(ddof=1) / len(g) for g in groups))
    assert found.value == pytest.approx(value)
    # 0.9 of the risk: the rest may be spent on the choice of the groups.
    reach = stats.norm.isf(0.045 / 2) * error
    assert (found.low, found.high) == pytest.approx((value - reach, value + reach))
    p = 2 * stats.norm.sf(abs(value / error)) / 0.9
    assert found.p_value == pytest.approx(min(1, p), rel=1e-6)


def test_of_two_near_groups_only_two_contrasts_are_bounded_jointly():
    old, new, variance = 0.1, 0.15, 0.01
    found = change_of_gap(
        np.array([1.0, 1.0 + old]),
        np.array([1.0 + new, 1.0]),
        *np.full((2, 2), variance),
        np.zeros(2),
        0.95,
    )
    # Their difference and their sum.
    reach = stats.norm.isf((1 - 0.955 ** (1 / 2)) / 2) * np.sqrt(4 * variance)
    for bound, margin in ((found.low, -reach), (found.high, reach)):
        contrasts = [[s * new - t * old + margin for t in (-1, 1)] for s in (-1, 1)]
        assert bound == pytest.approx(max(map(min, contrasts)))


CASES = {
    "clear": ([0, 2, 5], [0, 2, 4]),
    "unchanged": ([0, 2, 5], [0, 2, 5]),
    "closed": ([0, 0.5, 3], [1, 1, 1]),
    "turned round": ([0, 1], [1, 0]),
    "no gap at all": ([1, 1, 1, 1], [1, 1, 1, 1]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_interval_holds_and_the_p_value_rejects_seldom(case):
    before, after = (np.array(means, float) for means in CASES[case])
    rng = np.random.default_rng(0)
    groups, shared, times = len(before), 0.7, 2000
    sizes = np.array([30, 60, 120, 240])[:groups]
    truth = np.ptp(after) - np.ptp(before)
    held = rejected = 0
    for _ in range(times):
        common = rng.normal(size=groups)
        noise = [
            np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=groups)
            for _ in range(2)
        ]
        scale = 1 / np.sqrt(sizes)
        found = change_of_gap(
            before + scale * noise[0],
            after + scale * noise[1],
            scale**2,
            scale**2,
            shared * scale**2,
            0.95,
        )
        held += found.low <= truth <= found.high
        rejected += found.p_value < 0.05
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)
    # Two standard errors of 2,000 repetitions are 0.01.
    assert held / times >= 0.94
    if case in ("clear", "unchanged"):
        assert held / times <= 0.97
    if truth == 0:
        assert rejected / times <= 0.06


@pytest.mark.parametrize("groups", [40, 100_000])
def test_with_very_many_groups_each_gap_is_bounded_by_itself(rng, groups):
    # All pairs of 100,000 groups would not fit into memory.
    means = rng.normal(size=groups)
    variances = np.full((2, groups), 0.5)
    found = change_of_gap(means, means, *variances, np.zeros(groups), 0.95)
    assert found.low < 0 < found.high and found.p_value > 0.5


def test_one_sentence_says_who_pays(rng):
    before, after = reports(rng, [200, 200, 200], [1, 2, 3], [1.5, 2.0, 2.0])
    text = repr(after.compare(before))
    assert "Who gains: 2; who loses: 0; within noise: 1." in text
    assert "change of the gap: " in text and "beyond noise" in text
    same = before.compare(before)
    assert "No group's change is beyond noise." in repr(same)


def test_a_group_of_one_row_has_no_interval_and_no_nan_is_printed(rng):
    before, after = reports(rng, [50, 50, 1], [0, 1, 2], [0, 1, 2])
    comparison = after.compare(before)
    assert np.isnan(comparison.p_values[2])
    assert (comparison.gap_change.low, comparison.gap_change.high) == (-np.inf, np.inf)
    for shown in (before, comparison):
        for text in (repr(shown), shown.to_markdown(), shown._repr_html_()):
            assert "nan" not in text
    assert json.dumps(comparison.to_dict())


def test_an_absent_group_is_left_out_of_the_change_of_the_gap():
    y, ids = np.arange(8.0), np.array([0, 0, 0, 0, 2, 2, 2, 2])
    names = ["a", "b", "c"]
    one, two = (alk.group_report(y, y + e, ids, group_names=names) for e in (1.0, y))
    comparison = two.compare(one)
    assert comparison.gap_change.value == pytest.approx(two.gap.value - one.gap.value)
    assert "nan" not in repr(comparison)


def test_no_bound_of_a_squared_error_is_negative_but_one_of_a_signed_one_may_be(rng):
    y, ids = rng.normal(size=12), np.arange(12) % 2
    residual = rng.normal(size=12) ** 3
    low, _ = alk.group_report(y, y + residual, ids).interval()
    assert (low >= 0).all()
    signed = alk.group_report(y, y + residual, ids, error=lambda t, p: p - t)
    assert (signed.interval()[0] < 0).any()


def test_groups_of_few_rows_are_named(rng):
    report, _ = reports(rng, [200, 29, 30], [0, 0, 0], [0, 0, 0])
    (note,) = [line for line in repr(report).splitlines() if "fewer than 30" in line]
    assert note.endswith(": 1")


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href") and tag != "use"]

    def handle_data(self, data):
        self.text += data


def test_a_page_has_table_notes_and_plot_and_needs_nothing_else(rng, tmp_path):
    pytest.importorskip("matplotlib")
    before, after = reports(rng, [50, 50], [0, 1], [0, 0.5])
    for shown in (before, after.compare(before)):
        path = tmp_path / "report.html"
        shown.to_html(path, title="Grade <b> & gap")
        page = Page(path.read_text(encoding="utf-8"))
        assert {"table", "svg", "style", "meta"} <= set(page.tags)
        assert [link for link in page.links if not link.startswith("#")] == []
        assert "Grade <b> & gap" in page.text and "b" not in page.tags
        for cell in shown._table()[1][0]:
            assert cell in page.text
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_markdown_is_a_table_with_its_notes_below(rng):
    before, _ = reports(rng, [50, 50], [0, 1], [0, 0.5])
    before.group_names = ["a|b", "c"]
    lines = before.to_markdown().splitlines()
    header, rows = before._table()
    assert lines[0] == "| " + " | ".join(header) + " |"
    assert lines[2].startswith("| a\\|b | ")
    assert len([line for line in lines if line.startswith("- ")]) == len(before._notes())
    assert len(rows) == 3
