"""certify of a curve: the confidence survives the search for the best value."""

import dataclasses
import itertools

import numpy as np
import pytest

import addloss_kit as alk
from addloss_kit.reports import TradeoffCurve, TradeoffPoint
from addloss_kit.reports.bounds import any_errors, difference_margins, group_means
from addloss_kit.reports.certified_choice import fixed_sequence, safest_first
from addloss_kit.reports.held_out import HeldOut

REPEATS, BOUND = 1000, 1.0
TEMPLATE = alk.group_report(np.zeros(4), np.ones(4), [0, 1, 0, 1]).certify(BOUND)


# A simulation whose true gaps are known ----------------------------------------------


def gaps_and_bounds(rng, truth, rows):
    """Estimated gaps and their upper bounds, `(REPEATS, candidates)`."""

    def means(scale):
        scale = np.tile(scale, REPEATS)
        ids = np.repeat(np.arange(len(scale)), rows)
        errors = scale[ids] * rng.normal(size=len(ids)) ** 2
        return group_means(errors, ids, np.ones(len(ids)), len(scale))

    worse, better = means(1.0 + np.asarray(truth)), means(np.ones(len(truth)))
    gap = worse.mean - better.mean
    above, _ = difference_margins(any_errors(), worse, better, 0.05, 1.0)
    return gap.reshape(REPEATS, -1), (gap + above).reshape(REPEATS, -1)


def shares(rng, truth, rows=150):
    """How often each rule chooses, and how often it chooses what is beyond the bound.

    Candidates are cheaper the larger their gaps; the noise of each is its own, which is
    the hardest case for whoever takes the best of many.
    """
    truth = np.asarray(truth)
    seen, seen_upper = gaps_and_bounds(rng, truth, rows)
    _, upper = gaps_and_bounds(rng, truth, rows)
    price = 5.0 - truth + 0.02 * rng.normal(size=seen.shape)
    chosen = {"sequence": [], "best that passes": []}
    for row in range(REPEATS):
        tests = fixed_sequence(
            safest_first(price[row], seen_upper[row], seen[row]),
            lambda k, row=row: dataclasses.replace(TEMPLATE, upper=upper[row, k]),
        )
        passed = [k for k, certificate in tests if certificate.verdict == "holds"]
        chosen["sequence"].append(min(passed, key=lambda k: price[row, k], default=-1))
        passed = np.flatnonzero(upper[row] <= BOUND).tolist()
        best = min(passed, key=lambda k: price[row, k], default=-1)
        chosen["best that passes"].append(best)
    truth = np.append(truth, -np.inf)  # of no choice
    return {
        rule: (np.mean(np.array(k) >= 0), np.mean(truth[k] > BOUND))
        for rule, k in chosen.items()
    }


BARELY_BEYOND = BOUND + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    "truth",
    [
        [BARELY_BEYOND] * 8,
        [0.0, 0.2, 0.4, *[BARELY_BEYOND] * 5, 2.0],
        np.linspace(0.0, 2.0, 9),
    ],
    ids=["all beyond", "a step", "a slope"],
)
def test_what_is_chosen_is_beyond_the_bound_in_at_most_6_percent(rng, truth):
    found, wrong = shares(rng, truth)["sequence"]
    assert wrong <= 0.06
    # Caution alone would pass, too.
    assert found > 0.75 or min(truth) > BOUND


@pytest.mark.slow
def test_the_best_that_passes_is_beyond_the_bound_far_more_often(rng):
    # Why there is an order: the test above can fail.
    _, wrong = shares(rng, [0.0, 0.2, 0.4, *[BARELY_BEYOND] * 5])["best that passes"]
    assert wrong > 0.12


# The order, and the sequence ----------------------------------------------------------


def test_those_left_out_have_a_safer_one_that_costs_no_more(rng):
    price, upper, estimate = rng.integers(0, 6, (3, 40)).astype(float)
    order = safest_first(price, upper, estimate)
    keys = list(zip(upper, estimate))
    for one, other in itertools.pairwise(order):
        assert keys[one] < keys[other] and price[one] > price[other]
    for k in set(range(40)) - set(order):
        assert any(keys[j] <= keys[k] and price[j] <= price[k] for j in order)


