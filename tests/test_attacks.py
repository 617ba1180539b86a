"""Attacks on servers over TLS, each refused, and each by a test of its own; after all of them the servers work on."""

import concurrent.futures
import contextlib
import dataclasses
import random
import secrets
import socket
import ssl
import threading
import time

import grpc
import numpy as np
import pytest

from private_keras.cluster import Handle, Loop, NetworkCluster, Rows
from private_keras.cluster.client import CallFailed
from private_keras.cluster.keys import make_party
from private_keras.cluster.loop import bind
from private_keras.cluster.running import Inputs, _requests
from private_keras.errors import (
    ClusterError,
    HandleNotFound,
    InputError,
    PlanError,
    PrivateKerasError,
    SecurityError,
    VersionMismatch,
)
from private_keras.plan.builder import PlanBuilder
from private_keras.ring import fixedpoint
from private_keras.server import limits
from private_keras.server.allowance import Allowance
from private_keras.server.config import parse_config
from private_keras.server.entrance import SERVICE, STREAMS
from private_keras.server.failures import from_call
from private_keras.server.policy import Policy
from private_keras.server.process import OTHER_CALLS
from private_keras.server.saving import loaded_handle
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers, connected, held_back, layer, long_plan

F = 18
PARTIES = ("hospital", "analyst", "receiver", "other")
X = np.random.default_rng(5).normal(size=(6, 4))
W = np.random.default_rng(6).normal(size=(4, 2))
ALLOWED = {"use": ["analyst"], "plans": ["predict", "fit", "evaluate"], "reveal_to": ["analyst"]}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with TlsServers(tmp_path_factory.mktemp("attacks"), PARTIES, storage=True) as made:
        yield made
        for party in range(3):
            assert made.processes[party].poll() is None
            assert '"kind": "error"' not in made.log(party)


@pytest.fixture(scope="module")
def parties(servers):
    with connected(servers, PARTIES) as clusters:
        yield clusters
        ours = clusters["other"].run(layer(owner="client"), {"x": X, "w": W})["y"]
        np.testing.assert_allclose(ours, X @ W, atol=1e-4)


def share(parties, name, **policy):
    hospital = parties["hospital"]
    handle = hospital.share(X, F, name)
    hospital.save(name, {"x": handle}, policy=Policy(**{**ALLOWED, **policy}))
    hospital.delete(handle)
    return parties["analyst"].load(name, "hospital")[0]["x"]


def credentials(servers, name=None, authority=None):
    keys = servers.directory / "keys"
    own = () if name is None else ((keys / f"{name}.key").read_bytes(), (keys / f"{name}.pem").read_bytes())
    return grpc.ssl_channel_credentials((authority or keys / "authority.pem").read_bytes(), *own)


def call(channel, name, *messages, timeout=60.0):
    """One call with messages as they are; its raw replies."""
    raw = [m if isinstance(m, bytes) else m.SerializeToString() for m in messages]
    many, streamed = STREAMS[name]
    kind = f"{'stream' if many else 'unary'}_{'stream' if streamed else 'unary'}"
    reply = getattr(channel, kind)(f"/{SERVICE}/{name}", None, None)(iter(raw) if many else raw[0], timeout=timeout)
    return list(reply) if streamed else [reply]


def secure(servers, name, **more):
    address = servers.content["servers"][0]["control"]
    options = (("grpc.ssl_target_name_override", "server0"), ("grpc.use_local_subchannel_pool", 1))
    return grpc.secure_channel(address, credentials(servers, name, **more), options=options)


def refusal(channel, name, *messages):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, name, *messages)
    return from_call(caught.value, "server0", "here")[0]


# --- who calls --------------------------------------------------------------------------------------------------------
def test_no_certificate(servers):
    plain = grpc.insecure_channel(servers.content["servers"][0]["control"])
    for channel in (plain, secure(servers, None)):
        for name in STREAMS:
            with pytest.raises(grpc.RpcError) as caught:
                call(channel, name, b"")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        channel.close()


@pytest.mark.parametrize("name", ["stranger", "server1", "client"])
def test_the_certificate_of_a_party_that_is_none(servers, name):
    if name != "server1":
        make_party(servers.directory / "keys", name)
    with secure(servers, name) as channel:
        for each in STREAMS:
            error = refusal(channel, each, b"")
            assert isinstance(error, SecurityError) and ("no party's name" in str(error)) == (name == "client"), each


