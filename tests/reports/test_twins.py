"""Rows that judge, and stand among those that trained: counted, and told."""

from collections import Counter

import numpy as np
import pytest

from addloss_kit.reports.held_out import HeldOut
from addloss_kit.reports.twins import count_repeated, count_twins


def measured(rng, rows):
    """Rows of real numbers, of which none is like another."""
    return {
        "x": rng.normal(size=(rows, 3)).astype("float32"),
        "y_true": rng.normal(size=(rows, 1)).astype("float32"),
        "group_ids": rng.integers(0, 2, rows),
    }


def counted(rng, rows):
    """Rows of small whole numbers, of which many are alike."""
    return {
        "x": rng.integers(0, 4, (rows, 3)).astype("float32"),
        "y_true": rng.integers(0, 3, (rows, 1)).astype("float32"),
        "group_ids": rng.integers(0, 2, rows),
    }


def tuples(rows):
    return [
        tuple(np.concatenate([np.ravel(v[k]) for v in rows.values()]).tolist())
        for k in range(len(rows["y_true"]))
    ]


@pytest.mark.parametrize("draw", [measured, counted])
def test_the_count_is_that_of_sets(rng, draw):
    rows, others = draw(rng, 200), draw(rng, 500)
    rows = {name: np.concatenate([rows[name], others[name][:40]]) for name in rows}
    ours, theirs = tuples(rows), tuples(others)
    times = Counter(theirs)
    twins = count_twins(rows, others)
    assert twins.found == sum(row in times for row in ours) and twins.rows == len(ours)
    assert twins.expected == pytest.approx(
        len(ours) * np.mean([times[row] > 1 for row in theirs])
    )


def test_rows_on_the_disk_are_compared_by_blocks(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("addloss_kit.reports.twins._BLOCK", 7)
    others = measured(rng, 30)
    np.save(tmp_path / "x.npy", others["x"])
    rows = {**others, "x": np.load(tmp_path / "x.npy", mmap_mode="r")}
    assert count_twins(rows, others).found == 30


def check(train, validation, rows):
    held_out = HeldOut(train, validation, "group_ids", None, "squared_error")
    held_out.check_unseen("certify_rows", rows, 2, None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", [measured, counted])
def test_rows_that_were_drawn_alike_pass(draw):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        check(draw(rng, 600), draw(rng, 300), draw(rng, 200))


@pytest.mark.parametrize("draw", [measured, counted])
def test_rows_of_which_many_trained_are_told(rng, draw):
    train, rows = draw(rng, 600), draw(rng, 200)
    drawn = rng.integers(0, 600, 150)
    for name in rows:
        rows[name] = np.concatenate([rows[name][:50], train[name][drawn]])
    with pytest.warns(UserWarning, match=r"of 200 rows of `certify_rows` stand in `train`"):
        check(train, draw(rng, 600), rows)


@pytest.mark.parametrize("draw", [measured, counted])
def test_rows_of_which_many_are_copies_are_told(rng, draw):
    rows = draw(rng, 150)
    drawn = rng.integers(0, 150, 300)
    copied = {name: column[drawn] for name, column in rows.items()}
    train, validation = draw(rng, 600), draw(rng, 300)
    with pytest.warns(UserWarning, match="too sure.*pass `clusters`"):
        check(train, validation, copied)
    held_out = HeldOut(train, validation, "group_ids", None, "squared_error")
    held_out.check_unseen("certify_rows", copied, 2, drawn)


def test_halves_are_compared_as_sets(rng):
    # Each row twice: of two rows alike, one lies in the first half with a chance of 1/2,
    # and then the other in the second with one of 100/199.
    rows = {
        n: np.tile(v, (2, 1)) for n, v in measured(rng, 100).items() if n != "group_ids"
    }
    twins = count_repeated(rows, [measured(rng, 300)])
    assert (twins.rows, twins.expected) == (100, 0.0)
    assert abs(twins.found - 100 * 100 / 199) < 20