def test_without_upper_bounds_the_estimates_decide():
    assert safest_first([3.0, 2.0, 1.0], [np.inf] * 3, [0.1, 0.3, 0.2]) == [0, 2]


def test_the_first_failure_ends_the_tests():
    uppers = [0.1, 0.2, 1.1, 0.3]
    tests = fixed_sequence(
        range(4), lambda k: dataclasses.replace(TEMPLATE, upper=uppers[k])
    )
    assert [k for k, _ in tests] == [0, 1, 2]
    assert [c.verdict == "holds" for _, c in tests] == [True, True, False]


# Curves whose points predict slope · x -------------------------------------------------


def rows_of(seed, rows=1000, noise=0.3):
    rng = np.random.default_rng(seed)
    x, ids = rng.normal(size=rows), np.arange(rows) % 2
    y = np.where(ids, 2.0, 1.0) * x + noise * rng.normal(size=rows)
    return {"x": x, "y_true": y, "group_ids": ids}


def predict(value, weights, rows):
    return weights[0] * rows["x"]


def curve_of(slopes, validation=None, **options):
    """Values 0, 1, … with these slopes; the errors are (1 − s)² + σ², (2 − s)² + σ²."""
    validation = rows_of(1) if validation is None else validation
    given = {"group_ids": "group_ids", "group_names": None, "error": "squared_error"}
    held_out = HeldOut(rows_of(0), validation, **(given | options))
    points = [
        TradeoffPoint(value, held_out.report(slope * validation["x"]), 1, [slope])
        for value, slope in enumerate(slopes)
    ]
    return TradeoffCurve(points, lambda value: None, 0.05, predict, held_out)


# Gaps are 3 − 2·s. With equal shares the slope 1.5 would be the most accurate, too.
def with_more_of_the_first(rows):
    return rows | {"sample_weight": np.where(rows["group_ids"] == 0, 3.0, 1.0)}


SLOPES = [1.25, 1.3, 1.35, 1.4, 1.45, 1.5]


@pytest.fixture(scope="module")
def curve():
    return curve_of(SLOPES, with_more_of_the_first(rows_of(1)))


@pytest.fixture(scope="module")
def unseen():
    return with_more_of_the_first(rows_of(2))


def test_the_safest_is_tested_first_and_the_most_accurate_that_passed_is_chosen(
    curve, unseen
):
    choice = curve.certify(unseen, 0.33)
    assert choice.verdict == "holds" and choice.point is choice.tests[-2][0]
    assert [p.value for p, _ in choice.tests] == [5, 4, 3, 2]
    assert choice.certificate is choice.tests[-2][1]
    passed = [p for p, c in choice.tests if c.verdict == "holds"]
    assert choice.point.error == min(p.error for p in passed)
    # Its true gap, 3 − 2·1.4, is within the bound.
    assert choice.point.value == 3


def test_each_certificate_is_that_of_a_report_on_the_unseen_rows(curve, unseen):
    weight = unseen["sample_weight"]
    for of, bound in (("gap", 0.35), ("worst_error", 0.6)):
        choice = curve.certify(unseen, bound, of, confidence=0.9)
        assert len(choice.tests) > 1
        for point, certificate in choice.tests:
            report = alk.group_report(
                unseen["y_true"],
                point.weights[0] * unseen["x"],
                unseen["group_ids"],
                sample_weight=weight,
            )
            assert certificate == report.certify(bound, of, confidence=0.9)


def test_an_increase_is_certified_against_the_start_on_the_same_rows(curve, unseen):
    choice = curve.certify(unseen, 0.12, of="error_increase")
    reports = [
        alk.group_report(
            unseen["y_true"],
            slope * unseen["x"],
            unseen["group_ids"],
            sample_weight=unseen["sample_weight"],
        )
        for slope in SLOPES
    ]
    for point, certificate in choice.tests:
        comparison = reports[point.value].compare(reports[0])
        assert comparison.is_paired
        assert certificate == comparison.certify(0.12)
    # The start costs nothing, so it is first; the smallest gap that passed is chosen.
    assert choice.tests[0][0] is curve.start and choice.verdict == "holds"
    passed = [p for p, c in choice.tests if c.verdict == "holds"]
    assert choice.point.gap == min(p.gap for p in passed) < curve.start.gap


