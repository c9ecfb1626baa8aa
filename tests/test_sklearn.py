"""GroupRegressor and GroupClassifier: scikit-learn's checks, its tools, and the numbers."""

import functools
import pickle
import random
import sys

import keras
import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

import joblib
import pandas as pd
import sklearn
from fairlearn.metrics import MetricFrame
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss, make_scorer, mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import addloss_kit as alk
from addloss_kit.sklearn import GroupClassifier, GroupRegressor

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
pytestmark = pytest.mark.filterwarnings(
    "ignore:Even though the `tf.config.experimental_run_functions_eagerly`:UserWarning"
)


@pytest.fixture
def graph():
    """Steps run as graphs, as they do for everybody."""


@pytest.fixture(autouse=True)
def steps(request):
    """Elsewhere fits have ten steps or so, which are not worth a graph."""
    is_eager = "graph" not in request.fixturenames
    if is_eager and not ON_TENSORFLOW:
        pytest.skip("Each fit compiles anew; what is learned is tested on every backend.")
    if is_eager:
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
    yield
    if is_eager:
        tf.config.run_functions_eagerly(False)


def linear(n_features, n_outputs):
    return keras.Sequential([keras.Input((n_features,)), keras.layers.Dense(n_outputs)])


def linear_classes(n_features, n_classes):
    layer = keras.layers.Dense(n_classes, activation="softmax")
    return keras.Sequential([keras.Input((n_features,)), layer])


def data(rows=120):
    """Rows of two groups that need different slopes, the second of them rare."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 3))
    sex = rng.choice(["f", "m"], size=rows, p=[0.3, 0.7])
    slope = np.where(sex == "f", -5.0, 5.0)
    return X, 50.0 + 10.0 * X[:, 0] + slope * X[:, 1] + rng.normal(size=rows), sex


def gap_of(y, predicted, sensitive_features):
    squared = (y - predicted) ** 2
    means = [squared[sensitive_features == name].mean() for name in ("f", "m")]
    return -abs(means[0] - means[1])


# scikit-learn's own checks ----------------------------------------------------------


# As few steps as its checks of accuracy allow: they fit some two hundred times.
FEW_STEPS = {
    "epochs": 2,
    "batch_size": 16,
    "optimizer": {"class_name": "Adam", "config": {"learning_rate": 0.1}},
}


def known_failures(estimator):
    failures = {
        "check_sample_weight_equivalence_on_dense_data": "Which rows share a batch depends "
        "on the number of rows; with all rows in one batch it holds, in single precision "
        "(test_a_weight_of_two_is_a_row_twice).",
        # Some processors round alike whatever the order; others do not.
        "check_methods_sample_order_invariance": "It wants equality to 1e-7; predictions "
        "are float32, whose last digit depends on which rows share a batch.",
    }
    if isinstance(estimator, GroupRegressor):
        failures["check_regressor_multioutput"] = (
            "Predictions are float32, in which the network computes."
        )
    return failures


class Named:
    """A function by its name: an address would make other ids of tests in each process."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)

    def __repr__(self):
        return self.function.__name__


# The checks know no groups.
@pytest.mark.filterwarnings("ignore:`fit` got no `sensitive_features`:UserWarning")
@parametrize_with_checks(
    [
        GroupRegressor(Named(linear), **FEW_STEPS),
        GroupClassifier(Named(linear_classes), **FEW_STEPS),
    ],
    expected_failed_checks=known_failures,
)
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


# The numbers ------------------------------------------------------------------------


# 2,500 steps, which run as one compiled loop, to a learning rate of 0.
TO_THE_END = {
    "batch_size": 12,
    "epochs": 25,
    "optimizer": keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 2500)),
    "random_state": 0,
}


def standardized_data():
    X, y, sex = data(1200)
    return X, (y - y.mean()) / y.std(), sex


