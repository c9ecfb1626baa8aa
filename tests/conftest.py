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
        help="of each test's cases only every N-th, beginning with number K; at least one",
    )


def pytest_collection_modifyitems(config, items):
    number, parts = map(int, config.getoption("--part").split("/"))
    tests = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen = set()
    for cases in tests.values():
        step = min(parts, len(cases))
        chosen.update(cases[number % step :: step])
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
