"""What converters and runtimes raise: exceptions that their packages do not export."""

from __future__ import annotations


def litert_errors() -> tuple[type[Exception], ...]:
    """What TensorFlow Lite's converter raises for a model that it cannot convert."""
    from tensorflow.lite.python.convert_phase import ConverterError

    return (ConverterError,)


def onnx_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a file that it cannot run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented)