def test_an_expired_certificate(servers, tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    make_party(servers.directory / "keys", "analyst", days=-1, directory=keys)
    own = (keys / "analyst.key").read_bytes(), (keys / "analyst.pem").read_bytes()
    trusted = (servers.directory / "keys/authority.pem").read_bytes()
    channel = grpc.secure_channel(
        servers.content["servers"][0]["control"], grpc.ssl_channel_credentials(trusted, *own),
        options=(("grpc.ssl_target_name_override", "server0"),),
    )  # fmt: skip
    with channel, pytest.raises(grpc.RpcError) as caught:
        call(channel, "Hello", b"")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_one_party_with_anothers_name(servers, parties, tmp_path):
    """Who has the certificate of `other` cannot be `hospital`, whatever it writes into its messages."""
    share(parties, "mine")
    with secure(servers, "other") as channel:
        assert "hospital" not in {found.snapshot.owner for found in saved(channel)}
        snapshot = wire.Snapshot(name="mine", number=1, nonce=bytes(8), owner="hospital")
        wrong = {
            "Load": wire.LoadRequest(snapshot=snapshot, base=bytes(16)),
            "SetPolicy": wire.SetPolicyRequest(name="mine", policy=Policy(use=["other"], plans=["reveal"]).to_json()),
            "Commit": wire.CommitRequest(snapshot=snapshot),
            "Save": wire.SaveRequest(snapshot=snapshot),
            "Put": wire.PutRequest(snapshot=snapshot),
        }
        for name, message in wrong.items():
            assert isinstance(refusal(channel, name, message), HandleNotFound | SecurityError), name
        reply = wire.ForgetReply.FromString(call(channel, "Forget", wire.ForgetRequest(snapshots=[snapshot]))[0])
        assert reply.forgotten == 0
    parties["analyst"].load("mine", "hospital")


def test_a_log_is_not_filled_by_names_that_do_not_exist(servers, parties):
    """Of many names in one call, those are logged that were forgotten."""
    share(parties, "brief")
    found = next(iter(parties["hospital"]._clients[0].saved("brief")))
    none = [wire.Snapshot(name=f"none/{i}", number=1, nonce=bytes(8)) for i in range(50)]
    with secure(servers, "hospital") as channel:
        mine = wire.Snapshot(name=found.name, number=found.number, nonce=bytes.fromhex(found.nonce))
        request = wire.ForgetRequest(snapshots=[*none, mine])
        assert wire.ForgetReply.FromString(call(channel, "Forget", request)[0]).forgotten == 1
    events = [e for e in parties["hospital"].audit()[0].entries if e["event"] == "forget"]
    assert [e["name"] for e in events if e["name"].startswith("none/") or e["name"] == "brief"] == ["brief"]


def saved(channel):
    return [f for raw in call(channel, "Saved", wire.SavedRequest(others=True))
            for f in wire.SavedReply.FromString(raw).found]


def test_calls_that_never_say_what_they_want(servers, parties):
    """More of them than a server has threads; they end at their deadline, and others are answered before."""
    end, most = threading.Event(), Allowance().present + OTHER_CALLS // 2

    def nothing():
        end.wait()
        yield from ()

    with secure(servers, "other") as channel:
        open_calls = [channel.stream_unary(f"/{SERVICE}/Hello").future(nothing(), timeout=60) for _ in range(200)]
        try:
            deadline = time.monotonic() + 20
            while sum(each.done() for each in open_calls) < 200 - most:  # the others are refused
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with secure(servers, "analyst") as others:
                assert call(others, "Hello", wire.HelloRequest(), timeout=10)
        finally:
            end.set()
            for each in open_calls:
                each.cancel()


# --- what is another's ------------------------------------------------------------------------------------------------
def test_another_clients_job(servers, parties):
    """Another's job cannot be cancelled, and its id cannot be used, before it, beside it or after it."""
    made = long_plan(steps=400)
    began, ids = threading.Event(), []
    real = parties["analyst"]._clients[0].run

    def run(requests, *given):
        first = next(requests)
        ids.append(first.job)
        began.set()
        return real(iter([first, *requests]), *given)

    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(64, 8)), "w": rng.normal(size=(8, 64))}
    with pytest.MonkeyPatch.context() as patch, concurrent.futures.ThreadPoolExecutor(1) as pool:
        patch.setattr(parties["analyst"]._clients[0], "run", run)
        running = pool.submit(parties["analyst"].run, made, data)
        assert began.wait(60)
        with secure(servers, "other") as channel:
            cancelled = wire.CancelReply.FromString(call(channel, "Cancel", wire.CancelRequest(job=ids[0]))[0])
            assert not cancelled.found
        assert running.result()["y"].shape == (64, 64)
    with secure(servers, "other") as channel:
        request = wire.RunRequest(job=ids[0], digest=made.digest, seconds=5.0, steps=1)
        assert "used before" in str(refusal(channel, "Run", request))


