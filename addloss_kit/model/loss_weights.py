"""The factors of the terms in the total loss: state that can be read, set, scheduled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from addloss_kit._checks import check_factor, did_you_mean, received
from addloss_kit._types import Tensor
from addloss_kit.model.bindings import BoundTerm


class LossWeights(MutableMapping[str, Any]):
    """The weight of each term by its name: `model.loss_weights["group_gap"] = 3.0`.

    The weights are variables of the endpoint, so a new value holds from the next step
    on, without a new `compile`. A schedule is read-only, as it is part of the graph.

    Args:
        layer: The layer that owns the variables.
        bound_terms: The terms with their first weights.
    """

    def __init__(self, layer: keras.layers.Layer, bound_terms: Sequence[BoundTerm]) -> None:
        self._bound = {b.name: b for b in bound_terms if b.weight is not None}
        first = [
            float(b.weight) if isinstance(b.weight, (int, float)) else 1.0
            for b in self._bound.values()
        ]

        def variable(name: str, value: Any, dtype: str | None = None) -> Any:
            return layer.add_weight(
                name=name,
                shape=np.shape(value),
                dtype=dtype,
                initializer=lambda shape, dtype: ops.convert_to_tensor(value, dtype),
                trainable=False,
                aggregation="only_first_replica",
            )

        self._values = variable("loss_weights", first)
        # Counted here: an optimizer's `iterations` stands still while it accumulates.
        self._step = variable("loss_weights_step", 0, "int32") if self.schedules else None

    @property
    def schedules(self) -> dict[str, LearningRateSchedule]:
        """The terms whose weight follows a schedule."""
        weights = {name: bound.weight for name, bound in self._bound.items()}
        return {n: w for n, w in weights.items() if isinstance(w, LearningRateSchedule)}

    def factors(self, dtype: str) -> dict[str, Tensor]:
        """Each term's weight as a scalar tensor, in this step."""
        values = ops.unstack(ops.cast(self._values, dtype), num=len(self._bound))
        factors = dict(zip(self._bound, values))
        if self._step is not None:
            step = ops.convert_to_tensor(self._step)
            for name, schedule in self.schedules.items():
                factors[name] = ops.cast(schedule(step), dtype)
        return factors

    def count_step(self) -> None:
        """Count a training step, so that schedules advance."""
        if self._step is not None:
            self._step.assign(self._step + 1)

    def bound_terms(self, bound_terms: Sequence[BoundTerm]) -> list[BoundTerm]:
        """The terms with their current weights."""
        return [
            b if b.weight is None else dataclasses.replace(b, weight=self[b.name])
            for b in bound_terms
        ]

    def __getitem__(self, name: str) -> Any:
        self._check_known(name)
        if name in self.schedules:
            return self.schedules[name]
        place = list(self._bound).index(name)
        return float(ops.convert_to_numpy(self._values)[place])

    def __setitem__(self, name: str, weight: Any) -> None:
        self._check_known(name)
        if name in self.schedules or isinstance(weight, LearningRateSchedule):
            raise ValueError(
                f"The weight of `{name}` cannot be set to or from a schedule, which is "
                "part of the graph. Pass the schedule to "
                "`build_training_model(loss_weights=...)`. "
                f"{received(**{name: type(weight).__name__})}"
            )
        named: dict[str, Any] = {f"loss_weights['{name}']": weight}
        check_factor(**named)
        values = ops.convert_to_numpy(self._values).copy()
        values[list(self._bound).index(name)] = float(weight)
        self._values.assign(values)

    def __delitem__(self, name: str) -> None:
        raise TypeError(
            f"A term cannot be taken out. Set `loss_weights['{name}'] = 0.0`. "
            f"{received(name=name)}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._bound)

    def __len__(self) -> int:
        return len(self._bound)

    def __repr__(self) -> str:
        return repr(dict(self))

    def update(self, other: Any = None, /, **weights: Any) -> None:
        """Set several weights, or none if one of them is wrong."""
        if other is not None and not isinstance(other, Mapping):
            raise TypeError(
                "`loss_weights` must be a dict by the name of the term: "
                f"{list(self._bound)}. {received(loss_weights=other)}"
            )
        former, given = dict(self), {**(other or {}), **weights}
        try:
            for name, weight in given.items():
                self[name] = weight
        except (KeyError, TypeError, ValueError):
            for name in set(given) & set(former) - set(self.schedules):
                self[name] = former[name]
            raise

    def _check_known(self, name: Any) -> None:
        if name not in self._bound:
            known = list(self._bound)
            raise KeyError(
                f"No term is named `{name}`. The terms are {known}."
                f"{did_you_mean(name, known)} {received(name=repr(name))}"
            )
