"""The audit log: a chain that only grows. What else happens to it is found by who reads it, or reads it again."""

import dataclasses
import json
import sqlite3
from types import SimpleNamespace

import grpc
import pytest

from private_keras.cli import audit as command
from private_keras.cluster.audit import Head, checked, differences, read_seen, write_seen
from private_keras.cluster.keys import make_keys
from private_keras.cluster.reading import _check_signature
from private_keras.errors import ClusterError, FileError, SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.server import limits
from private_keras.server.audit import Audit, chained, content_of, sign_head
from private_keras.server.catalogue import AuditRow, Catalogue
from private_keras.server.config import ClusterConfig, ServerAddress
from private_keras.server.entrance import Entrance
from private_keras.server.entries import SavedTensor
from private_keras.server.metrics import Metrics
from private_keras.server.policy import Policy
from private_keras.server.schedule import Schedule
from private_keras.server.store import Store
from private_keras.server.terms import Source, Terms
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import overseeing


@pytest.fixture
def audit(tmp_path):
    tmp_path.chmod(0o700)
    made = Audit(Catalogue(tmp_path), "server0")
    for number in range(6):
        parties = ["analyst", "hospital"] if number % 2 else ["hospital"]
        made.write("run", parties, caller="analyst", job=f"{number:02x}", sources=["hospital/x"])
    return made


def rows(audit, reader="hospital"):
    return list(audit.entries(0, reader))


def log_of(found, seen=None, head=None):
    return checked("server0", found, head or Head(len(found), found[-1].chain), seen)


def test_a_log_as_it_should_be(audit):
    found = rows(audit)
    log = log_of(found, Head(3, found[2].chain))
    assert log.faults == [] and [e["number"] for e in log.entries] == list(range(6))
    assert log.entries[1]["event"] == "run" and log.entries[1]["server"] == "server0"


def test_of_what_does_not_concern_the_reader_hashes_alone_are_told(audit):
    found = rows(audit, "analyst")
    assert [bool(row.text) for row in found] == [False, True] * 3
    assert log_of(found).faults == [] and len(log_of(found).entries) == 3
    assert not any(row.text for row in rows(audit, "somebody"))


def _forged(row, before, text):
    return AuditRow(row.number, text, content_of(text), chained(before, content_of(text)))


def _rewritten(found, start, text):
    """A whole new chain from one entry on."""
    result = list(found[:start])
    for row in found[start:]:
        before = result[-1].chain if result else bytes(32)
        result.append(_forged(row, before, text if row.number == start else row.text))
    return result


