"""Rows of one person depend on each other: standard errors by cluster."""

import numpy as np
import pytest

import addloss_kit as alk


def clustered(rng, people=40, each=6, spread=1.0):
    """`(error, ids, person, weight)`: the rows of a person share most of their error."""
    person = np.repeat(np.arange(people), each)
    ids = (np.arange(people) % 2)[person]
    error = spread * rng.normal(size=people)[person] + 0.3 * rng.normal(size=len(person))
    # Some backends hand a function single precision.
    error = error.astype("float32").astype("float64")
    return error, ids, person, rng.uniform(0.5, 2.0, size=len(person))


def report(error, ids, person=None, weight=None):
    zeros = np.zeros(len(error))
    return alk.group_report(
        zeros, error, ids, clusters=person, sample_weight=weight, error=lambda y, p: p
    )


def test_the_standard_error_is_that_of_a_plain_loop_over_clusters(rng):
    error, ids, person, weight = clustered(rng)
    labels = np.array([f"person {k}" for k in person])
    found = report(error, ids, labels, weight)
    for k in (0, 1):
        rows = ids == k
        mean = (weight[rows] @ error[rows]) / weight[rows].sum()
        sums = [
            (weight * (error - mean))[rows & (person == p)].sum()
            for p in np.unique(person[rows])
        ]
        n = len(sums)
        expected = np.sqrt(n / (n - 1) * np.square(sums).sum()) / weight[rows].sum()
        assert found.means[k] == pytest.approx(mean)
        assert found.standard_errors[k] == pytest.approx(expected, rel=1e-12)
        assert found.units[k] == n and found.n[k] == rows.sum()


def test_the_standard_error_is_that_of_statsmodels(rng):
    linear_model = pytest.importorskip("statsmodels.api")
    error, ids, person, _ = clustered(rng)
    found = report(error, ids, person)
    rows = ids == 0
    fit = linear_model.OLS(error[rows], np.ones(rows.sum())).fit(
        cov_type="cluster", cov_kwds={"groups": person[rows], "use_correction": True}
    )
    assert found.standard_errors[0] == pytest.approx(float(fit.bse[0]), rel=1e-9)


def test_clusters_of_one_row_change_nothing(rng):
    error, ids, _, weight = clustered(rng)
    one = report(error, ids, None, weight)
    other = report(error, ids, np.arange(len(error)), weight)
    np.testing.assert_allclose(other.standard_errors, one.standard_errors)
    assert other.gap == pytest.approx(one.gap)
    assert other.certify(1.0).upper == pytest.approx(one.certify(1.0).upper)


@pytest.mark.slow
def test_intervals_and_certificates_hold_for_clustered_rows():
    rng, times = np.random.default_rng(0), 400
    held, certified, naive = 0, 0, 0
    for _ in range(times):
        error, ids, person, _ = clustered(rng, people=80)
        found = report(error, ids, person)
        low, high = found.interval()
        held += low[0] <= 0 <= high[0]
        # Both groups' true error is 0.
        certified += found.certify(0.1, of="worst_error").upper >= 0
        low, high = report(error, ids).interval()
        naive += low[0] <= 0 <= high[0]
    # Standard error of 400 repetitions: 0.011. 40 clusters: the normal quantile is short.
    assert 0.92 <= held / times <= 0.97
    assert certified / times >= 0.94
    assert naive / times < 0.75


def test_a_comparison_and_its_certificate_go_by_clusters(rng):
    error, ids, person, _ = clustered(rng)
    better = error - 0.2 * rng.normal(size=40)[person] - 0.5
    rows = report(better, ids).compare(report(error, ids))
    people = report(better, ids, person).compare(report(error, ids, person))
    assert (people.standard_errors > 1.5 * rows.standard_errors).all()
    assert people.is_paired
    squared = [
        alk.group_report(0 * error, e, ids, clusters=person) for e in (error, better)
    ]
    loose = squared[1].compare(squared[0]).certify(0.5)
    strict = [alk.group_report(0 * error, e, ids) for e in (error, better)]
    assert loose.upper > strict[1].compare(strict[0]).certify(0.5).upper


def test_a_classifier_s_errors_stay_bounded_as_means_of_clusters(rng):
    _, ids, person, _ = clustered(rng)
    wrong = (rng.random(len(ids)) < 0.2).astype(float)
    assert (
        report(wrong, ids, person).certify(0.5).method
        == report(wrong, ids).certify(0.5).method
    )


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (["a", None, "b", "c"], "none missing"),
        ([1.0, np.nan, 2.0, 3.0], "none missing"),
        (np.zeros((4, 2)), "one label per row"),
        ([1, 2, 3], "one row per row"),
    ],
)
def test_what_is_no_label_per_row_is_refused(clusters, message):
    with pytest.raises(ValueError, match=message):
        alk.group_report(np.zeros(4), np.ones(4), [0, 0, 1, 1], clusters=clusters)