def test_another_clients_handle(servers, parties):
    handle = parties["analyst"].share(W, F, "w")
    other = parties["other"]
    with pytest.raises(HandleNotFound, match="'w'"):
        other.run(layer(owner="client"), {"x": X, "w": handle})
    with pytest.raises(HandleNotFound, match="'w'"):
        other.save("stolen", {"w": handle})
    other.delete(handle)
    with secure(servers, "other") as channel:
        upload = wire.UploadRequest(handle=handle.id, elements=1, data=bytes(24))
        assert "taken" in str(refusal(channel, "Upload", upload))
    parties["analyst"].run(layer(owner="client"), {"x": X, "w": handle})
    parties["analyst"].delete(handle)


def test_another_clients_item(parties):
    analyst, other, made = parties["analyst"], parties["other"], layer(owner="client")
    w = analyst.share(W, F, "w")
    item = analyst.prepare(made, {"w": w})
    mine = other.share(W, F, "w")
    taken = other.prepare(made, {"w": mine})
    stolen = type(item)(item.id, taken.incarnation, taken.content, taken.seeds)
    # The cluster runs without stock where servers have none; that it was asked for and not found is what counts.
    with pytest.raises(HandleNotFound) as caught:
        other._run(made, *_bound(other, made, {"x": X, "w": mine}), 60.0, None, stolen, "")
    assert caught.value.__cause__.kind == "ItemNotFound"
    np.testing.assert_allclose(analyst.run(made, {"x": X, "w": w}, item=item)["y"], X @ W, atol=1e-4)
    assert analyst.stats.last_ahead.runs == 1
    analyst.delete(w)
    other.delete(mine, taken)


def _bound(cluster, plan, inputs):
    return cluster._bound(plan, bind(plan, inputs, None), 60.0)


def test_another_clients_delivery(servers, parties):
    made = layer(["receiver"], owner="client")
    parties["analyst"].run(made, {"x": X, "w": W}, delivery="private")
    (found,) = parties["receiver"].deliveries()
    for name in ("other", "analyst", "hospital"):
        assert parties[name].deliveries() == []
        with secure(servers, name) as channel:
            request = wire.ReceiveRequest(id=found.id)
            assert isinstance(refusal(channel, "Receive", request), HandleNotFound)
            call(channel, "Receive", wire.ReceiveRequest(id=found.id, forget=True))  # without effect
    with secure(servers, "other") as channel:
        call(channel, "Delete", wire.DeleteRequest(handles=[found.id]))  # it is not its sender
    np.testing.assert_allclose(parties["receiver"].receive(found)["y"], X @ W, atol=1e-4)


def test_a_sender_takes_back_what_waits(parties):
    parties["analyst"].run(layer(["receiver"], owner="client"), {"x": X, "w": W}, delivery="regretted")
    (found,) = parties["receiver"].deliveries()
    parties["analyst"]._forget([found.id])
    assert parties["receiver"].deliveries() == []


# --- plans ------------------------------------------------------------------------------------------------------------
def test_a_plan_that_opens_an_input(servers, parties):
    text = layer(kind="reveal", value="raw").to_json().replace('"kind":"reveal"', '"kind":"predict"').encode()
    with secure(servers, "analyst") as channel:
        refused = refusal(channel, "Prepare", wire.PrepareRequest(total=len(text), data=text))
    assert isinstance(refused, PlanError) and "would open the input 'x' of 'hospital'" in str(refused)
    # One that hides it from that check is found by what it shows.
    b = PlanBuilder()
    b.input("x", (6, 4), F, "hospital")
    b.input("own", (), F, "client")
    b.output(b.add("add", "x", "own"), "y", ["client"])
    with pytest.raises(SecurityError, match="shows the data themselves"):
        parties["analyst"].run(b.build("sum", "predict"), {"x": share(parties, "opened"), "own": np.zeros(())})