def test_a_linear_predictor_ends_at_weighted_least_squares(graph):
    X, y, sex = standardized_data()
    w = np.where(sex == "f", 5.0, 1.0)

    mine = GroupRegressor(linear, losses="mse", **TO_THE_END).fit(X, y, sample_weight=w)

    exact = LinearRegression().fit(X, y, sample_weight=w).predict(X)
    assert np.allclose(mine.predict(X), exact, atol=0.03)
    assert not np.allclose(LinearRegression().fit(X, y).predict(X), exact, atol=0.3)


def test_weights_per_output_are_a_regression_per_output(graph):
    X, y, sex = standardized_data()
    Y = np.stack([y, y], axis=1)
    W = np.stack([np.where(sex == "f", 5.0, 1.0), np.where(sex == "f", 1.0, 5.0)], axis=1)

    mine = GroupRegressor(linear, losses="weighted_mse", **TO_THE_END)
    predicted = mine.fit(X, Y, sample_weight=W).predict(X)

    for output in (0, 1):
        exact = LinearRegression().fit(X, y, sample_weight=W[:, output])
        assert np.allclose(predicted[:, output], exact.predict(X), atol=0.05)


def test_a_linear_classifier_ends_at_logistic_regression(graph):
    X, y, _ = standardized_data()
    labels = np.where(y > 0, "high", "low")

    mine = GroupClassifier(
        linear_classes, losses="sparse_categorical_crossentropy", **TO_THE_END
    ).fit(X, labels)

    exact = LogisticRegression(C=np.inf).fit(X, labels)
    assert np.allclose(mine.predict_proba(X), exact.predict_proba(X), atol=0.03)
    assert mine.classes_.tolist() == exact.classes_.tolist()


def test_a_weight_of_two_is_a_row_twice():
    X, y, sex = data(40)
    weight = np.arange(40) % 3
    twice = np.repeat(np.arange(40), weight)
    new = GroupRegressor(epochs=10, batch_size=1000, random_state=0)

    weighted = clone(new).fit(X, y, sensitive_features=sex, sample_weight=weight)
    repeated = clone(new).fit(X[twice], y[twice], sensitive_features=sex[twice])

    assert np.allclose(weighted.predict(X), repeated.predict(X), rtol=1e-4)


def test_a_larger_weight_of_the_gap_leaves_a_smaller_gap(graph):
    X, y, sex = standardized_data()
    gaps = []
    for weight in (0.0, 3.0):
        mine = GroupRegressor(linear, loss_weights=[1.0, weight], **TO_THE_END)
        mine.fit(X, y, sensitive_features=sex)
        gaps.append(-gap_of(y, mine.predict(X), sex))
        assert set(mine.history_) == {"loss", "mse", "group_gap"}
    assert gaps[1] < 0.3 * gaps[0]


def test_the_default_network_takes_any_units(graph):
    X, y, _ = data()
    options = {"losses": "mse", "epochs": 8, "random_state": 0, "batch_size": 8}
    options["optimizer"] = keras.optimizers.Adam(0.01)

    plain = GroupRegressor(**options).fit(X, y)
    scaled = GroupRegressor(**options).fit(5e3 + 1e3 * X, 1e6 * y)

    assert plain.score(X, y) > 0.8
    assert np.allclose(scaled.predict(5e3 + 1e3 * X), 1e6 * plain.predict(X), rtol=2e-2)


def test_the_report_has_the_numbers_of_fairlearn():
    X, y, sex = data()
    w = np.random.default_rng(1).uniform(0.5, 2.0, size=len(y))
    mine = GroupRegressor(epochs=2, random_state=0).fit(X, y, sensitive_features=sex)

    report = mine.report(X, y, sensitive_features=sex, sample_weight=w)

    frame = MetricFrame(
        metrics=mean_squared_error,
        y_true=y,
        y_pred=mine.predict(X),
        sensitive_features=sex,
        sample_params={"sample_weight": w},
    )
    assert report.by_group == pytest.approx(frame.by_group.to_dict(), rel=1e-5)
    assert report.gap.value == pytest.approx(frame.difference(), rel=1e-5)


