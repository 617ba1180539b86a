"""A log that is too long for one place: closed parts go to files, are moved away, and what is missing is said."""

import contextlib
import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from private_keras import TLS_FLOOR
from private_keras.cli import main
from private_keras.cluster import NetworkCluster
from private_keras.cluster.audit import Head, Log, archived, checked, differences, read_seen, write_seen
from private_keras.cluster.reading import read_logs
from private_keras.errors import ClusterError, FileError
from private_keras.server import limits, segments
from private_keras.server.audit import Audit, sign_head, verify
from private_keras.server.catalogue import AuditRow, Catalogue, Segment
from private_keras.server.chain import START
from private_keras.server.config import read_config
from private_keras.server.outbox import Outbox
from private_keras.server.oversight import Oversight
from private_keras.server.policy import Policy
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import ROOT, TlsServers
from tests.crashes import Crash, crashing


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(limits, "SEGMENT_ENTRIES", 10)


@pytest.fixture
def place(tmp_path):
    path = tmp_path / "trio-server0"
    path.mkdir(0o700)
    return path


def audit_of(place):
    return Audit(Catalogue(place), "server0")


def filled(place, count, tend=True):
    audit = audit_of(place)
    for number in range(count):
        parties = ["analyst", "hospital"] if number % 2 else ["hospital"]
        audit.write("run", parties, caller="analyst", job=f"{number:02x}")
        if tend:
            audit.tend()
    return audit


def jobs(audit, reader="hospital"):
    return [json.loads(row.text)["job"] for row in audit.entries(0, reader) if row.text]


def log_of(audit, seen=None, reader="hospital", head=None, rows=None):
    rows = list(audit.entries(0, reader)) if rows is None else rows
    count, chain = audit._log.end()
    return checked("server0", rows, head or Head(count, chain), seen, audit.segments())


def files(place):
    return sorted(place.glob("audit/*.log"))


def all_jobs(count):
    return [f"{number:02x}" for number in range(count)]


def test_closed_parts_go_to_files_and_the_chain_goes_on(place):
    audit = filled(place, 35)
    assert [path.name for path in files(place)] == [f"{a:012d}-{a + 9:012d}.log" for a in (0, 10, 20)]
    assert [row.number for row in audit._log.read()] == [30, 31, 32, 33, 34]
    assert {path.stat().st_mode & 0o777 for path in files(place)} == {0o600}
    log = log_of(audit)
    assert log.faults == [] and log.missing == [] and [e["number"] for e in log.entries] == list(range(35))
    assert log_of(audit, reader="analyst").faults == [] and jobs(audit, "analyst") == all_jobs(35)[1::2]
    assert [row.number for row in audit.entries(17, "hospital")] == list(range(17, 35))
    # By another process, and where nothing is left of the newest part.
    again = filled(place, 0)
    for number in range(35, 40):
        again.write("run", ["hospital"], job=f"{number:02x}")
    again.tend()
    assert again._log.read() == [] and audit._log.append("{}") == 40
    assert log_of(again).faults == [] and jobs(again) == all_jobs(40)
    for made in (audit, again):
        made._catalogue.close()


def test_a_part_is_closed_when_it_is_large_too(place, monkeypatch):
    monkeypatch.setattr(limits, "SEGMENT_ENTRIES", 100_000)
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 300_000)
    audit = audit_of(place)
    with audit._catalogue.transaction():
        for _ in range(2500):
            audit.write("run", ["hospital"], job="j", reason="x" * 200)
    audit.tend()
    assert len(files(place)) == 1 and log_of(audit).faults == []


def test_a_log_in_memory_stays_there():
    audit = Audit(Catalogue(None), "server0")
    for number in range(30):
        audit.write("run", ["hospital"], job=f"{number:02x}")
        audit.tend()
    assert audit.segments() == [] and jobs(audit) == all_jobs(30)


def test_a_crash_at_any_call_loses_and_doubles_nothing(tmp_path, monkeypatch):
    at = 0
    while True:
        place = tmp_path / str(at)
        place.mkdir(0o700)
        audit = filled(place, 25, tend=False)
        with monkeypatch.context() as patch:
            count = crashing(patch, at, more=("replace",))
            with suppress(Crash):
                audit.tend()
        audit._catalogue.close()
        again = audit_of(place)
        assert jobs(again) == all_jobs(25) and log_of(again).faults == []
        again.write("run", ["hospital"], job="19")
        again.tend()
        assert jobs(again) == all_jobs(26) and log_of(again).faults == [] and len(files(place)) == 1
        assert not list(place.glob("audit/*.new"))
        again._catalogue.close()
        if count[0] <= at:
            break
        at += 1
    assert at > 10


