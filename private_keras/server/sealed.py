"""A file of shares that only the server's key opens, readable at any place without reading the rest.

    16 bytes  "private_keras", format version
    32 bytes  salt, random
              chunks of 8 KiB, each followed by its tag of 16 bytes; the last is shorter

AES-256-GCM under the key HKDF-SHA256(server's key, salt): a fresh salt for every file makes a fresh key for it, and
chunk i of the file is the only thing that is ever sealed under that key with nonce i. Associated data: a digest of what
the catalogue says of the file, its length, and the chunk's index. So a chunk that was changed, moved, taken of another
file or of another server, or whose place in the catalogue was changed, and a file that was cut, are errors.

Files are read by `pread`: a disk that fails in the middle is an error, where a memory map would end the process, and
pages that were read are the operating system's cache, not the server's memory.

Source: NIST SP 800-38D (GCM), RFC 5869 (HKDF).
"""

import os
import secrets
import threading
from collections import OrderedDict
from typing import BinaryIO

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from private_keras.errors import FileError
from private_keras.server import disk

MAGIC = b"private_keras\0\0\2"
KEY_BYTES = 32
# What a row at a random place costs, beside itself; each chunk takes some microseconds besides.
CHUNK_BYTES = 1 << 13
TAG_BYTES = 16
_SALT_BYTES = 32
_HEAD_BYTES = len(MAGIC) + _SALT_BYTES
_SEALED_BYTES = CHUNK_BYTES + TAG_BYTES
_AT_ONCE = 128  # chunks in one read


def sealed_bytes(length: int) -> int:
    """Size of the file for so many bytes."""
    return _HEAD_BYTES + length + TAG_BYTES * -(-length // CHUNK_BYTES)


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"private_keras shares").derive(key))


class _Chunks:
    """Nonce and associated data of a file's chunks."""

    def __init__(self, context: bytes, length: int):
        self._about = context + length.to_bytes(8, "big")

    def of(self, index: int) -> tuple[bytes, bytes]:
        """Of one chunk."""
        return index.to_bytes(12, "big"), self._about + index.to_bytes(8, "big")


class Writer:
    """Writes a file from its beginning to its end.

    Args:
        file: new and empty.
        key: the server's, 32 bytes.
        context: 32 bytes that the reader must know as well.
        length: of all that will be written.
    """

    def __init__(self, file: BinaryIO, key: bytes, context: bytes, length: int):
        salt = secrets.token_bytes(_SALT_BYTES)
        self._file = file
        self._cipher = _cipher(key, salt)
        self._chunks = _Chunks(context, length)
        self._left = length
        self._index = 0
        self._rest = b""
        file.write(MAGIC + salt)

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return self._left

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes; no more than are left."""
        if len(data) > self._left:
            raise ValueError("more than was announced")
        self._left -= len(data)
        data = memoryview(self._rest + data if self._rest else data)
        whole = len(data) if not self._left else len(data) // CHUNK_BYTES * CHUNK_BYTES
        self._file.write(b"".join(self._sealed(data[at : at + CHUNK_BYTES]) for at in range(0, whole, CHUNK_BYTES)))
        self._rest = bytes(data[whole:])

    def _sealed(self, chunk: memoryview) -> bytes:
        nonce, about = self._chunks.of(self._index)
        self._index += 1
        return self._cipher.encrypt(nonce, chunk, about)


class Cache:
    """Chunks that were opened lately, of all files together. Thread safe."""

    def __init__(self, nbytes: int):
        self._most = max(1, nbytes // CHUNK_BYTES)
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def get(self, file: int, index: int) -> bytes | None:
        """A chunk, if it is here."""
        with self._lock:
            chunk = self._chunks.get((file, index))
            if chunk is not None:
                self._chunks.move_to_end((file, index))
            return chunk

    def put(self, file: int, index: int, chunk: bytes) -> None:
        """Keeps a chunk in place of the one that was not used for longest."""
        with self._lock:
            self._chunks[file, index] = chunk
            while len(self._chunks) > self._most:
                self._chunks.popitem(last=False)


class Sealed:
    """An open file. Thread safe; what was opened stays readable when its name is gone.

    Args:
        descriptor: of the file; closed with this object, or at once after an error.
        number: its own among all that share the cache.
        key, context, length: as for `Writer`.
        what: for errors.

    Raises:
        FileError: another format or length.
    """

    def __init__(
        self, descriptor: int, number: int, key: bytes, context: bytes, length: int, cache: Cache, what: str
    ):
        self._descriptor = descriptor
        self._number = number
        self._chunks = _Chunks(context, length)
        self._length = length
        self._cache = cache
        self._what = what
        size = os.fstat(descriptor).st_size
        if size != sealed_bytes(length):
            raise FileError(
                f"{what}: expected a file of {sealed_bytes(length)} bytes. Received: {size}; it was cut off or changed"
            )
        head = os.pread(descriptor, _HEAD_BYTES, 0)
        if head[: len(MAGIC)] != MAGIC:
            raise FileError(f"{what}: expected a file of saved shares of this release. Received: another format")
        self._cipher = _cipher(key, head[len(MAGIC) :])

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read(self, start: int, out: memoryview) -> None:
        """Fills `out` with the bytes from `start` on.

        Chunks of which only a part is wanted are kept in the cache, because the rest is often wanted next.

        Raises:
            FileError: damaged, or sealed by another key.
        """
        done, end = 0, start + len(out)
        ahead: dict[int, bytes] = {}
        while done < len(out):
            index, at = divmod(start + done, CHUNK_BYTES)
            chunk = ahead.pop(index, None) or self._cache.get(self._number, index)
            if chunk is None:
                ahead = self._opened(index, min(-(-end // CHUNK_BYTES), index + _AT_ONCE))
                chunk = ahead.pop(index)
            piece = memoryview(chunk)[at : at + len(out) - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
            if len(piece) < len(chunk):
                self._cache.put(self._number, index, chunk)

    def _opened(self, first: int, last: int) -> dict[int, bytes]:
        """Chunks `first` to before `last`, by index."""
        count, start = (last - first) * _SEALED_BYTES, _HEAD_BYTES + first * _SEALED_BYTES
        with disk.errors():
            data = memoryview(os.pread(self._descriptor, count, start))
        result = {}
        for index in range(first, last):
            nonce, about = self._chunks.of(index)
            sealed = data[(index - first) * _SEALED_BYTES : (index - first + 1) * _SEALED_BYTES]
            try:
                result[index] = self._cipher.decrypt(nonce, sealed, about)
            except (InvalidTag, ValueError):
                raise FileError(
                    f"{self._what}: damaged, or not sealed by this server's key. Load an older copy of the directory, "
                    "with the key it belongs to"
                ) from None
        return result

    def words(self, start: int, count: int) -> np.ndarray:
        """`count` little-endian words from byte `start` on; a fresh array."""
        array = np.empty(count, "<u8")
        self.read(start, memoryview(array).cast("B"))
        return array.astype(np.uint64, copy=False)

    def bytes(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on."""
        out = bytearray(count)
        self.read(start, memoryview(out))
        return bytes(out)
