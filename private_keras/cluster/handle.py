"""What a client holds of tensors that are on the servers, and what runs cost."""

import html
import threading
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Handle:
    """Shares of one tensor on the servers of one cluster: shape and scale, never a value.

    Attributes:
        name: what the tensor is, for people.
        shape: its sizes.
        fraction: fractional bits.
        incarnation: start of the servers that it lives on; shares do not outlive it.
        id: the servers' name for it.
        owner: whose named shares it was loaded from; empty: the client's own.
        dtype: as its owner had it; empty where nobody said.
        shares: which of the owner's named shares, as plans say it: "name#tensor"; empty: the client's own.
    """

    name: str
    shape: tuple[int, ...]
    fraction: int
    incarnation: str = field(repr=False)
    id: bytes = field(repr=False)
    owner: str = ""
    dtype: str = ""
    shares: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True)
class Traffic:
    """What one or several runs took.

    Attributes:
        runs: how many.
        rounds: messages that had to wait for the peer's, one after the other.
        sent: payload bytes that each server sent to the others.
        seconds: as the client saw it.
        computing: seconds that the servers took, without upload and download; the slowest counts.
    """

    runs: int = 0
    rounds: int = 0
    sent: tuple[int, ...] = ()
    seconds: float = 0.0
    computing: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        width = max(len(self.sent), len(other.sent))
        pairs = zip(*(s + (0,) * (width - len(s)) for s in (self.sent, other.sent)), strict=True)
        return Traffic(
            self.runs + other.runs, self.rounds + other.rounds, tuple(a + b for a, b in pairs),
            self.seconds + other.seconds, self.computing + other.computing,
        )  # fmt: skip

    @property
    def bytes(self) -> int:
        """Payload bytes of all servers."""
        return sum(self.sent)


@dataclass
class Stats:
    """Rounds, bytes and seconds. Prints as a table. Thread safe: what is made ahead is counted beside runs.

    Attributes:
        last: of the last run, from its order to its result.
        last_ahead: what had been made ahead for it (`prepare`); nothing if it used no stock.
        total: of all runs.
        ahead: of all that was made ahead, used or not.
    """

    last: Traffic = field(default_factory=Traffic)
    total: Traffic = field(default_factory=Traffic)
    last_ahead: Traffic = field(default_factory=Traffic)
    ahead: Traffic = field(default_factory=Traffic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, run: Traffic, ahead: Traffic | None = None) -> None:
        """Counts a run, and what had been made ahead for it, which was counted when it was made."""
        with self._lock:
            self.last = run
            self.last_ahead = ahead or Traffic()
            self.total = self.total + run

    def add_ahead(self, made: Traffic) -> None:
        """Counts what was made ahead for a run to come."""
        with self._lock:
            self.ahead = self.ahead + made

    def _rows(self) -> list[tuple[str, ...]]:
        columns = (self.last, self.last_ahead, self.total, self.ahead)
        rows = [
            ("runs", *(str(column.runs) for column in columns)),
            ("rounds", *(str(column.rounds) for column in columns)),
            ("seconds", *(f"{column.seconds:.3f}" for column in columns)),
            ("computing", *(f"{column.computing:.3f}" for column in columns)),
        ]
        for party in range(max(len(column.sent) for column in columns)):
            sent = (column.sent[party] if party < len(column.sent) else 0 for column in columns)
            rows.append((f"bytes sent by server{party}", *(f"{n:,}" for n in sent)))
        return rows

    def __str__(self) -> str:
        rows = [("", *_COLUMNS), *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        cells = "".join(
            f"<tr><th>{html.escape(row[0])}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row[1:])}</tr>"
            for row in self._rows()
        )
        return f"<table><tr><th></th>{head}</tr>{cells}</table>"


_COLUMNS = ("last run", "made ahead for it", "all runs", "all made ahead")
