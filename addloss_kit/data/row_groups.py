"""Row groups of Parquet files: read, checked, and mixed in an order that repeats."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from addloss_kit._checks import received
from addloss_kit.data.balancing import check_ids
from addloss_kit.data.blocks import block_bounds
from addloss_kit.data.encoding import encode_groups
from addloss_kit.data.packing import by_input_name, checker_of
from addloss_kit.fields import GROUP_IDS, SAMPLE_WEIGHT

Arrays = dict[str, np.ndarray]

_EXAMPLE = "{'x': ['a', 'b'], 'y': 'c'}"
# Bytes. Some writers cut longer strings in the statistics.
_WHOLE_STRING = 16
# Footers of files that are kept: to read that of a wide file takes longer than a row group,
# and takes memory, a kilobyte for each column of each row group.
_FOOTERS = 1
# Columns are stacked in pieces of this size, which stay in the processor's cache.
_PIECE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """A row group of a file, and its number of rows."""

    path: str
    number: int
    rows: int


class RowGroupReader:
    """Reads row groups as checked arrays by Input name.

    Args:
        model: A `TrainingModel`.
        columns: As in `parquet_dataset`.
        group_names: As in `parquet_dataset`.
    """

    def __init__(self, model: Any, columns: Mapping[str, Any], group_names: Any) -> None:
        self.checker = checker_of(model)
        if not isinstance(columns, Mapping):
            raise TypeError(
                f"`columns` must be a dict of columns by word, such as `{_EXAMPLE}`. "
                f"{received(columns=type(columns).__name__)}"
            )
        self.columns = dict(columns)
        is_by_name = isinstance(group_names, Mapping)
        self.names = dict(group_names) if is_by_name else {GROUP_IDS: group_names}
        # Raises at once if one is missing or unknown to the model.
        self._feature_model = _Names(self.checker, list(model.feature_names))
        try:
            self._named(self.columns)
        except ValueError as error:
            raise ValueError(
                f"`columns` must be columns by word, such as `{_EXAMPLE}`. {error}"
            ) from None
        self.needed = list(dict.fromkeys(_leaves(self.columns)))
        self._footer = functools.lru_cache(_FOOTERS)(_footer)

    def read(self, group: RowGroup) -> Arrays:
        """A row group."""
        file = self._open(group)
        names = file.schema_arrow.names  # made anew each time
        known = set(names)
        missing = [name for name in self.needed if name not in known]
        if missing:
            raise ValueError(
                f"`columns` names {missing}, which {group.path} lacks. "
                f"{received(columns=names)}"
            )
        table = file.read_row_group(group.number, columns=self.needed)
        try:
            words = {word: self._array(word, c, table) for word, c in self.columns.items()}
            checked = self.checker.check(self._named(words), is_batch=True)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"In row group {group.number} of {group.path}: {error}"
            ) from None
        return {name: np.asarray(array) for name, array in checked.items()}

    def read_ids(self, group: RowGroup, name: str) -> np.ndarray:
        """The group ids of a row group, without its other columns.

        Args:
            group: The row group.
            name: Name of the Input that takes them.
        """
        column = self.columns.get(name)
        if not isinstance(column, str):
            raise ValueError(
                f"`balance_groups` needs the column of the ids. Pass `columns={{'{name}': "
                "...}`, or name another Input with `group_ids=`. "
                f"{received(columns=list(self.columns))}"
            )
        file = self._open(group)
        try:
            only = _only_value(file, group.number, column)
            if only is not None:
                ids = np.asarray(self._ids(name, np.array([only])))
                check_ids(name, ids)
                return np.repeat(ids, group.rows)
            table = file.read_row_group(group.number, columns=[column])
            ids = np.asarray(self._array(name, column, table))
            check_ids(name, ids)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"In row group {group.number} of {group.path}: {error}"
            ) from None
        return ids

    def _open(self, group: RowGroup) -> Any:
        import pyarrow.parquet

        written = os.stat(group.path)  # another file of that name has another footer
        footer = self._footer(group.path, written.st_mtime_ns, written.st_size)
        return pyarrow.parquet.ParquetFile(group.path, metadata=footer)

    def _named(self, words: Mapping[str, Any]) -> dict[str, Any]:
        rest = dict(words)
        x = rest.pop("x", {})
        y, weight = rest.pop("y", None), rest.pop(SAMPLE_WEIGHT, None)
        return by_input_name(self._feature_model, x, y, weight, rest)

    def _array(self, word: str, columns: Any, table: Any) -> Any:
        if isinstance(columns, Mapping):
            return {name: self._array(name, c, table) for name, c in columns.items()}
        if isinstance(columns, str):
            return self._ids(word, table.column(columns).to_numpy())
        return _stacked([self._array(word, name, table) for name in columns])

    def _ids(self, word: str, array: np.ndarray) -> np.ndarray:
        """Labels as ids, where `group_names` has names for them."""
        names = self.names.get(word)
        if names is not None:
            return encode_groups(array, group_names=names)[0]
        spec = self.checker.specs.get(word)
        if spec and spec.field.num_groups is not None and array.dtype.kind in "OUS":
            raise TypeError(
                f"`{word}` must be ids, or labels with names. Pass `group_names=[...]`, "
                f"the labels in the order of their ids. "
                f"{received(**{f'{word}[0]': array[0]})}"
            )
        return array


def _footer(path: str, *written: int) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).metadata


def _stacked(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns side by side, as `np.stack(columns, axis=1)`, which goes column by column."""
    rows, count = len(columns[0]), len(columns)
    dtype = np.result_type(*columns)
    stacked = np.empty((rows, count, *columns[0].shape[1:]), dtype)
    step = max(1, _PIECE_BYTES // max(1, stacked[:1].nbytes))
    for first in range(0, rows, step):
        piece = np.stack([column[first : first + step] for column in columns])
        stacked[first : first + step] = piece.swapaxes(0, 1)
    return stacked


def _only_value(file: Any, number: int, column: str) -> Any:
    """The value that all rows of a row group have, if its statistics tell; else `None`."""
    names = file.metadata.schema
    paths = [names.column(index).path for index in range(len(names))]
    if column not in paths:
        return None
    found = file.metadata.row_group(number).column(paths.index(column)).statistics
    if found is None or not (found.has_min_max and found.has_null_count):
        return None
    # The statistics of floats leave NaN out.
    is_whole = isinstance(found.min, int) or (
        isinstance(found.min, str) and len(found.min.encode()) < _WHOLE_STRING
    )
    is_one = found.null_count == 0 and found.min == found.max
    return found.min if is_one and is_whole else None


@dataclasses.dataclass(frozen=True)
class _Names:
    """What `by_input_name` asks of a model; worker processes can have a copy."""

    input_checker: Any
    feature_names: list[str]


class ShuffledGroups:
    """The batches of any epoch.

    Args:
        groups: The row groups of this process.
        reader: Reads them.
        batch_size: Rows per batch.
        steps: Batches per epoch.
        shuffle_rows: Rows in the buffer; 0 for the order of the files.
        seed: Makes the order reproducible.
    """

    def __init__(
        self,
        groups: Sequence[RowGroup],
        reader: RowGroupReader,
        batch_size: int,
        steps: int,
        shuffle_rows: int,
        seed: int,
    ) -> None:
        self.groups, self.reader = list(groups), reader
        self.batch_size, self.steps = batch_size, steps
        self.shuffle_rows, self.seed = shuffle_rows, seed

    def blocks(self, epoch: int, batches: int) -> Iterator[Arrays]:
        """The rows of an epoch, some batches at a time; see `block_bounds`.

        Args:
            epoch: The epoch, from 0.
            batches: Batches per block.
        """
        rows = sum(group.rows for group in self.groups)
        drawn = Drawn(self._parts(epoch))
        for first, end in block_bounds(self.steps, batches):
            yield drawn.take(min(end * self.batch_size, rows) - first * self.batch_size)

    def _parts(self, epoch: int) -> Iterator[Arrays]:
        """Row groups, or what the buffer gives of them."""
        if self.shuffle_rows == 0:
            yield from map(self.reader.read, self.groups)
            return
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.groups))
        parts = (self.reader.read(self.groups[index]) for index in order)
        yield from mixed(parts, self.shuffle_rows, random)


