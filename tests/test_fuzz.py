"""Fixed seeds of the fuzz: `tests/fuzz.py` draws others for as long as it is let.

What a seed has found is a test where it belongs.
"""

import numpy as np
import pytest
from fuzz import Draw, check, draw_case

# Keras says what masks its own layers lose.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*was passed an input with a mask attached to it:UserWarning"
)


@pytest.mark.slow
# Keras's own steps, which take no time to compile: the loops have tests of their own.
@pytest.mark.parametrize("seed", [2, 12, 21])
def test_a_random_model_goes_the_whole_road(seed, tmp_path):
    check(seed, tmp_path, loop="keras")


def test_a_case_is_a_function_of_its_seed():
    first, again, other = (draw_case(seed, Draw(seed)) for seed in (5, 5, 6))

    assert first.drawn == again.drawn
    assert first.drawn != other.drawn
    for name, values in first.features.items():
        np.testing.assert_array_equal(values, again.features[name])


def test_a_failure_tells_the_seed_and_the_case(tmp_path, monkeypatch):
    def fails(*_):
        raise AssertionError("not the same")

    monkeypatch.setattr("fuzz._check", fails)

    with pytest.raises(AssertionError, match=r"seed 2: rows=.*loop=keras, feed=.*"):
        check(2, tmp_path, loop="keras")
