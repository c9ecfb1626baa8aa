"""Copies of arrays that TensorFlow and JAX take as they are.

Both use NumPy's memory on a CPU if its address suits them, and else copy it once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ALIGNMENT = 64  # Bytes, of both.


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A copy whose address is a multiple of 64, in the byte order of the machine."""
    copy: np.ndarray
    if array.dtype.hasobject:  # No backend takes its memory as it is.
        copy = array.copy()
        return copy
    dtype = array.dtype.newbyteorder("=")
    buffer = np.empty(array.size * dtype.itemsize + _ALIGNMENT, "uint8")
    start = -buffer.ctypes.data % _ALIGNMENT
    stop = start + array.size * dtype.itemsize
    copy = buffer[start:stop].view(dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy


def copied_tensor(array: np.ndarray) -> Any:
    """A TensorFlow tensor of an array's values, by one copy.

    It is in the memory of the host, where the input pipeline runs, also beside a GPU.

    `tf.convert_to_tensor` copies an array, and the copy again, as its address hardly ever
    suits: twice the memory, for a moment, and twice the time.
    """
    import tensorflow as tf

    # DLPack knows no strings, and NumPy exports no empty arrays, booleans and bfloat16.
    if array.dtype.kind not in "iuf" or not array.size:
        with tf.device("/CPU:0"):
            return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(aligned_copy(array).__dlpack__())
