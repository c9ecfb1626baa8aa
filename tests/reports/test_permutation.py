"""The permutation test of the gap: scipy's on the same statistic."""

import numpy as np
import pytest
from scipy import stats

import addloss_kit as alk


def report(error, ids, **options):
    """Of errors as they are."""
    zeros = np.zeros(len(error))
    return alk.group_report(zeros, error, ids, error=lambda y, p: p, **options)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("sizes", [(5, 4), (3, 3, 2)])
def test_it_equals_scipys_exact_test(rng, sizes, is_weighted):
    ids = np.repeat(np.arange(len(sizes)), sizes)
    error = (rng.normal(size=len(ids)) + 0.8 * ids).astype("float32").astype("float64")
    weight = rng.uniform(0.2, 2.0, len(ids)) if is_weighted else np.ones(len(ids))

    def gap(*groups):
        means = [np.average(error[rows], weights=weight[rows]) for rows in groups]
        return max(means) - min(means)

    groups = [np.flatnonzero(ids == k) for k in range(len(sizes))]
    exact = stats.permutation_test(
        groups,
        lambda *rows: gap(*(np.asarray(r, int) for r in rows)),
        permutation_type="independent",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=False,
    ).pvalue
    found = report(error, ids, sample_weight=weight).permutation_test(4000, seed=0)
    # Three standard errors of 4,000 draws.
    assert found == pytest.approx(exact, abs=3 * np.sqrt(exact * (1 - exact) / 4000))


def test_the_rows_count_as_one_permutation_so_no_p_value_is_0(rng):
    ids = np.arange(60) % 2
    apart = report(rng.normal(size=60) + 10.0 * ids, ids)
    assert apart.permutation_test(99, seed=0) == 1 / 100
    alike = report(np.ones(60), ids, sample_weight=rng.random(60))
    assert alike.permutation_test(19) == 1.0


def rejected(times, draw, **options):
    """How often p is at most 5 %."""
    rng = np.random.default_rng(0)
    p = [draw(rng, **options).permutation_test(99, seed=k) for k in range(times)]
    return np.mean(np.array(p) <= 0.05)


def of_few_skewed_rows(rng):
    ids = np.repeat([0, 1, 2], [4, 8, 12])
    return report(np.exp(1.5 * rng.normal(size=24)), ids, sample_weight=rng.random(24))


def of_persons(rng, is_clustered=True):
    """20 persons of 5 rows, which share most of their error; 8 are of group 1."""
    person = np.repeat(np.arange(20), 5)
    error = rng.normal(size=20)[person] + 0.3 * rng.normal(size=100)
    return report(error, (person % 5 < 2) * 1, clusters=person if is_clustered else None)


def test_it_rejects_at_most_as_often_as_it_says():
    # 300 times: 5 % and two standard errors are 7.5 %.
    assert rejected(300, of_few_skewed_rows) <= 0.075
    assert rejected(300, of_persons) <= 0.075
    assert rejected(100, of_persons, is_clustered=False) > 0.3


def test_rows_without_a_group_or_weight_are_not_permuted(rng):
    error, ids = rng.normal(size=40), np.arange(40) % 2
    plain = report(error, ids).permutation_test(50, seed=3)
    longer = np.concatenate([error, np.full(20, 100.0)])
    more = np.concatenate([ids, np.full(10, -1), np.arange(10) % 3])
    weight = np.concatenate([np.ones(50), np.zeros(10)])
    same = report(longer, more, sample_weight=weight)
    assert same.permutation_test(50, seed=3) == plain


def test_clusters_of_several_groups_are_refused():
    mixed = report(np.arange(6.0), [0, 1, 0, 1, 0, 1], clusters=[*"aabbcc"])
    with pytest.raises(ValueError, match="Each cluster must be of one group"):
        mixed.permutation_test()
