"""`private-keras audit`: what the servers have logged that concerns you, verified."""

import argparse
import datetime
from pathlib import Path
from typing import Any

from private_keras.cli.named import seen_path
from private_keras.cluster import connect
from private_keras.cluster.audit import Log, differences, read_seen, write_seen
from private_keras.errors import InputError
from private_keras.server.catalogue import Segment
from private_keras.server.policy import KINDS

_SHOWN = ("caller", "sender", "call", "name", "source", "plan", "kind", "digest", "delivery", "job", "reason")
_WORDS = {kind: word for word, kind in KINDS.items()}


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "audit", help="read and verify the servers' audit logs",
        description="Prints what the servers have logged that concerns you: uses, openings, refusals, changes of your "
        "named shares. Verifies each log's chain and signature, holds it against what it was when you read it last, "
        "and the servers' against each other. Exit code 1 where something is wrong; 3 where nothing is, but parts are "
        "missing that you have never read.",
    )  # fmt: skip
    command.add_argument("config", type=Path, help="the cluster's description, cluster.json")
    command.add_argument("--identity", help="your name, for a cluster over TLS")
    command.add_argument("--server", help="print entries of this server alone: server0, server1 or server2")
    command.add_argument("--verify", action="store_true", help="print no entries")
    command.add_argument("--since", metavar="DATE", help="print entries from this date on, as 2027-01-31")
    command.add_argument(
        "--seen", type=Path, metavar="FILE",
        help="where ends of logs are kept for the next time (default: audit-IDENTITY.json beside the description)",
    )  # fmt: skip
    command.add_argument(
        "--archive", type=Path, action="append", default=[], metavar="FILE",
        help="a part of a log that its server does not have any more, as its operator gives it to you; several times",
    )  # fmt: skip
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    since = _date(given.since)
    path = given.seen or seen_path(given)
    seen = read_seen(path)
    with connect(given.config, identity=given.identity) as cluster:
        logs = cluster.audit(seen, given.archive)
    if given.server is not None and given.server not in {log.server for log in logs}:
        raise InputError(f"expected one of {', '.join(log.server for log in logs)}. Received: {given.server!r}")
    for log in logs:
        if not given.verify and given.server in (None, log.server):
            for entry in log.entries:
                if entry["time"] >= since:
                    print(_line(entry))
    wrong = 0
    for log in logs:
        wrong += len(log.faults)
        print(_summary(log, log.server in seen))
        for part in log.missing:
            print(_missing(log, part))
    for difference in differences(logs):
        wrong += 1
        print(f"DIFFERS  {difference}")
    write_seen(path, logs)
    return 1 if wrong else 3 if any(log.unread for log in logs) else 0


def _date(text: str | None) -> str:
    if text is None:
        return ""
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise InputError(f"--since: expected a date as 2027-01-31. Received: {text!r}") from None


def _line(entry: dict[str, Any]) -> str:
    told = entry | {"kind": _WORDS.get(entry.get("kind"), entry.get("kind")), "digest": f"sha256:{entry.get('digest')}"}
    facts = [f"{name} {told[name]}" for name in _SHOWN if name in entry]
    if entry.get("sources"):
        facts.append("uses " + ", ".join(entry["sources"]))
    for opened in entry.get("openings", ()):
        shows = ", ".join(f"{source}: {level}" for source, level in opened["shows"].items())
        facts.append(f"opens {opened['output']} to {', '.join(opened['to'])}" + (f" ({shows})" if shows else ""))
    if entry.get("unlisted"):
        facts.append(f"opens {entry['unlisted']} more, which the plan names")
    line = f"{entry['time'][:23]}  {entry['server']}  {entry['number']:>6}  {entry['event']:<8}  {'; '.join(facts)}"
    return "".join(c if c.isprintable() else "?" for c in line)  # a server's words, and none that a terminal obeys


def _missing(log: Log, part: Segment) -> str:
    known = "you have NEVER read them: ask for them (--archive)" if part in log.unread else "you have read them before"
    return (
        f"missing  {log.server}: entries {part.first} to {part.count - 1} are not on the server: its operator has "
        f"moved them away; {known}"
    )


def _summary(log: Log, known: bool) -> str:
    kept = "" if log.head.durable else ", in memory only: it begins anew with the server"
    if log.faults:
        return "\n".join(f"WRONG    {log.server}: {fault}" for fault in log.faults)
    signed = "signed" if log.head.signed else "not signed"
    before = "goes on from what it was" if known else "read for the first time"
    return f"ok       {log.server}: {log.head.count} entries, chain verified, {signed}, {before}{kept}"
