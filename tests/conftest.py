"""Settings that hold for every test."""

import os

# Before TensorFlow is imported: its start-up notes are no warnings of ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--part",
        default="0/1",
        metavar="K/N",
        help="of all cases only every N-th, beginning with number K",
    )
    parser.addoption(
        "--first-cases",
        action="store_true",
        help="with --part: the first case of each test as well",
    )


def pytest_collection_modifyitems(config, items):
    number, parts = map(int, config.getoption("--part").split("/"))
    chosen = set(items[number::parts])
    if config.getoption("--first-cases"):
        # Of each test, the case that is set last.
        firsts = {item.nodeid.split("[")[0]: item for item in reversed(items)}
        chosen.update(firsts.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A process takes a run of neighbours, which share what their file makes once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


if keras.backend.backend() == "tensorflow":
    # The end of an iterator may wait up to a minute for the thread that tunes it
    # (keras_internals/datasets.py): those that a test leaves behind held up later ones.
    import tensorflow as tf

    # Who asks XLA not to optimise programs that run for milliseconds, as CI does, means
    # TensorFlow's graphs, too.
    if "optimization_level=0" in os.environ.get("XLA_FLAGS", ""):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

    def _iterate(dataset, iterate=tf.data.Dataset.__iter__):
        # Not above: coverage is not measured yet there.
        from addloss_kit.keras_internals.datasets import without_tuning

        return iterate(without_tuning(dataset))

    tf.data.Dataset.__iter__ = _iterate


@pytest.fixture(autouse=True)
def same_start():
    """Every test starts from the same seed and an empty Keras session."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
