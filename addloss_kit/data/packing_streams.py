"""pack_dataset: name the batches of a stream after the Inputs of a training model."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import keras
import numpy as np

from addloss_kit._checks import received
from addloss_kit._types import Shape
from addloss_kit.data.batch_check import BatchCheck
from addloss_kit.data.checking import InputChecker
from addloss_kit.data.packing import by_input_name, checker_of
from addloss_kit.data.streams import ChangedPyDataset, comes_from
from addloss_kit.fields import SAMPLE_WEIGHT

# A part of the columns: the word of `pack_inputs`, or `None` for one to leave out.
Columns = Sequence[str | None] | Mapping[str, str]


def pack_dataset(model: Any, dataset: Any, *, columns: Columns | None = None) -> Any:
    """Name the batches of a stream after the Inputs of a training model.

    What `pack_inputs` does for arrays, for data that come batch by batch. Names, ranks
    and dtypes are checked at once; values batch by batch, by `fit`, `evaluate` and
    `predict`, as they check any stream.

    Args:
        model: A `TrainingModel`.
        dataset: Batches: a `tf.data.Dataset`, `keras.utils.PyDataset`, generator, torch
            `DataLoader`, Grain dataset, list, or any other object to iterate over.
        columns: What the parts of a batch are, in the words of `pack_inputs`: `"x"`,
            `"y"`, `"sample_weight"`, `"group_ids"`, or the name of an Input; `None`
            leaves a part out. For tuples, one word per part, such as
            `("x", "y", "group_ids")`. For dicts, a dict of words by key; other keys are
            left out. Dicts need none if their keys are those words or Input names. Within
            a batch, `x`, `y` and `sample_weight` may be dicts, as in `pack_inputs`.

    Returns:
        Batches as dicts by Input name, in the same kind of stream. A list becomes a
        `PyDataset`, another object that can be iterated over again a `tf.data.Dataset`,
        an iterator a generator.

    Raises:
        ValueError: If a part is missing, unknown to the model, given twice, or does not
            have the shape that its Input takes; or if there is no batch.
        TypeError: If `dataset` is no stream, or a part holds no numbers.

    Example:
        >>> import addloss_kit as alk, keras
        >>> x = keras.Input((2,), name="x")
        >>> predictor = keras.Model(x, keras.layers.Dense(1)(x))
        >>> model = alk.build_training_model(predictor, "mse", sample_weight=True)
        >>> batches = [(np.ones((4, 2)), np.ones(4), np.ones(4))] * 3
        >>> packed = pack_dataset(model, batches, columns=("x", "y", "sample_weight"))
        >>> list(packed[0])
        ['x', 'y_true', 'sample_weight']
    """
    namer = BatchNamer(model, columns)
    if hasattr(dataset, "element_spec"):
        return _pack_tf_dataset(dataset, namer)
    if isinstance(dataset, keras.utils.PyDataset):
        if dataset.num_batches != 0:
            namer.check_first(dataset[0])
        return ChangedPyDataset(dataset, namer)
    if comes_from(dataset, "torch.utils.data"):
        return _pack_loader(dataset, namer)
    if comes_from(dataset, "grain") and hasattr(dataset, "map"):
        namer.check_first(_first(iter(dataset)))
        return dataset.map(namer)
    if not isinstance(dataset, Iterable) or _is_rows(dataset):
        raise TypeError(
            "`dataset` must be a stream of batches. Pack arrays with `pack_inputs`. "
            f"{received(dataset=type(dataset).__name__)}"
        )
    if isinstance(dataset, Sequence):
        namer.check_first(_first(iter(dataset)))
        return ChangedPyDataset(_Batches(dataset), namer)
    iterator = iter(dataset)
    first = _first(iterator)
    namer.check_first(first)
    if iterator is dataset:
        return _named(itertools.chain([first], iterator), namer)
    return _as_tf_dataset(dataset, namer, namer(first, 0))


class BatchNamer:
    """Names the parts of a batch after the Inputs that they fill.

    It holds plain values only, so worker processes can have a copy.

    Args:
        model: A `TrainingModel`.
        columns: As in `pack_dataset`.
    """

    def __init__(self, model: Any, columns: Columns | None) -> None:
        self.checker = checker_of(model)
        self.feature_names = list(model.feature_names)
        if isinstance(columns, str):
            raise TypeError(
                "`columns` must have one word per part of a batch. Pass a tuple, such as "
                f"`('x', 'y')`. {received(columns=repr(columns))}"
            )
        self.columns = columns
        if columns is not None:
            words = columns.values() if isinstance(columns, Mapping) else columns
            self._check_words([word for word in words if word is not None])

    @property
    def input_checker(self) -> InputChecker:
        """As a model has it."""
        return self.checker

    def __call__(self, batch: Any, number: int | None = None) -> dict[str, Any]:
        """A batch by Input name.

        Args:
            batch: As the stream yields it, or its specification.
            number: Its number, from 0, for messages.
        """
        try:
            words = self._by_word(batch)
            x = words.pop("x", {})
            y, weight = words.pop("y", None), words.pop(SAMPLE_WEIGHT, None)
            named = by_input_name(self, x, y, weight, words)
        except (TypeError, ValueError) as error:
            where = "a batch" if number is None else f"batch {number}"
            raise type(error)(f"In {where} of `dataset`: {error}") from None
        return {name: named[name] for name in self.checker.specs}

    def check_first(self, batch: Any) -> None:
        """Raise unless the first batch fits, with its values."""
        BatchCheck(self.checker, "dataset", False)(self(batch, 0), 0)

    def _check_words(self, words: list[str]) -> None:
        known = ["x", "y", SAMPLE_WEIGHT, *self.checker.specs]
        known = list(dict.fromkeys(known))
        unknown = [word for word in words if word not in known]
        twice = sorted({word for word in words if words.count(word) > 1})
        if unknown or twice:
            raise ValueError(
                f"`columns` must name each part once, with some of {known}, or `None` to "
                f"leave it out. {received(columns=words)}"
            )

    def _by_word(self, batch: Any) -> dict[str, Any]:
        """The parts of a batch by the words of `pack_inputs`."""
        columns = self.columns
        if isinstance(batch, (tuple, list)) and len(batch) == 1 and columns is None:
            batch = batch[0]
        if isinstance(batch, Mapping):
            if columns is None:
                return self._from_keys(batch)
            if isinstance(columns, Mapping):
                missing = [key for key in columns if key not in batch]
                if missing:
                    raise ValueError(
                        f"`columns` names the keys {missing}, which the batch lacks. "
                        f"{received(keys=list(batch))}"
                    )
                return {word: batch[key] for key, word in columns.items()}
            raise TypeError(
                "`columns` must be a dict of words by key, as the batches are dicts. "
                f"{received(columns=list(columns), keys=list(batch))}"
            )
        if columns is None or isinstance(columns, Mapping):
            raise ValueError(
                "`columns` must say what the parts of a batch are, such as "
                "`columns=('x', 'y', 'group_ids')`. "
                f"{received(batch=type(batch).__name__, columns=columns)}"
            )
        if not isinstance(batch, (tuple, list)):
            batch = (batch,)  # of features only
        if len(batch) != len(columns):
            raise ValueError(
                "`columns` must have one word per part of a batch. "
                f"{received(parts=len(batch), columns=list(columns))}"
            )
        return {word: part for word, part in zip(columns, batch) if word is not None}

    def _from_keys(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The same where the keys are words or Input names, nested or flat."""
        words: dict[str, Any] = {}
        features: dict[str, Any] = {}
        for key, value in batch.items():
            is_nested = isinstance(value, Mapping)
            if key == "y" or key == SAMPLE_WEIGHT or (key == "x" and not is_nested):
                # An Input may have such a name.
                is_input = key in self.checker.specs and not is_nested
                words.update({} if is_input else {key: value})
                features.update({key: value} if is_input else {})
            elif is_nested:
                features.update(value)
            else:
                features[key] = value
        unknown = [name for name in features if name not in self.checker.specs]
        if unknown:
            raise ValueError(
                f"The model has no Inputs {unknown}. Its Inputs are "
                f"{list(self.checker.specs)}. Leave them out, or say what they are with "
                f"`columns={{key: word}}`. {received(keys=list(batch))}"
            )
        return {**features, **words} if "x" in words else {"x": features, **words}


