"""Batches from Parquet files that hold a fixed number of rows of each group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import check_positive_int, received
from addloss_kit.data.balancing import (
    quotas,
    shares_by_group,
    slots,
    weighted,
)
from addloss_kit.data.blocks import block_bounds
from addloss_kit.data.row_groups import (
    Arrays,
    Drawn,
    RowGroup,
    RowGroupReader,
    chosen,
    joined,
    mixed,
    permuted,
    rows_in,
)

# Rows of each id, row group by row group; without counts, any may have some.
Counts = list[dict[int, int]]


def count_ids(groups: Sequence[RowGroup], reader: RowGroupReader, name: str) -> Counts:
    """Rows of each id in each row group, from the files' statistics or one column.

    Args:
        groups: The row groups.
        reader: Reads them.
        name: Name of the Input that takes the ids.
    """
    progress = keras.utils.Progbar(len(groups), unit_name="row group")
    counts = []
    for number, group in enumerate(groups, start=1):
        ids, sizes = np.unique(reader.read_ids(group, name), return_counts=True)
        counts.append({int(k): int(n) for k, n in zip(ids, sizes)})
        progress.update(number)
    return counts


class BalancedGroups:
    """The batches of any epoch, each with a fixed number of rows of each group.

    A group that fits into its share of the buffer is read once and kept. The row groups
    that have rows of another one are read in an order of its own, and its rows mixed in
    a buffer. A group begins anew when all of its rows have had their turn.

    Args:
        groups: The row groups of this process.
        reader: Reads them.
        batch_size: Rows per batch.
        steps: Batches per epoch.
        shuffle_rows: Rows in all buffers; 0 for the order of the files.
        seed: Makes the order repeat.
        name: Name of the Input that takes the ids.
        shares: As `balance_groups` of `make_dataset`.
        undo_weights: As in `make_dataset`.
        sizes: Rows of each id; `None` to count them.
    """

    def __init__(
        self,
        groups: Sequence[RowGroup],
        reader: RowGroupReader,
        batch_size: int,
        steps: int,
        shuffle_rows: int,
        seed: int,
        *,
        name: str,
        shares: Any,
        undo_weights: bool,
        sizes: Mapping[int, int] | None,
    ) -> None:
        self.groups, self.reader, self.name = list(groups), reader, name
        self.batch_size, self.steps = batch_size, steps
        self.shuffle_rows, self.seed = shuffle_rows, seed
        counts = None if sizes is not None else count_ids(groups, reader, name)
        found = _total(counts) if sizes is None else _given(sizes, groups)
        self._ids = np.array(sorted(found))
        rows = np.array([found[k] for k in self._ids.tolist()])
        self._quota = quotas(shares_by_group(shares, self._ids, rows), batch_size)
        self._places = [
            [n for n in range(len(self.groups)) if counts is None or k in counts[n]]
            for k in self._ids.tolist()
        ]
        self._buffers = shuffle_rows * self._quota // batch_size
        self._is_kept = rows <= self._buffers
        self._kept: dict[int, Arrays] | None = None
        factor = (rows / rows.sum()) / (self._quota / batch_size)
        self._group, self._within = slots(self._quota)
        self._factor = factor[self._group] if undo_weights else None
        if undo_weights:  # raises at once if there are none
            weighted({name: np.ones(1) for name in reader.checker.specs}, np.ones(1))

    def blocks(self, epoch: int, batches: int) -> Iterator[Arrays]:
        """The rows of an epoch, some batches at a time; see `block_bounds`.

        Args:
            epoch: The epoch, from 0.
            batches: Batches per block.
        """
        drawn = [Drawn(self._rows(place, epoch)) for place in range(len(self._ids))]
        for first, end in block_bounds(self.steps, batches):
            count = end - first
            block = joined([d.take(int(n) * count) for d, n in zip(drawn, self._quota)])
            block = chosen(block, self._layout(count))
            if self._factor is not None:
                block = weighted(block, np.tile(self._factor, count))
            yield block

    def _layout(self, count: int) -> np.ndarray:
        """Where the rows of so many batches are if those of each group lie together."""
        begin = (np.cumsum(self._quota) - self._quota) * count
        batch = np.arange(count)[:, None]
        rows: np.ndarray = (begin + batch * self._quota)[:, self._group] + self._within
        return rows.reshape(-1)

    def _rows(self, place: int, epoch: int) -> Iterator[Arrays]:
        """The rows of a group, again and again."""
        random = np.random.default_rng([self.seed, epoch, place])
        if self._is_kept[place]:
            kept = self._read_kept()[place]
            while True:
                yield permuted(kept, random)
        while True:
            order = np.array(self._places[place])
            if self.shuffle_rows:
                order = random.permutation(order)
            parts = self._parts(place, order)
            if self.shuffle_rows:
                parts = mixed(parts, int(self._buffers[place]), random)
            yield from parts

    def _parts(self, place: int, order: np.ndarray) -> Iterator[Arrays]:
        """The rows of a group in some row groups."""
        is_found = False
        for number in order:
            part = self._of(place, self.reader.read(self.groups[number]))
            if rows_in(part):
                is_found = True
                yield part
        if not is_found:
            raise ValueError(
                f"`group_sizes` names the id {self._ids[place]}, which no row has. Omit "
                "`group_sizes`, so that rows are counted. "
                f"{received(ids=self._ids.tolist())}"
            )

    def _read_kept(self) -> dict[int, Arrays]:
        """The groups that fit into their share of the buffer, in one pass."""
        if self._kept is None:
            places = np.flatnonzero(self._is_kept).tolist()
            parts: dict[int, list[Arrays]] = {place: [] for place in places}
            for number in sorted({n for place in places for n in self._places[place]}):
                arrays = self.reader.read(self.groups[number])
                for place in places:
                    parts[place].append(self._of(place, arrays))
            self._kept = {place: joined(found) for place, found in parts.items()}
        return self._kept

    def _of(self, place: int, arrays: Arrays) -> Arrays:
        """The rows of one group."""
        is_in = arrays[self.name].reshape(-1) == self._ids[place]
        return chosen(arrays, np.flatnonzero(is_in))


def _total(counts: Counts | None) -> dict[int, int]:
    total: dict[int, int] = {}
    for found in counts or []:
        for k, n in found.items():
            total[k] = total.get(k, 0) + n
    return total


def _given(sizes: Mapping[int, int], groups: Sequence[RowGroup]) -> dict[int, int]:
    """The sizes, if they may be true."""
    if not isinstance(sizes, Mapping):
        raise TypeError(
            "`group_sizes` must be a dict of numbers of rows by id, -1 for no group. "
            f"{received(group_sizes=type(sizes).__name__)}"
        )
    named: dict[str, Any] = {f"group_sizes[{k}]": n for k, n in sizes.items()}
    check_positive_int(**named)
    rows = sum(group.rows for group in groups)
    if sum(sizes.values()) != rows:
        raise ValueError(
            "`group_sizes` must add up to the rows that this process reads. Count rows "
            "without a group as -1, or omit `group_sizes`, so that rows are counted. "
            f"{received(**{'sum(group_sizes)': sum(sizes.values()), 'rows': rows})}"
        )
    return {int(k): int(n) for k, n in sizes.items()}