def test_plans_whose_digest_differs_between_servers(parties):
    """One job, another plan at one server: none of them opens anything."""
    analyst = parties["analyst"]
    one, two = layer(owner="client"), layer(owner="client", kind="compute")
    for made in (one, two):
        analyst._send(made, analyst.incarnation)
    for odd in range(3):
        job = secrets.token_bytes(16)
        secret = {"x": analyst._split(np.ones((6, 4), np.uint64)), "w": analyst._split(np.ones((4, 2), np.uint64))}
        inputs = Inputs(secret, {}, {}, {}, 1)
        calls = [
            client.run(_requests(party, job, two if party == odd else one, inputs, 60.0), 61.0, False)
            for party, client in enumerate(analyst._clients)
        ]  # fmt: skip
        kinds = []
        for each in calls:
            with pytest.raises(grpc.RpcError) as caught:
                for reply in each:
                    assert not reply.contributions
            kinds.append(from_call(caught.value, "server", "there")[0])
        assert any(isinstance(kind, SecurityError | VersionMismatch | ClusterError) for kind in kinds)


def test_a_handle_that_is_another_tensor_at_each_server(parties):
    share(parties, "agreed/a", plans=["predict"])
    share(parties, "agreed/b", plans=["predict"])
    analyst, base = parties["analyst"], secrets.token_bytes(16)
    for client, name in zip(analyst._clients, ("agreed/a", "agreed/b", "agreed/a"), strict=True):
        (source,) = client.saved(name, True)
        client.load(source, False, base)
    good = analyst.load("agreed/a", "hospital")[0]["x"]
    mixed = dataclasses.replace(good, id=loaded_handle(base, 0))
    with pytest.raises(VersionMismatch):
        analyst.run(layer(), {"x": mixed, "w": W})
    np.testing.assert_allclose(analyst.run(layer(), {"x": good, "w": W})["y"], X @ W, atol=1e-4)
    analyst.delete(mixed, good)


def test_a_tampered_plan(parties, monkeypatch):
    """What a server reads is not what the client has sent: nothing is shared with it."""
    analyst, made = parties["analyst"], layer(owner="client", rows=5)
    victim = analyst._clients[1]
    real = victim.prepare
    opened, kept = b'"receivers":["client"]', b'"receivers":[]'
    monkeypatch.setattr(victim, "prepare", lambda text: real(text.replace(opened, kept)))
    with pytest.raises(VersionMismatch, match="server1 reads plan"):
        analyst.run(made, {"x": X[:5], "w": W})


def test_a_plan_that_says_whose_data_it_takes_and_lies(parties):
    x = share(parties, "whose")
    for owner in ("client", "analyst", "other"):
        with pytest.raises(SecurityError, match="expected shares of|Received: shares of hospital"):
            parties["analyst"].run(layer(owner=owner), {"x": x, "w": W})
    with pytest.raises(SecurityError, match="expected shares of hospital"):
        parties["analyst"].run(layer(), {"x": X, "w": W})


# --- messages ---------------------------------------------------------------------------------------------------------
def test_a_replayed_upload(servers, parties):
    handle = secrets.token_bytes(16)
    upload = wire.UploadRequest(handle=handle, elements=1, data=bytes(24))
    with secure(servers, "analyst") as channel:
        call(channel, "Upload", upload)
        assert "taken" in str(refusal(channel, "Upload", upload))
        call(channel, "Delete", wire.DeleteRequest(handles=[handle]))
        snapshot = wire.Snapshot(name="replayed", number=1, nonce=b"nonce--8")
        entry = wire.Entry(label="x", shape=[1], fraction=18)
        put = wire.PutRequest(snapshot=snapshot, entries=[entry], data=bytes(24))
        call(channel, "Put", put)
        assert "saved already" in str(refusal(channel, "Put", put))
        call(channel, "Commit", wire.CommitRequest(snapshot=snapshot))
        assert "saved already" in str(refusal(channel, "Put", put))
        call(channel, "Forget", wire.ForgetRequest(snapshots=[snapshot]))
        assert "saved already" in str(refusal(channel, "Put", put))  # not even after it is gone


