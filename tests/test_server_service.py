"""Hostile and clumsy clients against real servers: whatever arrives, a structured refusal, and the server lives on."""

import os
import secrets
import threading
import time

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_keras import errors
from private_keras.cluster import LocalCluster
from private_keras.errors import HandleNotFound, InputError, PlanError, SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.limits import MAX_ELEMENTS
from private_keras.server import limits
from private_keras.server.entrance import SERVICE, STREAMS
from private_keras.server.failures import DETAIL_KEY, code_of, detail_of, from_call
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import dense_data, dense_plan

CALLS = list(STREAMS)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster() as made:
        data = dense_data()
        made.run(dense_plan(), data)  # the plan is prepared
        yield made
        np.testing.assert_allclose(made.run(dense_plan(), data)["y"], np.maximum(data["x"] @ data["w"], 0), atol=1e-4)
        assert [client.health().stored_bytes for client in made._clients] == [0, 0, 0]


@pytest.fixture(scope="module")
def channel(cluster):
    with grpc.insecure_channel(f"unix:{cluster.directory}/server0.control") as made:
        yield made


def call(channel, name, *messages, timeout=60.0):
    """Sends messages as they are (bytes or protobuf); returns the raw replies."""
    raw = [m if isinstance(m, bytes) else m.SerializeToString() for m in messages]
    path = f"/{SERVICE}/{name}"
    many, streamed = STREAMS[name]
    kind = f"{'stream' if many else 'unary'}_{'stream' if streamed else 'unary'}"
    reply = getattr(channel, kind)(path, None, None)(iter(raw) if many else raw[0], timeout=timeout)
    return list(reply) if streamed else [reply]


def refusal(channel, name, *messages, **options):
    """The exception of ours that a refused call stands for."""
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, name, *messages, **options)
    return from_call(caught.value, "server0", "here")[0]


def run_request(**changes):
    given = {"job": secrets.token_bytes(16), "digest": dense_plan().digest, "seconds": 5.0, "steps": 1}
    inputs = changes.pop("inputs", [wire.Input(name="x"), wire.Input(name="w")])
    return wire.RunRequest(**{**given, **changes}, inputs=inputs)


MATERIAL = [wire.Piece(input=0, data=bytes(16 + 8 * 32)), wire.Piece(input=1, data=bytes(16 + 8 * 24))]


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (run_request(job=b""), SecurityError, "job id of 16 bytes. Received: 0"),
        (run_request(job=b"x" * 17), SecurityError, "Received: 17"),
        (run_request(seconds=0), InputError, "deadline"),
        (run_request(seconds=float("nan")), InputError, "deadline"),
        (run_request(seconds=float("inf")), InputError, "deadline"),
        (run_request(seconds=-5), InputError, "deadline"),
        (run_request(digest="0" * 64), HandleNotFound, "no plan with digest '0000"),
        (run_request(digest="../../etc"), HandleNotFound, "no plan"),
        (run_request(inputs=[]), InputError, r"expected the inputs \['w', 'x'\]. Received: \[\]"),
        (run_request(inputs=[wire.Input(name="x")] * 2), InputError, "expected the inputs"),
        (
            run_request(inputs=[wire.Input(name="x"), wire.Input(name="w", handle=b"h" * 16)]),
            HandleNotFound,
            "input 'w'",
        ),
        (run_request(), InputError, "input 'x': expected 272 bytes of material. Received: 0"),
        (run_request(pieces=MATERIAL[:1]), InputError, "input 'w': expected 208 bytes of material. Received: 0"),
        (run_request(pieces=[*MATERIAL, wire.Piece(input=1, data=b"x")]), InputError, "input 'w'.*Received: more"),
        (run_request(pieces=[wire.Piece(input=7, data=b"x")]), InputError, "input number 7"),
    ],
)
def test_runs_that_do_not_fit_are_refused_and_named(channel, request_, error, message):
    for name in ("Run", "RunShort"):
        refused = refusal(channel, name, request_)
        with pytest.raises(error, match=f"^server0: .*{message}"):
            raise refused
        if len(request_.job) == limits.ID_BYTES:
            request_.job = secrets.token_bytes(limits.ID_BYTES)


