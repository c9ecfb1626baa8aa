"""encode_groups: turn labels of any kind into group ids and names."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from addloss_kit._checks import check_rows, received
from addloss_kit._renamed import renamed
from addloss_kit._types import ArrayLike
from addloss_kit.data.conversion import check_same_index, columns_of, is_missing

_SEPARATOR = " & "


@renamed(names="group_names")
def encode_groups(
    labels: ArrayLike, *, group_names: Sequence[Any] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Assign group ids to labels.

    Labels are compared as text, and whole numbers by their digits: `1`, `1.0` and
    `"1"` are the same group, so a column of whole numbers means the same with and
    without missing entries. Numbers are sorted by value, other labels by text; a
    pandas categorical keeps its categories, observed or not, in their order.

    Several columns form intersections: the combinations that occur, with names such
    as `"F & 30-40"`.

    Args:
        labels: One label per row: strings, numbers, booleans, in a list, array,
            Series or categorical. Or several columns: a DataFrame, a dict of
            columns, a list of arrays, or a 2-D array `(rows, columns)`. `None`, NaN,
            `pandas.NA` and NaT mean "no group", and so does a row in which any of
            several columns is missing.
        group_names: The group names from an earlier call. Ids then index this list, so
            that test data get the ids of the training data.

    Returns:
        `(group_ids, group_names)`: int32 `(rows,)`, -1 for no group, and the list of
        names by id; `num_groups` is its length.

    Raises:
        ValueError: If a label is not in `group_names`, columns differ in length,
            names repeat, two combinations of labels read the same, or two pandas
            columns have different indexes.

    Example:
        >>> ids, names = encode_groups(["m", "f", None, "m"])
        >>> ids.tolist(), names
        ([1, 0, -1, 1], ['f', 'm'])
        >>> encode_groups(["m"], group_names=names)[0].tolist()
        [1]
        >>> encode_groups({"sex": ["f", "m"], "over_30": [True, False]})[1]
        ['f & True', 'm & False']
    """
    given = _columns(labels)
    check_same_index(**columns_of(dict(enumerate(given))))
    columns = [_column(column) for column in given]
    check_rows(**{f"column {i} of labels": codes for i, (codes, _) in enumerate(columns)})
    codes, texts = columns[0] if len(columns) == 1 else _intersections(columns)
    _refuse_equal_names(texts)
    if group_names is None:
        return codes.astype("int32"), texts
    if isinstance(group_names, str):
        raise TypeError(
            f"`group_names` must be a list of names. Pass `[{group_names!r}]`. "
            f"{received(group_names=repr(group_names))}"
        )
    fixed = [_text(name) for name in group_names]
    if len(set(fixed)) != len(fixed):
        raise ValueError(
            f"`group_names` must differ from one another. {received(group_names=fixed)}"
        )
    id_of = {name: i for i, name in enumerate(fixed)}
    # An unobserved category need not be in `group_names`.
    for code in np.unique(codes[codes >= 0]):
        if texts[code] not in id_of:
            row = int(np.argmax(codes == code))
            shown = fixed if len(fixed) <= 10 else [*fixed[:10], "..."]
            raise ValueError(
                "`labels` must be in `group_names`. Add the label when you create the "
                "names, or set it to None for no group. "
                f"{received(**{f'labels[{row}]': repr(texts[code]), 'group_names': shown})}"
            )
    # The code -1 of a missing label indexes the extra last entry.
    table = np.array([id_of.get(text, -1) for text in texts] + [-1], "int32")
    return table[codes], fixed


def _refuse_equal_names(names: list[str]) -> None:
    """Two groups of one name, such as `"a & b"` with `"c"`, and `"a"` with `"b & c"`."""
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            "Two groups must not have the same name. Rename labels that contain "
            f"`{_SEPARATOR.strip()}`, or categories that read the same. "
            f"{received(names=twice)}"
        )


