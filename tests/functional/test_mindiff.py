"""group_mmd against the numbers that TensorFlow Model Remediation publishes.

Its `mmd_loss_test.py` has six digits, for scores after a sigmoid. Its estimate pairs
each row with itself, the kit's does not: with every row r times, the kit's value tends to
it as r grows, along a polynomial in 1/r that is extrapolated here.
"""

import numpy as np
import pytest
from keras import ops

from addloss_kit import functional

GROUPS = np.array([1, 0, 1, 0, 1])
RISING = np.array([0.3, 0.1, 0.86, 0.06, 0.75])
FALLING = np.array([0.12, 0.7, 0.2, 0.86, 0.32])
WEIGHTS = np.array([1.0, 2.0, 2.5, 1.2, 0.9])
# Its Gaussian kernel is exp(−d²/ℓ²), the kit's exp(−d²/2ℓ²).
GAUSSIAN = {"kernel": "gaussian", "bandwidth": 0.1 / 2**0.5}
LAPLACIAN = {"kernel": "laplacian", "bandwidth": 0.1}
PUBLISHED = [
    pytest.param(RISING, None, GAUSSIAN, 1.083264, id="GaussKernelNoWeights"),
    pytest.param(FALLING, None, GAUSSIAN, 1.464054, id="GaussKernelNegativeCorrelation"),
    pytest.param(RISING, WEIGHTS, GAUSSIAN, 1.293555, id="GaussKernelWithWeights"),
    pytest.param(FALLING, WEIGHTS, GAUSSIAN, 1.481506, id="GaussNegativeWithWeights"),
    pytest.param(RISING, None, LAPLACIAN, 0.970659, id="LaplaceKernelNoWeights"),
    pytest.param(FALLING, None, LAPLACIAN, 1.119343, id="LaplaceNegativeCorrelation"),
    pytest.param(RISING, WEIGHTS, LAPLACIAN, 1.122741, id="LaplaceKernelWithWeights"),
    pytest.param(FALLING, WEIGHTS, LAPLACIAN, 1.159840, id="LaplaceNegativeWithWeights"),
]


def value(scores, weights, options, copies):
    predictions = 1.0 / (1.0 + np.exp(-np.repeat(scores, copies)))
    of_rows = None if weights is None else np.repeat(weights, copies).astype("float32")
    ids = np.repeat(GROUPS, copies)
    mmd = functional.group_mmd(
        predictions.astype("float32"), ids, of_rows, num_groups=2, **options
    )
    return float(ops.convert_to_numpy(mmd))


@pytest.mark.parametrize(("scores", "weights", "options", "published"), PUBLISHED)
def test_many_copies_of_the_rows_give_the_published_number(
    scores, weights, options, published
):
    copies = np.array([16, 32, 64])
    values = [value(scores, weights, options, r) for r in copies]
    limit = np.polyval(np.polyfit(1.0 / copies, values, deg=2), 0.0)

    assert limit == pytest.approx(published, rel=3e-5)
    # Without copies the two differ, by the pairs of a row with itself.
    assert abs(value(scores, weights, options, 1) - published) > 0.05
