"""The servers' audit logs as a client reads them: verified, held against what it saw before, and against each other."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from private_keras.errors import FileError
from private_keras.server.audit import START, verify
from private_keras.server.catalogue import AuditRow

MAX_FILE_BYTES = 1 << 20
_SERVERS = 3
# What servers must tell alike of a job.
_FACTS = ("caller", "plan", "kind", "digest", "sources", "openings", "delivery", "kept")


@dataclass(frozen=True)
class Head:
    """The end of a log.

    Attributes:
        count: entries in all.
        chain: of the last one.
        signed: whether the server's signature on both was verified.
        durable: whether the server keeps its log on disk.
    """

    count: int
    chain: bytes
    signed: bool = False
    durable: bool = True


@dataclass(frozen=True)
class Log:
    """One server's log from its beginning, as one party may read it.

    Attributes:
        faults: where it is not what a log that only grows can be.
    """

    server: str
    rows: Sequence[AuditRow]
    head: Head
    faults: list[str] = field(default_factory=list)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Entries that concern the reader, with their numbers."""
        found = []
        for row in self.rows:
            if row.text:
                try:
                    found.append({"number": row.number, **json.loads(row.text)})
                except (ValueError, TypeError):
                    self.faults.append(f"entry {row.number}: no text of a log")
        return found


def checked(server: str, rows: Sequence[AuditRow], head: Head, seen: Head | None) -> Log:
    """A log, with what is wrong with it.

    Args:
        rows: from number 0 on.
        seen: the log's end when it was read before, if it was.
    """
    faults: list[str] = []
    chain = verify(rows, START, 0, faults.append)
    if (head.count, head.chain) != (len(rows), chain):
        faults.append(f"it ends at entry {len(rows) - 1}, but the server says that it has {head.count}")
    if seen is not None and seen.count > 0 and (head.durable or seen.durable):
        if len(rows) < seen.count:
            faults.append(f"it is cut short: it had {seen.count} entries when it was read before, and has {len(rows)}")
        elif rows[seen.count - 1].chain != seen.chain:
            faults.append(f"it was written anew: entry {seen.count - 1} is another one than when it was read before")
    return Log(server, rows, head, faults)


def differences(logs: Iterable[Log]) -> list[str]:
    """Jobs that not all their servers have logged, or not alike. Servers that lost contact in a job may differ so."""
    told = {log.server: log.entries for log in logs}
    jobs = {server: _by_job(entries) for server, entries in told.items()}
    found = []
    for job in sorted({job for by_job in jobs.values() for job in by_job}):
        there = {server: by_job[job] for server, by_job in jobs.items() if job in by_job}
        count = max(entry.get("servers", _SERVERS) for entry in there.values())
        absent = [server for server in sorted(told)[:count] if server not in there]
        first = next(iter(there.values()))
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
            str(name): Head(int(count), bytes.fromhex(chain), durable=bool(durable))
            for name, (count, chain, durable) in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f"{path}: expected ends of audit logs. Received: {type(error).__name__}; remove it") from None


def write_seen(path: Path, logs: Iterable[Log]) -> None:
    """Keeps the ends of logs without faults; of others what was kept before."""
    seen = read_seen(path) | {log.server: log.head for log in logs if not log.faults}
    content = {name: [head.count, head.chain.hex(), head.durable] for name, head in sorted(seen.items())}
    text = json.dumps(content, indent=1)
    new = path.with_name(path.name + ".new")
    try:
        new.write_text(text + "\n")
        os.replace(new, path)
    except OSError as error:
        raise FileError(f"{path}: cannot keep the ends of audit logs: {error.strerror}; give --seen FILE") from None
