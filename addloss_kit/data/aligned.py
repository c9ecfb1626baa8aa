"""Copies of arrays that TensorFlow and JAX take as they are.

Both use NumPy's memory on a CPU if its address suits them, and else copy it once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ALIGNMENT = 64  # Bytes, of both.


def aligned_copy(array: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """A copy whose address is a multiple of 64, in the byte order of the machine.

    Args:
        array: Any array.
        dtype: Of the copy, by default that of the array; converted as by `astype`.
    """
    copy: np.ndarray
    dtype = np.dtype(array.dtype if dtype is None else dtype).newbyteorder("=")
    if dtype.hasobject:  # No backend takes its memory as it is.
        copy = array.copy()
        return copy
    buffer = np.empty(array.size * dtype.itemsize + _ALIGNMENT, "uint8")
    start = -buffer.ctypes.data % _ALIGNMENT
    stop = start + array.size * dtype.itemsize
    copy = buffer[start:stop].view(dtype).reshape(array.shape)
    np.copyto(copy, array, casting="unsafe")
    return copy


def as_aligned(array: np.ndarray) -> np.ndarray:
    """The array itself where a backend takes it as it is, else a copy that it takes."""
    is_taken = (
        array.ctypes.data % _ALIGNMENT == 0
        and array.flags.c_contiguous
        and array.flags.writeable  # DLPack wants it.
        and array.dtype.isnative
        and not array.dtype.hasobject
    )
    return array if is_taken else aligned_copy(array)


def tensor_of(array: np.ndarray) -> Any:
    """A TensorFlow tensor of an array's values, in its memory where that suits.

    Else by one copy, which is the tensor's own.

    It is in the memory of the host, where the input pipeline runs, also beside a GPU.

    `tf.convert_to_tensor` copies an array, and the copy again, as its address hardly ever
    suits: twice the memory, for a moment, and twice the time.
    """
    import tensorflow as tf

    # DLPack knows no strings, and NumPy exports no empty arrays, booleans and bfloat16.
    if array.dtype.kind not in "iuf" or not array.size:
        with tf.device("/CPU:0"):
            return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(as_aligned(array).__dlpack__())
