"""make_dataset: a fast in-memory dataset of dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import check_positive_int, check_rows, received
from addloss_kit.data.balancing import BalancedPlan
from addloss_kit.data.conversion import refuse_masked
from addloss_kit.data.deferred_dataset import DeferredDataset
from addloss_kit.data.on_disk import is_on_disk
from addloss_kit.data.rows import Rows, as_given, native, shuffled
from addloss_kit.fields import GROUP_IDS


def make_dataset(
    inputs: Mapping[str, Any],
    batch_size: int,
    *,
    shuffle: bool = True,
    balance_groups: bool | Sequence[float] | Mapping[int, float] = False,
    undo_weights: bool = False,
    group_ids: str = GROUP_IDS,
    drop_remainder: bool = False,
    seed: int | None = None,
) -> Any:
    """A `tf.data.Dataset` over arrays in memory, one dict a batch.

    The rows of an epoch are permuted at once, and gathered in the graph, some batches
    at a time: one copy of the data, no Python between steps. `TrainingModel.fit` does
    better still, with TensorFlow and JAX: it runs many steps as one compiled loop that
    gathers its rows by itself. It does the same for a plain dict of `pack_inputs`; what
    this dataset adds is a seed, groups in balance, and `drop_remainder`.

    The order is a function of `seed` and the epoch. `TrainingModel.fit` sets the epoch,
    so two equal trainings see the same order, and one that was killed goes on with the
    order that it would have had. Elsewhere call `dataset.set_epoch(k)`; a complete pass
    counts as an epoch.

    With `balance_groups` each batch holds a fixed number of rows of each group. Every
    pass draws the rows of a group anew, and none a second time before all of the
    group have had their turn. A pass has as many steps as without, all of full size.

    Args:
        inputs: Arrays by Input name, from `pack_inputs`.
        batch_size: Rows per batch, from 1.
        shuffle: Whether each epoch has an order of its own. Group losses need it:
            see `losses.GroupGap`.
        balance_groups: `True` for equal shares of all groups in every batch; or the
            shares themselves, by id, as a sequence or dict: positive, only their
            ratios matter. A share is rounded to whole rows, at least one. Rows
            without a group (id -1) keep the share that they have in the data.
        undo_weights: With `balance_groups`, whether to multiply the sample weights
            by a group's share of the data over its share of the batches: means over
            all rows are then what they are without balancing. The factors of a batch
            average to 1. It needs an entry `sample_weight` (or `<output>_sample_weight`):
            build the model with `sample_weight=True` and pack weights of 1.
        group_ids: Name of the entry that holds the ids.
        drop_remainder: Whether to leave out a last batch of fewer rows.
        seed: Makes the order repeat. If none, drawn from NumPy's global generator,
            which `keras.utils.set_random_seed` sets.

    Returns:
        A `tf.data.Dataset` of known cardinality for `fit(dataset, y=None)`. `map`,
        `prefetch` and the like give a plain one, which `fit` runs step by step.

    Raises:
        ValueError: If the arrays differ in rows, there are fewer rows than a batch
            with `drop_remainder`, a batch is too small to hold every group, or
            `inputs` lacks the ids or the weights that are asked for.

    Example:
        >>> data = make_dataset({"x": np.arange(5.0)}, 2, shuffle=False)
        >>> [batch["x"].numpy().tolist() for batch in data]
        [[0.0, 1.0], [2.0, 3.0], [4.0]]
        >>> rare = {"group_ids": np.array([0, 0, 0, 0, 0, 1])}
        >>> data = make_dataset(rare, 2, balance_groups=True)
        >>> [sorted(batch["group_ids"].numpy().tolist()) for batch in data]
        [[0, 1], [0, 1], [0, 1]]
    """
    rows = rows_in_memory(
        inputs,
        batch_size,
        shuffle=shuffle,
        balance_groups=balance_groups,
        undo_weights=undo_weights,
        group_ids=group_ids,
        drop_remainder=drop_remainder,
        seed=seed,
    )
    if keras.backend.backend() == "jax" and not rows.is_on_disk:
        return DeferredDataset(rows)
    from addloss_kit.data.row_dataset import RowDataset  # which imports TensorFlow

    return RowDataset(rows)


def rows_in_memory(
    inputs: Mapping[str, Any],
    batch_size: int,
    *,
    shuffle: bool = True,
    balance_groups: bool | Sequence[float] | Mapping[int, float] = False,
    undo_weights: bool = False,
    group_ids: str = GROUP_IDS,
    drop_remainder: bool = False,
    seed: int | None = None,
    is_lent: bool = False,
) -> Rows:
    """The rows and the order that `make_dataset` makes a dataset of.

    Args:
        inputs, batch_size, shuffle, balance_groups, undo_weights, group_ids: As there.
        drop_remainder, seed: As there.
        is_lent: As in `Rows`.
    """
    check_positive_int(batch_size=batch_size)
    batch_size = int(batch_size)
    if seed is not None:
        check_positive_int(least=-(2**63), seed=seed)
        seed = int(seed)
    arrays = _arrays(inputs)
    count = _rows(arrays)
    if isinstance(balance_groups, (np.bool_, type(None))):
        balance_groups = bool(balance_groups)
    is_balanced = not (isinstance(balance_groups, bool) and not balance_groups)
    if undo_weights and not is_balanced:
        raise ValueError(
            "`undo_weights` undoes `balance_groups`, so it needs it. Pass both or none. "
            f"{received(undo_weights=undo_weights, balance_groups=balance_groups)}"
        )
    if is_balanced and not shuffle:
        raise ValueError(
            "`balance_groups` draws rows by chance. Leave `shuffle` at True. "
            f"{received(shuffle=shuffle)}"
        )
    steps = count // batch_size if drop_remainder else -(-count // batch_size)
    if steps == 0:
        raise ValueError(
            "There must be at least one full batch. Make `batch_size` smaller, or pass "
            f"`drop_remainder=False`. {received(rows=count, batch_size=batch_size)}"
        )
    if seed is None:
        seed = int(np.random.randint(2**31))
    order: Callable[[Any], Any]
    if is_balanced:
        plan = BalancedPlan(arrays, group_ids, balance_groups, batch_size, steps)
        if undo_weights:
            arrays = plan.undo(arrays)
        drawn, order = steps * batch_size, plan.order
    else:
        drawn = steps * batch_size if drop_remainder else count
        order = shuffled(count) if shuffle else as_given(count)
    return Rows(arrays, batch_size, steps, drawn, order, seed, is_lent)


class FollowEpoch(keras.callbacks.Callback):
    """Gives rows the epoch that `fit` is in, which decides their order."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.rows.epoch = epoch


def _arrays(inputs: Any) -> dict[str, np.ndarray]:
    if not isinstance(inputs, Mapping):
        raise TypeError(
            "`inputs` must be a dict of arrays by Input name. Make it with `pack_inputs`. "
            f"{received(inputs=type(inputs).__name__)}"
        )
    for name, array in inputs.items():
        refuse_masked(name, array)
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    # What is on disk is turned round as it is read.
    arrays = {n: a if is_on_disk(a) else native(a) for n, a in arrays.items()}
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(
                f"`{name}` must have one entry per row. Repeat it for each row. "
                f"{received(**{f'{name}.shape': ()})}"
            )
    return arrays


def _rows(arrays: Mapping[str, np.ndarray]) -> int:
    if not arrays:
        raise ValueError(
            "`inputs` must hold an array. Make it with `pack_inputs`. "
            f"{received(inputs={})}"
        )
    check_rows(**arrays)
    return int(next(iter(arrays.values())).shape[0])
