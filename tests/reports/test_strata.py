"""The gap within each stratum: equal to fairlearn's control features."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

import addloss_kit as alk


def rows_of(rng, rows=600):
    """Targets, predictions, groups, regions and weights."""
    y = rng.normal(size=rows)
    y_pred = 0.8 * y + 0.5 * rng.normal(size=rows)
    sex = rng.choice([*"FM"], rows)
    region = rng.choice(["north", "south", "west"], rows)
    return y, y_pred, sex, region, rng.uniform(0.1, 3.0, rows)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_gaps_equal_fairlearns_with_control_features(rng, is_weighted):
    fairlearn = pytest.importorskip("fairlearn.metrics", reason="in the test extra")
    y, y_pred, sex, region, weight = rows_of(rng)
    # A group that a stratum lacks.
    region[(sex == "F") & (region == "west")] = "north"
    sex[(region == "west") & (y > 1)] = "X"
    weight = weight if is_weighted else None
    params = None if weight is None else {"sample_weight": weight}
    metrics = {"MSE": sk.mean_squared_error, "R²": sk.r2_score}
    frame = fairlearn.MetricFrame(
        metrics=metrics,
        y_true=y,
        y_pred=y_pred,
        sensitive_features=sex,
        control_features=region,
        sample_params=params and {name: params for name in metrics},
    )
    report = alk.group_report(
        y,
        y_pred,
        sex,
        error={"MSE": "mse", "R²": "r2"},
        sample_weight=weight,
        control_groups=region,
    )
    assert list(report.by_stratum) == ["north", "south", "west"]
    for name, within in report.by_stratum.items():
        for heading in metrics:
            wanted = frame.difference()[heading][name]
            assert within.gap_of(heading).value == pytest.approx(wanted, rel=1e-9)
            values = frame.by_group[heading][name].to_numpy("float64")
            np.testing.assert_allclose(within.measures[heading][0], values, rtol=1e-9)


def test_a_stratum_has_the_report_of_its_rows(rng):
    y, y_pred, sex, region, weight = rows_of(rng)
    person = np.arange(600) // 3
    options = {"error": {"MAE": "mae", "bias": "signed_error"}, "group_names": ["F", "M"]}
    whole = alk.group_report(
        y, y_pred, sex, sample_weight=weight, clusters=person, control_groups=region,
        **options,
    )  # fmt: skip
    plain = alk.group_report(
        y, y_pred, sex, sample_weight=weight, clusters=person, **options
    )
    assert whole.gap == plain.gap and plain.by_stratum == {}
    north = region == "north"
    own = alk.group_report(
        y[north], y_pred[north], sex[north],
        sample_weight=weight[north], clusters=person[north], **options,
    )  # fmt: skip
    assert repr(whole.by_stratum["north"]) == repr(own)
    assert whole.by_stratum["north"].certify(1.0).upper == own.certify(1.0).upper


def test_a_gap_of_unequal_shares_vanishes_within_the_strata(rng):
    # Errors differ by region alone, in which the groups' shares differ.
    rows = 4000
    region = rng.choice(["north", "south"], rows)
    sex = np.where(rng.random(rows) < np.where(region == "north", 0.8, 0.2), "F", "M")
    residual = rng.normal(size=rows) * np.where(region == "north", 2.0, 1.0)
    report = alk.group_report(np.zeros(rows), residual, sex, control_groups=region)
    assert report.is_gap_beyond_noise
    assert not any(within.is_gap_beyond_noise for within in report.by_stratum.values())
    assert "gap beyond noise in: none" in repr(report.by_stratum)


def test_the_table_has_gap_interval_and_worst_group(rng):
    y, y_pred, sex, region, _ = rows_of(rng)
    y_pred = y_pred + 2.0 * ((sex == "M") & (region == "south"))
    report = alk.group_report(
        y, y_pred, sex, error={"MSE": "mse", "R²": "r2"}, control_groups=region
    )
    header, rows = report.by_stratum._table()
    assert header == ["stratum", "n", "gap in MSE", "worst group"]
    name, n, gap, worst = rows[1]
    assert (name, n, worst) == ("south", str((region == "south").sum()), "M")
    south = report.by_stratum["south"].gap
    assert gap == f"{south.value:.4g} [{south.low:.4g}, {south.high:.4g}]"
    assert "gap beyond noise in: south" in repr(report.by_stratum)
    for text in (repr(report), report.to_markdown(), report._repr_html_()):
        assert "Gap within each stratum" in text and "worst group" in text
    numbers = json.loads(json.dumps(report.to_dict()))["by_stratum"]
    assert numbers["south"]["gap"]["value"] == south.value
    assert "by_stratum" not in alk.group_report(y, y_pred, sex).to_dict()


def test_of_many_strata_those_with_the_largest_gaps_are_printed(rng):
    y, y_pred, sex, _, _ = rows_of(rng)
    report = alk.group_report(y, y_pred, sex, control_groups=np.arange(600) // 20)
    _, rows = report.by_stratum._table()
    gaps = sorted((r.gap.value for r in report.by_stratum.values()), reverse=True)
    assert len(rows) == 25 and rows[-1][0] == "… 6 with a smaller gap"
    assert float(rows[0][2].split()[0]) == pytest.approx(gaps[0], rel=1e-3)


def test_rows_in_no_stratum_and_strata_without_a_group_are_left_out():
    y, ids = np.arange(8.0), [0, 1, 0, 1, -1, -1, 0, 1]
    years = [2021, 2021, 2021, 2021, 2022, 2022, -1, -1]
    report = alk.group_report(y, 0 * y, ids, control_groups=years)
    assert list(report.by_stratum) == ["2021"]
    assert report.by_stratum["2021"].n.tolist() == [2, 2]
    labelled = alk.group_report(y, 0 * y, ids, control_groups=[*"aabb", *[None] * 4])
    assert list(labelled.by_stratum) == ["a", "b"]


def test_strata_plot_their_gaps_and_write_a_page(rng, tmp_path):
    pytest.importorskip("matplotlib", reason="in the test extra").use("Agg")
    from matplotlib import pyplot

    y, y_pred, sex, region, _ = rows_of(rng)
    sex[region == "west"] = "F"
    sex[np.flatnonzero(region == "north")[0]] = "X"  # A single row: no upper bound.
    report = alk.group_report(y, y_pred, sex, control_groups=region)
    ax = report.by_stratum.plot()
    drawn = ax.containers[0].lines[0].get_xdata()
    gaps = [report.by_stratum[name].gap.value for name in ("north", "south")]
    assert sorted(drawn) == sorted(gaps)  # The third stratum has one group, so no gap.
    pyplot.close("all")
    report.by_stratum.to_html(tmp_path / "strata.html")
    assert "svg" in (tmp_path / "strata.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("strata", "message"),
    [
        ([0, 1], "`control_groups` must have one row per row of `y_true`"),
        ([0, 1, 2, -2], r"`control_groups` must lie in \[0, 3\)"),
    ],
)
def test_what_is_no_stratum_per_row_is_refused(strata, message):
    with pytest.raises(ValueError, match=message):
        alk.group_report(np.zeros(4), np.ones(4), [0, 0, 1, 1], control_groups=strata)
