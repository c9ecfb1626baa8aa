"""One rule for the keys of the history: nothing overwrites anything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import keras

from addloss_kit._checks import received
from addloss_kit.model.bindings import BoundMetric
from addloss_kit.model.endpoint import LossEndpoint


def history_names(
    endpoint: LossEndpoint, bound_metrics: Sequence[BoundMetric]
) -> dict[str, str]:
    """The key in the history of each of the endpoint's values.

    A term has its own name, or `<name>_loss` where `loss` or a metric has it already.
    All else, such as a multiplier or a metric of each group, has its name or none.

    Raises:
        ValueError: If two would be logged under one key.
    """
    of_metrics = [key for bound in bound_metrics for key in metric_keys(bound.metric)]
    taken = {"loss", *of_metrics, *(bound.metric.name for bound in bound_metrics)}
    terms = [bound.name for bound in endpoint.bound_terms]
    states = [
        f"{bound.name}_{state}"
        for bound in endpoint.bound_terms
        for state in bound.term.watched()
    ]
    states += [f"{name}_weight" for name in endpoint.loss_weights.schedules]
    keys = {name: f"{name}_loss" if name in taken else name for name in terms}
    everything = ["loss", *of_metrics, *(keys[name] for name in terms), *states]
    twice = [key for key, count in Counter(everything).items() if count > 1]
    # `fit` logs the validation's `mse` as `val_mse`.
    twice += [key for key in everything if key.removeprefix("val_") in everything
              and key.startswith("val_")]  # fmt: skip
    if twice:
        raise ValueError(
            "Every key of the history must have one meaning. Give a loss or metric "
            f"another `name=`. {received(twice=sorted(set(twice)), keys=everything)}"
        )
    return {**keys, **{name: name for name in states}}


def metric_keys(metric: keras.metrics.Metric) -> list[str]:
    """What a metric logs: its name, or the keys of a result that is a dict."""
    if type(metric).__module__.split(".")[0] == "keras":
        return [metric.name]
    try:
        result = metric.result()
    except Exception:  # A custom metric may not have a result before its first batch.
        return [metric.name]
    return list(result) if isinstance(result, dict) else [metric.name]
