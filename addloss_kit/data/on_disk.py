"""Arrays on disk: read in pieces, whose pages are given back."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

# How much of a file may be mapped into memory at a time.
_PIECE_BYTES = 32 << 20
# The system maps up to 2 MB around a byte that is read; so many do not exceed a piece.
_ROWS_ANYWHERE = 16


def is_on_disk(array: Any) -> bool:
    """Whether it is a `np.memmap`, which `np.load(mmap_mode="r")` returns, or a view."""
    return _memmap(array) is not None


def any_on_disk(arrays: Any) -> bool:
    """Whether it is a dict with such an array."""
    return isinstance(arrays, Mapping) and any(map(is_on_disk, arrays.values()))


def pieces(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The rows in order, some at a time: the number of the first, and the rows."""
    rows = array.shape[0]
    step = max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
    for first in range(0, rows, step):
        yield first, array[first : first + step]
        give_back(array)


def take(arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Copies of some rows of each array, in the order of `rows`."""
    # In the order of the file, which a disk reads faster.
    order = np.argsort(rows)
    ordered = rows[order].astype("int64")  # to which the size of a piece is added
    place = np.empty(rows.size, "int64")
    place[order] = np.arange(rows.size)
    # `np.take` is several times as fast as `array[rows]`.
    return {
        name: np.take(_ordered_rows(array, ordered), place, axis=0)
        if is_on_disk(array)
        else np.take(array, rows, axis=0)
        for name, array in arrays.items()
    }


def _ordered_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copies of rows with ascending numbers."""
    mapped = np.asarray(array)
    taken: np.ndarray = np.empty((rows.size, *array.shape[1:]), array.dtype)
    span = max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
    first = 0
    while first < rows.size:
        end = int(np.searchsorted(rows, rows[first] + span))
        end = min(max(end, first + _ROWS_ANYWHERE), rows.size)
        taken[first:end] = np.take(mapped, rows[first:end], axis=0)
        give_back(array)
        first = end
    return taken


def give_back(array: np.ndarray) -> None:
    """Let the system reuse the memory of what was read; another read maps it anew."""
    owner = _memmap(array)
    # A change to a copy-on-write map is in these pages only.
    if owner is None or owner.mode == "c" or not isinstance(owner.base, mmap.mmap):
        return
    if hasattr(mmap, "MADV_DONTNEED"):
        owner.base.madvise(mmap.MADV_DONTNEED)


def _memmap(array: Any) -> np.memmap | None:
    """The map that an array is, or is a view of."""
    found = None
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            found = array  # the last one is over the file itself
        array = array.base
    return found
