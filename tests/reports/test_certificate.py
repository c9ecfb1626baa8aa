"""certify: of 1,000 verdicts at 95 %, at most 60 are wrong, and few are withheld."""

import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.reports.bounds import (
    MIN_ROWS,
    any_errors,
    bounded_errors,
    difference_margins,
    group_means,
    margin_above,
    margin_below,
    t_quantile,
)

# Errors with a known mean: residuals of a normal, of a t, and lognormal ones.
ERRORS = {
    "squared": (lambda rng, size: rng.normal(size=size) ** 2, 1.0),
    "absolute": (lambda rng, size: np.abs(rng.normal(size=size)), np.sqrt(2.0 / np.pi)),
    "lognormal": (lambda rng, size: np.exp(rng.normal(size=size)), np.exp(0.5)),
    "squared t5": (lambda rng, size: rng.standard_t(5, size=size) ** 2, 5.0 / 3.0),
}
REPEATS = 4000


def samples(rng, draw, rows, repeats=REPEATS, is_weighted=False):
    """Means of many samples at once: to `group_means` each sample is a group."""
    ids = np.repeat(np.arange(repeats), rows)
    weight = rng.uniform(0.2, 1.0, len(ids)) if is_weighted else np.ones(len(ids))
    return group_means(draw(rng, len(ids)), ids, weight, repeats)


# Four standard deviations of the simulation above 5 %.
LIMIT = 0.05 + 4.0 * np.sqrt(0.05 * 0.95 / REPEATS)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("rows", [40, 400])
@pytest.mark.parametrize("errors", ERRORS)
def test_a_bound_of_a_mean_is_wrong_in_at_most_6_percent(rng, errors, rows, is_weighted):
    draw, truth = ERRORS[errors]
    means = samples(rng, draw, rows, is_weighted=is_weighted)
    assert np.mean(means.mean + margin_above(means, 0.05) < truth) <= LIMIT
    assert np.mean(means.mean - margin_below(means, 0.05) > truth) <= LIMIT


def test_student_s_t_alone_would_be_wrong_more_often(rng):
    # Why there is a correction: the test above can fail.
    draw, truth = ERRORS["lognormal"]
    means = samples(rng, draw, 40)
    upper = means.mean + t_quantile(0.95, means.rows - 1) * np.sqrt(means.variance)
    assert np.mean(upper < truth) > 0.12


@pytest.mark.parametrize("rows", [(40, 400), (400, 40), (60, 60)])
@pytest.mark.parametrize("errors", ERRORS)
def test_a_bound_of_a_gap_is_wrong_in_at_most_6_percent(rng, errors, rows):
    draw, truth = ERRORS[errors]
    worse = samples(rng, lambda r, size: 2.0 * draw(r, size), rows[0])
    better = samples(rng, draw, rows[1])
    gap = worse.mean - better.mean
    above, below = difference_margins(any_errors(), worse, better, 0.05, 1.0)
    assert np.mean(gap + above < truth) <= LIMIT
    assert np.mean(gap - below > truth) <= LIMIT


@pytest.mark.parametrize("rows", [5, 40, 400])
@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_bounds_of_bounded_errors_hold_for_any_number_of_rows(rng, rows, rate, is_weighted):
    def draw(r, size):
        return 10.0 * (r.uniform(size=size) < rate)

    means = samples(rng, draw, rows, is_weighted=is_weighted)
    sides = bounded_errors(0.0, 10.0, is_weighted)
    # Rounding decides where no row has an error.
    assert np.mean(means.mean + sides.above(means, 0.05) < 10.0 * rate - 1e-9) <= 0.05
    assert np.mean(means.mean - sides.below(means, 0.05) > 10.0 * rate + 1e-9) <= 0.05


def test_quantiles_of_t_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats", reason="in the test extra")
    for probability in (0.8, 0.95, 0.995):
        exact = stats.t.ppf(probability, [1, 2])
        np.testing.assert_allclose(t_quantile(probability, np.array([1, 2])), exact)
        df = np.array([10, 29, 300, 1e6])
        wanted = stats.t.ppf(probability, df)
        np.testing.assert_allclose(t_quantile(probability, df), wanted, rtol=1e-3)
    np.testing.assert_allclose(
        t_quantile(0.95, np.arange(3, 10)), stats.t.ppf(0.95, np.arange(3, 10)), rtol=0.01
    )


def report_of(errors, ids, **options):
    """A report whose rows have exactly these squared errors."""
    return alk.group_report(np.zeros(len(ids)), np.sqrt(errors), ids, **options)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 6])
def test_whole_certificates_are_wrong_in_at_most_6_percent(rng, groups):
    # Bounds at the truth itself: every clear verdict but "holds" of a tie is a coin that
    # may fall wrong; all groups but one have the same error, where selection hurts most.
    scale = np.array([2.0] + [1.0] * (groups - 1))
    ids = np.tile(np.arange(groups), 60)
    wrong = {"gap": 0, "worst_error": 0}
    for _ in range(300):
        report = report_of(scale[ids] * rng.normal(size=len(ids)) ** 2, ids)
        for of, truth in (("gap", 1.0), ("worst_error", 2.0)):
            certificate = report.certify(truth - 1e-9, of)
            wrong[of] += certificate.verdict == "holds"
            assert certificate.lower <= certificate.estimate <= certificate.upper
    # 5 % of 300 are 15; 29 is 3.7 standard deviations above.
    assert max(wrong.values()) <= 29


