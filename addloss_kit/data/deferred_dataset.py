"""DeferredDataset: what `make_dataset` returns on JAX, where `fit` needs no TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from addloss_kit.data.rows import Rows


class DeferredDataset:
    """A `RowDataset` that is made, and TensorFlow imported, once it is used as one.

    The compiled loop only takes its `rows`. For all else, `isinstance` included, it is
    the `RowDataset`.

    Args:
        rows: The rows, with their order. Their arrays are copied.
    """

    def __init__(self, rows: Rows) -> None:
        rows.aligned_arrays()
        self.rows = rows

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of this epoch, counted from 0."""
        self.rows.epoch = epoch

    @functools.cached_property
    def _dataset(self) -> Any:
        from addloss_kit.data.row_dataset import RowDataset

        return RowDataset(self.rows)

    def __getattr__(self, name: str) -> Any:
        if "rows" not in vars(self):  # while `copy` makes one
            raise AttributeError(name)
        return getattr(self._dataset, name)

    # What `isinstance` asks.
    @property  # type: ignore[misc]  # mypy wants it settable, which nobody needs
    def __class__(self) -> Any:
        return type(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset)

    def __len__(self) -> int:
        return len(self._dataset)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return repr(self._dataset)


def undeferred(x: Any) -> Any:
    """The rows of a `DeferredDataset`, whose class nobody must ask for; else `x`."""
    return x.rows if type(x) is DeferredDataset else x
