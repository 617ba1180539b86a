"""Predictions that servers have made ready: how many there are for which batch size, made now or in the background."""
import collections
import contextlib
import html
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from private_keras.cluster import Cluster, Handle, Item, PublicValue, Traffic, about
from private_keras.plan.plan import Plan

Known = Mapping[str, Handle | PublicValue]
Told = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """A prediction without its batch.

    Attributes:
        known: the plan's inputs that do not come with the batch, by name.
    """

    cluster: Cluster
    plan: Plan
    known: Known

    @cached_property
    def content(self) -> tuple[bytes, str]:
        """What it is about: two with the same can use the same items. May call servers: not under a lock."""
        return about(self.plan, self.known), self.cluster.incarnation


class _Shelf:
    """Items for one batch size; all for one job.

    Attributes:
        turn: of the thread that refills it now; one whose turn is over makes nothing more.
        making: held while an item is made, so that two threads do not both make the last one.
    """

    def __init__(self) -> None:
        self.making = threading.Lock()
        self.turn: object | None = None
        self.items: collections.deque[Item] = collections.deque()
        self.job: Job | None = None
        self.content = (b"", "")
        self.wanted = 0
        self.refill = False
        self.used = 0
        self.made = Traffic()
        self.stored: tuple[int, ...] = ()
        self.trouble = ""

    def become(self, job: Job | None, content: tuple[bytes, str]) -> "_Dropped":
        """Is for this job from now; gives the items that it was for another one."""
        dropped: _Dropped = []
        if self.content != content:
            if self.job is not None:
                dropped = [(self.job.cluster, list(self.items))]
            self.items.clear()
        self.job, self.content = job, content
        return dropped


_Dropped = list[tuple[Cluster, list[Item]]]


@dataclass(frozen=True)
class StockRow:
    """Of one batch size.

    Attributes:
        batch_size: rows predicted together.
        level: predictions that are ready.
        wanted: how many there shall be.
        refill: whether used ones are replaced in the background.
        used: how many predictions have used one.
        stored: bytes that each server holds for one.
        seconds: that servers took to make one, on average.
        trouble: what ended the last refill, if anything did.
    """

    batch_size: int
    level: int
    wanted: int
    refill: bool
    used: int
    stored: tuple[int, ...]
    seconds: float
    trouble: str


