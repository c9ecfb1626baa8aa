"""Blocks: batches that are drawn some at a time, each array as one."""

from __future__ import annotations

import numpy as np

# Enough to make a call cheap; a second copy of next to nothing, in the cache.
BLOCK_BYTES = 8 << 20
MAX_BATCHES = 64


def batches_per_block(batch_bytes: int) -> int:
    """How many batches of so many bytes make a block."""
    return max(1, min(MAX_BATCHES, BLOCK_BYTES // max(1, batch_bytes)))


def block_bounds(steps: int, per_block: int) -> list[tuple[int, int]]:
    """First batch and end of each block of an epoch; the last batch is one of its own.

    That batch may be short, and must not be drawn before its turn.

    Args:
        steps: Batches per epoch.
        per_block: Batches per block.
    """
    bounds = np.append(np.arange(0, steps - 1, per_block), [steps - 1, steps])
    bounds = np.unique(bounds).tolist()
    return list(zip(bounds[:-1], bounds[1:]))
