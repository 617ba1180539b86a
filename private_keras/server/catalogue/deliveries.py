"""What waits for receivers: of whose job, for whom, and in which file its contributions are."""

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from private_keras.errors import FileError
from private_keras.plan import limits as plan_limits
from private_keras.server.catalogue.database import Database

ROW_BYTES = 512  # of a row without its outputs
_WORD_BYTES = 8
_COLUMNS = "job, receiver, sender, name, digest, servers, outputs, created, file"


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        present: whether this server contributes to it: words of 8 bytes, flat; else zeros.
    """

    name: str
    shape: tuple[int, ...]
    fraction: int
    present: bool

    @property
    def nbytes(self) -> int:
        """Of this server's contribution."""
        return _WORD_BYTES * math.prod(self.shape) if self.present else 0


@dataclass(frozen=True)
class Delivery:
    """What one job opened to one receiver.

    Attributes:
        id: of the job.
        name: the sender's choice.
        digest: of the plan, in hex.
        servers: how many took part in the job; the receiver needs the contributions of all.
        created: seconds since 1970, by this server's clock.
        file: of the contributions; empty where there are none.
    """

    id: bytes
    sender: str
    receiver: str
    name: str
    digest: str
    servers: int
    outputs: tuple[Output, ...]
    created: float
    file: str = field(default="", repr=False)

    @property
    def nbytes(self) -> int:
        """Of all contributions."""
        return sum(item.nbytes for item in self.outputs)

    @property
    def outputs_text(self) -> str:
        """The outputs as JSON."""
        return json.dumps([[o.name, o.shape, o.fraction, o.present] for o in self.outputs], separators=(",", ":"))

    @property
    def stored_bytes(self) -> int:
        """What it takes of the room for deliveries."""
        return self.nbytes + len(self.outputs_text) + ROW_BYTES


class Usage(NamedTuple):
    """Deliveries that wait, of one sender and of all, and bytes that they take."""

    own: int
    own_bytes: int
    all: int
    all_bytes: int


class Deliveries:
    """Thread safe; each change is on disk when its call returns."""

    def __init__(self, database: Database):
        self._database = database

    def usage(self, sender: str) -> Usage:
        """How much waits."""
        query = (
            "SELECT coalesce(sum(sender = ?), 0), coalesce(sum((sender = ?) * bytes), 0), count(*), "
            "coalesce(sum(bytes), 0) FROM deliveries"
        )
        with self._database.reading() as database:
            return Usage(*database.execute(query, (sender, sender)).fetchone())

    def add(self, delivery: Delivery) -> None:
        """Keeps one; there must be none of its job for its receiver."""
        d = delivery
        with self._database.transaction() as database:
            database.execute(
                f"INSERT INTO deliveries ({_COLUMNS}, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (d.id, d.receiver, d.sender, d.name, d.digest, d.servers, d.outputs_text, d.created, d.file,
                 d.stored_bytes),
            )  # fmt: skip

    def remove(self, job: bytes, receiver: str) -> bool:
        """Forgets one; whether there was one."""
        with self._database.transaction() as database:
            gone = database.execute("DELETE FROM deliveries WHERE job = ? AND receiver = ?", (job, receiver))
            return gone.rowcount > 0

    def find(self, job: bytes, receiver: str) -> Delivery | None:
        """That of a job for a receiver."""
        query = f"SELECT {_COLUMNS} FROM deliveries WHERE job = ? AND receiver = ?"
        with self._database.reading() as database:
            found = database.execute(query, (job, receiver)).fetchone()
        return None if found is None else _delivery(found)

    def of(self, receiver: str) -> Iterator[Delivery]:
        """All for a receiver, oldest first."""
        return self._rows("receiver = ?", receiver)

    def older(self, created: float) -> Iterator[Delivery]:
        """All from before an instant."""
        return self._rows("created < ?", created)

    def sent(self, jobs: Collection[bytes], sender: str) -> Iterator[Delivery]:
        """All of a sender's jobs among these."""
        return self._rows("sender = ?", sender, jobs)

    def has(self, file: str) -> bool:
        """Whether a file is one of theirs."""
        with self._database.reading() as database:
            return database.execute("SELECT 1 FROM deliveries WHERE file = ?", (file,)).fetchone() is not None

    def _rows(self, where: str, given: str | float, jobs: Collection[bytes] | None = None) -> Iterator[Delivery]:
        """One after the other: descriptions of all may take more memory than there is."""
        query = f"SELECT job, receiver FROM deliveries WHERE {where} ORDER BY created, job"
        with self._database.reading() as database:
            keys = [key for key in database.execute(query, (given,)) if jobs is None or key[0] in jobs]
        return (found for key in keys if (found := self.find(*key)) is not None)


def _delivery(row: tuple) -> Delivery:
    job, receiver, sender, name, digest, servers, outputs, created, file = row
    try:
        found = []
        for label, shape, fraction, present in json.loads(outputs):
            plan_limits.text(label, "label of an output")
            plan_limits.integer(fraction, 0, plan_limits.MAX_FRACTION, "fraction of an output")
            plan_limits.flag(present, "contribution to an output")
            found.append(Output(label, plan_limits.shape(shape, "shape of an output"), fraction, present))
    except (ValueError, TypeError, RecursionError) as error:
        raise FileError(f"the catalogue is damaged ({type(error).__name__})") from None
    return Delivery(bytes(job), sender, receiver, name, digest, servers, tuple(found), created, file)

