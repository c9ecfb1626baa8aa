"""Weights of terms are state: read, set, scheduled, saved."""

import engines
import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk


def a_model(loss_weights=(1.0, 0.5), **compile_arguments):
    keras.utils.set_random_seed(0)
    predictor = linear(3)
    model = alk.build_training_model(
        predictor, ["mse", alk.losses.GroupGap(2)], loss_weights=list(loss_weights)
    )
    model.compile(keras.optimizers.SGD(0.05), **compile_arguments)
    return model


def packed_for(model):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    return alk.pack_inputs(model, x, x.sum(1), group_ids=np.arange(40) % 2)


def fit(model, **arguments):
    given = {"batch_size": 8, "verbose": 0, "shuffle": False, **arguments}
    return model.fit(packed_for(model), **given).history


OWN = engines.KERAS_S_OWN


@pytest.mark.parametrize("how", [{}, OWN], ids=["loop", "Keras's own"])
def test_a_set_weight_trains_as_one_that_was_built_in(how):
    set_later = a_model(**how)
    fit(set_later)
    set_later.set_weights(a_model(**how).get_weights())
    set_later.loss_weights["group_gap"] = 2.0
    built_in = a_model((1.0, 2.0), **how)

    assert fit(set_later)["loss"] == pytest.approx(fit(built_in)["loss"], rel=1e-6)
    assert dict(set_later.loss_weights) == {"mse": 1.0, "group_gap": 2.0}


def test_a_weight_may_be_a_switch():
    model = a_model((True, np.bool_(False)))
    assert dict(model.loss_weights) == {"mse": 1.0, "group_gap": 0.0}
    model.loss_weights["group_gap"] = True
    assert model.loss_weights["group_gap"] == 1.0


def test_setting_some_leaves_the_others():
    model = a_model()
    model.loss_weights = {"mse": 3.0}

    assert dict(model.loss_weights) == {"mse": 3.0, "group_gap": 0.5}


def test_setting_a_weight_compiles_nothing():
    traces = []

    def counted(y_true, y_pred):
        traces.append(1)
        return keras.ops.abs(y_true - y_pred)

    predictor = linear(3)
    model = alk.build_training_model(predictor, [counted, "mse"])
    model.compile("sgd")
    rng = np.random.default_rng(0)
    packed = alk.pack_inputs(model, rng.normal(size=(16, 3)), rng.normal(size=16))
    model.fit(packed, batch_size=8, verbose=0)
    traces.clear()
    model.loss_weights["counted"] = 5.0
    model.fit(packed, batch_size=8, verbose=0)
    assert not traces


def test_a_schedule_warms_a_weight_up_and_is_shown():
    warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 2.0)
    history = fit(a_model((1.0, warm_up)), epochs=3)

    # Five steps an epoch; the mean of the weights at their steps, by hand.
    by_step = [min(0.2 * step, 2.0) for step in range(15)]
    expected = [np.mean(by_step[i : i + 5]) for i in (0, 5, 10)]
    assert history["group_gap_weight"] == pytest.approx(expected, rel=1e-5)
    total = np.array(history["mse"])
    assert np.all(np.array(history["loss"]) >= total - 1e-6)


@pytest.mark.parametrize("how", [{}, OWN], ids=["loop", "Keras's own"])
def test_weights_and_schedules_are_saved_and_go_on(how, tmp_path):
    def schedule():
        return keras.optimizers.schedules.PolynomialDecay(0.0, 10, 2.0)

    unbroken = a_model((1.0, schedule()), **how)
    unbroken.loss_weights["mse"] = 0.7
    wanted = fit(unbroken, epochs=2)
    model = a_model((1.0, schedule()), **how)
    model.loss_weights["mse"] = 0.7
    fit(model, epochs=1)
    model.save(tmp_path / "model.keras")

    loaded = alk.load_training_model(tmp_path / "model.keras")
    assert loaded.loss_weights["mse"] == pytest.approx(0.7)
    resumed = fit(loaded, initial_epoch=1, epochs=2)
    for name, values in resumed.items():
        assert values[-1] == pytest.approx(wanted[name][-1], rel=1e-5)


def test_add_loss_keeps_what_was_set():
    model = a_model()
    model.loss_weights["group_gap"] = 4.0
    more = alk.add_loss(model, keras.ops.mean(keras.ops.square(model.output)), name="size")

    assert dict(more.loss_weights) == {"mse": 1.0, "group_gap": 4.0, "size": 1.0}


def test_what_cannot_be_set_is_refused():
    model = a_model((1.0, keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)))
    with pytest.raises(KeyError, match="No term is named `gap`"):
        model.loss_weights["gap"] = 1.0
    with pytest.raises(ValueError, match="cannot be set to or from a schedule"):
        model.loss_weights["group_gap"] = 1.0
    with pytest.raises(ValueError, match=r"`loss_weights\['mse'\]` must be finite"):
        model.loss_weights["mse"] = float("inf")
    with pytest.raises(TypeError, match="cannot be taken out"):
        del model.loss_weights["mse"]
