"""Predictions that servers have made ready: how many there are for which batch size, made now or in the background."""
import collections
import html
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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

    @property
    def content(self) -> tuple[bytes, str]:
        """What it is about: two with the same can use the same items."""
        return about(self.plan, self.known), self.cluster.incarnation


class _Shelf:
    """Items for one batch size; all for one job."""

    def __init__(self) -> None:
        self.items: collections.deque[Item] = collections.deque()
        self.job: Job | None = None
        self.content = (b"", "")
        self.wanted = 0
        self.refill = False
        self.used = 0
        self.made = Traffic()
        self.stored: tuple[int, ...] = ()
        self.trouble = ""
        self.filling = False


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
            if shelf.content != content:
                shelf.items.clear()
            shelf.job, shelf.content = job, content
            shelf.wanted, shelf.refill, shelf.trouble = count, refill, ""
            surplus = [shelf.items.pop() for _ in range(len(shelf.items) - count)]
        if surplus:
            job.cluster.delete(*surplus)
        self._make(shelf, told)

    def _make(self, shelf: _Shelf, told: Told) -> None:
        """Makes what is missing; ends early when the shelf is for something else meanwhile."""
        done = 0
        while True:
            with self._lock:
                job, content = shelf.job, shelf.content
                if job is None or len(shelf.items) >= shelf.wanted:
                    return
            item = job.cluster.prepare(job.plan, job.known)
            with self._lock:
                shelf.made, shelf.stored = shelf.made + item.made, item.stored
                kept = shelf.content == content
                if kept:
                    shelf.items.append(item)
            done += 1
            told(done)
            if not kept:
                job.cluster.delete(item)

    def missing(self, batch_size: int, job: Job, count: int) -> int:
        """How many items `fill` would make."""
        with self._lock:
            shelf = self._shelves.get(batch_size)
            return count - (len(shelf.items) if shelf is not None and shelf.content == job.content else 0)

    def take(self, batch_size: int, job: Job) -> Item | None:
        """An item for this job, if there is one; it is the caller's."""
        with self._lock:
            shelf = self._shelves.get(batch_size)
            if shelf is None or not shelf.items:
                return None
            if shelf.content != job.content:
                shelf.items.clear()  # of weights that the model has no more; they go with those
                return None
            shelf.used += 1
            return shelf.items.popleft()

    def replace(self, batch_size: int, job: Job) -> None:
        """Begins to make in the background what is missing, where that is wanted; after a job like this one."""
        with self._lock:
            shelf = self._shelves.get(batch_size)
            if shelf is None or not shelf.refill or shelf.filling:
                return
            content = job.content
            if shelf.content == content and len(shelf.items) >= shelf.wanted:
                return
            if shelf.content != content:
                shelf.items.clear()
            shelf.job, shelf.content, shelf.filling = job, content, True
        threading.Thread(target=self._refill, args=(shelf,), name="stock", daemon=True).start()

    def _refill(self, shelf: _Shelf) -> None:
        trouble = ""
        try:
            self._make(shelf, lambda done: None)
        except Exception as error:  # a thread of its own has nobody to raise to; the report tells, predictions go on
            trouble = f"{type(error).__name__}: {error}"[:200]
        with self._lock:
            shelf.filling, shelf.trouble = False, trouble

    def clear(self) -> None:
        """Lets go of all items: their weights are the model's no more. Servers let go of both together."""
        with self._lock:
            for shelf in self._shelves.values():
                shelf.items.clear()
                shelf.job, shelf.content = None, (b"", "")

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
