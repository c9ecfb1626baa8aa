"""The blocks of docs/deployment.md run, one after the other."""

import pathlib

import keras
import numpy as np
import pytest
from pages import python_blocks

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "deployment.md"


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow writes every format"
)
def test_the_blocks_run_and_all_runtimes_agree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace, predictions = {}, []
    for block in python_blocks(PAGE):
        namespace.pop("predictions", None)
        block.run(PAGE, namespace)
        if "predictions" in namespace:
            predictions.append(np.asarray(namespace["predictions"]))
    assert len(predictions) == 4
    for other in predictions[1:]:
        np.testing.assert_allclose(other, predictions[0], rtol=1e-4, atol=1e-5)
    assert namespace["train_or_resume"]().optimizer.iterations == 12
