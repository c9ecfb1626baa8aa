"""As many steps are taken as are asked for, whatever an execution holds.

Keras rounds up to whole executions: with 4 steps each, 5 steps of an endless stream
become 8.
"""

import engines
import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk

BATCH, STEPS = 4, 5
BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras on torch has one step per execution."
)


def built(steps_per_execution, jit_compile=False):
    keras.utils.set_random_seed(0)
    terms = ["mse", alk.losses.GroupGap(2)]
    model = alk.build_training_model(linear(3, name=None), terms)
    model.compile(
        keras.optimizers.SGD(0.1),
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
    )
    rng = np.random.default_rng(0)
    x, ids = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    return model, alk.pack_inputs(model, x, x[:, 0] + ids, group_ids=ids)


def generator(packed):
    while True:
        for first in range(0, 40, BATCH):
            yield {name: array[first : first + BATCH] for name, array in packed.items()}


def endless(packed):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(dict(packed)).batch(BATCH).repeat()


FEEDS = {"a generator": generator, "tf.data": endless}


@pytest.fixture(params=FEEDS)
def feed(request):
    return FEEDS[request.param]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_evaluate(feed, jit_compile):
    model, packed = built(4, jit_compile)
    logs = model.evaluate(feed(packed), steps=STEPS, verbose=0, return_dict=True)
    # By hand, over the rows of the first five batches.
    rows = {name: array[: STEPS * BATCH] for name, array in packed.items()}
    predicted = engines.as_numpy(model.predict(rows, verbose=0))
    errors = (predicted - rows["y_true"]) ** 2
    assert logs["mse"] == pytest.approx(float(errors.mean()), rel=1e-5)
    assert model.steps_per_execution == 4


def test_predict(feed):
    model, packed = built(4)
    predicted = model.predict(feed(packed), steps=STEPS, verbose=0)
    assert len(predicted) == STEPS * BATCH
    whole = model.predict(packed, verbose=0)
    np.testing.assert_allclose(predicted, whole[: STEPS * BATCH], rtol=1e-6)


def test_fit_and_its_validation(feed):
    # One epoch: a generator is read ahead, so where the next begins is chance.
    options = {"steps_per_epoch": STEPS, "verbose": 0}
    trained = {}
    for steps_per_execution in (1, 4):
        model, packed = built(steps_per_execution)
        validation = {"validation_data": feed(packed), "validation_steps": 3}
        history = model.fit(feed(packed), **options, **validation).history
        assert int(model.optimizer.iterations) == STEPS
        trained[steps_per_execution] = (model.get_weights(), history)
    for one, four in zip(trained[1][0], trained[4][0], strict=True):
        np.testing.assert_allclose(four, one, rtol=1e-5, atol=1e-6)
    # A training's logs are those of its last execution, so only validation is the same.
    for name in ("val_loss", "val_mse", "val_group_gap"):
        assert trained[4][1][name] == pytest.approx(trained[1][1][name], rel=1e-4)


@pytest.mark.parametrize("steps", [STEPS, 8])
def test_validation_within_a_looped_fit_after_an_evaluation(feed, steps):
    # The evaluation leaves a function of 4 steps; within the fit Keras counts single ones.
    model, packed = built(4, jit_compile=True)
    model.evaluate(feed(packed), steps=8, verbose=0)
    validation = {"validation_data": feed(packed), "validation_steps": steps}
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    history = model.fit(packed, **options, **validation).history
    rows = {name: array[: steps * BATCH] for name, array in packed.items()}
    predicted = engines.as_numpy(model.predict(rows, verbose=0))
    errors = (predicted - rows["y_true"]) ** 2
    assert history["val_mse"] == pytest.approx([float(errors.mean())], rel=1e-5)
    assert model.steps_per_execution == 4


def test_a_multiple_of_the_execution_keeps_keras_s_function(feed):
    model, packed = built(4)
    model.evaluate(feed(packed), steps=8, verbose=0)
    function = model.test_function
    model.evaluate(feed(packed), steps=4, verbose=0)
    model.evaluate(feed(packed), steps=5, verbose=0)
    assert model.test_function is function