def test_a_classifier_s_report_is_the_log_loss_of_each_group():
    X, y, sex = data()
    labels = np.where(y > 50, "high", "low")
    mine = GroupClassifier(epochs=2, random_state=0).fit(X, labels, sensitive_features=sex)

    report = mine.report(X, labels, sensitive_features=sex)

    p = mine.predict_proba(X).astype("float64")
    p /= p.sum(axis=1, keepdims=True)
    for name in ("f", "m"):
        of_group = sex == name
        expected = log_loss(labels[of_group], p[of_group])
        assert report.by_group[name] == pytest.approx(expected, rel=1e-4)


def test_whole_numbers_are_labels_in_a_report_too():
    X, y, sex = data(40)
    region = np.arange(40) % 3 + 1  # 1, 2 and 3
    mine = GroupRegressor(epochs=1, random_state=0).fit(X, y, sensitive_features=region)
    rows = region < 3

    report = mine.report(X[rows], y[rows], sensitive_features=region[rows])

    squared = (y - mine.predict(X)) ** 2
    for name in ("1", "2"):
        expected = squared[region == int(name)].mean()
        assert report.by_group[name] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(report.by_group["3"])


# Groups -----------------------------------------------------------------------------


def test_several_columns_with_gaps_are_intersections():
    X, y, sex = data()
    table = pd.DataFrame({"sex": sex, "old": X[:, 1] > 0})
    table = table.astype(object)
    table.loc[3, "sex"] = None

    mine = GroupRegressor(epochs=1).fit(X, y, sensitive_features=table)

    assert mine.group_names_ == ["f & False", "f & True", "m & False", "m & True"]


@pytest.mark.parametrize(
    "losses",
    [
        ["mse", "worst_group"],
        ["mse", alk.losses.GroupDistributionGap],
        [
            keras.losses.Huber(0.3),
            functools.partial(alk.losses.BoundedGroupLoss, bound=0.5),
        ],
        ["mae", alk.losses.GroupGap(2, error="absolute_error")],
    ],
    ids=["name", "class", "partial", "object"],
)
def test_losses_are_names_classes_partials_and_objects(losses):
    X, y, sex = data(40)
    mine = GroupRegressor(linear, losses=losses, epochs=1)

    mine.fit(X, y, sensitive_features=sex)
    mine.fit(X, y, sensitive_features=sex)  # The parameters are as they were.

    names = {"worst_group", "group_distribution_gap", "bounded_group_loss", "group_gap"}
    assert len(names & set(mine.history_)) == 1


def test_the_error_of_the_gap_is_that_of_the_estimator():
    X, y, sex = data(40)
    mine = GroupRegressor(
        linear, losses=["mse", functools.partial(alk.losses.GroupGap, momentum=0.0)],
        error="absolute_error", epochs=1, batch_size=40,
        optimizer=keras.optimizers.SGD(0.0),
    )  # fmt: skip
    mine.fit(X, y, sensitive_features=sex)

    error = np.abs(y - mine.predict(X))
    gap = (error[sex == "f"].mean() - error[sex == "m"].mean()) ** 2
    assert mine.history_["group_gap"] == pytest.approx([gap], rel=1e-3)


def test_without_groups_their_losses_are_left_out_with_a_warning():
    X, y, _ = data(40)
    mine = GroupRegressor(linear, loss_weights=[2.0, 1.0], epochs=1)

    with pytest.warns(UserWarning, match=r"leaves out the losses \['group_gap'\]"):
        mine.fit(X, y)

    assert mine.group_names_ == []
    assert set(mine.history_) == {"loss", "mse"}
    assert mine.history_["loss"][0] == pytest.approx(2.0 * mine.history_["mse"][0])


# Training ---------------------------------------------------------------------------


def test_rows_that_are_held_out_stop_the_training_at_their_best(graph):
    X, _, _ = data()
    noise = np.random.default_rng(2).normal(size=len(X))  # nothing to learn
    mine = GroupRegressor(losses="mse", validation_fraction=0.3, epochs=200, random_state=0)
    mine.set_params(optimizer=keras.optimizers.Adam(0.05))

    mine.fit(X, noise)

    held_out = mine.history_["val_mse"]
    assert len(held_out) < 200
    assert len(held_out) - 1 - int(np.argmin(held_out)) == 10


