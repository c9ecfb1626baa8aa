"""What terms and metrics by group have in common: where ids and errors come from."""

from __future__ import annotations

from typing import Any

import keras

from addloss_kit._checks import check_name, check_positive_int
from addloss_kit._types import Config, ErrorLike, KerasTensor
from addloss_kit.fields import GROUP_IDS, Y_TRUE, Field, snake_case
from addloss_kit.per_sample_error import PerSampleError


class PerGroup:
    """A term or metric by group. A mixin, in front of the Keras class.

    Args:
        num_groups: Number of groups K.
        group_ids: Name of the Input that holds the ids.
        name: Key in the history. If `group_ids` is not the default, the default name
            is prefixed with it, so that two attributes do not collide.
        **kwargs: Those of the Keras class.
    """

    name: str  # of the Keras class

    def __init__(
        self,
        num_groups: int,
        *,
        group_ids: str = GROUP_IDS,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive_int(num_groups=num_groups)
        check_name(group_ids=group_ids)
        if name is None:
            name = snake_case(type(self).__name__)
            name = name if group_ids == GROUP_IDS else f"{group_ids}_{name}"
        super().__init__(name=name, **kwargs)  # type: ignore[call-arg]  # a mixin
        self.num_groups = int(num_groups)
        self.group_ids = group_ids

    def source(self, argument: str) -> str:
        """The name of the Input that feeds `argument`."""
        return self.group_ids if argument == GROUP_IDS else argument

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        """What the Input of `argument` must look like."""
        if argument != GROUP_IDS:
            return Field()
        return Field(shape=(), dtype="int32", num_groups=self.num_groups, reason=self.name)

    def get_config(self) -> Config:
        config: Config = super().get_config()  # type: ignore[misc]  # a mixin
        return {**config, "num_groups": self.num_groups, "group_ids": self.group_ids}


class ErrorPerGroup(PerGroup):
    """The same, if it is about the groups' errors.

    Args:
        error: Error of a sample, as `PerSampleError` takes it.
        **kwargs: Those of `PerGroup`.
    """

    def __init__(
        self, num_groups: int, *, error: ErrorLike = "squared_error", **kwargs: Any
    ) -> None:
        super().__init__(num_groups, **kwargs)
        self.error = error if isinstance(error, PerSampleError) else PerSampleError(error)

    def field(self, argument: str, prediction: KerasTensor) -> Field:
        """What the Input of `argument` must look like."""
        if argument == Y_TRUE:
            return self.error.field(prediction)
        return super().field(argument, prediction)

    def get_config(self) -> Config:
        error = keras.saving.serialize_keras_object(self.error)
        return {**super().get_config(), "error": error}

    @classmethod
    def from_config(cls, config: Config) -> Any:
        config = dict(config)
        if isinstance(config.get("error"), dict):
            config["error"] = keras.saving.deserialize_keras_object(config["error"])
        return super().from_config(config)  # type: ignore[misc]  # a mixin