@pytest.mark.slow
def test_equal_groups_are_not_said_to_have_a_gap(rng):
    # The lower bound is the largest of many pairs', so it must account for them.
    ids = np.tile(np.arange(8), 50)
    verdicts = [
        report_of(np.abs(rng.normal(size=400)), ids).certify(0.0).verdict
        for _ in range(300)
    ]
    assert verdicts.count("does not hold") <= 29
    assert verdicts.count("holds") == 0


@pytest.mark.slow
def test_an_increase_is_certified_at_its_level_paired_or_not(rng):
    # after = 1.1 · before in expectation: an increase of 10 %.
    ids, rows = np.arange(200) % 2, 200
    wrong = {True: 0, False: 0}
    for _ in range(100):
        before = rng.normal(size=rows) ** 2
        report = report_of(before, ids)
        after = {
            True: before * rng.uniform(0.6, 1.6, rows),
            False: 1.1 * rng.normal(size=rows) ** 2,
        }
        for is_paired, errors in after.items():
            comparison = report_of(errors, ids).compare(report)
            comparison.is_paired = is_paired
            certificate = comparison.certify(0.1)
            wrong[is_paired] += certificate.upper < 0.1
            assert certificate.lower <= certificate.estimate <= certificate.upper
    assert max(wrong.values()) <= 13  # 5 is 5 %; 13 is 3.7 standard deviations above


def test_paired_rows_certify_a_smaller_increase(rng):
    ids, before = np.arange(400) % 2, rng.normal(size=400) ** 2
    comparison = report_of(1.02 * before, ids).compare(report_of(before, ids))
    certificate = comparison.certify(0.05)
    assert certificate.verdict == "holds"
    assert certificate.upper == pytest.approx(0.02, abs=1e-6)
    comparison.is_paired = False
    assert comparison.certify(0.05).verdict == "cannot tell"


@pytest.mark.parametrize("of", ["gap", "worst_error"])
def test_the_three_verdicts_and_the_sentence(rng, of):
    ids = np.arange(4000) % 2
    report = report_of((1.0 + ids) * rng.normal(size=4000) ** 2, ids)
    value = report.certify(1.0, of).estimate
    assert value == pytest.approx(getattr(report, of).value)
    for bound, verdict in ((2, "holds"), (0.3, "does not hold"), (1.02, "cannot tell")):
        certificate = report.certify(bound * value, of)
        assert certificate.verdict == verdict
        text = repr(certificate)
        assert text.startswith(verdict.capitalize() + ":") and "\n" not in text
        assert "95 % confidence" in text and "4,000 rows" in text
        assert ("would tell" in text) == (verdict == "cannot tell")
        assert certificate.to_dict()["verdict"] == verdict


def test_as_many_rows_as_it_asks_for_mostly_tell(rng):
    def draw(rows):
        ids = np.arange(rows) % 2
        return report_of((1.0 + ids) * rng.normal(size=rows) ** 2, ids)

    first = draw(400)
    bound = first.gap.value + 0.3
    # As if the estimate were right: shift the bound to the truth plus the same distance.
    needed = first.certify(bound).rows_needed
    assert needed > 400
    told = [draw(2 * (needed // 2)).certify(1.3).verdict == "holds" for _ in range(100)]
    assert sum(told) >= 70


@pytest.mark.parametrize("of", ["gap", "worst_error"])
def test_a_group_with_too_few_rows_cannot_be_certified(rng, of):
    few = MIN_ROWS - 1
    ids = np.r_[np.zeros(300, int), np.ones(few, int)]
    report = report_of(rng.uniform(0.5, 1.0, len(ids)), ids, group_names=["many", "few"])
    certificate = report.certify(100.0, of)
    assert certificate.verdict == "cannot tell" and certificate.upper == np.inf
    assert f"fewer than {MIN_ROWS} rows in few" in repr(certificate)
    assert certificate.rows_needed >= len(ids)
    # That the errors are bounded makes up for it.
    bounded = report.certify(0.95, of, errors_within=(0.0, 1.0))
    assert bounded.verdict == "holds" and bounded.method == "bounded"


def test_a_group_without_rows_cannot_be_certified(rng):
    ids = np.zeros(300, int)
    report = report_of(rng.uniform(size=300), ids, group_names=["a", "b"])
    certificate = report.certify(10.0, "worst_error")
    assert certificate.verdict == "cannot tell" and certificate.rows_needed is None
    with pytest.raises(ValueError, match="A gap needs two groups with rows"):
        report.certify(10.0)


def test_no_error_in_a_few_rows_does_not_certify_that_there_is_none():
    # The rule of three: after 100 rows without an error the rate may be 3 %.
    ids = np.arange(200) % 2
    certificate = report_of(np.zeros(200), ids).certify(0.01, "worst_error")
    assert certificate.verdict == "cannot tell" and 0.03 < certificate.upper < 0.05
    # Equal errors of another size have no spread to go by.
    equal = report_of(np.full(200, 0.3), ids).certify(1.0, "worst_error")
    assert equal.upper == np.inf and "all errors of a group are equal" in repr(equal)


def test_thousands_of_groups_are_certified_by_the_extreme_ones(rng):
    # Each lower bound has a chance of 1e-8 to be wrong, which takes more than a few rows.
    ids = np.tile(np.arange(2000), 200)
    errors = rng.uniform(size=len(ids)) + 3.0 * (ids == 7)
    certificate = report_of(errors, ids).certify(2.0)
    assert certificate.verdict == "does not hold"
    assert certificate.estimate > 2.9
