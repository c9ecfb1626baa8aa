"""A model's state in memory, to be put back: weights, optimizer, terms, seeds, metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def take_snapshot(model: Any) -> list[np.ndarray]:
    """The values of all variables of a compiled `TrainingModel`."""
    model.build_optimizer()
    return [np.array(ops.convert_to_numpy(variable)) for variable in _variables(model)]


def put_back(model: Any, snapshot: list[np.ndarray]) -> None:
    """Give the model a state that it had; what is compiled stays compiled."""
    for variable, value in zip(_variables(model), snapshot):
        variable.assign(value)


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]