class Drawn:
    """Any number of rows at a time from parts of any size.

    Args:
        parts: The parts, which have as many rows as are taken.
    """

    def __init__(self, parts: Iterator[Arrays]) -> None:
        self.parts = parts
        self.left: Arrays | None = None

    def take(self, count: int) -> Arrays:
        """The next rows."""
        taken: list[Arrays] = []
        while count:
            if self.left is None or not rows_in(self.left):
                self.left = next(self.parts)
            some = sliced(self.left, 0, count)
            self.left = sliced(self.left, count, rows_in(self.left))
            count -= rows_in(some)
            taken.append(some)
        return joined(taken)


def mixed(
    parts: Iterable[Arrays], buffer_rows: int, random: np.random.Generator
) -> Iterator[Arrays]:
    """The rows of all parts, shuffled in a buffer of so many rows."""
    buffer: list[Arrays] = []
    count = 0
    for part in parts:
        buffer.append(part)
        count += rows_in(part)
        if count < buffer_rows:
            continue
        whole = permuted(joined(buffer), random)
        # The other half meets the rows that come.
        yield sliced(whole, 0, count // 2)
        buffer, count = [sliced(whole, count // 2, count)], count - count // 2
    if count:
        yield permuted(joined(buffer), random)


def _leaves(columns: Any) -> Iterator[str]:
    if isinstance(columns, str):
        yield columns
        return
    for part in columns.values() if isinstance(columns, Mapping) else columns:
        yield from _leaves(part)


def rows_in(arrays: Arrays) -> int:
    return int(next(iter(arrays.values())).shape[0])


def sliced(arrays: Arrays, first: int, end: int) -> Arrays:
    return {name: array[first:end] for name, array in arrays.items()}


def joined(parts: Sequence[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def chosen(arrays: Arrays, rows: np.ndarray) -> Arrays:
    # Several times as fast as `array[rows]`.
    return {name: np.take(array, rows, axis=0) for name, array in arrays.items()}


def permuted(arrays: Arrays, random: np.random.Generator) -> Arrays:
    return chosen(arrays, random.permutation(rows_in(arrays)))
