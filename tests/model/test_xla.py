"""Every term computes the same eagerly, as a graph, and by XLA."""

import every_term
import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
WAYS = {
    "tensorflow": {
        "eager": {"run_eagerly": True},
        "graph": {"jit_compile": False},
        "xla": {"jit_compile": True},
    },
    "jax": {"eager": {"run_eagerly": True}, "xla": {"jit_compile": True}},
    "torch": {"eager": {"jit_compile": False}},
}[BACKEND]


def train(**compile_arguments):
    """Logs and state after 3 steps, the last on a partial batch."""
    keras.utils.set_random_seed(0)
    model = every_term.build(keras.optimizers.SGD(0.01), **compile_arguments)
    packed = every_term.data(model, 19)
    history = model.fit(packed, y=None, batch_size=8, shuffle=False, verbose=0).history
    return {**history, **every_term.state(model)}


@pytest.mark.slow
@pytest.mark.skipif(len(WAYS) == 1, reason="Keras on torch runs eagerly only.")
def test_eager_graph_and_xla_train_every_term_alike():
    eager, *others = [train(**arguments) for arguments in WAYS.values()]
    for other in others:
        assert other.keys() == eager.keys()
        for key in eager:
            np.testing.assert_allclose(
                other[key], eager[key], rtol=1e-6, atol=1e-6, err_msg=key
            )


def test_every_term_lets_keras_compile_by_xla():
    assert all(term.supports_jit for term in every_term.every_term())