@pytest.mark.parametrize("elements", [0, (1 << 28) + 1, 1 << 40, (1 << 64) - 1])
def test_an_oversized_tensor(servers, parties, elements):
    before = parties["analyst"]._clients[0].health().stored_bytes
    with secure(servers, "analyst") as channel:
        upload = wire.UploadRequest(handle=secrets.token_bytes(16), elements=elements, data=b"")
        assert isinstance(refusal(channel, "Upload", upload), InputError | ClusterError)
        entry = wire.Entry(label="x", shape=[1 << 31, 1 << 31], fraction=18)
        put = wire.PutRequest(snapshot=wire.Snapshot(name="big", number=1, nonce=bytes(8)), entries=[entry])
        assert isinstance(refusal(channel, "Put", put), InputError | ClusterError)
    assert parties["analyst"]._clients[0].health().stored_bytes == before


def test_more_than_was_announced(servers):
    with secure(servers, "analyst") as channel:
        first = wire.UploadRequest(handle=secrets.token_bytes(16), elements=1, data=bytes(24))
        assert "more" in str(refusal(channel, "Upload", first, wire.UploadRequest(data=b"x")))
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, "Upload", wire.UploadRequest(data=bytes(limits.MESSAGE_BYTES)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_malformed_messages(servers):
    """Random bytes, and messages that were cut or changed, for every call."""
    rng = random.Random(11)
    good = [
        wire.RunRequest(job=bytes(16), digest="0" * 64, seconds=1.0, steps=1).SerializeToString(),
        wire.PutRequest(snapshot=wire.Snapshot(name="x", number=1, nonce=bytes(8))).SerializeToString(),
        wire.ReceiveRequest(id=bytes(16)).SerializeToString(),
        wire.SetPolicyRequest(name="x", policy='{"use":[1]}').SerializeToString(),
    ]
    with secure(servers, "analyst") as channel:
        for name in STREAMS:
            for number in range(12):
                data = bytearray(rng.choice(good) if number % 3 else rng.randbytes(rng.randrange(60)))
                for _ in range(number % 4):
                    if data:
                        data[rng.randrange(len(data))] = rng.randrange(256)
                try:
                    call(channel, name, bytes(data))
                except grpc.RpcError as error:
                    assert error.code() is not grpc.StatusCode.UNAVAILABLE, error


@pytest.mark.parametrize("party", range(3))
def test_malformed_frames_between_servers(servers, party):
    """Garbage on the port of the other servers: before a handshake, and after one with a server's certificate."""
    rng = random.Random(party)
    host, port = servers.content["servers"][party]["data"].split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=60) as sock:
            sock.sendall(rng.randbytes(rng.randrange(1, 300)))
    keys, caller = servers.directory / "keys", f"server{(party + 1) % 3}"
    context = ssl.create_default_context(cafile=keys / "authority.pem")
    context.load_cert_chain(keys / f"{caller}.pem", keys / f"{caller}.key")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    for size in (1, 7, 40, 300, 70_000):
        with socket.create_connection((host, int(port)), timeout=60) as sock:
            with context.wrap_socket(sock, server_hostname=f"server{party}") as tls:
                with contextlib.suppress(OSError):  # the server has had enough
                    tls.sendall(rng.randbytes(size))


