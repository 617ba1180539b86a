"""A file of saved shares: one party's part of several tensors, bound to its owner, under one checksum.

    16 bytes  "private_keras", format version
     8 bytes  length of the header
              header: JSON (`Head`)
              for each tensor its mask, then (evaluators) its masked words: little-endian words of 8 bytes
    32 bytes  SHA-256 of all before

The checksum finds damage, not forgery: who can write to a server's disk is that server. Readers trust nothing all the
same: sizes are checked against the file's before memory is taken.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from private_keras.errors import FileError, PlanError
from private_keras.plan import limits as plan_limits
from private_keras.server import limits
from private_keras.server.material import HELPER, WORD, Material

MAGIC = b"private_keras\0\0\1"
_PREFIX = struct.Struct("<16sQ")
_DIGEST_BYTES = 32
_KEYS = {"protocol", "party", "owner", "name", "number", "nonce", "about", "entries"}


@dataclass(frozen=True)
class SavedTensor:
    """What a tensor is, for the client that loads it."""

    label: str
    shape: tuple[int, ...]
    fraction: int

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True)
class Head:
    """What a file says of itself.

    Attributes:
        owner: the identity that saved it, and may load it.
        name, number, nonce: which generation of what.
        about: the client's own words.
    """

    protocol: str
    party: int
    owner: str
    name: str
    number: int
    nonce: str
    about: str
    entries: tuple[SavedTensor, ...]

    @property
    def words(self) -> int:
        """Of all tensors, as this party holds them."""
        return sum(item.size for item in self.entries) * (1 if self.party == HELPER else 2)


def write(file: BinaryIO, head: Head, parts: Iterable[Material]) -> None:
    """Writes a snapshot; `parts` are in the order of the head's entries."""
    document = {key: getattr(head, key) for key in _KEYS}
    document["entries"] = [[item.label, item.shape, item.fraction] for item in head.entries]
    text = json.dumps(document, sort_keys=True, ensure_ascii=True).encode("ascii")
    if len(text) > limits.HEAD_BYTES:
        raise FileError(f"expected names and descriptions of at most {limits.HEAD_BYTES} bytes. Received: {len(text)}")
    digest = hashlib.sha256()

    def put(data: bytes | memoryview) -> None:
        digest.update(data)
        file.write(data)

    put(_PREFIX.pack(MAGIC, len(text)))
    put(text)
    for part in parts:
        for words in (part.mask, part.masked):
            if words is not None:
                put(memoryview(np.ascontiguousarray(words, WORD)).cast("B"))
    file.write(digest.digest())


def read_head(file: BinaryIO, what: str) -> Head:
    """The head of a snapshot whose size fits it; the file then stands at its first words.

    Args:
        what: for errors.

    Raises:
        FileError: not such a file, or cut off.
    """
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(_PREFIX.size)
    if len(prefix) != _PREFIX.size:
        raise FileError(f"{what}: expected a file of saved shares. Received: {size} bytes")
    magic, length = _PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise FileError(f"{what}: expected a file of saved shares of this release. Received: another format")
    if length > min(limits.HEAD_BYTES, size):
        raise FileError(f"{what}: expected a header of at most {limits.HEAD_BYTES} bytes. Received: {length}")
    try:
        document = json.loads(file.read(length).decode("ascii"))
        head = _head(document)
    except (ValueError, RecursionError, KeyError, TypeError, PlanError) as error:
        raise FileError(f"{what}: the header is damaged ({type(error).__name__})") from None
    expected = _PREFIX.size + length + WORD.itemsize * head.words + _DIGEST_BYTES
    if size != expected:
        raise FileError(f"{what}: expected {expected} bytes. Received: {size}; the file was cut off or changed")
    return head


def _head(document: Any) -> Head:
    if not isinstance(document, dict) or set(document) != _KEYS or not isinstance(document["entries"], list):
        raise ValueError("keys")
    entries = tuple(SavedTensor(*checked(*item)) for item in document["entries"])
    plan_limits.integer(document["party"], 0, 63, "party")
    plan_limits.integer(document["number"], 0, (1 << 64) - 1, "number")
    for key in ("protocol", "owner", "name", "nonce", "about"):
        if not isinstance(document[key], str):
            raise ValueError(key)
    return Head(**{**document, "entries": entries})


def checked(label: Any, shape: Any, fraction: Any) -> tuple[str, tuple[int, ...], int]:
    """Label, shape and fraction of a tensor, whoever says so; raises `PlanError`."""
    return (
        plan_limits.text(label, "label of a saved tensor"),
        plan_limits.shape(shape, "shape of a saved tensor"),
        plan_limits.integer(fraction, 0, plan_limits.MAX_FRACTION, "fraction of a saved tensor"),
    )


def read_parts(file: BinaryIO, head: Head, what: str) -> list[Material]:
    """All tensors, after `read_head`; the whole file is read and its checksum compared before any is given out.

    Raises:
        FileError: damaged.
    """
    start = file.tell()
    file.seek(0)
    digest = hashlib.sha256(file.read(start))

    def words(count: int) -> np.ndarray:
        array = np.empty(count, WORD)
        data = memoryview(array).cast("B")
        if file.readinto(data) != len(data):
            raise FileError(f"{what}: the file ends too early")
        digest.update(data)
        array = array.astype(np.uint64, copy=False)
        array.flags.writeable = False
        return array

    parts = []
    for item in head.entries:
        mask = words(item.size)
        parts.append(Material(None if head.party == HELPER else words(item.size), mask))
    if file.read() != digest.digest():
        raise FileError(f"{what}: the checksum is wrong; the file is damaged. Load an older copy of the directory")
    return parts
