"""BatchCheck: the batches of one stream, checked one by one."""

from __future__ import annotations

from typing import Any

from addloss_kit._checks import received
from addloss_kit.data.checking import InputChecker


class BatchCheck:
    """Checks the batches of one stream.

    Args:
        checker: What the Inputs take.
        stream: Name of the stream in messages, such as `fit`.
        has_targets: Whether a batch is `(x, y)`, for a model compiled with a `loss`.
    """

    def __init__(self, checker: InputChecker, stream: str, has_targets: bool) -> None:
        self.checker, self.stream, self.has_targets = checker, stream, has_targets
        self.error: Exception | None = None  # input pipelines turn it into their own

    def __call__(self, batch: Any, number: int | None = None) -> tuple[Any, ...]:
        """A batch as Keras takes it, a tuple whose first part is a dict.

        Args:
            batch: As the stream yields it.
            number: Its number, from 0, for messages.
        """
        try:
            x, rest = self.parts(batch)
            return (self.checker.check(self.checker.by_name(x), is_batch=True), *rest)
        except (TypeError, ValueError) as error:
            where = f"batch {number}" if number is not None else "a batch"
            self.error = type(error)(f"In {where} of `{self.stream}`: {error}")
            raise self.error from None

    def parts(self, batch: Any) -> tuple[Any, tuple[Any, ...]]:
        """The Inputs' part of a batch, or of its specification, and the rest."""
        if not isinstance(batch, tuple):
            return batch, ()
        x, rest = batch[0], batch[1:]
        if not self.has_targets:
            if any(part is not None for part in rest):
                raise ValueError(
                    f"`{self.stream}` would ignore all but the first part of the tuples, "
                    "because targets and weights are Inputs of the model. Yield dicts "
                    f"with the keys {list(self.checker.specs)}, as "
                    "`make_dataset(pack_inputs(...))` does, or give the columns' names: "
                    f"`pack_dataset(model, stream, columns=...)`. "
                    f"{received(parts=len(batch))}"
                )
            rest = ()
        return x, rest
