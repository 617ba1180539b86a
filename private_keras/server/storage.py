"""Named shares on one server's disk: written whole or not at all, sealed, found again after a restart.

The catalogue says what there is; a file counts when its row says so, and a row says so when the file is on disk with
all its bytes. A second call commits a generation, which can then be loaded. Between the two all servers have it, so a
client that commits on all of them leaves, wherever it or they break off, either an older generation or the new one on
all three, never half of one.
"""

import contextlib
import hashlib
import json
import re
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from private_keras.errors import ClusterError, FileError, HandleNotFound, InputError, PrivateKerasError
from private_keras.ring.kernel import Kernel
from private_keras.server import disk, limits
from private_keras.server.catalogue import COMMITTED, FORGOTTEN, WRITING, WRITTEN, Catalogue, Row
from private_keras.server.entries import SavedTensor, to_json
from private_keras.server.keyfile import key_file, keys_beside
from private_keras.server.mapped import Mapped, disk_bytes
from private_keras.server.policy import Policy
from private_keras.server.sealed import Sealed, Writer, sealed_bytes
from private_keras.server.terms import Source
from private_keras.server.ties import Ties, TyingMany, packed, unpacked
from private_keras.server.vault import ENDING, Vault, locked

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,79}", re.ASCII)
NONCE_BYTES = 8
FILES = "shares"


@dataclass(frozen=True, order=True)
class Generation:
    """One of those that a client saved under a name; the largest is the newest."""

    name: str
    number: int
    nonce: bytes

    def of(self, owner: str) -> Source:
        """It as what shares come from."""
        return Source(owner, self.name, self.number, self.nonce.hex())


def generation_of(source: Source) -> Generation:
    """A source without its owner."""
    return Generation(source.name, source.number, bytes.fromhex(source.nonce))