@pytest.mark.slow
@pytest.mark.parametrize(
    "of, bound", [("gap", 0.35), ("worst_error", 0.6), ("error_increase", 0.12)]
)
def test_rows_that_stand_there_five_times_prove_no_more_than_once(curve, unseen, of, bound):
    copies = {name: np.repeat(array, 5) for name, array in unseen.items()}
    once = curve.certify(unseen, bound, of)
    clustered = curve.certify(copies, bound, of, clusters=np.repeat(np.arange(1000), 5))
    for (_, wanted), (_, found) in zip(once.tests, clustered.tests, strict=True):
        assert found.verdict == wanted.verdict
        assert found.upper == pytest.approx(wanted.upper, rel=1e-9)
    # The first may be the start, which is certain.
    with pytest.warns(UserWarning, match="so it is too sure"):
        _, naive = curve.certify(copies, bound, of).tests[1]
    _, honest = once.tests[1]
    assert naive.upper - naive.estimate < 0.6 * (honest.upper - honest.estimate)


def test_a_start_that_is_certain_is_chosen(curve, unseen):
    choice = curve.certify(unseen, 2.0)
    assert choice.point is curve.start
    assert len(choice.tests) == len(SLOPES)
    assert "0 (start)" in repr(choice) and "Cost" not in repr(choice)


def test_the_order_does_not_depend_on_the_rows_that_certify(curve):
    def order(seed, bound):
        rows = with_more_of_the_first(rows_of(seed, noise=2.0))
        return [p.value for p, _ in curve.certify(rows, bound).tests]

    longest = order(3, 100.0)
    assert len(longest) == len(SLOPES)
    shorter = [order(seed, 0.6) for seed in range(4, 12)]
    assert {len(tested) for tested in shorter} - {len(longest)}
    for tested in shorter:
        assert tested == longest[: len(tested)]


def test_no_more_points_are_tested_than_asked_for(curve, unseen):
    choice = curve.certify(unseen, 2.0, max_tests=2)
    assert [p.value for p, _ in choice.tests] == [5, 4]
    assert choice.point.value == 4


def test_points_that_diverged_are_not_tested(unseen):
    curve = curve_of([1.25, 1.5, np.nan, np.inf], with_more_of_the_first(rows_of(1)))
    choice = curve.certify(unseen, 2.0)
    assert [p.value for p, _ in choice.tests] == [1, 0]


def test_a_prediction_that_is_not_finite_fails(unseen):
    for of in ("gap", "error_increase"):
        curve = curve_of([1.5], with_more_of_the_first(rows_of(1)))
        curve.start.weights[0] = np.nan
        choice = curve.certify(unseen, 2.0, of)
        assert choice.verdict == "no solution found"
        assert "a prediction is not finite" in repr(choice)


def test_a_failure_by_a_prediction_counts_the_rows_that_certify():
    curve = curve_of([1.5])
    curve.start.weights[0] = np.nan
    assert curve.certify(rows_of(2, rows=700), 2.0).certificate.rows == 700


def test_it_prints_what_was_tried_what_passed_and_what_it_costs(curve, unseen):
    chosen, tried, certificate, cost = repr(curve.certify(unseen, 0.33)).splitlines()
    assert chosen == (
        "Chosen: 3, of those that passed the one with the smallest error on the validation "
        "rows."
    )
    assert tried == (
        "Tested on 1,000 rows, safest first: 5 passed, 4 passed, 3 passed, 2 failed."
    )
    assert certificate.startswith("Holds: with 95 % confidence the gap in MSE is at most")
    assert cost.startswith("Cost on the validation rows: +") and "% MSE over" in cost


def test_without_a_solution_it_says_how_many_rows_would_tell_or_that_none_would(curve):
    few = with_more_of_the_first(rows_of(2, rows=200))
    choice = curve.certify(few, 0.12)
    assert choice.verdict == "no solution found" and choice.point is None
    assert choice.certificate is choice.tests[0][1] and len(choice.tests) == 1
    text = repr(choice)
    assert text.startswith("No solution found.\nTested on 200 rows, safest first: 5 failed")
    assert f"about {choice.certificate.rows_needed:,} rows like these would tell" in text
    beyond = curve_of(SLOPES[:2], with_more_of_the_first(rows_of(1))).certify(few, 0.1)
    assert "The bound is below what the safest value reached." in repr(beyond)
    with pytest.raises(ValueError, match=r"No value passed.*Received: certificate="):
        beyond.build_model()


