"""Directories that are there after a crash, and the file system's errors as errors of ours."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from private_keras.errors import ClusterError, FileError


def make(directory: Path) -> None:
    """The directory and those above it, on disk, for this user alone."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        sync(each.parent)


def sync(directory: Path) -> None:
    """Puts the directory's entries on disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Errors of the file system as errors of ours, without the path."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise ClusterError(f"the server's disk refuses: {error.strerror or type(error).__name__}") from None
