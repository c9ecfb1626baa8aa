"""Atomic replacement of files and directories."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator

# Seconds. A scratch directory that has not changed for this long belongs to a process
# that was killed: no write pauses for an hour.
_STALE_AFTER = 3600.0

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path to write to; it replaces `path` if the block succeeds.

    If the block raises or the process dies, `path` is unchanged. The temporary path
    is in a hidden directory next to `path`, `.<name>.<random>.partial`, because a
    move is atomic only within one file system. A killed process leaves that directory
    behind; the next write to `path` at least an hour later removes it.

    Args:
        path: File or directory to create or replace.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(
        tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    )
    try:
        place = scratch / path.name
        yield place
        _write_through(place)
        _move(place, path)
        _remove_stale(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _files(place: pathlib.Path) -> list[pathlib.Path]:
    if not place.is_dir():
        return [place]
    return [file for file in place.rglob("*") if file.is_file()]


def _write_through(place: pathlib.Path) -> None:
    # Otherwise a power failure after the move could leave an empty file.
    for file in _files(place):
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())


def _move(place: pathlib.Path, path: pathlib.Path) -> None:
    if not path.is_dir():
        os.replace(place, path)
    elif not _exchange(place, path):
        # Two steps if the system cannot swap. A kill between them leaves the former
        # directory in the scratch directory.
        former = place.with_name("former")
        os.rename(path, former)
        try:
            os.rename(place, path)
        except OSError:
            os.rename(former, path)
            raise


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Swap two directories atomically; return whether the system could."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and not rename(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )


def _remove_stale(path: pathlib.Path) -> None:
    for scratch in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        try:
            newest = max(entry.stat().st_mtime for entry in (scratch, *scratch.rglob("*")))
        except FileNotFoundError:
            continue  # Its process is still writing.
        if time.time() - newest > _STALE_AFTER:
            shutil.rmtree(scratch, ignore_errors=True)