# Refused -----------------------------------------------------------------------------


def test_rows_that_chose_cannot_judge(curve):
    used = curve._held_out
    for name in ("train", "validation"):
        rows = getattr(used, name) | {"sample_weight": np.ones(1000)}
        part = {key: values[:500] for key, values in rows.items()}
        copy = {key: np.array(v) for key, v in getattr(used, name).items()}
        for given in (rows, part, {"sample_weight": np.ones(1000)} | copy):
            with pytest.raises(ValueError, match=rf"cannot judge.*rows of `{name}`"):
                curve.certify(given, 0.3)


def test_parts_of_one_table_are_other_rows(curve):
    table = with_more_of_the_first(rows_of(7, rows=1200))
    first, second = (
        {k: v[part] for k, v in table.items()} for part in (slice(600), slice(600, None))
    )
    assert curve_of(SLOPES, first).certify(second, 2.0).verdict == "holds"


def test_clusters_without_a_label_for_each_row_are_refused(curve, unseen):
    for labels, message in (
        (np.arange(999), r"clusters.shape=\(999,\)"),
        ([*"ab" * 499, "a", None], "none missing"),
        (3, r"clusters.shape=\(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            curve.certify(unseen, 0.3, clusters=labels)


@pytest.mark.parametrize("of", ["gap", "worst_error"])
def test_a_group_that_only_training_has_is_missed(of):
    validation = rows_of(1)
    curve = curve_of(SLOPES, validation)
    curve._held_out.train["group_ids"][0] = 2
    with pytest.raises(ValueError, match=r"rows of every group.*groups_without_rows=\[2\]"):
        curve.certify(rows_of(2), 0.3, of)
    curve.certify(rows_of(2), 0.3, "error_increase")
    weighted = rows_of(2) | {"sample_weight": 1.0 * (rows_of(2)["group_ids"] == 0)}
    with pytest.raises(ValueError, match=r"groups_without_rows=\[1\]"):
        curve_of(SLOPES, group_names=["a", "b"]).certify(weighted, 0.3, of)


def test_rows_that_are_no_dict_of_whole_columns_are_refused():
    rows = rows_of(2)
    for given, error, message in (
        (None, TypeError, "`rows` must be a dict.*rows=NoneType"),
        ([rows["x"]], TypeError, "`rows` must be a dict.*rows=list"),
        (rows | {"y_true": rows["y_true"][1:]}, ValueError, r"rows\['y_true'\].*\(999,\)"),
        (rows | {"group_ids": [0, 1]}, ValueError, r"rows\['group_ids'\].*\(2,\)"),
        ({k: v[:0] for k, v in rows.items()}, ValueError, "`rows`.* at least one row"),
    ):
        with pytest.raises(error, match=message):
            curve_of([1.5]).certify(given, 0.3)


def test_errors_lie_within_a_pair_of_numbers(curve, unseen):
    for given in (5, (0, 1, 2)):
        with pytest.raises(ValueError, match=r"pair of numbers.*Received: errors_within="):
            curve.certify(unseen, 0.3, errors_within=given)


def test_a_gap_needs_two_groups_in_the_rows_that_decide_the_order():
    validation = rows_of(1) | {"group_ids": np.zeros(1000, int)}
    with pytest.raises(ValueError, match="`validation` must.*groups_with_rows=1"):
        curve_of([1.5], validation).certify(rows_of(2), 0.3)
    curve_of([1.5], validation).certify(rows_of(2), 0.3, "worst_error")


def test_a_curve_without_its_model_cannot_certify(unseen):
    plain = TradeoffCurve(curve_of(SLOPES).points, None, 0.05)
    with pytest.raises(ValueError, match="Only a curve that `tradeoff_curve` returned"):
        plain.certify(unseen, 0.3)
