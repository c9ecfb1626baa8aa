"""Tails: whether a mean may hang on rows that a sample lacks.

A bound of a mean can count only the rows that it has seen. Where the largest errors fall
off so slowly that they have hardly a variance, most samples lack the rows that decide the
mean, and nothing in their spread tells. What tells is how fast the largest of those in hand
fall off: Hill's (1975) index of the tail.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# The largest rows, of which the tail is: this share, but no fewer than so many, as fewer
# make the index a matter of chance.
_TOP_SHARE = 0.1
_MIN_TOP = 10

# Errors with a lower index are too heavy-tailed. Below 2 there is no variance; but up to a
# tenth of the rows, the tails of lognormal errors (sigma = 1) and of squared normal ones,
# which have all moments, have 2.1 and 2.4, those of squared t with 3 degrees of freedom 1.2
# (docs/studies/certificate.md).
LEAST_INDEX = 1.5


def tail_index(
    values: np.ndarray, ids: np.ndarray, weight: np.ndarray, num_groups: int
) -> np.ndarray:
    r"""Hill's index of each group, `(num_groups,)`: the lower, the heavier the tail.

    $$1 / \alpha = \frac 1 k \sum_{i=1}^k \log |v_{(i)}| - \log |v_{(k+1)}|$$

    of the k largest; errors that exceed t in a share of rows like $t^{-\alpha}$ have
    $\alpha$. 0 if fewer than k rows have all of the sum, infinite if the largest are equal.

    Args:
        values, ids, weight: `(rows,)`; rows without weight are absent.
        num_groups: Number of groups.
    """
    size, ids = np.abs(values[weight > 0]), ids[weight > 0]
    order = np.lexsort((-size, ids))
    size, ids = size[order], ids[order]
    rows = np.bincount(ids, minlength=num_groups)
    first = np.cumsum(rows) - rows
    k = np.maximum(_MIN_TOP, np.ceil(_TOP_SHARE * rows)).astype("int64")
    has_tail = rows > k
    largest, next_one = np.zeros((2, num_groups))
    largest[has_tail], next_one[has_tail] = (
        size[first[has_tail]],
        size[(first + k)[has_tail]],
    )
    is_top = (np.arange(len(ids)) - first[ids] < k[ids]) & (next_one > 0)[ids]
    excess = np.log(size[is_top] / next_one[ids[is_top]])
    with np.errstate(divide="ignore"):
        index = k / np.bincount(ids[is_top], excess, minlength=num_groups)
    return np.where(next_one > 0, index, np.where(largest > 0, 0.0, np.inf))


def rows_with_half(values: np.ndarray, weight: np.ndarray) -> int:
    """How many rows, at the least, hold half of the sum of weight times absolute value."""
    parts = np.cumsum(-np.sort(-weight * np.abs(values)))
    return int(np.searchsorted(parts, 0.5 * parts[-1]) + 1)


class NamedErrors(NamedTuple):
    """Errors, and what they are called where their tail is too heavy."""

    name: str
    values: np.ndarray
    weight: np.ndarray

    @property
    def tail(self) -> np.ndarray:
        """Its index, `(1,)`."""
        return tail_index(self.values, np.zeros(len(self.values), "int64"), self.weight, 1)

    def said(self, more: int) -> str:
        """Why they, and some more, have no bound, and what to do."""
        others = f" (and {more} more)" if more else ""
        half, rows = rows_with_half(self.values, self.weight), int((self.weight > 0).sum())
        return (
            f"{self.name}{others} have too heavy a tail, half of their sum in {half:,} of "
            f"{rows:,} rows; certify the absolute error, a bounded one, or that of a "
            "logarithm"
        )
