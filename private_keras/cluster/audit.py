"""The servers' audit logs as a client reads them: verified, held against what it saw before, and against each other."""

import datetime
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from private_keras.errors import FileError
from private_keras.server.audit import concerns, verify
from private_keras.server.catalogue import AuditRow, Segment
from private_keras.server.chain import START
from private_keras.server.segments import read

MAX_FILE_BYTES = 1 << 20
_SERVERS = 3
_CLOCKS = 3600.0  # by which servers' clocks may differ
# What servers must tell alike of a job.
_FACTS = ("caller", "plan", "kind", "digest", "sources", "openings", "delivery", "kept", "unlisted")


@dataclass(frozen=True)
class Head:
    """The end of a log.

    Attributes:
        count: entries in all.
        chain: of the last one.
        signed: whether the server's signature on both was verified.
        durable: whether the server keeps its log on disk.
        unread: closed parts that were missing whenever the log was read: number of the first entry, and of the first
            one after it.
    """

    count: int
    chain: bytes
    signed: bool = False
    durable: bool = True
    unread: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Log:
    """One server's log from its beginning, as one party may read it.

    Attributes:
        faults: where it is not what a log that only grows can be.
        missing: closed parts whose entries the server does not have: moved away by its operator.
    """

    server: str
    rows: Sequence[AuditRow]
    head: Head
    faults: list[str] = field(default_factory=list)
    missing: Sequence[Segment] = ()

    @property
    def unread(self) -> list[Segment]:
        """Missing parts that were never read."""
        return [part for part in self.missing if (part.first, part.count) in self.head.unread]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Entries that concern the reader, with their numbers; texts that are none are among the faults."""
        read = [(row.number, _entry(row.text)) for row in self.rows if row.text]
        return [{"number": number, **entry} for number, entry in read if entry is not None]


def _entry(text: str) -> dict[str, Any] | None:
    """What an entry says, as far as it is one: a server may have written anything."""
    try:
        entry = json.loads(text)
        texts = [entry[name] for name in ("time", "server", "event")]
        if entry["event"] in ("run", "opened"):
            texts.append(entry["job"])
        texts += entry.get("sources", [])
        for opened in entry.get("openings", []):
            texts += [opened["output"], *opened["to"], *opened["shows"].values()]
        servers = entry.get("servers", _SERVERS)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return entry if all(isinstance(text, str) for text in texts) and servers in (2, _SERVERS) else None


def checked(
    server: str, rows: Sequence[AuditRow], head: Head, seen: Head | None, segments: Sequence[Segment] = ()
) -> Log:
    """A log, with what is wrong with it, and with what is missing.

    A part that is missing as a whole is known by its chain alone. The head, which is signed, fixes that as it fixes
    every entry: what was in the part cannot be exchanged, but nobody here can say what it was.

    Args:
        rows: entries that are there, from number 0 on.
        seen: the log's end when it was read before, if it was.
        segments: closed parts.
    """
    faults: list[str] = []
    by_first = {part.first: part for part in segments}
    ends: dict[int, bytes] = {}  # chain by the number of entries before it
    missing: list[Segment] = []
    faults += [f"entry {row.number}: no text of a log" for row in rows if row.text and _entry(row.text) is None]
    number, chain, at = 0, START, 0
    while True:
        part = by_first.get(number)
        if part is not None and part.count > number and (at == len(rows) or rows[at].number >= part.count):
            if part.before != chain:
                faults.append(f"entries {part.first} to {part.count - 1} are missing, and do not follow those before")
            missing.append(part)
            number, chain = part.count, part.chain
        elif at < len(rows):
            chain = verify(rows[at : at + 1], chain, number, faults.append)
            number, at = rows[at].number + 1, at + 1
        else:
            break
        ends[number] = chain
    for part in segments:
        if ends.get(part.count) != part.chain:
            faults.append(f"entries {part.first} to {part.count - 1} are not those that the server closed")
    if (head.count, head.chain) != (number, chain):
        faults.append(f"it ends at entry {number - 1}, but the server says that it has {head.count}")
    before = 0 if seen is None else seen.count
    if seen is not None and seen.count > 0 and (head.durable or seen.durable):
        if number < seen.count:
            faults.append(f"it is cut short: it had {seen.count} entries when it was read before, and has {number}")
        elif seen.count in ends and ends[seen.count] != seen.chain:
            faults.append(f"it was written anew: entry {seen.count - 1} is another one than when it was read before")
    known = () if seen is None else seen.unread
    unread = tuple((m.first, m.count) for m in missing if m.count > before or (m.first, m.count) in known)
    return Log(server, rows, replace(head, unread=unread), faults, missing)


def broken_off(rows: Sequence[AuditRow], durable: bool, seen: Head, segments: Sequence[Segment] = ()) -> str:
    """Whether a log goes on from where it ended when it was read: what is wrong, or nothing.

    Args:
        rows: entries from number `seen.count - 1` on, that are there.
        durable: whether the server keeps its log on disk now.
        segments: closed parts with entries from there on.
    """
    if not seen.count or not (durable or seen.durable):
        return ""
    if rows and rows[0].number == seen.count - 1:
        faults: list[str] = []
        if rows[0].chain != seen.chain:
            faults.append(f"it was written anew: entry {seen.count - 1} is another one than when it was read before")
        verify(rows[1:], rows[0].chain, seen.count, faults.append)
        return faults[0] if faults else ""
    away = next((part for part in segments if part.first < seen.count <= part.count), None)
    if away is None:
        return f"it is cut short: it had {seen.count} entries when it was read before"
    if away.count == seen.count and away.chain != seen.chain:
        return f"it was written anew: entry {seen.count - 1} is another one than when it was read before"
    return ""


def archived(path: Path, reader: str) -> tuple[str, list[AuditRow]]:
    """Entries of a closed part from a file that a server's operator moved away: whose log, and the entries with the
    texts that concern the reader. They count for as much as they fit the log.
    """
    server, _, rows = read(path)
    return server, [r if concerns(r.text, reader) else AuditRow(r.number, "", r.content, r.chain) for r in rows]


def differences(logs: Iterable[Log]) -> list[str]:
    """Jobs that not all their servers have logged, or not alike. Servers that lost contact in a job may differ so. What
    may be in a missing part is not counted.
    """
    logs = list(logs)
    told = {log.server: log.entries for log in logs}
    now = time.time()
    until = {
        log.server: max((min(part.closed, now) for part in log.missing), default=-math.inf) + _CLOCKS for log in logs
    }
    jobs = {server: _by_job(entries) for server, entries in told.items()}
    found = []
    for job in sorted({job for by_job in jobs.values() for job in by_job}):
        there = {server: by_job[job] for server, by_job in jobs.items() if job in by_job}
        count = max(entry.get("servers", _SERVERS) for entry in there.values())
        first = next(iter(there.values()))
        absent = [
            server for server in sorted(told)[:count] if server not in there and _seconds(first) > until[server]
        ]
        if absent:
            found.append(f"job {job}: {', '.join(there)} opened its results, and {', '.join(absent)} logged none")
        if any(_facts(entry) != _facts(first) for entry in there.values()):
            found.append(f"job {job}: the servers tell different things of it")
    return found


def _by_job(entries: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    servers = {entry["job"]: entry.get("servers", _SERVERS) for entry in entries if entry["event"] == "run"}
    return {
        entry["job"]: {**entry, "servers": servers.get(entry["job"], _SERVERS)}
        for entry in entries if entry["event"] == "opened"
    }  # fmt: skip


def _seconds(entry: Mapping[str, Any]) -> float:
    """When it was logged, since 1970; infinity where it does not say so."""
    try:
        return datetime.datetime.fromisoformat(entry["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return math.inf


def _facts(entry: Mapping[str, Any]) -> list[Any]:
    return [entry.get(name) for name in _FACTS]


# --- what was seen before ---------------------------------------------------------------------------------------------
def read_seen(path: Path) -> dict[str, Head]:
    """Ends of logs as they were when they were read before, by server; nothing where there is no file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text())
        return {
            str(name): Head(
                int(count), bytes.fromhex(chain), durable=bool(durable),
                unread=tuple((int(first), int(end)) for rest in unread for first, end in rest),
            )  # fmt: skip
            for name, (count, chain, durable, *unread) in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: expected ends of audit logs. Received: {type(error).__name__}; remove it") from None


def write_seen(path: Path, logs: Iterable[Log]) -> None:
    """Keeps the ends of logs without faults; of others what was kept before."""
    seen = read_seen(path) | {log.server: log.head for log in logs if not log.faults}
    content = {name: [head.count, head.chain.hex(), head.durable, head.unread] for name, head in sorted(seen.items())}
    text = json.dumps(content, indent=1)
    new = path.with_name(path.name + ".new")
    try:
        new.write_text(text + "\n")
        os.replace(new, path)
    except OSError as error:
        raise FileError(f"{path}: cannot keep the ends of audit logs: {error.strerror}; give --seen FILE") from None
