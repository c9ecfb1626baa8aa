"""A certificate says that it cannot tell where a few rows decide the mean."""

import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.reports.bounds import group_means, margin_above, margin_below
from addloss_kit.reports.tails import rows_with_half, tail_index

RNG = np.random.default_rng


def report_of(errors, ids, **options):
    """A report whose rows have exactly these squared errors."""
    return alk.group_report(np.zeros(len(ids)), np.sqrt(errors), ids, **options)


def hill(values, k):
    """By a plain loop."""
    largest = sorted(abs(v) for v in values)[::-1]
    return 1.0 / (sum(np.log(v / largest[k]) for v in largest[:k]) / k)


def test_the_index_is_hills_of_the_largest_tenth_but_of_ten_rows_at_least(rng):
    values = np.concatenate([rng.normal(size=n) for n in (200, 40, 8)])
    ids = np.repeat([2, 0, 3], (200, 40, 8))
    order = rng.permutation(248)
    weight = rng.uniform(0.1, 9.0, size=248)
    found = tail_index(values[order], ids[order], weight, 4)
    assert found[2] == pytest.approx(hill(values[:200], 20))
    assert found[0] == pytest.approx(hill(values[200:240], 10))
    assert found[1] == found[3] == np.inf  # No rows, and too few for a tail.


def test_rows_without_weight_are_absent_from_the_tail(rng):
    values = rng.normal(size=100)
    weight = np.where(np.arange(100) < 60, 1.0, 0.0)
    found = tail_index(1e6 * values, np.zeros(100, int), weight, 1)
    assert found == pytest.approx(hill(values[:60], 10))


def test_the_index_of_a_pareto_tail_is_that_of_the_distribution():
    # Standard error: the index over the root of k, 2,000.
    values = RNG(0).pareto(1.7, size=20_000) + 1.0
    found = tail_index(values, np.zeros(20_000, int), np.ones(20_000), 1)
    assert found == pytest.approx(1.7, abs=3 * 1.7 / np.sqrt(2000))


def test_ties_zeros_and_a_few_rows_with_all_of_the_error_have_an_index():
    def index(values):
        return tail_index(np.array(values), np.zeros(len(values), int), np.ones(40), 1)[0]

    assert index([3.0] * 20 + [1.0] * 20) == np.inf
    assert index([0.0] * 40) == np.inf
    assert index([5.0] * 3 + [0.0] * 37) == 0.0


@pytest.mark.parametrize(
    ("values", "weight", "rows"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 1], 2),
        ([9, 1, 1, 1], [1] * 4, 1),
        ([9, 1, 8], [0, 1, 1], 1),
    ],
)
def test_rows_with_half_are_counted_from_the_largest(values, weight, rows):
    assert rows_with_half(np.array(values, float), np.array(weight, float)) == rows


def samples(draw, rows, repeats):
    """Means of many samples at once: to `group_means` each sample is a group."""
    ids = np.repeat(np.arange(repeats), rows)
    return group_means(draw(RNG(rows), len(ids)), ids, np.ones(len(ids)), repeats)


def test_of_errors_without_a_variance_few_bounds_are_wrong_as_few_are_given():
    means, truth = samples(lambda r, n: r.standard_t(3, size=n) ** 2, 300, 2000), 3.0
    assert np.mean(means.mean + margin_above(means, 0.05) < truth) <= 0.06
    # Why: without the index, it is one in ten.
    any_tail = means._replace(tail=np.full(2000, np.inf))
    assert np.mean(means.mean + margin_above(any_tail, 0.05) < truth) > 0.08


@pytest.mark.parametrize(
    "draw",
    [
        lambda r, n: r.normal(size=n) ** 2,
        lambda r, n: np.abs(r.normal(size=n)),
        lambda r, n: np.exp(r.normal(size=n)),
    ],
    ids=["squared normal", "absolute normal", "lognormal"],
)
def test_errors_with_all_moments_keep_their_bounds_from_300_rows_on(draw):
    means = samples(draw, 300, 1000)
    for margin in (margin_above, margin_below):
        assert np.mean(np.isfinite(margin(means, 0.05))) >= 0.95


@pytest.mark.parametrize("of", ["gap", "worst_error"])
def test_a_heavy_tail_cannot_be_certified_and_the_sentence_says_why(of):
    rng, ids = RNG(1), np.repeat([0, 1], [300, 400])
    errors = np.concatenate([rng.pareto(0.8, size=300), rng.normal(size=400) ** 2])
    report = report_of(errors, ids, group_names=["men", "women"])
    certificate = report.certify(1e9, of)
    assert certificate.verdict == "cannot tell" and certificate.upper == np.inf
    assert certificate.rows_needed is None
    half = rows_with_half(errors[:300], np.ones(300))
    said = repr(certificate)
    assert f"the errors of men have too heavy a tail, half of their sum in {half}" in said
    assert "certify the absolute error, a bounded one, or that of a logarithm" in said
    assert "would tell" not in said
    # As it says: a bounded error has no tail.
    capped = report_of(np.minimum(errors, 4.0), ids)
    assert capped.certify(5.0, of, errors_within=(0.0, 4.0)).verdict == "holds"
    assert report_of(np.log1p(errors), ids).certify(5.0, of).verdict == "holds"


@pytest.mark.parametrize("is_paired", [True, False])
def test_an_increase_by_a_few_rows_cannot_be_certified(is_paired):
    rng, ids = RNG(2), np.arange(600) % 2
    before = rng.normal(size=600) ** 2
    after = before + rng.pareto(0.8, size=600)
    comparison = report_of(after, ids).compare(report_of(before, ids))
    comparison.is_paired = is_paired
    certificate = comparison.certify(1e3)
    assert certificate.verdict == "cannot tell" and certificate.rows_needed is None
    what = "the changes of the errors" if is_paired else "the errors after"
    assert f"{what} have too heavy a tail" in repr(certificate)


def test_a_group_that_is_too_small_is_named_before_a_heavy_tail():
    ids = np.repeat([0, 1], [300, 20])
    errors = np.concatenate([RNG(3).pareto(0.8, size=300), np.arange(20.0)])
    certificate = report_of(errors, ids, group_names=["many", "few"]).certify(1.0)
    assert "fewer than 30 rows in few" in repr(certificate)
    assert certificate.rows_needed is None  # More rows of `many` would not do.