def test_a_result_that_needs_several_messages_is_refused_before_the_job_begins(cluster, channel):
    b = PlanBuilder()
    b.input("x", (limits.CHUNK_BYTES // 8 + 1,), fraction=18, owner="client")
    b.output(b.add("relu", "x", truncate=0), "y", ["client"])
    plan = b.build("large", "predict")
    cluster._clients[0].prepare(plan.to_json().encode())
    request = run_request(digest=plan.digest, inputs=[wire.Input(name="x")])
    assert "expected a result of at most" in str(refusal(channel, "RunShort", request))
    # The id was not used up, and the job itself is what is wrong here: its input is missing.
    assert "bytes of material. Received: 0" in str(refusal(channel, "Run", request))


def test_a_job_id_is_used_once(channel):
    request = run_request()
    refusal(channel, "Run", request)
    assert "used before" in str(refusal(channel, "Run", request))


def test_a_plan_that_is_on_its_way_takes_room(cluster, channel):
    before = cluster._clients[0].health().stored_bytes
    seen = []

    def pieces():
        yield wire.PrepareRequest(total=100 << 20, data=b"{").SerializeToString()
        # The server reserves before it asks for more; how soon is its own affair.
        for _ in range(1000):
            seen.append(cluster._clients[0].health().stored_bytes - before)
            if seen[-1]:
                return
            time.sleep(0.05)

    with pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(f"/{SERVICE}/Prepare", None, None)(pieces(), timeout=60)
    assert "Received: 1" in caught.value.details()
    assert seen[-1] == 100 << 20
    assert cluster._clients[0].health().stored_bytes == before


def test_a_plan_whose_values_take_more_memory_than_there_is_does_not_start(cluster):
    b = PlanBuilder()
    b.input("x", (1,), 18, "client")
    # Each takes 4 GiB at a server; all can be computed at once, and are, before the first sum of two.
    spread = b.add("broadcast", "x", shape=[MAX_ELEMENTS])
    total, *others = [b.add("add", spread, spread) for _ in range(5)]
    for wide in others:
        total = b.add("add", total, wide)
    b.output(b.add("slice", total, start=[0], stop=[1], step=[1]), "y", ["client"])
    with pytest.raises(errors.ClusterError, match="server[012]: no room for .* smaller batches"):
        cluster.run(b.build("bomb", "reveal"), {"x": np.zeros(1)})


def test_a_step_that_takes_more_memory_than_there_is_does_not_start(cluster):
    b = PlanBuilder()
    b.input("x", (1,), 18, "client")
    wide = b.add("relu", b.add("broadcast", "x", shape=[MAX_ELEMENTS // 2]))
    b.output(b.add("slice", wide, start=[0], stop=[1], step=[1]), "y", ["client"])
    with pytest.raises(errors.ClusterError, match="no room for .* smaller batches"):
        cluster.run(b.build("comparison", "predict"), {"x": np.zeros(1)})


def test_a_job_that_the_other_servers_know_nothing_of_ends_by_its_deadline(channel):
    error = refusal(channel, "Run", run_request(seconds=2, pieces=MATERIAL))
    assert isinstance(error, errors.DeadlineExceeded) and "did not join" in str(error)


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ([], InputError, "before its first message"),
        ([wire.UploadRequest(handle=b"h" * 16)], InputError, "expected 1 to"),
        ([wire.UploadRequest(handle=b"h" * 16, elements=MAX_ELEMENTS + 1)], InputError, "expected 1 to"),
        ([wire.UploadRequest(handle=b"h" * 16, elements=1 << 63)], errors.ClusterError, "no room"),
        ([wire.UploadRequest(handle=b"h" * 16, elements=2, data=bytes(33))], InputError, "Received: more"),
        ([wire.UploadRequest(handle=b"h" * 16, elements=2, data=bytes(31))], InputError, "Received: 31"),
        ([wire.UploadRequest(handle=b"h" * 15, elements=2, data=bytes(32))], SecurityError, "handle of 16 bytes"),
        ([wire.UploadRequest(handle=b"", elements=2, data=bytes(32))], SecurityError, "handle of 16 bytes"),
    ],
)
def test_uploads_that_do_not_fit_are_refused_and_take_no_room(cluster, channel, messages, error, message):
    with pytest.raises(error, match=message):
        raise refusal(channel, "Upload", *messages)
    assert cluster._clients[0].health().stored_bytes == 0


def test_a_handle_cannot_be_taken_twice_and_an_upload_may_come_in_any_pieces(cluster, channel):
    handle = secrets.token_bytes(16)
    data = bytes(16 + 8 * 3)
    first = wire.UploadRequest(handle=handle, elements=3, data=data[:1])
    call(channel, "Upload", first, *[wire.UploadRequest(data=data[i : i + 1]) for i in range(1, len(data))])
    assert isinstance(
        refusal(channel, "Upload", wire.UploadRequest(handle=handle, elements=3, data=data)), SecurityError
    )
    reply = wire.DeleteReply.FromString(
        call(channel, "Delete", wire.DeleteRequest(handles=[handle, handle, b"", b"x"]))[0]
    )
    assert reply.deleted == 1


def test_the_store_has_a_bound(cluster, channel):
    """Room is taken before memory is, so a client that announces much and sends nothing costs nothing."""
    size = MAX_ELEMENTS
    needed = limits.STORE_BYTES // (16 * size) + 1
    release = threading.Event()

    def announce():
        yield wire.UploadRequest(handle=secrets.token_bytes(16), elements=size).SerializeToString()
        release.wait(100)

    make = channel.stream_unary(f"/{SERVICE}/Upload", None, None)
    calls = [make.future(announce(), timeout=100) for _ in range(needed)]
    deadline = time.monotonic() + 60
    while not any(c.done() for c in calls) and time.monotonic() < deadline:
        time.sleep(0.01)
    failures = [c.exception() for c in calls if c.done()]
    for c in calls:
        c.cancel()
    release.set()
    assert any("no room" in str(f.details()) for f in failures)
    while cluster._clients[0].health().stored_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([wire.PrepareRequest()], "expected a plan of 1 to"),
        ([wire.PrepareRequest(total=1 << 60)], "expected a plan of 1 to"),
        ([wire.PrepareRequest(total=5, data=b"{}")], "expected a plan of 5 bytes. Received: 2"),
        ([wire.PrepareRequest(total=1, data=b"{}")], "Received: more"),
        ([wire.PrepareRequest(total=2, data=b"{}")], "^server0: "),
        ([wire.PrepareRequest(total=4, data=b"null")], "^server0: "),
        ([wire.PrepareRequest(total=4, data=b"\xff\xfe\0\0")], "^server0: "),
    ],
)
def test_plans_that_are_none_are_refused(channel, messages, message):
    with pytest.raises(PlanError, match=message):
        raise refusal(channel, "Prepare", *messages)


def test_a_plan_for_somebody_else_is_not_run(channel):
    text = dense_plan().to_json().replace('"receivers":["client"]', '"receivers":["somebody"]').encode()
    digest = wire.PrepareReply.FromString(
        call(channel, "Prepare", wire.PrepareRequest(total=len(text), data=text))[0]
    ).digest
    with pytest.raises(SecurityError, match="opens results to somebody, but the cluster's description has no receiver"):
        raise refusal(channel, "Run", run_request(digest=digest, pieces=MATERIAL))


def test_calls_without_a_deadline_are_refused(channel):
    for name in CALLS:
        with pytest.raises(InputError, match="needs a deadline"):
            raise refusal(channel, name, b"", timeout=None)


def test_messages_beyond_the_limit_are_refused(channel):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "Delete", bytes(limits.MESSAGE_BYTES + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_running_job_can_be_cancelled_by_its_id(channel):
    request = run_request(seconds=60, pieces=MATERIAL)
    running = channel.stream_stream(f"/{SERVICE}/Run", None, None)(iter([request.SerializeToString()]), timeout=60)
    deadline = time.monotonic() + 25  # before it ends because no other server joins
    cancel = wire.CancelRequest(job=request.job)
    while not wire.CancelReply.FromString(call(channel, "Cancel", cancel)[0]).found:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(grpc.RpcError) as caught:
        list(running)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert "cancelled" in str(from_call(caught.value, "server0", "here")[0])


def test_cancelling_what_does_not_run_finds_nothing(channel):
    assert not wire.CancelReply.FromString(call(channel, "Cancel", wire.CancelRequest(job=b"j" * 16))[0]).found


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(CALLS), messages=st.lists(st.binary(max_size=60), min_size=1, max_size=3))
def test_any_bytes_are_answered_or_refused(channel, name, messages):
    try:
        call(channel, name, *messages)
    except grpc.RpcError as error:
        assert error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
    hello = wire.HelloReply.FromString(call(channel, "Hello", b"")[0])
    assert hello.name == "server0" and hello.identity == "local"


def test_every_error_of_the_tree_arrives_as_itself():
    class Failed(grpc.RpcError):
        def __init__(self, metadata, code=grpc.StatusCode.UNKNOWN, text=""):
            super().__init__()
            self._parts = metadata, code, text

        def trailing_metadata(self):
            return self._parts[0]

        def code(self):
            return self._parts[1]

        def details(self):
            return self._parts[2]

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.PrivateKerasError)]
    assert len(kinds) > 10
    for kind in kinds:
        detail = detail_of(kind("why"), "server1")
        assert code_of(kind("why")) is not grpc.StatusCode.OK
        back, exact = from_call(Failed([(DETAIL_KEY, detail.SerializeToString())]), "server1", "there")
        assert type(back) is kind and str(back) == "server1: why" and exact == kind.__name__
    for hostile in ("PrivateKerasError.__init__", "dataclass", "__builtins__", ""):
        detail = wire.ErrorDetail(error=hostile, message="x")
        back, _ = from_call(Failed([(DETAIL_KEY, detail.SerializeToString())]), "server1", "there")
        assert isinstance(back, errors.PrivateKerasError)
    for parts in ([(DETAIL_KEY, wire.ErrorDetail(message="\x1b[2Jgone\u202e").SerializeToString())],), (
        [], grpc.StatusCode.INTERNAL, "\x1b[2Jgone\u202e"
    ):
        back, _ = from_call(Failed(*parts), "server1", "there")
        assert str(back).endswith("?[2Jgone?")  # a terminal would do as it says
    back, _ = from_call(Failed([(DETAIL_KEY, b"\xff\xff")], grpc.StatusCode.UNAVAILABLE), "server1", "there")
    assert isinstance(back, errors.ServerUnavailable) and "server1" in str(back) and "there" in str(back)


def test_no_log_line_of_all_this_is_a_crash(cluster):
    for party in range(3):
        log = (cluster.directory / f"server{party}.log").read_text()
        assert "Traceback" not in log and '"kind": "error"' not in log, log[-2000:]
    assert os.path.isdir(cluster.directory)
