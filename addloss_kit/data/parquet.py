"""parquet_dataset: batches from Parquet files, shuffled in an order that repeats."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from addloss_kit._checks import as_path, check_positive_int, received
from addloss_kit.data.balanced_groups import BalancedGroups
from addloss_kit.data.row_groups import RowGroup, RowGroupReader, ShuffledGroups
from addloss_kit.fields import GROUP_IDS


def parquet_dataset(
    paths: Any,
    model: Any,
    batch_size: int,
    *,
    columns: Mapping[str, Any],
    group_names: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    shuffle_rows: int = 100_000,
    balance_groups: bool | Sequence[float] | Mapping[int, float] = False,
    undo_weights: bool = False,
    group_ids: str = GROUP_IDS,
    group_sizes: Mapping[int, int] | None = None,
    shard: tuple[int, int] = (0, 1),
    drop_remainder: bool = False,
    seed: int | None = None,
) -> Any:
    """Batches from Parquet files that do not fit into memory.

    Row groups are read one after the other, each checked as `pack_inputs` checks arrays,
    and mixed in a buffer. Their order, and that of the rows, is a function of `seed` and
    the epoch. `TrainingModel.fit` sets the epoch, so a training that was killed goes on
    with the order that it would have had. Needs `pyarrow`, the extra `parquet`.

    Args:
        paths: A file, or a list of them, with the same columns.
        model: A `TrainingModel`.
        batch_size: Rows per batch, from 1.
        columns: The columns by the words of `pack_inputs`: `"x"`, `"y"`,
            `"sample_weight"`, `"group_ids"`, or the name of an Input. A list of columns
            is stacked to `(rows, columns)`; a dict names them by feature or output.
        group_names: Names of the groups by id, from `encode_groups`, for a column of
            labels: a list for `group_ids`, or a dict of lists by Input name.
        shuffle_rows: Rows in the buffer; the more, the closer to a full shuffle. 0 leaves
            the rows in the order of the files.
        balance_groups: As in `make_dataset`: each batch then holds a fixed number of rows
            of each group. A group that fits into its share of the buffer is read once and
            kept. The row groups that have rows of another one are read for it alone, so
            files sorted by group are read once, others up to once per group.
        undo_weights: As in `make_dataset`.
        group_ids: Name of the Input that takes the ids.
        group_sizes: Rows by id in what this process reads, -1 for no group. If none, they
            are counted from the files' statistics, or from this one column, behind a
            progress bar.
        shard: `(index, count)`: read the row groups `index`, `index + count`, …, so that
            `count` processes read disjoint rows.
        drop_remainder: Whether to leave out a last batch of fewer rows.
        seed: Makes the order repeat. If none, drawn from NumPy's global generator.

    Returns:
        A `tf.data.Dataset` of dicts by Input name, of known cardinality, with a method
        `set_epoch`.

    Raises:
        ImportError: If `pyarrow` is not installed.
        FileNotFoundError: If a path is not that of a file.
        ValueError: If a column is missing or does not fit its Input, or there are too few
            row groups or rows. Values are checked as they are read.
    """
    from addloss_kit.data.parquet_stream import ParquetDataset  # which imports TensorFlow

    check_positive_int(batch_size=batch_size)
    check_positive_int(least=0, shuffle_rows=shuffle_rows)
    if seed is None:
        seed = int(np.random.randint(2**31))
    check_positive_int(least=0, seed=seed)
    groups = _row_groups(paths, shard)
    reader = RowGroupReader(model, columns, group_names)
    rows = sum(group.rows for group in groups)
    steps = rows // batch_size if drop_remainder else -(-rows // batch_size)
    if steps == 0:
        raise ValueError(
            "There must be at least one batch. Pass more rows, or a smaller `batch_size`. "
            f"{received(rows=rows, batch_size=batch_size)}"
        )
    if balance_groups is False:
        if undo_weights or group_sizes is not None:
            raise ValueError(
                "`undo_weights` and `group_sizes` need `balance_groups`. Pass "
                "`balance_groups=True`, or omit them. "
                f"{received(undo_weights=undo_weights, group_sizes=group_sizes)}"
            )
        order = ShuffledGroups(groups, reader, batch_size, steps, shuffle_rows, seed)
        return ParquetDataset(order)
    balanced = BalancedGroups(
        groups,
        reader,
        batch_size,
        steps,
        shuffle_rows,
        seed,
        name=group_ids,
        shares=balance_groups,
        undo_weights=undo_weights,
        sizes=group_sizes,
    )
    return ParquetDataset(balanced)


def _row_groups(paths: Any, shard: tuple[int, int]) -> list[RowGroup]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "`parquet_dataset` needs `pyarrow`. Run `pip install 'addloss_kit[parquet]'`."
        ) from error
    index, of = shard
    check_positive_int(of=of)
    check_positive_int(least=0, index=index)
    groups = []
    for path in _files(paths):
        metadata = pyarrow.parquet.ParquetFile(path).metadata
        for number in range(metadata.num_row_groups):
            groups.append(RowGroup(path, number, metadata.row_group(number).num_rows))
    if index >= of or index >= len(groups):
        raise ValueError(
            "`shard` must be `(index, count)` with a row group for each index. Write files "
            f"with more row groups. {received(shard=shard, row_groups=len(groups))}"
        )
    return groups[index::of]


def _files(paths: Any) -> list[str]:
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not isinstance(listed, Iterable):
        raise TypeError(
            "`paths` must be paths of files. Call `parquet_dataset(paths, model, "
            f"batch_size, columns=...)`. {received(paths=type(paths).__name__)}"
        )
    files = [as_path(paths=path) for path in listed]
    missing = [path for path in files if not os.path.isfile(path)]
    if missing or not files:
        raise FileNotFoundError(
            "`paths` must be paths of files. List those of a folder with "
            "`sorted(pathlib.Path(folder).glob('*.parquet'))`. "
            f"{received(paths=missing[:3])}"
        )
    return files