def test_the_seed_decides_and_python_s_generator_is_left_alone():
    X, y, sex = data(40)
    random.seed(7)
    expected = random.Random(7).random()

    one, two, other = (
        GroupRegressor(epochs=2, batch_size=8, random_state=seed)
        .fit(X, y, sensitive_features=sex)
        .predict(X)
        for seed in (0, 0, 1)
    )

    assert np.array_equal(one, two)
    assert not np.allclose(one, other, rtol=1e-3)
    assert random.random() == expected


def test_a_keras_model_is_where_each_fit_starts():
    X, y, sex = data(40)
    start = linear(3, 1)
    before = start.get_weights()
    mine = GroupRegressor(start, epochs=2, random_state=0)

    one = mine.fit(X, y, sensitive_features=sex).predict(X)
    two = mine.fit(X, y, sensitive_features=sex).predict(X)

    assert np.array_equal(one, two)
    assert all(map(np.array_equal, before, start.get_weights()))


# scikit-learn's tools ---------------------------------------------------------------


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_cross_validation_routes_groups_and_weights_to_their_rows(routing):
    X, y, sex = data(60)
    w = np.random.default_rng(1).uniform(0.5, 2.0, size=len(y))
    mine = GroupRegressor(epochs=2, random_state=0)
    mine.set_fit_request(sensitive_features=True, sample_weight=True)
    scorer = make_scorer(gap_of).set_score_request(sensitive_features=True)
    unweighted = StandardScaler().set_fit_request(sample_weight=False)

    scores = cross_val_score(
        make_pipeline(unweighted, mine), X, y, scoring=scorer, cv=KFold(2),
        params={"sensitive_features": sex, "sample_weight": w},
    )  # fmt: skip

    for score, (train, test) in zip(scores, KFold(2).split(X)):
        scaler = StandardScaler().fit(X[train])
        by_hand = clone(mine).fit(
            scaler.transform(X[train]), y[train],
            sensitive_features=sex[train], sample_weight=w[train],
        )  # fmt: skip
        predicted = by_hand.predict(scaler.transform(X[test]))
        assert score == pytest.approx(gap_of(y[test], predicted, sex[test]), rel=1e-3)


def test_a_grid_search_finds_the_weight_with_the_smaller_gap(routing, graph):
    X, y, sex = standardized_data()
    mine = GroupRegressor(linear, epochs=4, batch_size=32, random_state=0)
    mine.set_params(optimizer=keras.optimizers.Adam(0.05))
    mine.set_fit_request(sensitive_features=True)
    scorer = make_scorer(gap_of).set_score_request(sensitive_features=True)

    search = GridSearchCV(
        mine, {"loss_weights": [(1.0, 0.0), (1.0, 5.0)]}, scoring=scorer, cv=2
    )
    search.fit(X, y, sensitive_features=sex)

    assert search.best_params_ == {"loss_weights": (1.0, 5.0)}
    assert search.best_estimator_.group_names_ == ["f", "m"]


def test_a_pickle_predicts_the_same(tmp_path):
    X, y, sex = data(40)
    mine = GroupRegressor(
        epochs=1,
        losses=["mse", functools.partial(alk.losses.GroupGap, momentum=0.0)],
        optimizer=keras.optimizers.Adam(0.01),
    ).fit(X, y, sensitive_features=sex)

    joblib.dump(mine, tmp_path / "estimator.joblib")
    for again in (
        pickle.loads(pickle.dumps(mine)),
        joblib.load(tmp_path / "estimator.joblib"),
    ):
        assert np.array_equal(again.predict(X), mine.predict(X))
    again.fit(X, y, sensitive_features=sex)
    assert clone(mine).get_params().keys() == mine.get_params().keys()


def test_columns_have_their_names_checked():
    X, y, sex = data(40)
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    mine = GroupRegressor(epochs=1).fit(table, y, sensitive_features=pd.Series(sex))

    assert mine.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        mine.predict(table[["b", "a", "c"]])


# Files ------------------------------------------------------------------------------


