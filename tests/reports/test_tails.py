"""How far missing rows may lie; a certificate says so where it cannot tell."""

import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.reports.bounds import group_means, margin_above, margin_below, moments
from addloss_kit.reports.tails import rows_with_half, upper_tail

RNG = np.random.default_rng


def report_of(errors, ids, **options):
    """A report whose rows have exactly these squared errors."""
    return alk.group_report(np.zeros(len(ids)), np.sqrt(errors), ids, **options)


def test_a_tail_is_the_rows_above_a_threshold_and_levelled_they_keep_their_mean(rng):
    # 1.25 · 32^0.8 is 20.
    values, weight = rng.normal(size=40), rng.uniform(0.5, 2.0, size=40)
    ids = np.r_[np.ones(32, int), np.full(8, 3)]
    tail, level = upper_tail(values, ids, weight, 4)
    of_one = np.argsort(-values[:32])
    top, threshold = of_one[:20], values[of_one[20]]
    mean = np.average(values[top], weights=weight[top])
    assert tail.mean[1] == pytest.approx(mean - threshold)
    assert tail.share[1] == pytest.approx(weight[top].sum() / weight[:32].sum())
    assert tail.rows[1] == pytest.approx(weight[top].sum() ** 2 / (weight[top] ** 2).sum())
    np.testing.assert_allclose(level[top], mean)
    np.testing.assert_array_equal(level[of_one[20:]], values[of_one[20:]])
    # A group without rows has no tail, nor have ties.
    assert tail.margin(0.05)[0] == 0.0
    ties, _ = upper_tail(np.ones(40), ids, weight, 4)
    np.testing.assert_array_equal(ties.margin(0.05), np.zeros(4))


def test_rows_without_weight_are_absent_from_the_tail(rng):
    values, weight = rng.normal(size=100), np.where(np.arange(100) < 60, 1.0, 0.0)
    found, _ = upper_tail(values, np.zeros(100, int), weight, 1)
    alone, _ = upper_tail(values[:60], np.zeros(60, int), np.ones(60), 1)
    assert found.margin(0.05) == pytest.approx(alone.margin(0.05))


def test_the_margin_of_a_tail_is_that_of_a_likelihood_ratio():
    """By SciPy's density and optimiser."""
    stats = pytest.importorskip("scipy.stats", reason="in the test extra")
    optimize = pytest.importorskip("scipy.optimize", reason="in the test extra")
    values = RNG(1).pareto(3.0, size=300)
    tail, _ = upper_tail(values, np.zeros(300, int), np.ones(300), 1)
    k = round(1.25 * 300**0.8)
    ordered = np.sort(values)[::-1]
    excess = ordered[:k] - ordered[k]

    def at(shape, mean):
        scale = mean * (1.0 - shape)
        return stats.genpareto.logpdf(excess, shape, scale=scale).sum()

    def profile(mean):
        return -optimize.minimize_scalar(
            lambda shape: -at(shape, mean), bounds=(1e-6, 1 - 1e-6), method="bounded"
        ).fun

    likeliest = optimize.minimize_scalar(
        lambda mean: -profile(mean), bounds=(0.1, 5.0), method="bounded"
    ).x
    cut = stats.norm.ppf(0.95) ** 2 / 2.0 * (1.0 + 4.0 / k)
    upper = optimize.brentq(
        lambda mean: profile(likeliest) - profile(mean) - cut, likeliest, 20.0
    )
    wanted = k / 300 * (upper - min(likeliest, excess.mean()))
    assert tail.margin(0.05)[0] == pytest.approx(wanted, rel=1e-3)


def test_a_tail_without_a_mean_has_no_margin_and_a_light_one_has():
    def margin(values):
        return upper_tail(values, np.zeros(3000, int), np.ones(3000), 1)[0].margin(0.05)[0]

    assert margin(RNG(0).pareto(0.9, size=3000)) == np.inf
    assert 0.0 < margin(RNG(0).uniform(size=3000)) < 0.02


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


@pytest.mark.parametrize("index", [2.1, 1.5])
@pytest.mark.parametrize("rows", [40, 300])
def test_of_errors_with_hardly_a_variance_or_none_few_bounds_are_wrong(index, rows):
    def draw(rng, size):
        return rng.pareto(index, size=size) + 1.0

    means, truth = samples(draw, rows, 2000), index / (index - 1.0)
    # 6 %, and two standard deviations of the simulation.
    assert np.mean(means.mean + margin_above(means, 0.05) < truth) <= 0.07


def test_by_skewness_alone_every_tenth_bound_of_such_errors_would_be_wrong():
    ids, errors = np.repeat(np.arange(2000), 300), RNG(0).pareto(1.5, size=600_000)
    plain = moments(errors, ids, np.ones(len(ids)), 2000)
    assert np.mean(plain.mean + plain.margin(0.05) < 2.0) > 0.08


@pytest.mark.parametrize(
    "draw",
    [
        lambda r, n: r.normal(size=n) ** 2,
        lambda r, n: np.abs(r.normal(size=n)),
        lambda r, n: np.exp(r.normal(size=n)),
        lambda r, n: -np.exp(r.normal(size=n)),
    ],
    ids=["squared normal", "absolute normal", "lognormal", "minus lognormal"],
)
def test_errors_with_all_moments_have_bounds(draw):
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