def check_name(name: str) -> str:
    """A name that can be saved under; raises `InputError`."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            "expected a name of 1 to 80 letters, digits and _ . : / - that starts with a letter, digit or _. "
            f"Received: {ascii(name)[:100]}"
        )
    return name


def check_names(name: str) -> str:
    """A name, or the beginning of names and "*"; raises `InputError`."""
    if name != "*":
        check_name(name.removesuffix("*") if isinstance(name, str) else name)
    return name


class Storage:
    """One server's directory; thread safe, and several servers may use one directory.

    Args:
        directory: made when something is saved first; None: nothing can be saved.
        protocol, party: whose shares these are.
        keys: directory of the key that seals them, made with it; None: beside `directory`.

    Attributes:
        catalogue: what there is.
        vault: files and their key.
        place: which server's these are; files are bound to it.
    """

    def __init__(self, directory: Path | None, protocol: str, party: int, keys: Path | None = None):
        self._party = party
        self.place = f"{protocol}-server{party}"
        root = None if directory is None else directory / self.place
        self.catalogue = Catalogue(root)
        key = None
        if directory is not None:
            key = key_file(keys_beside(directory) if keys is None else keys, f"server{party}")
        self.vault = Vault(root, key, self.catalogue)
        self._lock = threading.Lock()
        self._files: weakref.WeakValueDictionary[str, Sealed] = weakref.WeakValueDictionary()
        if directory is not None:
            # What is wrong with the directory is said when it is used, and not before: predictions need none.
            with contextlib.suppress(PrivateKerasError, OSError):
                self._sweep()

    @contextlib.contextmanager
    def writing(
        self, owner: str, generation: Generation, about: str, entries: Sequence[SavedTensor], policy: Policy,
        ties: Sequence[Ties] | None = None,
    ) -> Iterator["Filling"]:
        """A new generation's file, to be filled in the `with` block, entry by entry; counts once it is committed.

        Args:
            ties: of each tensor; None: of what a client sends, they follow from that.

        Raises:
            NoStorage: the server was started without a directory.
            ClusterError: no room, the disk refuses, or the key is missing.
            InputError: a generation that exists, or that was not filled.
        """
        source, entries = generation.of(owner), tuple(entries)
        length = sum(disk_bytes(self._party, e.size, e.seeded) for e in entries)
        row = None
        try:
            with self.vault.new(FILES) as file:
                row = self.catalogue.names.begin(source, about, entries, policy, sealed_bytes(length), file.name)
                writer = file.writer(self._context(source, about, to_json(entries)), length)
                filling = Filling(writer, TyingMany(self._party, entries) if ties is None else None)
                yield filling
                if filling.left:
                    raise InputError(f"expected {length} bytes of material. Received: {length - filling.left}")
                file.sync()
                self.catalogue.names.finish(row, packed(filling.ties() if ties is None else ties))
        except BaseException:
            if row is not None:
                with contextlib.suppress(PrivateKerasError):
                    self.catalogue.names.drop(row)
            raise

    def commit(self, owner: str, generation: Generation) -> None:
        """Makes a generation that was written one that can be loaded; without effect on one that is committed."""
        self.vault.opened()
        if not self.catalogue.names.commit(generation.of(owner)):
            raise _missing(generation.name)

    def saved(self, owner: str, name: str = "") -> Iterator[Row]:
        """The owner's generations, of one name or of all, committed or not yet."""
        self.vault.opened()
        return self.catalogue.names.listed(owner, name)

    def usable(self, party: str, name: str = "") -> Iterator[Row]:
        """What others own and let the party use."""
        self.vault.opened()
        return self.catalogue.names.usable(party, name)

    def opened(self, owner: str, generation: Generation) -> "Opened":
        """A committed generation of this owner.

        Raises:
            HandleNotFound: there is none.
            FileError: damaged, or not what the catalogue says.
        """
        self.vault.opened()
        row = self.catalogue.names.find(generation.of(owner))
        if row is None or row.state != COMMITTED:
            raise _missing(generation.name)
        what = f"saved shares {generation.name!r}"
        ties = unpacked(self._party, row.ties)
        if len(ties) != len(row.entries):
            raise FileError(f"{what}: written by an earlier state of this release; share them again")
        with self._lock, disk.errors():
            sealed = self._files.get(row.file)
            if sealed is None:
                length = sum(disk_bytes(self._party, e.size, e.seeded) for e in row.entries)
                context = self._context(row.source, row.about, row.entries_text)
                sealed = self.vault.open(FILES, row.file, context, length, what)
                self._files[row.file] = sealed
        return Opened(row, sealed, self._party, ties)

    def forget(self, owner: str, generations: Sequence[Generation]) -> int:
        """Removes the owner's generations among these; returns how many there were. Their policies stay."""
        removed = 0
        self.vault.opened()
        for generation in generations:
            file = self._forgotten(generation.of(owner))
            if file is not None:
                removed += 1
                self._remove(file)
        return removed

    def _forgotten(self, source: Source) -> str | None:
        try:
            return self.catalogue.names.forget(source)
        except ClusterError:
            # A disk without room even for that has some when the file is gone. A crash between the two leaves a row
            # without a file, which can be forgotten again.
            row = self.catalogue.names.find(source)
            if row is None or row.state not in (WRITTEN, COMMITTED):
                raise
            self.vault.remove(FILES, row.file)
            return self.catalogue.names.forget(source)

    def _remove(self, file: str) -> None:
        self.vault.remove(FILES, file)
        self.catalogue.names.removed(file)

    def _context(self, source: Source, about: str, entries: str) -> bytes:
        """What a file is bound to: all that its row says and that does not change."""
        said = [self.place, source.owner, source.name, source.number, source.nonce, about, entries]
        return hashlib.sha256(json.dumps(said).encode()).digest()

    def _sweep(self) -> None:
        """Removes what a server that was killed left half written, and what no client came back for."""
        directory = self.vault.opened() / FILES
        known = self.catalogue.names.files()
        for path in directory.glob(f"*{ENDING}") if directory.is_dir() else ():
            # A file that the catalogue does not know may belong to a catalogue that was lost: only an empty one goes.
            if path.name not in known:
                with locked(path) as free:
                    if free and not path.lstat().st_size:
                        path.unlink()
        for row in self.catalogue.names.unfinished():
            if row.state == FORGOTTEN:
                self._remove(row.file)
            elif row.state == WRITING:
                with locked(directory / row.file) as free:
                    if free:
                        self.vault.remove(FILES, row.file)
                        self.catalogue.names.drop(row.id)
            elif row.state == WRITTEN and row.created < time.time() - 2 * limits.MAX_SECONDS:
                self.forget(row.source.owner, [generation_of(row.source)])


class Filling:
    """A generation's file as it is filled; `tying` follows what a client sends."""

    def __init__(self, writer: Writer, tying: TyingMany | None):
        self._writer = writer
        self._tying = tying

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return self._writer.left

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes; no more than are left."""
        self._writer.feed(data)
        if self._tying is not None:
            self._tying.feed(data)

    def ties(self) -> list[Ties]:
        """Of what a client has sent, all of it."""
        return self._tying.ties()


@dataclass(frozen=True)
class Opened:
    """A generation that can be read."""

    row: Row
    sealed: Sealed
    party: int
    ties: Sequence[Ties]

    def tensors(self, kernel: Kernel) -> list[Mapped]:
        """All of its tensors, on disk; raises `FileError` where one's beginning is damaged."""
        result, start = [], 0
        for entry, ties in zip(self.row.entries, self.ties, strict=True):
            result.append(Mapped(self.sealed, start, self.party, kernel, entry.size, entry.seeded, ties))
            start += disk_bytes(self.party, entry.size, entry.seeded)
        return result


def _missing(name: str) -> HandleNotFound:
    return HandleNotFound(f"no shares are saved as {name!r} on this server, or by another identity")
