"""Names for what signatures take: tensors, arrays, and closed sets of words.

Keras has no type for a tensor: it is the backend's, and `Any` to a type checker. These
names say which kind of `Any` is meant; the docstrings have the shapes.
"""

from __future__ import annotations

import os
from typing import Any, Literal, TypeAlias

# A tensor of the backend, a symbolic one, or what `ops.convert_to_tensor` takes.
Tensor: TypeAlias = Any
# A tensor while the graph is built.
KerasTensor: TypeAlias = Any
# What NumPy can convert: an array, list, table, or a tensor of any backend.
ArrayLike: TypeAlias = Any
# A nest (tuple, list or dict) of tensors that add up over rows.
Totals: TypeAlias = Any
# A length that is not known yet is `None`.
Shape: TypeAlias = tuple[int | None, ...]
# What `get_config` returns.
Config: TypeAlias = dict[str, Any]
# What NumPy, TensorFlow and Keras take as the name of a file.
Path: TypeAlias = str | os.PathLike[str]
# A per-sample error: a name, a Keras loss, or a function of `(y_true, y_pred)`.
ErrorLike: TypeAlias = Any

# Between which groups a gap is taken, and how a difference counts.
Between: TypeAlias = Literal["pairs", "range", "overall"]
Distance: TypeAlias = Literal["squared", "absolute"]
# What a group without rows does to the gap of a batch.
AbsentGroup: TypeAlias = Literal["skip", "zero_error"]
# Which way a term may move a group's error.
Push: TypeAlias = Literal["both", "down"]
# What a root is taken over.
Over: TypeAlias = Literal["batch", "sample"]
Kernel: TypeAlias = Literal["gaussian", "laplacian"]
# What a bound holds: every group's error, or their gap.
Bounded: TypeAlias = Literal["error", "gap"]
# What a group's error is compared with.
Method: TypeAlias = Literal["between_groups", "to_overall"]
ExportFormat: TypeAlias = Literal["keras", "tf_saved_model", "onnx", "litert"]
# Instead of a number, for one that is chosen automatically.
Auto: TypeAlias = Literal["auto"]
