"""The function inside Keras's losses and metrics, and its arguments.

`LossFunctionWrapper` and `MeanMetricWrapper` hand their function out by `get_config`
alone, which forgets arguments (`Huber` its `delta`, `CosineSimilarity` its `axis`).
"""

from __future__ import annotations

from typing import Any


def function_name(metric: Any) -> str:
    """The name of the function that a metric averages; `""` for another kind."""
    return getattr(getattr(metric, "_fn", None), "__name__", "")


def function_arguments(loss: Any) -> dict[str, Any]:
    """The arguments that a loss object calls its function with."""
    return dict(getattr(loss, "_fn_kwargs", {}))
