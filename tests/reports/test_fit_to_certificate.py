"""fit_to_certificate: from training to a bound that holds, on a linear model."""

import keras
import numpy as np
import pytest

import addloss_kit as alk

PARTS = {"train": slice(400), "validation": slice(400, 800), "certify": slice(800, 1600)}


def make_model(weight=0.5):
    keras.utils.set_random_seed(0)
    predictor = keras.Sequential(
        [keras.Input((1,), name="x"), keras.layers.Dense(1, use_bias=False)]
    )
    model = alk.build_training_model(
        predictor,
        ["mse", alk.losses.GroupGap(2, distance="absolute")],
        loss_weights=[1.0, weight],
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.5))
    return model


@pytest.fixture(scope="module")
def rows():
    """Two groups with the slopes 1 and 2; the second has a third of the rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1600, 1)).astype("float32")
    ids = (rng.random(1600) < 1 / 3).astype(int)
    y = np.where(ids, 2.0, 1.0) * x[:, 0] + 0.2 * rng.normal(size=1600)
    model = make_model()
    return {
        name: alk.pack_inputs(model, x[part], y[part], group_ids=ids[part])
        for name, part in PARTS.items()
    }


OPTIONS = {"values": [0.05, 0.15], "epochs": 6, "batch_size": 100, "seed": 0}
OPTIONS |= {"patience": None, "verbose": 0}


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assert_same_state(model, before):
    for now, former in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(now, former)


def assert_judges(certificate, point, unseen):
    predictions = unseen["x"] * point.weights[0]
    report = alk.group_report(unseen["y_true"], predictions, unseen["group_ids"])
    own = report.certify(certificate.bound)
    assert certificate.verdict == own.verdict
    assert certificate.upper == pytest.approx(own.upper, rel=1e-4)


@pytest.fixture(scope="module")
def fitted(rows):
    """A model that was trained before, its state then, and its choice."""
    model = make_model()
    model.fit(rows["train"], epochs=1, verbose=0)
    before = state(model)
    choice = alk.fit_to_certificate(model, "group_gap", *rows.values(), 0.2, **OPTIONS)
    return model, before, choice


def test_the_value_that_holds_is_chosen(fitted, rows):
    # The loss 2/3·(1−s)² + 1/3·(2−s)² + w·gap, of x with a mean square of 1, is least at
    # s = 4/3 + w, where the gap (2−s)² − (1−s)² is 1/3 − 2·w: 0.33, 0.23 and 0.03.
    _, _, choice = fitted
    assert choice.verdict == "holds" and choice.point.value == 0.15
    assert [p.value for p, _ in choice.tests] == [0.15, 0.05]
    for point, certificate in choice.tests:
        assert_judges(certificate, point, rows["certify"])


def test_the_model_is_as_it_was(fitted, rows):
    model, before, choice = fitted
    assert_same_state(model, before)
    # Also where it was something else in between: the state of a point.
    choice.curve.build_model(choice.curve.start)
    between = state(model)
    choice.curve.certify(rows["certify"], 0.2)
    assert_same_state(model, between)


def test_the_model_of_the_choice_predicts_with_its_weights(fitted, rows):
    _, _, choice = fitted
    model = choice.build_model()
    predictions = model.predict(rows["certify"], verbose=0)
    np.testing.assert_allclose(
        predictions, rows["certify"]["x"] * choice.point.weights[0], rtol=1e-5
    )


def test_a_function_that_builds_models_does_as_well(rows):
    built = alk.fit_to_certificate(
        make_model,
        train=rows["train"],
        validation=rows["validation"],
        certify_rows=rows["certify"],
        bound=0.2,
        max_tests=1,
        **(OPTIONS | {"values": [0.15]}),
    )
    assert built.point.value == 0.15 and len(built.tests) == 1
    assert_judges(built.certificate, built.point, rows["certify"])


def test_errors_and_names_of_groups_are_those_of_the_curve(rows):
    options = OPTIONS | {"values": [0.1], "epochs": 1, "error": "absolute_error"}
    choice = alk.fit_to_certificate(
        make_model(),
        "group_gap",
        *rows.values(),
        9.0,
        of="worst_error",
        group_names=["many", "few"],
        **options,
    )
    assert choice.certificate.heading == "MAE"
    first = {key: values[:60] for key, values in rows["certify"].items()}
    unsure = choice.curve.certify(first, 9.0, "worst_error").certificate
    assert unsure.reason == "fewer than 30 rows in few"


def never(*args):
    raise AssertionError("trained before it was refused")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bound": "0.1"}, TypeError, "`bound` must be a number"),
        ({"bound": np.nan}, ValueError, "`bound` must be finite"),
        ({"of": "ratio"}, ValueError, "`of`. Expected one of"),
        ({"confidence": 95}, ValueError, "`confidence` must lie in"),
        ({"max_tests": 0}, ValueError, "`max_tests` must be a whole number"),
        ({"errors_within": (1.0, 0.0)}, ValueError, "with low below high"),
        (
            {"errors_within": (0.0, 1.0), "of": "error_increase"},
            ValueError,
            "`errors_within` bounds a gap or a largest error",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_before_any_training(
    rows, change, error, message
):
    parts = dict(zip(("train", "validation", "certify_rows"), rows.values()))
    with pytest.raises(error, match=message):
        alk.fit_to_certificate(never, **{**parts, "bound": 0.1, **change})


@pytest.mark.parametrize("name", ["train", "validation"])
def test_rows_that_chose_are_refused_before_any_training(rows, name):
    with pytest.raises(ValueError, match=rf"`certify_rows` must.*rows of `{name}`"):
        alk.fit_to_certificate(never, rows["train"], rows["validation"], rows[name], 0.1)


@pytest.mark.parametrize("name", ["x", "y_true", "group_ids"])
def test_a_missing_entry_is_refused_before_any_training(rows, name):
    lacking = {key: v for key, v in rows["certify"].items() if key != name}
    with pytest.raises(ValueError, match=rf"`certify_rows` must.*missing=\['{name}'\]"):
        alk.fit_to_certificate(never, rows["train"], rows["validation"], lacking, 0.1)


def test_several_outputs_are_refused_before_any_training(rows):
    x = keras.Input((1,), name="x")
    predictor = keras.Model(x, {n: keras.layers.Dense(1, name=n)(x) for n in "ab"})
    model = alk.build_training_model(predictor, {"a": "mse", "b": "mse"})
    model.compile("adam")
    model.fit = never
    with pytest.raises(ValueError, match=r"`model` must have one output.*outputs=2"):
        alk.fit_to_certificate(model, "a_mse", *rows.values(), 0.1)


@pytest.mark.parametrize("part", ["validation", "certify_rows"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("y_true", np.nan, "`y_true` must be finite"),
        ("group_ids", 2, r"`group_ids` must lie in \[0, 2\)"),
        ("x", None, ".*must have one row per row of"),
    ],
)
def test_values_are_refused_before_any_training(rows, part, name, value, message):
    model = make_model()
    model.fit = never
    parts = dict(zip(("train", "validation", "certify_rows"), rows.values()))
    column = parts[part][name].copy()
    if value is None:
        column = column[1:]
    else:
        column[3] = value
    parts[part] = parts[part] | {name: column}
    with pytest.raises(ValueError, match=rf"`{part}.*{message}"):
        alk.fit_to_certificate(model=model, term="group_gap", **parts, bound=0.2, **OPTIONS)


def test_rows_that_trained_are_told_once(rows):
    again = {key: column[::-1].copy() for key, column in rows["train"].items()}
    parts = rows["train"], rows["validation"], again
    with pytest.warns(UserWarning) as told:
        alk.fit_to_certificate(make_model(), "group_gap", *parts, 0.2, **OPTIONS)
    assert sum("stand in `train`" in str(warning.message) for warning in told) == 1


def broken(certify, name, value):
    column = certify[name].astype(type(value))
    column[3] = value
    return certify | {name: column}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "y_true", "value": np.nan}, ValueError, "`y_true` must be finite"),
        (
            {"name": "group_ids", "value": 2},
            ValueError,
            r"`group_ids` must lie in \[0, 2\)",
        ),
    ],
)
def test_values_are_refused_before_a_built_model_is_trained(rows, change, error, message):
    model = make_model()
    model.fit = never
    parts = rows["train"], rows["validation"], broken(rows["certify"], **change)
    with pytest.raises(error, match=rf"In `certify_rows`: {message}"):
        alk.fit_to_certificate(lambda value: model, *parts, 0.2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"values": [0.1, np.nan]}, ValueError, r"`values\[1\]` must be finite"),
        ({"values": [0.1, "1"]}, TypeError, r"`values\[1\]` must be a number"),
        ({"group_ids": np.zeros(3)}, TypeError, "`group_ids` must be the name of an Input"),
        ({"group_names": ["a"]}, ValueError, r"ids'\]` must lie in \[0, 1\)"),
        ({"group_names": ["a", "a"]}, ValueError, "`group_names` must differ"),
        ({"error": "squared_eror"}, ValueError, "Did you mean `squared_error`"),
    ],
)
def test_options_are_refused_before_any_training(rows, options, error, message):
    with pytest.raises(error, match=message):
        alk.fit_to_certificate(never, *rows.values(), 0.2, **options)


@pytest.mark.parametrize("part", ["validation", "certify"])
@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (np.arange(800.0), TypeError, r"ids'\]` must be whole numbers.*float64"),
        (np.full(800, -1), ValueError, "` must have a row with a group"),
    ],
)
def test_ids_are_refused_before_any_training(rows, part, ids, error, message):
    parts = rows | {part: rows[part] | {"group_ids": ids[: len(rows[part]["x"])]}}
    with pytest.raises(error, match=message):
        alk.fit_to_certificate(never, *parts.values(), 0.2, of="error_increase")