def test_the_exported_file_predicts_in_the_units_of_y(tmp_path):
    X, y, sex = data(40)
    mine = GroupRegressor(epochs=1).fit(X, y, sensitive_features=sex)

    mine.export(tmp_path / "predictor.keras")

    loaded = keras.models.load_model(tmp_path / "predictor.keras")
    assert np.allclose(loaded.predict(X, verbose=0)[:, 0], mine.predict(X), rtol=1e-5)
    assert abs(mine.predict(X).mean() - 50.0) < 15.0


def test_the_default_network_exports_to_onnx(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    X, y, sex = data(40)
    mine = GroupRegressor(epochs=1).fit(X, y, sensitive_features=sex)

    mine.export(tmp_path / "predictor.onnx")

    session = runtime.InferenceSession(tmp_path / "predictor.onnx")
    (given,) = session.get_inputs()
    (predicted,) = session.run(None, {given.name: X.astype("float32")})
    assert np.allclose(predicted[:, 0], mine.predict(X), rtol=1e-4)


# Refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({}, {"sensitive_features": ["f"] * 39}, "Received: sensitive_features=39, X=40"),
        ({}, {"sensitive_features": [None] * 40}, "a label for at least one row"),
        ({"losses": "group_gap"}, {}, "All of `losses` compare groups"),
        ({"losses": "mse", "loss_weights": [1, 2]}, {}, "must have one number per loss"),
        ({"losses": "mse", "validation_fraction": 0.001}, {}, "rows on both sides"),
        ({"losses": "mse", "validation_fraction": 1.0}, {}, r"must lie in \[0, 1\)"),
        ({"losses": "mse", "epochs": 0}, {}, "`epochs` must be a whole number"),
        ({"losses": "mse"}, {"sample_weight": [-1.0] * 40}, r"sample_weight\[0\]=-1"),
        ({"losses": "mse"}, {"sample_weight": np.ones((40, 2))}, "per row and output"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(options, given, message):
    X, y, _ = data(40)
    with pytest.raises(ValueError, match=message):
        GroupRegressor(**options).fit(X, y, **given)


def test_rows_in_another_order_are_refused():
    X, y, sex = data(40)
    labels = pd.Series(sex)[::-1]
    mine = GroupRegressor(epochs=1)
    with pytest.raises(ValueError, match="index"):
        mine.fit(pd.DataFrame(X), y, sensitive_features=labels)
    mine.fit(X, y, sensitive_features=sex)
    with pytest.raises(ValueError, match="index"):
        mine.report(X, pd.Series(y), sensitive_features=labels)


def test_a_predictor_that_is_neither_model_nor_function_is_refused():
    X, y, _ = data(40)
    with pytest.raises(TypeError, match="`predictor` must be a function"):
        GroupRegressor("linear", losses="mse").fit(X, y)


def test_before_fit_there_is_nothing_to_export(tmp_path):
    with pytest.raises(NotFittedError):
        GroupRegressor().export(tmp_path / "predictor.keras")


def test_a_label_that_is_new_has_no_report():
    X, y, sex = data(40)
    labels = np.where(y > 50, "high", "low")
    mine = GroupClassifier(epochs=1).fit(X, labels, sensitive_features=sex)
    labels[3] = "new"

    with pytest.raises(ValueError, match=r"Received: y\[3\]='new'"):
        mine.report(X, labels, sensitive_features=sex)


def test_without_scikit_learn_the_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "addloss_kit.sklearn")

    with pytest.raises(ImportError, match=r"Install the extra: pip install 'addloss_kit"):
        import addloss_kit.sklearn  # noqa: F401


@pytest.mark.parametrize("name", ["X", "y", "sample_weight"])
def test_masked_numbers_are_refused_by_an_estimator(name):
    given = {"X": np.zeros((3, 2)), "y": np.zeros(3), "sample_weight": np.ones(3)}
    given[name] = np.ma.masked_array(given[name])
    given[name][2] = np.ma.masked
    with pytest.raises(ValueError, match=rf"`{name}` must have no masked entries"):
        GroupRegressor(losses="mse").fit(**given)
