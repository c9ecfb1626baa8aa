"""Parameters at the edge: what means nothing, or rounds to it, is refused."""

import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk
from addloss_kit import losses, metrics
from addloss_kit._checks import check_number, check_positive
from addloss_kit.reports import group_report

INF = float("inf")


def a_report(confidence):
    return group_report(
        [0.0] * 4, [1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], confidence=confidence
    )


REFUSED = {
    "infinite bound": lambda: losses.BoundedGroupLoss(2, bound=INF),
    "infinite gap": lambda: losses.GroupGapConstraint(2, bound=INF),
    "infinite bound of a metric": lambda: metrics.BoundIsMet(2, bound=INF),
    "infinite penalty": lambda: losses.BoundedGroupLoss(2, bound=1.0, penalty=INF),
    "infinite step": lambda: losses.WorstGroup(2, step_size=INF),
    "infinite in float32": lambda: losses.WorstGroup(2, step_size=1e39),
    "0 in float32": lambda: losses.BoundedGroupLoss(2, bound=1.0, penalty=1e-50),
    "infinite tolerance": lambda: metrics.BoundIsMet(2, bound=1.0, tolerance=INF),
    "momentum of 1": lambda: losses.GroupGap(2, momentum=1.0),
    "1 in float32": lambda: losses.GroupGap(2, momentum=0.99999999),
    "1 in float32, of a bound": lambda: losses.BoundedGroupLoss(
        2, bound=1.0, momentum=0.99999999
    ),
    "infinite price": lambda: losses.AsymmetricAbsoluteError(over_price=INF),
    "no confidence": lambda: a_report(0.0),
    "certainty": lambda: a_report(1.0),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_parameter_that_means_nothing_is_refused(kind):
    with pytest.raises(ValueError, match=r"`\w+` must .*Received: "):
        REFUSED[kind]()


def test_a_number_just_inside_is_taken():
    check_number(low=0.0, high=1.0, is_high_allowed=False, momentum=0.9999)
    check_positive(step_size=1e-30)
    assert a_report(0.999).confidence == 0.999


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_a_whole_number_of_numpy_is_a_whole_number(dtype):
    for make in (losses.GroupGap, losses.GroupDistributionGap, metrics.GroupError):
        made = make(dtype(2))
        assert type(made.num_groups) is int
        assert made.num_groups == 2


def a_model(**options):
    predictor = linear(2)
    return alk.build_training_model(predictor, "mse", **options)


def test_weights_that_are_all_0_are_refused():
    with pytest.raises(ValueError, match=r"`sample_weight` must not be 0 for all rows"):
        alk.pack_inputs(
            a_model(sample_weight=True),
            np.ones((3, 2)),
            np.ones(3),
            sample_weight=[0, 0, 0],
        )


def test_an_export_is_not_compared_on_no_rows(tmp_path):
    with pytest.raises(ValueError, match=r"at least one row.*x.shape=\(0, 2\)"):
        alk.export_inference_model(
            a_model(), tmp_path / "model.keras", sample=np.ones((0, 2))
        )


def test_an_input_for_a_feature_of_a_functional_predictor_is_refused():
    with pytest.raises(ValueError, match=r"would ignore \['x'\].*targets, weights, ids"):
        a_model(inputs={"x": keras.Input((2,), dtype="float64")})


def test_a_group_of_weight_0_is_absent_everywhere():
    y, y_pred, ids = [[0.0], [0.0], [0.0]], [[1.0], [2.0], [9.0]], [0, 1, 2]
    weight = [1.0, 1.0, 0.0]
    # Groups 0 and 1 have errors of 1 and 4, so the gap is 3 whatever group 2 has.
    term = losses.GroupGap(3, momentum=0, distance="absolute")
    assert float(term(y, y_pred, ids, weight)) == pytest.approx(3.0)
    metric = metrics.GroupError(3)
    metric.update_state(y, y_pred, ids, weight)
    assert np.isnan(float(metric.result()["group_error_2"]))
    report = group_report(y, y_pred, ids, sample_weight=weight)
    assert report.gap.value == pytest.approx(3.0)
    assert "left out: 2" in repr(report)


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.GroupGap(1),
        lambda: losses.GroupGapConstraint(1, bound=0.1),
        lambda: losses.GroupDistributionGap(1),
        lambda: metrics.GroupGap(1),
        lambda: metrics.BoundIsMet(1, bound=0.1, of="gap"),
    ],
)
def test_what_compares_one_group_is_told_and_still_loads(make):
    with pytest.warns(UserWarning, match="with one group it is always 0"):
        made = make()
    with pytest.warns(UserWarning, match="with one group it is always 0"):
        assert type(made).from_config(made.get_config()).num_groups == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.BoundedGroupLoss(1, bound=0.1),
        lambda: losses.WorstGroup(1),
        lambda: metrics.GroupError(1),
        lambda: metrics.BoundIsMet(1, bound=0.1),
    ],
)
def test_what_makes_sense_for_one_group_takes_it(make):
    assert make().num_groups == 1
