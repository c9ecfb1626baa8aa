"""The function inside Keras's losses and metrics, and its arguments.

`LossFunctionWrapper` and `MeanMetricWrapper` expose their function only in `get_config`,
which drops arguments (`delta` of `Huber`, `axis` of `CosineSimilarity`).
"""

from __future__ import annotations

from typing import Any


def wrapped_function(metric: Any) -> Any:
    """The function that a metric averages; `None` for other metrics."""
    return getattr(metric, "_fn", None)


def function_name(metric: Any) -> str:
    """The name of the function that a metric averages; `""` for other metrics."""
    return getattr(wrapped_function(metric), "__name__", "")


def function_arguments(loss: Any) -> dict[str, Any]:
    """The arguments with which a loss object calls its function."""
    return dict(getattr(loss, "_fn_kwargs", {}))