NAMES = [
    "../other", "..", ".", "/etc/passwd", "a\0b", "", "x" * 81, "ä", "a b", "a\nb", "-x", "%2e%2e", "~root", "a\\b",
    "\u202e", "con\r", "$(id)", "'; DROP TABLE snapshots; --",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_path_tricks_in_names(servers, parties, name):
    with secure(servers, "analyst") as channel:
        snapshot = wire.Snapshot(name=name, number=1, nonce=bytes(8))
        entry = wire.Entry(label="x", shape=[1], fraction=18)
        wrong = {
            "Save": wire.SaveRequest(snapshot=snapshot),
            "Put": wire.PutRequest(snapshot=snapshot, entries=[entry], data=bytes(24)),
            "Commit": wire.CommitRequest(snapshot=snapshot),
            "Load": wire.LoadRequest(snapshot=snapshot, base=bytes(16)),
            "Forget": wire.ForgetRequest(snapshots=[snapshot]),
            "SetPolicy": wire.SetPolicyRequest(name=name, policy=""),
        }
        if name:  # no name asks for all
            wrong["Saved"] = wire.SavedRequest(name=name)
        for each, message in wrong.items():
            assert isinstance(refusal(channel, each, message), InputError), each
        owner = wire.Snapshot(name="x", number=1, nonce=bytes(8), owner=name or "..")
        request = wire.LoadRequest(snapshot=owner, base=bytes(16))
        assert isinstance(refusal(channel, "Load", request), HandleNotFound)
    if name:
        with pytest.raises(InputError):
            parties["analyst"].run(layer(["receiver"], owner="client"), {"x": X, "w": W}, delivery=name)
    outside = [p for p in servers.directory.rglob("*") if p.name in ("other", "b", "passwd")]
    assert outside == []


@pytest.mark.parametrize("name", ["a/../../b", "a/../../../etc/passwd", "A/b", "a/B", "x.sealed", "con"])
def test_names_that_look_like_paths_are_names(servers, parties, name):
    """They are kept apart from each other, and none is a path on a server's disk."""
    before = {path.name for path in servers.directory.rglob("*")}
    analyst = parties["analyst"]
    handle = analyst.share(W, F, "w")
    analyst.save(name, {"w": handle}, about=name)
    assert analyst.load(name)[1] == name and name in analyst.saved()
    with pytest.raises(HandleNotFound):
        analyst.load(name.swapcase())
    new = {path for path in servers.directory.rglob("*") if path.name not in before}
    assert all("storage" in path.parts for path in new) and not {"b", "passwd"} & {path.name for path in new}
    analyst.forget(name)


# --- policies ---------------------------------------------------------------------------------------------------------
def test_use_beyond_the_count(parties):
    x = share(parties, "counted", uses=2)
    for _ in range(2):
        parties["analyst"].run(layer(), {"x": x, "w": W})
    with pytest.raises(SecurityError, match="hospital/counted: used 2 times"):
        parties["analyst"].run(layer(), {"x": x, "w": W})


def test_use_beyond_the_count_at_once(parties):
    """Many jobs at the same time: each server gives out no more than the policy's number."""
    x = share(parties, "hurried", uses=3)

    def one(_):
        try:
            return parties["analyst"].run(layer(), {"x": x, "w": W})["y"]
        except SecurityError as error:
            assert "hospital/hurried: used 3 times" in str(error)
        except ClusterError:
            pass  # two servers let other jobs through than the third
        return None

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = [y for y in pool.map(one, range(6)) if y is not None]
    assert len(results) <= 3
    with pytest.raises(SecurityError, match="used 3 times"):
        for _ in range(3):
            parties["analyst"].run(layer(), {"x": x, "w": W})


def test_use_after_the_end(parties):
    x = share(parties, "ended")
    with pytest.warns(UserWarning, match="ended on 2020-01-01"):
        parties["hospital"].set_policy("ended", Policy(**ALLOWED, until="2020-01-01"))
    with pytest.raises(SecurityError, match="hospital/ended: its policy let them be used until 2020-01-01"):
        parties["analyst"].run(layer(), {"x": x, "w": W})
    with pytest.raises(HandleNotFound):
        parties["analyst"].load("ended", "hospital")


def test_use_by_a_kind_that_is_not_allowed(parties):
    x = share(parties, "kinds", plans=["evaluate"])
    for kind in ("predict", "train", "compute", "reveal"):
        with pytest.raises(SecurityError, match="hospital/kinds: its policy allows evaluate"):
            parties["analyst"].run(layer(kind=kind, value="mean"), {"x": Rows(x, np.arange(6)[None]), "w": W})


def test_a_receiver_that_is_not_allowed(parties):
    x = share(parties, "receivers")
    with pytest.raises(SecurityError, match="opened to analyst. Asked: output 'y' for receiver"):
        parties["analyst"].run(layer(["client", "receiver"]), {"x": x, "w": W}, delivery="scores")
    assert parties["receiver"].deliveries() == []


def test_laundering_by_rows(parties):
    """A mean over one row, named six times, is that row."""
    x = share(parties, "rows", plans=["evaluate"])
    made = layer(kind="evaluate", value="mean")
    parties["analyst"].run(made, {"x": Rows(x, np.arange(6)[None]), "w": W})
    with pytest.raises(SecurityError, match="one row several times"):
        parties["analyst"].run(made, {"x": Rows(x, np.zeros((1, 6), int)), "w": W})
    with pytest.raises(SecurityError, match="hospital/rows.*one row alone"):
        one = layer(kind="evaluate", value="mean", rows=1)
        parties["analyst"].run(one, {"x": Rows(x, np.array([[2]])), "w": W})
    with pytest.raises(SecurityError, match="hospital/rows"):
        steps = layer(kind="evaluate", value="mean", rows=1)
        parties["analyst"].run(steps, {"x": Rows(x, np.arange(6)[:, None]), "w": W}, loop=Loop(6))


def test_laundering_by_another_shape(parties):
    x = share(parties, "laundry/shape")
    analyst = parties["analyst"]
    flat = dataclasses.replace(x, shape=(24, 1))
    with pytest.raises(InputError, match="expected rows of 4 elements"):
        analyst.save("laundry/flat", {"x": flat})
    b = PlanBuilder()
    b.input("x", (4, 1), F, "hospital")  # the four features of one patient
    b.input("w", (1, 2), F, "client")
    b.output(b.add("reduce_sum", b.add("truncate", b.add("matmul", "x", "w"), bits=F), axes=[0]), "y", ["client"])
    with pytest.raises(SecurityError, match="rows of 4 elements"):
        analyst.run(b.build("p", "evaluate"), {"x": Rows(flat, np.arange(4)[None]), "w": np.ones((1, 2))})
    analyst.delete(x)


def test_laundering_by_joining_one_number_and_stretching_it(parties):
    """Data that nobody may receive, one number of it joined with nothing, stretched, and cut off again."""
    x = share(parties, "stretched", plans=["fit"], reveal_to=[])
    b = PlanBuilder()
    flat = b.add("reshape", b.input("x", (6, 4), F, "hospital"), shape=[24])
    one = b.add("concatenate", b.add("slice", flat, start=[5], stop=[6], step=[1]), axis=0)
    two = b.add("slice", b.add("broadcast", one, shape=[2]), start=[1], stop=[2], step=[1])
    both = b.add("relu", two), b.add("relu", b.add("negate", two))
    b.output(b.add("subtract", *both), "y", ["client"])
    with pytest.raises(SecurityError, match="hospital/stretched: its policy lets results be opened to none"):
        parties["analyst"].run(b.build("p", "train"), {"x": Rows(x, np.arange(6)[None])})


def test_laundering_by_kept_results_and_saving(parties):
    analyst, x = parties["analyst"], share(parties, "washed", plans=["fit"])
    kept = analyst.run(layer([], kind="train", value="raw"), {"x": x, "w": W})["y"]
    analyst.save("copy", {"x": kept})
    copy = analyst.load("copy")[0]["x"]
    b = PlanBuilder()
    b.output(b.input("x", (6, 4), F, "client"), "y", ["client"])
    reveal = b.build("reveal", "reveal")
    for handle in (kept, copy):
        with pytest.raises(SecurityError, match="hospital/washed: its policy allows fit"):
            analyst.run(reveal, {"x": handle})
    # Others get what the analyst may give on, under the hospital's policy too.
    analyst.save("given", {"x": copy}, policy=Policy(use=["other"], plans=["reveal"], reveal_to=["other"]))
    theirs = parties["other"].load("given", "analyst")[0]["x"]
    b = PlanBuilder()
    b.output(b.input("x", (6, 4), F, "analyst"), "y", ["client"])
    with pytest.raises(SecurityError, match="hospital/washed: its policy does not let you use them"):
        parties["other"].run(b.build("reveal", "reveal"), {"x": theirs})


def test_laundering_by_a_handle_that_becomes_another_tensor(servers, parties):
    """A handle's terms are those of the tensor that the job takes, not of one that had the handle before."""
    analyst = parties["analyst"]
    share(parties, "swapped", reveal_to=[])
    base = secrets.token_bytes(16)
    handle = loaded_handle(base, 0)
    stop, made = threading.Event(), layer(owner="client")
    snapshot = next(iter(s for s in analyst._clients[0].saved("swapped", others=True)))
    analyst._send(made, analyst.incarnation)

    def swap():
        while not stop.is_set():
            for client in analyst._clients:
                try:
                    client.load(snapshot, False, base)
                    client.delete([handle])
                    size = 16 * (2 if client.name == "server2" else 1)
                    words = np.zeros(0 if client.name == "server2" else 24, "<u8")
                    client.upload(handle, 24, bytes(size), words)
                    client.delete([handle])
                except PrivateKerasError:
                    pass

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        ours = Handle("x", (6, 4), F, analyst.incarnation, handle)
        for _ in range(25):
            try:
                y = analyst.run(made, {"x": ours, "w": W}, deadline=60)["y"]
            except PrivateKerasError:
                continue
            assert not np.allclose(y, X @ W, atol=1e-2)
    finally:
        stop.set()
        thread.join()


def test_laundering_by_stock(parties):
    analyst = parties["analyst"]
    b = PlanBuilder()
    b.input("x", (2, 6), F, "client")
    b.input("w", (6, 4), F, "hospital")
    b.output(b.add("truncate", b.add("matmul", "x", "w"), bits=F), "y", ["client"])
    made, x = b.build("ahead", "predict"), share(parties, "stocked", plans=["predict"])
    item = analyst.prepare(made, {"w": x})
    parties["hospital"].set_policy("stocked", Policy(**{**ALLOWED, "reveal_to": []}))
    with pytest.raises(SecurityError, match="hospital/stocked"):
        analyst.run(made, {"w": x, "x": np.ones((2, 6))}, item=item)
    with pytest.raises(SecurityError, match="hospital/stocked"):
        analyst.prepare(made, {"w": x})


def test_a_policy_that_is_changed_while_a_job_runs(parties, monkeypatch):
    """What the job has computed is not given out."""
    x = share(parties, "changed", plans=["predict"], reveal_to=["analyst", "receiver"])
    b = PlanBuilder()
    b.input("x", (6, 4), F, "hospital")
    b.input("w", (4, 2), F, "client")
    b.output(b.add("truncate", b.add("matmul", "x", "w"), bits=F), "y", ["client", "receiver"])
    made, changed = b.build("slow", "predict"), threading.Event()
    slow = parties["analyst"]._clients[1]
    monkeypatch.setattr(slow, "run", held_back(slow, changed))

    def began(party):
        if party == 1:  # which has judged the order, and waits for what it is to compute on
            return slow.health().jobs > 0
        return any(entry.get("plan") == "slow" for entry in parties["hospital"].audit()[party].entries)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(parties["analyst"].run, made, {"x": x, "w": W}, delivery="late")
        deadline = time.monotonic() + 60
        while not all(began(party) for party in range(3)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        parties["hospital"].set_policy("changed", Policy())
        changed.set()
        with pytest.raises(SecurityError, match="hospital/changed: its policy does not let you use them"):
            running.result()
    monkeypatch.undo()
    assert parties["receiver"].deliveries() == []
    parties["hospital"].set_policy("changed", Policy(**ALLOWED))
    parties["analyst"].run(layer(), {"x": x, "w": W})


def test_errors_of_calls_name_their_kind(parties):
    """`CallFailed` is what the tests above look at."""
    with pytest.raises(HandleNotFound) as caught:
        parties["analyst"].plan_text("0" * 64)
    assert isinstance(caught.value.__cause__, CallFailed) and caught.value.__cause__.kind == "PlanNotPrepared"


def test_another_cluster_description(servers, tmp_path):
    """Who knows the addresses, but has keys of its own, gets nowhere."""
    make_party(servers.directory / "keys", "impostor", directory=tmp_path / "keys")
    (tmp_path / "keys/authority.pem").write_bytes((servers.directory / "keys/authority.pem").read_bytes())
    for kind in ("pem", "key"):
        (tmp_path / f"keys/impostor.{kind}").rename(tmp_path / f"keys/analyst.{kind}")
    cluster = NetworkCluster(parse_config(servers.content, tmp_path), "analyst")
    with pytest.raises(PrivateKerasError, match="impostor"):
        cluster.connect(60)
    cluster.close()


def test_one_job_of_two_callers(parties):
    """Each server judges by who called it: servers that were called by several do not compute together."""
    b = PlanBuilder()
    b.output(b.add("relu", b.input("x", (4,), 18, "client")), "y", ["client"])
    plan = b.build("two callers", "compute")
    callers = [parties["analyst"], parties["receiver"], parties["analyst"]]
    for cluster in parties.values():
        for client in cluster._clients:
            client.prepare(plan.to_json().encode())
    parts = callers[0]._split(fixedpoint.encode(np.array([1.0, -2, 3, -4]), 18))
    job, outcomes = secrets.token_bytes(16), {}

    def run(party):
        seeds, words = parts[party]
        request = wire.RunRequest(job=job, digest=plan.digest, seconds=30, steps=1, inputs=[wire.Input(name="x")])
        request.pieces.add(input=0, data=seeds + words.tobytes())
        try:
            list(callers[party]._clients[party].run(iter([request]), 30, False))
        except PrivateKerasError as error:
            outcomes[party] = error
        except grpc.RpcError as error:
            outcomes[party] = from_call(error, f"server{party}", "")[0]

    threads = [threading.Thread(target=run, args=(party,)) for party in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {0, 1, 2}
    assert any(isinstance(error, VersionMismatch) and "caller" in str(error) for error in outcomes.values()), outcomes
