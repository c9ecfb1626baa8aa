"""Arrays get to the device by one copy, which is theirs."""

import numpy as np
import pytest
import tensorflow as tf

from addloss_kit.data import aligned

DTYPES = ["float16", "float32", "float64", "bool", "int8", "uint8", "int32", "int64"]


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4", ">i8"])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (0, 2), ()])
def test_a_tensor_has_the_values_and_not_the_memory(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    before = array.copy()
    tensor = aligned.tensor_of(aligned.aligned_copy(array))
    array[...] = 1
    assert tensor.dtype == np.dtype(dtype).newbyteorder("=") and tensor.shape == shape
    np.testing.assert_array_equal(tensor.numpy(), before)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (0, 2), (64, 7)])
def test_a_copy_lies_at_a_multiple_of_64_bytes(shape, dtype):
    array = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    for _ in range(8):  # Wherever NumPy puts it.
        copy = aligned.aligned_copy(array)
        assert copy.ctypes.data % 64 == 0 or not array.size
        assert not np.shares_memory(copy, array)
        np.testing.assert_array_equal(copy, array)


@pytest.mark.parametrize("start", [1, 2, 3])
def test_there_is_one_copy_and_no_copy_of_it(monkeypatch, start):
    array = aligned.aligned_copy(np.arange(100.0))[start:]  # At none of these multiples.
    copies = []

    def recorded(array, copy=aligned.aligned_copy):
        copies.append(copy(array))
        return copies[-1]

    monkeypatch.setattr(aligned, "aligned_copy", recorded)
    tensor = aligned.tensor_of(array)
    (copy,) = copies
    assert copy.ctypes.data % 64 == 0
    assert np.asarray(memoryview(tensor)).ctypes.data == copy.ctypes.data


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_an_array_that_suits_is_taken_as_it_is(dtype):
    array = aligned.aligned_copy(np.arange(100).reshape(20, 5), np.dtype(dtype))
    assert array.dtype == dtype
    assert aligned.as_aligned(array) is array
    read_only = array.view()
    read_only.flags.writeable = False
    others = [array[1:], array[:, :2], array.T, read_only]
    others += [array.view(array.dtype.newbyteorder())] if dtype != "bool" else []
    for other in others:
        copy = aligned.as_aligned(other)
        assert copy.ctypes.data % 64 == 0 and copy.flags.c_contiguous
        assert not np.shares_memory(copy, array)
        np.testing.assert_array_equal(copy, other)


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_a_converted_copy_has_the_values_of_astype(dtype):
    array = np.array([[0.0, 1.0, 2.7], [-3.2, 1e30, 5.0]])
    with np.errstate(invalid="ignore"):
        copy = aligned.aligned_copy(array, np.dtype(dtype))
        np.testing.assert_array_equal(copy, array.astype(dtype))


def test_a_tensor_outlives_the_array():
    tensor = aligned.tensor_of(np.arange(1000.0))
    for _ in range(50):  # Which would take the memory of the copy, were it free.
        np.full(1000, -1.0)
    np.testing.assert_array_equal(tf.identity(tensor).numpy(), np.arange(1000.0))


@pytest.mark.parametrize("array", [np.array(["a", "bc"]), np.array([b"a", b"bc"])])
def test_strings_are_tensors_too(array):
    assert [s.decode() for s in aligned.tensor_of(array).numpy()] == ["a", "bc"]
