"""Rows that stand among others, too: how many of those that judge took part before?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from addloss_kit.fields import Y_TRUE

_BLOCK = 65_536  # Rows.


class Twins(NamedTuple):
    """How many rows equal one of `others`.

    Args:
        found: Number of rows that do.
        rows: Number of all rows.
        expected: How many would if they were drawn like `others`: as large a share as
            that of the others that equal another one of them.
    """

    found: int
    rows: int
    expected: float

    @property
    def are_too_many(self) -> bool:
        """Whether chance does not explain them.

        They are beyond 5 standard deviations, and 1 % of the rows.
        """
        share = self.expected / self.rows
        # Where none is expected of a few rows, one or two may be chance all the same.
        spread = ((self.expected + 1.0) * (1.0 - share)) ** 0.5
        return bool(self.found > self.expected + 5.0 * spread + 0.01 * self.rows)


def count_twins(rows: Mapping[str, Any], others: Mapping[str, Any]) -> Twins:
    """Compare rows in all entries that both have.

    Args:
        rows, others: Dicts from `pack_inputs`, entries `(rows, …)`.
    """
    names = sorted(set(rows) & set(others))
    ours, theirs = _keys(rows, names), _keys(others, names)
    found = int(np.isin(ours, theirs).sum())
    _, counts = np.unique(theirs, return_counts=True)
    repeated = counts[counts > 1].sum() / max(len(theirs), 1)
    return Twins(found, len(ours), float(repeated * len(ours)))


def count_repeated(rows: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> Twins:
    """Compare one half of the rows with the other, which is as long as chance has it.

    Args:
        rows: Dict from `pack_inputs`, entries `(rows, …)`.
        others: Dicts of rows that were drawn like them, of which as many as there are in
            the other half tell what chance would be.
    """
    others = list(others)
    names = sorted(set(rows).intersection(*others))
    order = np.random.default_rng(0).permutation(np.shape(rows[Y_TRUE])[0])
    keys = _keys(rows, names)[order]
    drawn = np.concatenate([_keys(other, names) for other in others])
    drawn = np.random.default_rng(1).permutation(drawn)
    size = min(len(keys) // 2, len(drawn))
    half, other_half = keys[size:], keys[:size]
    expected = np.isin(half, drawn[:size]).sum()
    return Twins(int(np.isin(half, other_half).sum()), len(half), float(expected))


def _keys(rows: Mapping[str, Any], names: Iterable[str]) -> np.ndarray:
    """A number per row; equal rows have equal ones, others hardly ever."""
    rng = np.random.default_rng(0)
    keys = np.zeros(np.shape(rows[Y_TRUE])[0])
    for name in names:
        array = rows[name]
        factors = rng.normal(size=int(np.prod(np.shape(array)[1:], dtype="int64")))
        for start in range(0, len(keys), _BLOCK):  # They may lie on the disk.
            part = slice(start, start + _BLOCK)
            columns = np.asarray(array[part]).reshape(len(keys[part]), -1).T
            # One by one: a product of matrices may sum equal rows in different orders.
            for column, factor in zip(columns, factors):
                keys[part] += factor * column
    return keys
