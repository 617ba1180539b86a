"""What a client holds of tensors that are on the servers, and what runs cost."""

import html
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
    """

    name: str
    shape: tuple[int, ...]
    fraction: int
    incarnation: str = field(repr=False)
    id: bytes = field(repr=False)

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
    """Rounds, bytes and seconds: `last` run, and all runs in `total`. Prints as a table."""

    last: Traffic = field(default_factory=Traffic)
    total: Traffic = field(default_factory=Traffic)

    def add(self, run: Traffic) -> None:
        """Counts a run."""
        self.last = run
        self.total = self.total + run

    def _rows(self) -> list[tuple[str, str, str]]:
        rows = [
            ("runs", str(self.last.runs), str(self.total.runs)),
            ("rounds", str(self.last.rounds), str(self.total.rounds)),
            ("seconds", f"{self.last.seconds:.3f}", f"{self.total.seconds:.3f}"),
            ("computing", f"{self.last.computing:.3f}", f"{self.total.computing:.3f}"),
        ]
        for party, (last, total) in enumerate(zip(self.last.sent, self.total.sent, strict=True)):
            rows.append((f"bytes sent by server{party}", f"{last:,}", f"{total:,}"))
        return rows

    def __str__(self) -> str:
        rows = [("", "last run", "in all"), *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td><td>{html.escape(c)}</td></tr>"
            for a, b, c in self._rows()
        )
        return f"<table><tr><th></th><th>last run</th><th>in all</th></tr>{cells}</table>"
