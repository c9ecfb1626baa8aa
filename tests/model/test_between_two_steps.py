"""Between two steps of `fit` a model has its weights, also for whom it is no `self.model`.

On JAX Keras takes the variables' values away for an epoch, and gives them back where a
callback asks for its `self.model`.
"""

import keras
import numpy as np
import pytest
from predictors import linear

import addloss_kit as alk

ROWS, BATCH = 12, 4


@pytest.fixture
def data(rng):
    return {"x": rng.normal(size=(ROWS, 2)), "y_true": rng.normal(size=(ROWS, 1))}


def built():
    keras.utils.set_random_seed(0)
    model = alk.build_training_model(linear(2), "mse")
    model.compile(keras.optimizers.SGD(0.1))
    return model


def fit(model, data, hook):
    """Two epochs in which `hook` is called after the second batch of each."""

    class AfterTheSecond(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                hook()

    options = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(data, callbacks=[AfterTheSecond()], **options)
    return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


@pytest.mark.parametrize("method", ["evaluate", "predict", "test_on_batch"])
def test_a_look_at_the_model_changes_nothing(data, method):
    undisturbed = fit(built(), data, lambda: None)
    model = built()
    ask = getattr(model, method)
    options = {} if method == "test_on_batch" else {"verbose": 0}
    for one, other in zip(fit(model, data, lambda: ask(data, **options)), undisturbed):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_look_shows_the_weights_of_the_steps_so_far(data):
    seen, model, alone = [], built(), built()
    fit(model, data, lambda: seen.append(model.predict(data, verbose=0)))
    first = {name: array[: 2 * BATCH] for name, array in data.items()}
    alone.fit(first, batch_size=BATCH, shuffle=False, verbose=0)
    np.testing.assert_allclose(seen[0], alone.predict(data, verbose=0), rtol=1e-5)


def test_a_weight_of_a_term_holds_from_the_next_step_on(data):
    model, alone = built(), built()

    def halve():
        model.loss_weights["mse"] = 0.5 * model.loss_weights["mse"]

    changed = fit(model, data, halve)
    for number in range(6):
        # Halved after the second and the fifth step.
        alone.loss_weights["mse"] = (1.0, 1.0, 0.5, 0.5, 0.5, 0.25)[number]
        rows = slice(number % 3 * BATCH, (number % 3 + 1) * BATCH)
        alone.train_on_batch({name: array[rows] for name, array in data.items()})
    for one, variable in zip(changed, alone.trainable_variables):
        other = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_batch_that_fails_does_not_bring_back_older_weights(data):
    model = built()
    model.train_on_batch(data)
    model.set_weights([np.full(w.shape, 7.0) for w in model.get_weights()])

    def fail(*args):
        raise RuntimeError("a step")

    model.train_function, former = fail, model.train_function
    with pytest.raises(RuntimeError, match="a step"):
        model.train_on_batch(data)
    model.train_function = former
    model.evaluate(data, verbose=0)
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), 7.0)
