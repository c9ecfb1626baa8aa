"""Settings that hold for every test."""

import os
import sys
import threading

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
        "--slow",
        default="0/1",
        metavar="K/N",
        help="of the tests marked as slow only every N-th, beginning with number K",
    )
    parser.addoption(
        "--seconds-per-test",
        type=float,
        metavar="S",
        help="skip further cases of a test that have taken so long, and over 0.3 s each",
    )
    parser.addoption(
        "--begin",
        type=int,
        default=0,
        metavar="K",
        help="begin each test with its case number K (modulo their count)",
    )


def pytest_collection_modifyitems(config, items):
    slow = {_test_of(item): None for item in items if item.get_closest_marker("slow")}
    not_today = set(slow).difference(_part(list(slow), config.getoption("--slow")))
    items_today = [item for item in items if _test_of(item) not in not_today]
    chosen = set(_part(items_today, config.getoption("--part")))
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]
    cases = {}
    for place, item in enumerate(items):
        cases.setdefault(_test_of(item), []).append(place)
    begun = list(items)
    for places in cases.values():
        first = config.getoption("--begin") % len(places)
        for place, other in zip(places, places[first:] + places[:first]):
            items[place] = begun[other]


def _part(whole, part):
    """Every N-th of them, beginning with number K, for a `part` of "K/N"."""
    number, parts = map(int, part.split("/"))
    return whole[number::parts]


def _test_of(case):
    """What the cases of a test have in common; of an item or of a report."""
    return case.nodeid.split("[")[0]


_taken = {}  # by test: seconds of its cases so far, and how many these were


def pytest_runtest_logreport(report):
    taken = _taken.setdefault(_test_of(report), [0.0, 0])
    # The first case sets up what others share, of this test or of its file.
    if report.when == "call" or taken[1]:
        taken[0] += report.duration
    taken[1] += report.when == "call"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    most = item.config.getoption("--seconds-per-test")
    seconds, cases = _taken.get(_test_of(item), (0.0, 0))
    # Asked for by `--seconds-per-test`; of each test a case has run.
    if most is not None and cases and seconds > max(most, 0.3 * cases):
        pytest.skip("Other cases of this test have taken their time.")


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

    # Functions that TensorFlow calls from threads of its own are measured as others are.
    from tensorflow.python.ops import script_ops

    def _call(self, *given, call=script_ops.FuncRegistry.__call__):
        if sys.gettrace() is None:
            sys.settrace(threading.gettrace())
        return call(self, *given)

    script_ops.FuncRegistry.__call__ = _call


@pytest.fixture(autouse=True)
def same_start():
    """Every test starts from the same seed and an empty Keras session."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
