"""What servers refuse of a loop: schedules that differ between them, requests that do not fit, what has no room."""

import secrets

import grpc
import numpy as np
import pytest

from private_keras.cluster import LocalCluster, Loop, PublicValue, Rows, running
from private_keras.errors import HandleNotFound, InputError, SecurityError, VersionMismatch
from private_keras.plan.builder import PlanBuilder
from private_keras.server import limits
from private_keras.server.entrance import SERVICE
from private_keras.server.failures import from_call
from private_keras.server.wire import messages_pb2 as wire
from tests.loops import Held, counting_plan, quiet, stored

COUNTING = counting_plan()


@pytest.fixture(scope="module")
def local():
    with LocalCluster() as made:
        yield made


def change_rows(request):
    data = bytearray(request.pieces[0].data)
    data[0] ^= 1
    request.pieces[0].data = bytes(data)


def change_public(request):
    data = bytearray(request.pieces[-1].data)
    data[0] ^= 1
    request.pieces[-1].data = bytes(data)


def change_steps(request):
    request.steps = 1
    request.pieces[0].data = request.pieces[0].data[: len(request.pieces[0].data) // 2]
    request.inputs[2].values = 1
    request.pieces[-1].data = request.pieces[-1].data[: len(request.pieces[-1].data) // 2]


def change_kept(request):
    request.kept[0].handle = secrets.token_bytes(16)


def change_order(request):
    first = request.kept[0].handle
    request.kept[0].handle, request.kept[1].handle = request.kept[1].handle, first


@pytest.mark.parametrize("change", [change_rows, change_public, change_steps, change_kept, change_order])
@pytest.mark.parametrize("party", [0, 2])
def test_servers_that_are_told_different_things_refuse_to_start(local, monkeypatch, party, change):
    honest = running._requests

    def lying(to, *given):
        (request,) = honest(to, *given)
        if to == party:
            change(request)
        yield request

    monkeypatch.setattr(running, "_requests", lying)
    with Held(local) as held:
        x = held.share(np.arange(10).reshape(5, 2), 0)
        total = held.share(np.zeros(2), 0)
        inputs = {"x": Rows(x, np.ones((2, 3), int)), "total": total, "c": PublicValue(np.ones((2, 2)))}
        with pytest.raises(VersionMismatch, match="another plan or another schedule"):
            local.run(COUNTING, inputs, loop=Loop(2))
        quiet(local)


def test_servers_that_use_different_shares_refuse_to_start(local, monkeypatch):
    honest = running._requests
    with Held(local) as held:
        x, total, other = held.share(np.zeros((5, 2)), 0), held.share(np.zeros(2), 0), held.share(np.ones(2), 0)

        def lying(to, *given):
            (request,) = honest(to, *given)
            if to == 1:
                request.inputs[1].handle = other.id
            yield request

        monkeypatch.setattr(running, "_requests", lying)
        inputs = {"x": Rows(x, np.ones((2, 3), int)), "total": total, "c": PublicValue(np.ones((2, 2)))}
        with pytest.raises(VersionMismatch, match="another schedule"):
            local.run(COUNTING, inputs, loop=Loop(2))
        quiet(local)


def request(x, **changes):
    given = {
        "job": secrets.token_bytes(16), "digest": COUNTING.digest, "seconds": 60.0, "steps": 2,
        "inputs": [wire.Input(name="x", handle=x.id, rows=True), wire.Input(name="total"),
                   wire.Input(name="c", values=1)],
        "kept": [wire.Kept(output=i, handle=secrets.token_bytes(16)) for i in (0, 1)],
        "pieces": [wire.Piece(input=0, data=bytes(4 * 6)), wire.Piece(input=1, data=bytes(16 + 16)),
                   wire.Piece(input=2, data=bytes(16))],
    }  # fmt: skip
    return wire.RunRequest(**{**given, **changes})


def inputs_with(index, **fields):
    items = [{"name": "x", "rows": True}, {"name": "total"}, {"name": "c", "values": 1}]
    items[index] = {"name": items[index]["name"], **fields}
    return lambda x: [
        wire.Input(**item, **({"handle": x.id} if item.get("rows") and "handle" not in item else {})) for item in items
    ]


HOSTILE = [
    ({"steps": 0}, InputError, "1 to 10000000 steps. Received: 0"),
    ({"steps": 2**32 - 1}, InputError, "steps. Received: 4294967295"),
    ({"steps": 9_999_999, "pieces": []}, InputError, "indices of rows: expected 119999988 bytes. Received: 0"),
    ({"kept": []}, InputError, r"handles for the outputs \[0, 1\].*Received: \[\]"),
    ({"kept": [wire.Kept(output=0, handle=bytes(16))] * 2}, InputError, r"Received: \[0, 0\]"),
    ({"kept": [wire.Kept(output=i, handle=bytes(16)) for i in (0, 1)]}, SecurityError, "one twice"),
    ({"kept": [wire.Kept(output=i, handle=bytes(9 + i)) for i in (0, 1)]}, SecurityError, "handle of 16 bytes"),
    ({"kept": [wire.Kept(output=i, handle=b"%016d" % i) for i in (0, 2)]}, InputError, r"Received: \[0, 2\]"),
    ({"inputs": inputs_with(0, handle=b"")}, InputError, "64 bytes of material. Received: 24"),
    ({"inputs": inputs_with(0, rows=True, handle=b"h" * 16)}, HandleNotFound, "input 'x'"),
    ({"inputs": inputs_with(0, rows=True, handle=b"")}, InputError, "'x': expected rows of a stored tensor"),
    ({"inputs": inputs_with(0, values=1)}, InputError, "input 'x' is secret"),
    ({"inputs": inputs_with(1, rows=True)}, InputError, "'total': expected rows of a stored tensor"),
    ({"inputs": inputs_with(2)}, InputError, "input 'c' is public: expected 1 or 2 values. Received: 0"),
    ({"inputs": inputs_with(2, values=3)}, InputError, "expected 1 or 2 values. Received: 3"),
    ({"inputs": inputs_with(2, values=2)}, InputError, "public values: expected 32 bytes. Received: 16"),
    ({"inputs": inputs_with(2, rows=True)}, InputError, "input 'c' is public"),
    ({"pieces": [wire.Piece(input=0, data=b"\5" + bytes(23))]}, InputError, "rows 0 to 4. Received: row 5"),
    ({"pieces": [wire.Piece(input=0, data=b"\xff" * 24)]}, InputError, "Received: row 4294967295"),
    ({"pieces": [wire.Piece(input=0, data=bytes(25))]}, InputError, "expected 24 bytes. Received: more"),
    ({"pieces": [wire.Piece(input=2, data=bytes(17))]}, InputError, "expected 16 bytes. Received: more"),
]


@pytest.fixture(scope="module")
def channel(local):
    with grpc.insecure_channel(f"unix:{local.directory}/server0.control") as made:
        yield made


@pytest.mark.parametrize(("changes", "error", "message"), HOSTILE)
def test_runs_that_do_not_fit_their_plan_are_refused_and_take_no_room(local, channel, changes, error, message):
    with Held(local) as held:
        x = held.share(np.zeros((5, 2)), 0)
        inputs = {"x": Rows(x, np.zeros((1, 3), int)), "total": np.zeros(2), "c": PublicValue(np.ones(2))}
        held.own(local.run(COUNTING, inputs))  # the plan is prepared
        made = {**changes, **({"inputs": changes["inputs"](x)} if "inputs" in changes else {})}
        if "pieces" in made and made["pieces"]:
            kept = {piece.input for piece in made["pieces"]}
            made["pieces"] = made["pieces"] + [piece for piece in request(x).pieces if piece.input not in kept]
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream(f"/{SERVICE}/Run", None, None)(
                iter([request(x, **made).SerializeToString()]), timeout=60))  # fmt: skip
        with pytest.raises(error, match=f"^server0: .*{message}"):
            raise from_call(caught.value, "server0", "here")[0]


def test_a_schedule_beyond_the_quota_is_refused_before_memory_is_taken(local, channel, monkeypatch):
    b = PlanBuilder()
    x = b.input("x", (1,), 0, "client")
    b.output(b.add("add", x, b.add("reduce_sum", b.input("c", (1, 4096), 0, "client", public=True), axes=[1],
                                   keepdims=False)), "y", [], carry="x")  # fmt: skip
    plan = b.build("wide", "compute")
    text = plan.to_json().encode()
    channel.stream_unary(f"/{SERVICE}/Prepare", None, None)(
        iter([wire.PrepareRequest(total=len(text), data=text).SerializeToString()]), timeout=10
    )
    steps = limits.MAX_LOOP_STEPS
    announced = wire.RunRequest(
        job=secrets.token_bytes(16), digest=plan.digest, seconds=60, steps=steps,
        inputs=[wire.Input(name="x"), wire.Input(name="c", values=steps)],
        kept=[wire.Kept(output=0, handle=secrets.token_bytes(16))],
    )  # fmt: skip
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(f"/{SERVICE}/Run", None, None)(iter([announced.SerializeToString()]), timeout=60))
    assert "no room" in caught.value.details()
    assert stored(local)[0] == 0


def test_a_handle_of_a_result_cannot_take_the_place_of_another(local, channel):
    with Held(local) as held:
        x = held.share(np.zeros((5, 2)), 0)
        inputs = {"x": Rows(x, np.zeros((1, 3), int)), "total": np.zeros(2), "c": PublicValue(np.ones(2))}
        held.own(local.run(COUNTING, inputs))
        taken = [wire.Kept(output=0, handle=x.id), wire.Kept(output=1, handle=secrets.token_bytes(16))]
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream(f"/{SERVICE}/Run", None, None)(
                iter([request(x, kept=taken).SerializeToString()]), timeout=60))  # fmt: skip
        assert "taken" in caught.value.details()
