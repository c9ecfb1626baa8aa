"""Group-balanced batches: which rows they take, and the weights that undo it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from addloss_kit._checks import check_positive, received
from addloss_kit.data.shuffling import shuffle
from addloss_kit.fields import SAMPLE_WEIGHT, parse_input_name


class BalancedPlan:
    """How many rows of each group a batch contains, and which.

    An epoch shuffles the rows of each group; slot `j` of group `k` in batch `t` takes
    row `t * quota[k] + j` of the group, wrapping around at the end of the group.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        name: str,
        shares: Any,
        batch_size: int,
        steps: int,
    ) -> None:
        if name not in arrays:
            raise ValueError(
                f"`balance_groups` needs the ids in the entry `{name}`. Pack them, or "
                f"name another entry with `group_ids=`. {received(keys=list(arrays))}"
            )
        ids = arrays[name].reshape(-1)
        check_ids(name, ids)
        present, self._member, sizes = np.unique(
            ids, return_inverse=True, return_counts=True
        )
        wanted = shares_by_group(shares, present, sizes)
        quota = quotas(wanted, batch_size)
        self._factor = (sizes / sizes.sum()) / (quota / batch_size)
        group, within = slots(quota)
        self._within, self._quota, self._sizes = within, quota[group], sizes[group]
        self._begin = (np.cumsum(sizes) - sizes)[group]
        self._groups = len(sizes)
        self._steps = steps

    def order(self, seed: Any) -> Any:
        """The rows of an epoch, batch after batch."""
        if isinstance(seed, np.ndarray):
            return self._order_in_numpy(seed)
        import tensorflow as tf

        # Outside the graph, where every iterator would copy them.
        with tf.init_scope(), tf.device("/CPU:0"):
            member = tf.constant(self._member, tf.int32)
            begin, quota = tf.constant(self._begin), tf.constant(self._quota)
            within, sizes = tf.constant(self._within), tf.constant(self._sizes)
        count = tf.size(member, tf.int64)
        shuffled = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
        # Sorting all rows by group takes several times as long.
        by_group = tf.dynamic_partition(shuffled, tf.gather(member, shuffled), self._groups)
        rows = tf.concat(by_group, 0)
        step = tf.range(self._steps, dtype=tf.int64)[:, None]
        place = begin + (step * quota + within) % sizes
        return tf.gather(rows, tf.reshape(place, (-1,)))

    def _order_in_numpy(self, seed: np.ndarray) -> np.ndarray:
        shuffled = shuffle(np.arange(len(self._member)), seed)
        rows = shuffled[np.argsort(self._member[shuffled], kind="stable")]
        step = np.arange(self._steps)[:, None]
        place = self._begin + (step * self._quota + self._within) % self._sizes
        ordered: np.ndarray = rows[place.reshape(-1)]
        return ordered

    def undo(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays with every sample weight times its group's factor."""
        return weighted(arrays, self._factor[self._member])


def slots(quota: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The group of each slot of a batch, and its number within the group.

    Groups are spread, so that every part of the batch has all of them, such as the share
    of a replica.
    """
    group = np.repeat(np.arange(len(quota)), quota)
    within = np.concatenate([np.arange(n) for n in quota])
    spread = np.argsort((within + 0.5) / quota[group], kind="stable")
    return group[spread], within[spread]


def weighted(arrays: Mapping[str, np.ndarray], factor: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays with every sample weight times the factor of its row."""
    weights = [n for n in arrays if parse_input_name(n)[0] == SAMPLE_WEIGHT]
    if not weights:
        raise ValueError(
            "`undo_weights` needs an entry `sample_weight` for the weights. "
            "Build the model with `sample_weight=True`, and pack weights of 1. "
            f"{received(keys=list(arrays))}"
        )
    changed = dict(arrays)
    for name in weights:
        weight = arrays[name]
        axes = (-1,) + (1,) * (weight.ndim - 1)
        # Whole numbers would swallow a factor below 1.
        is_double = weight.dtype == "float64"
        changed[name] = (weight * factor.reshape(axes)).astype(
            "float64" if is_double else "float32"
        )
    return changed


def check_ids(name: str, ids: np.ndarray) -> None:
    is_id = (ids >= -1) & (np.floor(ids) == ids) if ids.dtype.kind in "iuf" else None
    if is_id is None or not is_id.all():
        row = 0 if is_id is None else int(np.argmin(is_id))
        raise ValueError(
            f"`{name}` must be whole numbers, -1 for no group. Make them with "
            f"`encode_groups`. {received(**{f'{name}[{row}]': repr(ids[row])})}"
        )


def shares_by_group(shares: Any, present: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The share of each id that is present, including rows without a group."""
    is_group = present >= 0
    ids = present[is_group].tolist()
    if not ids:
        raise ValueError(
            "`balance_groups` needs rows with a group. Omit it. Received: ids that "
            "are all -1."
        )
    if isinstance(shares, bool):
        given = dict.fromkeys(ids, 1.0)
    elif isinstance(shares, Mapping):
        given = dict(shares)
    else:
        listed = np.asarray(shares).tolist()
        if not isinstance(listed, list):
            raise TypeError(
                "`balance_groups` must be True, or one share per group: a list, or a dict "
                f"by id. {received(balance_groups=repr(shares))}"
            )
        given = dict(enumerate(listed))
    if set(given) != set(ids):
        raise ValueError(
            "`balance_groups` must have one share for each group in the data, by id. "
            f"{received(shares_of=sorted(given, key=str), groups=ids)}"
        )
    # With a share of 0, a group would be in no batch.
    named: dict[str, Any] = {f"balance_groups[{k}]": v for k, v in given.items()}
    check_positive(**named)
    wanted = np.zeros(len(present))
    wanted[is_group] = [given[k] for k in ids]
    share_of_groups = sizes[is_group].sum() / sizes.sum()
    wanted *= share_of_groups / wanted.sum()
    wanted[~is_group] = 1.0 - share_of_groups
    return wanted


def quotas(shares: np.ndarray, batch_size: int) -> np.ndarray:
    """Whole rows per batch by share: at least one each, `batch_size` in total."""
    if len(shares) > batch_size:
        raise ValueError(
            "With `balance_groups`, a batch must have a row for each group. Increase "
            f"`batch_size`. {received(groups=len(shares), batch_size=batch_size)}"
        )
    ideal = shares * batch_size
    quota = np.maximum(np.floor(ideal + 1e-9), 1).astype("int64")
    while quota.sum() < batch_size:
        quota[np.argmax(ideal - quota)] += 1
    while quota.sum() > batch_size:
        quota[np.argmax(np.where(quota > 1, quota - ideal, -np.inf))] -= 1
    return quota