class _Batches(keras.utils.PyDataset):
    """A list of batches."""

    def __init__(self, batches: Sequence[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


class _CollatedByName:
    """A `collate_fn` with names; a class, so that workers can have it."""

    def __init__(self, collate: Callable[[Any], Any], namer: BatchNamer) -> None:
        self.collate, self.namer = collate, namer

    def __call__(self, rows: Any) -> Any:
        return self.namer(self.collate(rows))


def _pack_loader(loader: Any, namer: BatchNamer) -> Any:
    packed = copy.copy(loader)  # the caller's own stays as it is
    packed.collate_fn = _CollatedByName(loader.collate_fn, namer)
    # A pass would start worker processes, and draw from torch's generator.
    if hasattr(loader.dataset, "__getitem__") and len(loader.dataset) > 0:
        row = loader.dataset[0]
        rows = row if loader.batch_sampler is None else [row]
        namer.check_first(loader.collate_fn(rows))
    return packed


def _pack_tf_dataset(dataset: Any, namer: BatchNamer) -> Any:
    spec = dataset.element_spec
    named = namer(spec)
    for name, found in named.items():
        if hasattr(found, "shape") and hasattr(found, "dtype"):
            shape = None if found.shape.rank is None else tuple(found.shape)
            namer.checker.specs[name].check_spec(name, shape, found.dtype.name)
    if isinstance(spec, dict) and spec.keys() == named.keys():
        return dataset  # as it is; what `make_dataset` returned stays resumable
    # A dict is one element, a tuple is spread over the arguments.
    return dataset.map(lambda *parts: namer(parts if isinstance(spec, tuple) else parts[0]))


def _as_tf_dataset(batches: Iterable[Any], namer: BatchNamer, first: Any) -> Any:
    """Batches from an object that can be iterated over again and again."""
    import tensorflow as tf

    from addloss_kit.keras_internals.datasets import without_tuning

    signature = {
        name: _signature(np.asarray(value), namer.checker.specs[name].shape)
        for name, value in first.items()
    }
    dataset = without_tuning(
        tf.data.Dataset.from_generator(
            lambda: _named(batches, namer), output_signature=signature
        )
    )
    if not isinstance(batches, Sized):
        return dataset
    # Keras warns at the end of a dataset whose length it did not know.
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))


def _signature(array: np.ndarray, shape: Shape) -> Any:
    """Of such batches: what the Input leaves open may differ between them."""
    import tensorflow as tf

    sizes: list[int | None] = [None, *array.shape[1:]]
    for axis in range(1, min(len(sizes), len(shape))):
        if shape[axis] is None:
            sizes[axis] = None
    dtype = tf.string if array.dtype.kind in "USO" else tf.as_dtype(array.dtype)
    return tf.TensorSpec(sizes, dtype)


def _named(batches: Iterable[Any], namer: BatchNamer) -> Iterator[dict[str, Any]]:
    for number, batch in enumerate(batches):
        yield namer(batch, number)


def _first(batches: Iterator[Any]) -> Any:
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(f"`dataset` must have a batch. {received(batches=0)}") from None


def _is_rows(dataset: Any) -> bool:
    """Whether it is arrays, not batches of them."""
    if isinstance(dataset, (Mapping, str, bytes)) or hasattr(dataset, "shape"):
        return True
    is_list = isinstance(dataset, Sequence) and len(dataset) > 0
    return is_list and not isinstance(dataset[0], (tuple, list, Mapping))
