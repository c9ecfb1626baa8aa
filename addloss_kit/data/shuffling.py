"""TensorFlow's order of shuffled rows, without TensorFlow.

`tf.random.experimental.stateless_shuffle` swaps row by row, with one random number each.
Here the numbers are drawn, and the swaps made, some thousand at a time.
"""

from __future__ import annotations

import numpy as np

# Swaps at a time: what they take stays in the processor's cache.
_BLOCK = 32768
# Constants of Philox, and the key with which TensorFlow scrambles seeds.
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_SCRAMBLING_KEY = 0x3EC8F720, 0x02461E29
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def shuffle(rows: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The rows in the order of `stateless_shuffle`, shuffled in place.

    Args:
        rows: Any array `(rows,)`.
        seed: Two numbers, int64.
    """
    count = len(rows)
    words = seed.astype("uint64")
    low, high = words & _LOW, words >> _HALF
    counter = low[:1], high[:1], low[1:], high[1:]
    key_0, key_1, third, fourth = _philox(counter, _SCRAMBLING_KEY)
    for first in range(0, count, _BLOCK):
        end = min(first + _BLOCK, count)
        number = np.arange(first // 4, -(-end // 4), dtype="uint64")
        counter = number & _LOW, number >> _HALF, third, fourth
        random = _philox(counter, (int(key_0), int(key_1)))[: end - first]
        turn = np.arange(first, end, dtype="uint64")
        place = turn + random % (np.uint64(count) - turn)
        _swap(rows, first, end, place)
    return rows


def _swap(rows: np.ndarray, first: int, end: int, place: np.ndarray) -> None:
    """Swap each row from `first` to `end`, one after the other, with the one at `place`.

    No place is before its row. Where a place is taken twice, or is itself among these
    rows, what lies there has been put there by an earlier swap.
    """
    block = rows[first:end]
    turn = _by_place(place, len(rows))
    at = place[turn].astype("int64")
    again = 1 + np.flatnonzero(at[1:] == at[:-1])
    # The turn whose row lies, when a turn comes, at the front: its own, or one that swapped
    # with this place before. That one may itself have got it from another.
    source = np.arange(end - first)
    at_own = again[at[again] == turn[again] + first]
    source[at[at_own] - first] = turn[at_own - 1]
    count = np.searchsorted(at, end)  # of places among these rows
    near, by = at[:count] - first, turn[:count]
    is_moved = np.append(near[1:] != near[:-1], True) & (near != by)
    source[near[is_moved]] = by[is_moved]
    while not np.array_equal(earlier := source[source[near]], source[near]):
        source[near] = earlier
    front = block[source]
    taken = rows[at]
    taken[again] = front[turn[again - 1]]
    rows[at] = front[turn]  # of several at a place the last stays
    block[turn] = taken


def _by_place(place: np.ndarray, count: int) -> np.ndarray:
    """The turns by their place, and those at the same place in their order.

    Digit by digit: numbers of 16 bits NumPy sorts by counting, three times as fast as
    those of 64.
    """
    turn = np.argsort(place.astype("uint16"), kind="stable")
    for bits in range(16, (count - 1).bit_length(), 16):
        digit = (place >> np.uint64(bits)).astype("uint16")
        turn = turn[np.argsort(digit[turn], kind="stable")]
    return turn


def _philox(counter: tuple[np.ndarray, ...], key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10: four random numbers of 32 bits for each counter, in order.

    Args:
        counter: Four words of 32 bits, lowest first, as uint64 arrays.
        key: Two words.

    Reference:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), section 3.4.
    """
    first, second, third, fourth = counter
    for number in range(10):
        keys = [np.uint64((k + number * s) & 0xFFFFFFFF) for k, s in zip(key, _KEY_STEPS)]
        one, other = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second = (other >> _HALF) ^ second ^ keys[0], other & _LOW
        third, fourth = (one >> _HALF) ^ fourth ^ keys[1], one & _LOW
    return np.stack([first, second, third, fourth], axis=-1).reshape(-1)