def _columns(labels: ArrayLike) -> list[Any]:
    if isinstance(labels, Mapping):
        columns = list(labels.values())
    elif hasattr(labels, "columns") and hasattr(labels, "iloc"):
        columns = [labels.iloc[:, i] for i in range(labels.shape[1])]
    elif isinstance(labels, (list, tuple)) and labels and all(map(_is_array, labels)):
        columns = list(labels)
    elif _is_array(labels):
        columns = [labels]
    else:
        array = np.asanyarray(labels, dtype=_object_if_mixed(labels))
        if array.ndim not in (1, 2):
            raise ValueError(
                "`labels` must be one label per row, or several columns. Reshape them. "
                f"{received(**{'labels.shape': array.shape})}"
            )
        columns = [array] if array.ndim == 1 else list(array.T)
    if not columns:
        raise ValueError(f"`labels` must have a column. {received(columns=0)}")
    return columns


def _column(column: ArrayLike) -> tuple[np.ndarray, list[str]]:
    """Codes `(rows,)`, -1 where missing, and the labels' texts in order."""
    if isinstance(column, np.ma.MaskedArray):
        is_masked = np.ma.getmaskarray(column)
        objects = column.data.astype(object)
        objects[is_masked] = None
        column = objects
    if _is_categorical(column):
        values = getattr(column, "array", column)
        codes = np.asarray(getattr(values, "codes", values)).astype("int64")
        return codes, [_text(category) for category in column.dtype.categories]
    array = np.asarray(column, dtype=_object_if_mixed(column))
    if array.ndim != 1:
        raise ValueError(
            "Each column of `labels` must have one label per row. "
            f"{received(shape=array.shape)}"
        )
    if array.dtype == object:
        return _objects(array)
    unique, codes = np.unique(array, return_inverse=True)
    is_missing = unique != unique  # Only NaN and NaT differ from themselves.
    # They sort to the end, so the other codes are unaffected.
    codes = np.where(is_missing[codes], -1, codes) if unique.size else codes
    return codes.astype("int64"), [_text(value) for value in unique[~is_missing].tolist()]


def _objects(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    first_of: dict[str, Any] = {}
    code_of: dict[str, int] = {}
    codes = np.empty(array.shape[0], "int64")
    for row, value in enumerate(array):
        if is_missing(value):
            codes[row] = -1
            continue
        text = _text(value)
        first_of.setdefault(text, value)
        codes[row] = code_of.setdefault(text, len(code_of))
    are_numbers = all(isinstance(value, numbers.Real) for value in first_of.values())
    ordered = sorted(first_of, key=first_of.__getitem__ if are_numbers else None)
    rank = {text: i for i, text in enumerate(ordered)}
    table = np.array([rank[text] for text in code_of] + [-1], "int64")
    return table[codes], ordered


def _intersections(
    columns: Iterable[tuple[np.ndarray, list[str]]],
) -> tuple[np.ndarray, list[str]]:
    """The combinations that occur, sorted by the columns' orders."""
    (codes, texts), *others = columns
    for more_codes, more_texts in others:
        is_missing = (codes < 0) | (more_codes < 0)
        both = np.where(is_missing, -1, codes * len(more_texts) + more_codes)
        # Column by column, so that the codes stay below rows times labels.
        unique, codes = np.unique(both, return_inverse=True)
        has_missing = int(unique.size > 0 and unique[0] < 0)
        codes = codes - has_missing
        texts = [
            texts[pair // len(more_texts)] + _SEPARATOR + more_texts[pair % len(more_texts)]
            for pair in unique[has_missing:].tolist()
        ]
    return codes, texts


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    is_number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if is_number and float(value).is_integer():
        return str(int(value))
    return str(value)


def _is_categorical(column: Any) -> bool:
    return hasattr(getattr(column, "dtype", None), "categories")


def _is_array(value: Any) -> bool:
    return len(getattr(value, "shape", ())) == 1 or _is_categorical(value)


def _object_if_mixed(labels: Any) -> Any:
    """`object` for lists, whose items, even None, NumPy might convert to text."""
    return object if isinstance(labels, (list, tuple)) else None