@dataclass(frozen=True)
class StockReport:
    """What is ready; prints as a table, one row for each batch size."""

    model: str
    rows: tuple[StockRow, ...]

    def __getitem__(self, batch_size: int) -> StockRow:
        """The row of a batch size.

        Raises:
            KeyError: nothing was ever prepared for it.
        """
        return {row.batch_size: row for row in self.rows}[batch_size]

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                f"{row.batch_size}", f"{row.level} of {row.wanted}", "yes" if row.refill else "no", f"{row.used}",
                " / ".join(f"{n:,}" for n in row.stored) or "-", f"{row.seconds:.3f}", row.trouble or "-",
            )
            for row in self.rows
        ]  # fmt: skip

    def __str__(self) -> str:
        if not self.rows:
            return f"Nothing is prepared for model {self.model!r}; see model.prepare(count, batch_size)"
        rows = [_HEADER, *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([f"Predictions of {self.model!r} that are ready", *lines])

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        return "<table>" + line(_HEADER, "th") + "".join(line(row, "td") for row in self._cells()) + "</table>"

    __repr__ = __str__


_HEADER = ("batch size", "ready", "refill", "used", "bytes for one, by server", "seconds for one", "trouble")


class Stock:
    """Of one model. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shelves: dict[int, _Shelf] = {}

    def fill(self, batch_size: int, job: Job, count: int, refill: bool, told: Told) -> None:
        """Makes items until there are `count`, or lets go of those beyond.

        Args:
            refill: whether items that are used are replaced from now on.
            told: called with the number of items made so far.

        Raises: what `Cluster.prepare` raises. Items that were made stay.
        """
        content = job.content
        with self._lock:
            shelf = self._shelves.setdefault(batch_size, _Shelf())
            dropped = shelf.become(job, content)
            shelf.wanted, shelf.refill, shelf.trouble, shelf.turn = count, refill, "", None
            dropped += [(job.cluster, [shelf.items.pop() for _ in range(len(shelf.items) - count)])]
        _delete(dropped)
        self._make(shelf, told)

    def _make(self, shelf: _Shelf, told: Told, turn: object | None = None) -> None:
        """Makes what is missing; in the background as long as it is this thread's turn."""
        done = 0
        while True:
            with shelf.making:
                with self._lock:
                    job, content = shelf.job, shelf.content
                    if turn is not shelf.turn and turn is not None:
                        return
                    if job is None or len(shelf.items) >= shelf.wanted:
                        if turn is not None:  # in one go with the look, so that nobody counts on a thread that ends
                            shelf.turn, shelf.trouble = None, ""
                        return
                item = job.cluster.prepare(job.plan, job.known)
                with self._lock:
                    shelf.made, shelf.stored = shelf.made + item.made, item.stored
                    kept = shelf.content == content and len(shelf.items) < shelf.wanted
                    if kept:
                        shelf.items.append(item)
            done += 1
            told(done)
            if not kept:
                _delete([(job.cluster, [item])])

    def missing(self, batch_size: int, job: Job, count: int) -> int:
        """How many items `fill` would make."""
        content = job.content
        with self._lock:
            shelf = self._shelves.get(batch_size)
            return count - (len(shelf.items) if shelf is not None and shelf.content == content else 0)

    def wanted(self, batch_size: int) -> bool:
        """Whether predictions for batches of this size are to be ready."""
        shelf = self._shelves.get(batch_size)
        return shelf is not None and shelf.wanted > 0

    def take(self, batch_size: int, job: Job) -> Item | None:
        """An item for this job, if there is one; it is the caller's. Items for another one are let go."""
        shelf = self._shelves.get(batch_size)
        if shelf is None:
            return None
        content = job.content
        dropped: _Dropped = []
        item = None
        with self._lock:
            if shelf.items and shelf.content != content:
                dropped = shelf.become(None, (b"", ""))
            elif shelf.items:
                shelf.used += 1
                item = shelf.items.popleft()
        _delete(dropped)
        return item

    def replace(self, batch_size: int, job: Job) -> None:
        """Begins to make in the background what is missing, where that is wanted; after a job like this one."""
        shelf = self._shelves.get(batch_size)
        if shelf is None:
            return
        content = job.content
        with self._lock:
            if not shelf.refill:
                return
            dropped = shelf.become(job, content)
            turn = None
            if shelf.turn is None and len(shelf.items) < shelf.wanted:
                turn = shelf.turn = object()
        _delete(dropped)
        if turn is not None:
            threading.Thread(target=self._refill, args=(shelf, turn), name="stock", daemon=True).start()

    def _refill(self, shelf: _Shelf, turn: object) -> None:
        try:
            self._make(shelf, lambda done: None, turn)
        except Exception as error:  # a thread of its own has nobody to raise to; the report tells, predictions go on
            with self._lock:
                if shelf.turn is turn:
                    shelf.turn, shelf.trouble = None, f"{type(error).__name__}: {error}"[:200]

    def clear(self) -> None:
        """Lets go of all items: what they were made for is the model's no more."""
        with self._lock:
            dropped = [part for shelf in self._shelves.values() for part in shelf.become(None, (b"", ""))]
        _delete(dropped)

    def report(self, model: str) -> StockReport:
        """What there is."""
        with self._lock:
            return StockReport(model, tuple(
                StockRow(
                    size, len(shelf.items), shelf.wanted, shelf.refill, shelf.used, shelf.stored,
                    shelf.made.computing / max(1, shelf.made.runs), shelf.trouble,
                )
                for size, shelf in sorted(self._shelves.items())
            ))  # fmt: skip


def _delete(dropped: Iterable[tuple[Cluster, list[Item]]]) -> None:
    """Tells servers to forget items; they cannot know that nobody wants them."""
    for cluster, items in dropped:
        if items:
            with contextlib.suppress(Exception):  # what is in the way of that is in the way of no prediction
                cluster.delete(*items)