def test_a_full_disk_leaves_entries_where_they_are(place, monkeypatch):
    audit = filled(place, 15, tend=False)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(2):
            with pytest.raises(ClusterError, match="No space left"):
                audit.tend()
    assert jobs(audit) == all_jobs(15) and not files(place) and log_of(audit).faults == []
    audit.write("run", ["hospital"], job="0f")
    audit.tend()
    assert jobs(audit) == all_jobs(16) and log_of(audit).faults == [] and len(files(place)) == 1


def test_reading_writing_and_moving_at_once_by_two_processes(place):
    audits, failed, done = [audit_of(place) for _ in range(2)], [], threading.Event()

    def write(audit):
        try:
            for _ in range(60):
                audit.write("run", ["hospital"], job="j")
                audit.tend()
        except BaseException as error:
            failed.append(error)

    def read(audit):
        try:
            while not done.is_set():
                rows = list(audit.entries(0, "hospital"))
                faults = []
                verify(rows, START, 0, faults.append)
                assert not faults, faults
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(audit,)) for audit in audits]
    threads.append(threading.Thread(target=read, args=(audits[0],)))
    [thread.start() for thread in threads]
    [thread.join() for thread in threads[:2]]
    done.set()
    threads[2].join()
    assert not failed and len(list(audits[1].entries(0, "hospital"))) == 120 and log_of(audits[1]).faults == []