TAMPERED = {
    "text": lambda f: [*f[:2], dataclasses.replace(f[2], text=f[2].text.replace("analyst", "nobody")), *f[3:]],
    "text and content": lambda f: [
        *f[:2], dataclasses.replace(f[2], text="{}", content=content_of("{}")), *f[3:]
    ],
    "one entry's chain": lambda f: [*f[:2], _forged(f[2], f[1].chain, "{}"), *f[3:]],
    "removed": lambda f: [*f[:2], *f[3:]],
    "removed and renumbered": lambda f: [
        *f[:2], *(dataclasses.replace(row, number=row.number - 1) for row in f[3:])
    ],
    "first removed": lambda f: f[1:],
    "reordered": lambda f: [*f[:2], f[3], f[2], *f[4:]],
    "reordered and renumbered": lambda f: [
        *f[:2], dataclasses.replace(f[3], number=2), dataclasses.replace(f[2], number=3), *f[4:]
    ],
    "put in": lambda f: [*f[:3], _forged(f[2], f[2].chain, "{}"), *f[3:]],
    "twice": lambda f: [*f[:3], f[2], *f[3:]],
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_what_is_done_to_a_chain_is_found(audit, name):
    assert log_of(TAMPERED[name](rows(audit))).faults


def test_a_chain_written_anew_is_found_by_who_read_it_before(audit):
    found = rows(audit)
    anew = _rewritten(found, 2, found[3].text)
    assert log_of(anew).faults == []  # which is why ends are kept
    assert "written anew" in log_of(anew, Head(6, found[5].chain)).faults[0]
    assert "written anew" in log_of(anew, Head(3, found[2].chain)).faults[0]
    assert log_of(anew, Head(2, found[1].chain)).faults == []


def test_a_log_that_is_cut_short_is_found(audit):
    found = rows(audit)
    assert "cut short: it had 6 entries" in log_of(found[:4], Head(6, found[5].chain)).faults[0]
    assert "ends at entry 3" in log_of(found[:4], head=Head(6, found[5].chain)).faults[0]


def test_a_log_in_memory_begins_anew_and_says_so(audit):
    found = rows(audit)
    before = Head(9, bytes(32), durable=False)
    fresh = Head(len(found), found[-1].chain, durable=False)
    assert log_of(found, before, fresh).faults == []
    assert log_of(found, dataclasses.replace(before, durable=True), fresh).faults


def test_changes_of_the_file_are_found(audit, tmp_path):
    audit._catalogue.close()
    with sqlite3.connect(tmp_path / "catalogue.db") as database:
        database.execute("UPDATE audit SET text = replace(text, '03', '09') WHERE number = 3")
    assert "entry 3: the text is not what was logged" in log_of(rows(audit)).faults
    with sqlite3.connect(tmp_path / "catalogue.db") as database:
        database.execute("DELETE FROM audit WHERE number = 3")
    assert "entry 3 is missing: 4 comes next" in log_of(rows(audit)).faults
    with sqlite3.connect(tmp_path / "catalogue.db") as database:
        database.execute("UPDATE audit SET text = 'x' WHERE number = 4")
    assert log_of(rows(audit)).faults


def test_refusals_do_not_fill_a_log(audit):
    for _ in range(limits.REFUSALS + 20):
        audit.refused("pest", ["hospital"], "Run", "no")
    audit.refused("other", [], "Run", "no")
    found = [json.loads(row.text) for row in rows(audit, "pest") if row.text]
    assert len(found) == limits.REFUSALS and "more" in found[-1] and "more" not in found[0]
    assert sum(bool(row.text) for row in rows(audit, "other")) == 1


def entry(job, event="opened", **facts):
    said = {"time": "t", "server": "s", "caller": "analyst", "digest": "d"}
    return {"event": event, "job": job, **said, **facts}


def told(**by_server):
    logs = []
    for server, entries in by_server.items():
        texts = [json.dumps(e) for e in entries]
        chain, made = bytes(32), []
        for number, text in enumerate(texts):
            chain = chained(chain, content_of(text))
            made.append(AuditRow(number, text, content_of(text), chain))
        logs.append(checked(server, made, Head(len(made), chain), None))
    return logs


def test_servers_that_tell_different_things_are_found():
    same = [entry("a"), entry("b", "run", servers=2), entry("b")]
    assert differences(told(server0=same, server1=same, server2=[entry("a")])) == []
    found = differences(told(server0=same, server1=same[:1], server2=same[:1]))
    assert found == ["job b: server0 opened its results, and server1 logged none"]
    (found,) = differences(told(server0=[entry("a")], server1=[entry("a", digest="e")], server2=[entry("a")]))
    assert "different things" in found
    (found,) = differences(told(server0=[], server1=[entry("a")], server2=[entry("a")]))
    assert "server0 logged none" in found


def test_ends_are_kept_of_logs_without_faults(tmp_path, audit):
    path, found = tmp_path / "seen.json", rows(audit)
    assert read_seen(path) == {}
    write_seen(path, [log_of(found[:4])])
    kept = read_seen(path)
    assert kept == {"server0": Head(4, found[3].chain)}
    write_seen(path, [log_of(TAMPERED["removed"](found))])
    assert read_seen(path) == kept
    with pytest.raises(FileError, match="--seen"):
        write_seen(tmp_path / "none/seen.json", [log_of(found)])
    for bad in ("{", "[]", '{"server0": 3}', '{"server0": [1, "zz", true]}'):
        path.write_text(bad)
        with pytest.raises(FileError, match="remove it"):
            read_seen(path)


def test_heads_are_signed_by_the_server_that_they_are_of(tmp_path):
    make_keys(tmp_path / "keys", ["server0", "server1"])
    make_keys(tmp_path / "other", ["server0"])
    servers = tuple(ServerAddress(f"server{i}", f"127.0.0.1:{i}", f"127.0.0.1:{i + 3}") for i in range(3))
    config = ClusterConfig("trio", servers, None, {}, tmp_path / "keys/authority.pem", tmp_path / "keys")

    def head(keys="keys", name="server0", count=4, said=4):
        key, pem = ((tmp_path / keys / f"{name}.{kind}").read_bytes() for kind in ("key", "pem"))
        signature = sign_head(key, "server0", count, bytes(32))
        return wire.Head(count=said, chain=bytes(32), signature=signature, certificate=pem)

    _check_signature("server0", head(), config)
    for wrong, why in (
        (head(name="server1"), "signed by server1"), (head("other"), "another authority"),
        (head(said=3), "not its own"),
    ):  # fmt: skip
        with pytest.raises(SecurityError, match=why):
            _check_signature("server0", wrong, config)


def test_who_is_refused_is_refused_where_the_log_cannot_be_written():
    def fail(*_):
        raise ClusterError("the disk is full")

    logged, told = [], []
    log = SimpleNamespace(write=lambda kind, event, **_: logged.append((kind, event)))
    entrance = Entrance("server0", None, None, None, Metrics(False), log, SimpleNamespace(refused=fail))
    context = SimpleNamespace(set_trailing_metadata=lambda _: None, abort=lambda *given: told.append(given))
    entrance._refuse("Run", SecurityError("no"), "alice", context)
    assert told == [(grpc.StatusCode.PERMISSION_DENIED, "no")]
    assert logged[-1] == ("error", "refusal not in the audit log")


def test_a_job_whose_uses_cannot_be_counted_or_logged_does_not_run(tmp_path):
    """All or nothing: no use without its entry, no entry without its uses."""
    tmp_path.chmod(0o700)
    catalogue = Catalogue(tmp_path)
    sources = [Source("hospital", name, 1, "00" * 8) for name in ("x", "y")]
    for source, uses in zip(sources, (5, 1), strict=True):
        policy = Policy(use=["analyst"], plans=["predict"], reveal_to=["analyst"], uses=uses)
        row = catalogue.names.begin(source, "", (SavedTensor("t", (6, 4), 18),), policy, 100, f"{source.name}.sealed")
        catalogue.names.finish(row, b"")
        assert catalogue.names.commit(source)
    servers = tuple(ServerAddress(f"server{i}", f"127.0.0.1:{i}", f"127.0.0.1:{i + 3}") for i in range(3))
    oversight = overseeing(catalogue, Store(), ClusterConfig("trio", servers))
    b = PlanBuilder()
    for name in ("x", "y"):
        b.input(name, (6, 4), 18, "hospital")
    b.input("w", (4, 2), 18, "client")
    b.output(b.add("matmul", b.add("add", "x", "y"), "w"), "z", ["client"])
    plan = b.build("p", "predict")
    terms = {source.name: Terms.of(source, row=4) for source in sources}

    def run():
        first = wire.RunRequest(job=bytes(16), digest=plan.digest, steps=1)
        with oversight.ordered(bytes(16), "analyst", plan, first) as judge:
            judge.inputs(terms, frozenset(("x", "y")), 1)
            judge.begin(Schedule(plan.digest, 1, {}, {}, {}, {}))
            judge.end({"z": None})

    run()
    assert [json.loads(row.text)["event"] for row in catalogue.log.read()] == ["run", "opened"]
    with pytest.raises(SecurityError, match="hospital/y: used 1 times"):
        run()
    assert [catalogue.names.find(source).uses for source in sources] == [1, 1] and len(catalogue.log.read()) == 2


NO_ENTRIES = [
    "[]", "5", "{", "[" * 100_000, '{"event": "run"}', '{"time": 1, "server": "s", "event": "e"}',
    '{"time": "t", "server": "s", "event": "opened"}', '{"time": "t", "server": "s", "event": "e", "sources": 5}',
    '{"time": "t", "server": "s", "event": "e", "openings": [{"output": "y", "to": ["a"]}]}',
    '{"time": "t", "server": "s", "event": "run", "job": "1", "servers": "3"}',
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ENTRIES)
def test_what_a_server_has_written_that_is_no_entry_is_a_fault_and_ends_nothing(audit, text):
    found = rows(audit)
    content = content_of(text)
    found.append(AuditRow(len(found), text, content, chained(found[-1].chain, content)))
    log = log_of(found)
    assert log.faults == ["entry 6: no text of a log"] and len(log.entries) == 6
    assert [command._line(entry) for entry in log.entries] and differences([log]) == []


def test_a_server_writes_nothing_into_the_readers_terminal():
    entry = {"time": "2026-01-01", "server": "server0", "number": 1, "event": "refused", "reason": "\x1b[2J\r\u202e"}
    assert command._line(entry).isprintable()
