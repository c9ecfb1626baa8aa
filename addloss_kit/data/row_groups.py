"""Row groups of Parquet files: read, checked, and mixed in an order that repeats."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from addloss_kit._checks import received
from addloss_kit.data.encoding import encode_groups
from addloss_kit.data.packing import by_input_name, checker_of
from addloss_kit.fields import GROUP_IDS, SAMPLE_WEIGHT

Arrays = dict[str, np.ndarray]


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
                "`columns` must be a dict of columns by word, such as `{'x': ['a', 'b'], "
                f"'y': 'c'}}`. {received(columns=type(columns).__name__)}"
            )
        self.columns = dict(columns)
        is_by_name = isinstance(group_names, Mapping)
        self.names = dict(group_names) if is_by_name else {GROUP_IDS: group_names}
        # Raises at once if one is missing or unknown to the model.
        self._feature_model = _Names(self.checker, list(model.feature_names))
        self._named(self.columns)
        self.needed = list(dict.fromkeys(_leaves(self.columns)))

    def read(self, group: RowGroup) -> Arrays:
        """A row group."""
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(group.path)
        missing = [name for name in self.needed if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(
                f"`columns` names {missing}, which {group.path} lacks. "
                f"{received(columns=file.schema_arrow.names)}"
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

    def _named(self, words: Mapping[str, Any]) -> dict[str, Any]:
        rest = dict(words)
        x = rest.pop("x", {})
        y, weight = rest.pop("y", None), rest.pop(SAMPLE_WEIGHT, None)
        return by_input_name(self._feature_model, x, y, weight, rest)

    def _array(self, word: str, columns: Any, table: Any) -> Any:
        if isinstance(columns, Mapping):
            return {name: self._array(name, c, table) for name, c in columns.items()}
        if isinstance(columns, str):
            array = table.column(columns).to_numpy()
            names = self.names.get(word)
            return (
                encode_groups(array, group_names=names)[0] if names is not None else array
            )
        return np.stack([self._array(word, name, table) for name in columns], axis=1)


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

    def batches(self, epoch: int) -> Iterator[Arrays]:
        """The batches of an epoch, in order."""
        left: list[Arrays] = []
        count = made = 0
        for part in self._parts(epoch):
            left.append(part)
            count += _rows(part)
            if count < self.batch_size:
                continue
            whole = _joined(left)
            while count >= self.batch_size and made < self.steps:
                first = _rows(whole) - count
                yield _slice(whole, first, first + self.batch_size)
                made, count = made + 1, count - self.batch_size
            left = [_slice(whole, _rows(whole) - count, _rows(whole))]
        if count and made < self.steps:
            yield _joined(left)

    def _parts(self, epoch: int) -> Iterator[Arrays]:
        """Row groups, or what the buffer gives of them."""
        if self.shuffle_rows == 0:
            yield from map(self.reader.read, self.groups)
            return
        random = np.random.default_rng([self.seed, epoch])
        buffer: list[Arrays] = []
        count = 0
        for index in random.permutation(len(self.groups)):
            buffer.append(self.reader.read(self.groups[index]))
            count += _rows(buffer[-1])
            if count < self.shuffle_rows:
                continue
            mixed = _permuted(_joined(buffer), random)
            # The other half meets the rows that come.
            yield _slice(mixed, 0, count // 2)
            buffer, count = [_slice(mixed, count // 2, count)], count - count // 2
        if count:
            yield _permuted(_joined(buffer), random)


def _leaves(columns: Any) -> Iterator[str]:
    if isinstance(columns, str):
        yield columns
        return
    for part in columns.values() if isinstance(columns, Mapping) else columns:
        yield from _leaves(part)


def _rows(arrays: Arrays) -> int:
    return int(next(iter(arrays.values())).shape[0])


def _slice(arrays: Arrays, first: int, end: int) -> Arrays:
    return {name: array[first:end] for name, array in arrays.items()}


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _permuted(arrays: Arrays, random: np.random.Generator) -> Arrays:
    order = random.permutation(_rows(arrays))
    return {name: array[order] for name, array in arrays.items()}
