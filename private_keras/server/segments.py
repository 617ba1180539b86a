"""Closed parts of the audit log as files, which the server's operator may move away, and put back.

    first line    JSON: server, first, count, before, chain, closed, signature, certificate
    then          the entries' texts, one a line

A file that is moved away takes texts with it, and nothing else: what it ended with stays in the catalogue, signed.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from private_keras.errors import FileError
from private_keras.server import disk
from private_keras.server.catalogue import AuditRow, Segment
from private_keras.server.chain import chained, content_of

FOLDER = "audit"
ENDING = ".log"
_LOCK, _NEW = ".lock", ".new"
MAX_LINE = 1 << 27  # bytes of a text


def name_of(segment: Segment) -> str:
    """What its file is called."""
    return f"{segment.first:012d}-{segment.count - 1:012d}{ENDING}"


@contextlib.contextmanager
def exporting(directory: Path) -> Iterator[None]:
    """Nobody else writes files in the `with` block."""
    disk.make(directory)
    with open(os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(directory: Path, server: str, segment: Segment, rows: Iterable[AuditRow]) -> None:
    """Writes a part's file, whole and on disk when this returns; inside `exporting`."""
    head = {
        "server": server, "first": segment.first, "count": segment.count, "before": segment.before.hex(),
        "chain": segment.chain.hex(), "closed": segment.closed, "signature": segment.signature.hex(),
        "certificate": segment.certificate.decode("ascii"),
    }  # fmt: skip
    new = directory / _NEW
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(new, flags, 0o600), "wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        for row in rows:
            file.write(row.text.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, directory / name_of(segment))
    disk.sync(directory)


def rows_in(directory: Path, segment: Segment) -> Iterator[AuditRow]:
    """Entries in a part's file, in a chain from where the part began; raises `FileNotFoundError`: it was moved away."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(directory / name_of(segment), flags), "rb") as file:
        file.readline(MAX_LINE)
        yield from _rows(file, segment)


def read(path: Path) -> tuple[str, Segment, list[AuditRow]]:
    """A file that was moved away: whose log it is of, what its head says, and its entries. Nothing of it is checked.

    Raises:
        FileError: it is no such file.
    """
    try:
        with open(path, "rb") as file:
            told = json.loads(file.readline(MAX_LINE))
            before, chain, signature = (bytes.fromhex(told[name]) for name in ("before", "chain", "signature"))
            certificate = told["certificate"].encode("ascii")
            first, count = int(told["first"]), int(told["count"])
            segment = Segment(first, count, before, chain, float(told["closed"]), signature, certificate, True)
            return str(told["server"]), segment, list(_rows(file, segment))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(f"{path}: expected a part of an audit log. Received: {type(error).__name__}") from None


def _rows(file: BinaryIO, segment: Segment) -> Iterator[AuditRow]:
    chain = segment.before
    for number, line in enumerate(file, segment.first):
        text = line.removesuffix(b"\n").decode("utf-8", "replace")
        content = content_of(text)
        chain = chained(chain, content)
        yield AuditRow(number, text, content, chain)