# --- moved away -------------------------------------------------------------------------------------------------------
def away(place, tmp_path, *which):
    paths = [files(place)[index] for index in which]
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    return [path.rename(tmp_path / "elsewhere" / path.name) for path in paths]


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)])
def test_what_is_moved_away_is_missing_and_the_rest_is_verified(place, tmp_path, which):
    audit = filled(place, 35)
    before = Head(35, audit._log.end()[1])
    moved = away(place, tmp_path, *which)
    log = log_of(audit)
    assert log.faults == [] and [part.first // 10 for part in log.missing] == list(which) and log.unread == log.missing
    assert len(log.entries) == 35 - 10 * len(which)
    # Who has read it before knows what was there, and that it is still the same.
    again = log_of(audit, before)
    assert again.faults == [] and len(again.missing) == len(which) and again.unread == []
    assert log_of(audit, dataclasses.replace(before, chain=bytes(32))).faults
    # Put back, or read from where the operator has put it.
    rows = list(audit.entries(0, "analyst"))
    for path in moved:
        server, more = archived(path, "analyst")
        assert server == "server0" and [bool(row.text) for row in more] == [False, True] * 5
        rows = sorted([*rows, *more], key=lambda row: row.number)
    assert log_of(audit, rows=rows).missing == [] and log_of(audit, rows=rows).faults == []
    for path in moved:
        path.rename(place / "audit" / path.name)
    assert log_of(audit).missing == [] and jobs(audit) == all_jobs(35)


def test_everything_moved_away_still_has_a_head(place, tmp_path):
    audit = filled(place, 20)
    away(place, tmp_path, 0, 1)
    log = log_of(audit)
    assert log.faults == [] and log.head.count == 20 and len(log.missing) == 2
    assert log_of(audit, head=Head(19, audit._log.end()[1])).faults


def test_a_part_that_was_open_when_the_log_was_read_counts_as_not_read(place, tmp_path):
    audit = filled(place, 25)
    seen = Head(25, audit._log.end()[1])
    for number in range(25, 35):
        audit.write("run", ["hospital"], job=f"{number:02x}")
        audit.tend()
    away(place, tmp_path, 1, 2)
    log = log_of(audit, seen)
    assert log.faults == [] and [part.first for part in log.missing] == [10, 20]
    assert [part.first for part in log.unread] == [20]


def test_what_was_never_read_stays_so(place, tmp_path):
    audit, path = filled(place, 25), tmp_path / "seen.json"
    (moved,) = away(place, tmp_path, 0)
    write_seen(path, [log_of(audit)])
    assert read_seen(path)["server0"].unread == ((0, 10),)
    log = log_of(audit, read_seen(path)["server0"])
    assert [part.first for part in log.unread] == [0]
    moved.rename(place / "audit" / moved.name)
    write_seen(path, [log_of(audit, read_seen(path)["server0"])])
    assert read_seen(path)["server0"].unread == ()
    away(place, tmp_path, 0)
    assert log_of(audit, read_seen(path)["server0"]).unread == []
    path.write_text(json.dumps({"server0": [25, audit._log.end()[1].hex(), True]}))  # as it was kept before
    assert log_of(audit, read_seen(path)["server0"]).unread == []


# --- what somebody else wrote -----------------------------------------------------------------------------------------
def changed(content):
    lines = content.split(b"\n")
    return {
        "a text": content.replace(b'"job":"0c"', b'"job":"0d"'),
        "cut": content[: len(content) // 2],
        "without its last entry": b"\n".join([*lines[:-2], b""]),
        "without its first entry": b"\n".join([lines[0], *lines[2:]]),
        "with one more": content + b"{}\n",
        "reordered": b"\n".join([lines[0], lines[2], lines[1], *lines[3:]]),
        "bytes that are no text": content.replace(b'"job":"0c"', b'"job":"\xff\xfe"'),
        "nothing": b"",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(changed(b"a\nb\nc\nd\n")))
def test_a_file_that_is_not_what_was_closed_is_found(place, name):
    audit = filled(place, 35)
    path = files(place)[1]
    path.write_bytes(changed(path.read_bytes())[name])
    assert log_of(audit).faults or name == "nothing" and [part.first for part in log_of(audit).missing] == [10]


@pytest.mark.parametrize(
    "change",
    ["chain = zeroblob(32) WHERE first = 10", "before = zeroblob(32) WHERE first = 10", "count = 19 WHERE first = 10",
     "count = 21 WHERE first = 10", "first = 11 WHERE first = 10"],
)  # fmt: skip
def test_a_row_that_is_not_what_was_closed_is_found(place, tmp_path, change):
    audit = filled(place, 35)
    away(place, tmp_path, 1)
    with audit._catalogue.transaction() as opened:
        opened.execute(f"UPDATE segments SET {change}")
    assert log_of(audit).faults


def test_parts_that_a_server_makes_up_are_missing_and_never_in_order(place):
    """A server that cut its log short can say that the rest was moved away; it cannot say that nothing is missing."""
    audit = filled(place, 8)
    end = audit._log.end()[1]
    rows, seen = list(audit.entries(0, "hospital")), Head(8, end)
    fake = Segment(4, 20, rows[3].chain, bytes(range(32)), 1.0)
    log = checked("server0", rows[:4], Head(20, fake.chain), seen, [fake])
    assert log.faults == [] and log.unread == [fake]
    for odd in ({"first": 5}, {"count": 3}, {"first": 0}):
        assert checked("server0", rows[:4], Head(20, fake.chain), seen, [dataclasses.replace(fake, **odd)]).faults
    assert checked("server0", rows[:4], Head(20, fake.chain), Head(2, bytes(32)), [fake]).faults


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[]\n", b"\xff\n", b'{"server": "s"}\n', b"x" * 5000])
def test_files_that_are_no_part_of_a_log(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    for path in (tmp_path / "f", tmp_path / "none"):
        with pytest.raises(FileError, match="expected a part of an audit log"):
            archived(path, "hospital")


def test_entries_that_are_gone_from_the_catalogue_are_not_closed_over(place):
    audit = filled(place, 12, tend=False)
    audit._catalogue.close()
    with sqlite3.connect(place / "catalogue.db") as opened:
        opened.execute("DELETE FROM audit WHERE number = 4")
    with pytest.raises(FileError, match="of entries 0 to 11 some are missing"):
        audit.tend()
    assert not files(place) and len(list(audit.entries(0, "hospital"))) == 11


def entry(job, time="2027-01-01T00:00:00+00:00"):
    return {"event": "opened", "job": job, "caller": "analyst", "server": "server0", "time": time}


def told(server, entries, missing=()):
    rows = [AuditRow(i, json.dumps(e), b"", b"") for i, e in enumerate(entries)]
    return Log(server, rows, Head(len(rows), bytes(32)), [], missing)


def test_jobs_that_may_be_in_a_missing_part_are_no_difference():
    old = entry("a", "2020-01-01T00:00:00+00:00")
    gap = Segment(0, 10, START, bytes(32), 1577836800.0 + 600)  # closed ten minutes after that
    others = [told(f"server{i}", [old]) for i in (1, 2)]
    assert differences([told("server0", []), *others])
    assert differences([told("server0", [], [gap]), *others]) == []
    later = [told(f"server{i}", [entry("a", "2020-01-02T00:00:00+00:00")]) for i in (1, 2)]
    (found,) = differences([told("server0", [], [gap]), *later])
    assert "server0 logged none" in found
    # Closed in a future that nobody has seen: up to now, and no further.
    ahead = [told(f"server{i}", [entry("a", "2999-01-02T00:00:00+00:00")]) for i in (1, 2)]
    assert differences([told("server0", [], [dataclasses.replace(gap, closed=1e18)]), *ahead])


# --- servers ----------------------------------------------------------------------------------------------------------
class Told:
    def __init__(self, name):
        self.name = name


def test_signatures_under_closed_parts(tmp_path):
    servers = TlsServers(tmp_path, ("analyst", "hospital"))
    config = read_config(servers.config)
    keys = tmp_path / "keys"
    pems = {name: ((keys / f"{name}.key").read_bytes(), (keys / f"{name}.pem").read_bytes())
            for name in ("server0", "server1", "analyst")}  # fmt: skip
    place = tmp_path / "trio-server0"
    place.mkdir(0o700)
    catalogue = Catalogue(place)

    class Current:
        key, certificate = pems["server0"]

    oversight = Oversight("server0", catalogue, None, Outbox(catalogue, Nothing()), config, Current)
    for number in range(25):
        oversight.audit.write("run", ["hospital"], job=f"{number:02x}")
        oversight.audit.tend()
    files(place)[0].unlink()

    def reply():
        replies = list(oversight.read_audit(wire.AuditRequest(start=0), "hospital"))
        return [e for r in replies for e in r.entries], replies[-1].head, [p for r in replies for p in r.segments]

    def faults(change=lambda head: None):
        entries, head, parts = reply()
        change(parts[0].head)
        (log,) = read_logs([Told("server0")], [(entries, head, parts)], config, {})
        assert [part.first for part in log.missing] == [0] and log.head.signed
        return log.faults

    def signed_by(name, as_name="server0"):
        def change(head):
            key, head.certificate = pems[name]
            head.signature = sign_head(key, as_name, head.count, head.chain)
        return change

    assert faults() == faults(signed_by("server0")) == []
    assert any("signed by server1" in fault for fault in faults(signed_by("server1")))
    assert any("not its own" in fault for fault in faults(signed_by("server0", "server1")))
    assert any("without a signature" in fault for fault in faults(lambda head: head.ClearField("signature")))
    assert faults(lambda head: setattr(head, "certificate", b"x"))
    catalogue.close()


class Nothing:
    """No contents."""

    def sweep(self, known):
        """There are none."""


def start_closing_early(servers, party):
    """A server that closes a part of its log after five entries."""
    code = (
        "from private_keras.server import limits; limits.SEGMENT_ENTRIES = 5\n"
        "from private_keras.cli import main; main()"
    )
    given = ["serve", "--config", str(servers.config), "--party", str(party), "--storage", str(servers.storage)]
    with open(servers.directory / f"server{party}.log", "ab") as log:
        servers.processes[party] = subprocess.Popen(
            [sys.executable, "-c", code, *given], stdout=log, stderr=log, cwd=ROOT,
            env={**os.environ, TLS_FLOOR[0]: TLS_FLOOR[1]},
        )  # fmt: skip


def left(place):
    """Entries that are still in a catalogue."""
    with contextlib.closing(sqlite3.connect(place / "catalogue.db")) as opened:
        return opened.execute("SELECT count(*) FROM audit").fetchone()[0]


def wait_for(what):
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_command_says_what_is_missing(tmp_path, capsys):
    with TlsServers(tmp_path, ("hospital", "analyst"), storage=True) as servers:
        with NetworkCluster(read_config(servers.config), "hospital") as hospital:
            hospital.connect(60)
            handle = hospital.share(np.ones(3), 18, "x")
            hospital.save("x", {"x": handle}, policy=Policy(use=["analyst"]))
            for _ in range(6):
                hospital.set_policy("x", Policy(use=["analyst"]))
        given = ["audit", str(servers.config), "--identity", "hospital", "--verify", "--seen"]
        assert main([*given, str(tmp_path / "before.json")]) == 0
        with NetworkCluster(read_config(servers.config), "hospital") as hospital:
            hospital.connect(20)
            hospital.set_policy("x", Policy())
        # Server 1 closes a part while it runs, and its operator moves that away.
        servers.stop(1)
        place = servers.storage / "trio-server1"
        start_closing_early(servers, 1)
        servers.wait_listening(1, starts=2)
        wait_for(lambda: files(place) and not left(place))
        (path,) = files(place)
        count = int(path.stem.split("-")[1]) + 1
        path = path.rename(tmp_path / path.name)
        with NetworkCluster(read_config(servers.config), "hospital") as hospital:
            hospital.connect(20)
            hospital.set_policy("x", Policy())
        capsys.readouterr()
        assert main([*given, str(tmp_path / "new.json")]) == 3
        said = capsys.readouterr().out
        line = f"missing  server1: entries 0 to {count - 1} are not on the server: its operator has moved them away"
        assert f"{line}; you have NEVER read them" in said and "ok       server1" in said and "WRONG" not in said
        assert main([*given, str(tmp_path / "new.json")]) == 3, "not read by asking twice"
        assert main([*given, str(tmp_path / "new.json"), "--archive", str(path)]) == 0
        assert main([*given, str(tmp_path / "new.json")]) == 0
        assert f"{line}; you have read them before" in capsys.readouterr().out
        # What was appended after the reading before is not known from it.
        assert main([*given, str(tmp_path / "before.json")]) == 3
        assert segments.read(path)[0] == "server1"
        path.write_bytes(path.read_bytes().replace(b'"name":"x"', b'"name":"y"'))
        assert main([*given, str(tmp_path / "new.json"), "--archive", str(path)]) == 1
        assert "WRONG    server1" in capsys.readouterr().out
