"""One server, as its client sees it: the calls of the control plane, errors as exceptions that name the server."""

import contextlib
import itertools
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from grpc.experimental import ChannelOptions

from private_keras.cluster.handle import Handle
from private_keras.cluster.probe import probe
from private_keras.errors import SecurityError, ServerUnavailable, VersionMismatch
from private_keras.server import limits
from private_keras.server.config import ClusterConfig, ServerAddress
from private_keras.server.entrance import SERVICE
from private_keras.server.failures import from_call
from private_keras.server.saving import pieces
from private_keras.server.storage import Generation, generation_of
from private_keras.server.terms import Source
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.credentials import WARN_DAYS, Pem, days_left
from private_keras.version import VERSION

# A server that does not even answer pings for this long, while a call waits, is taken for stalled.
PING_MS = 5_000
PING_TIMEOUT_MS = 10_000
UPLOAD_SECONDS = 600.0
CALL_SECONDS = 30.0
OPTIONS = (
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", PING_MS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The thread that reads a stream of replies works for it itself, and needs no other one to hand them over.
    (ChannelOptions.SingleThreadedUnaryStream, 1),
    # A server that is started anew at the same address must not inherit the back-off of the one before.
    ("grpc.use_local_subchannel_pool", 1),
)

REPLIES = {
    "Hello": wire.HelloReply,
    "Health": wire.HealthReply,
    "Probe": wire.ProbeReply,
    "Upload": wire.UploadReply,
    "Delete": wire.DeleteReply,
    "Prepare": wire.PrepareReply,
    "Run": wire.RunReply,
    "RunShort": wire.RunReply,
    "Save": wire.SaveReply,
    "Commit": wire.CommitReply,
    "Saved": wire.SavedReply,
    "Load": wire.LoadReply,
    "Forget": wire.ForgetReply,
    "Put": wire.PutReply,
    "SetPolicy": wire.SetPolicyReply,
    "PlanText": wire.PlanTextReply,
    "Deliveries": wire.DeliveriesReply,
    "Receive": wire.ReceiveReply,
    "Audit": wire.AuditReply,
}


class CallFailed(Exception):
    """A call's exception together with the exact kind that the server gave it."""

    def __init__(self, error: Exception, kind: str):
        super().__init__(str(error))
        self.error = error
        self.kind = kind


def kind_of(error: BaseException) -> str:
    """The exact kind that a server gave an error; empty if none did."""
    return error.__cause__.kind if isinstance(error.__cause__, CallFailed) else ""


class ServerClient:
    """A connection to one server.

    Args:
        identity: name in the client's certificate; None on Unix sockets.
    """

    def __init__(self, config: ClusterConfig, server: ServerAddress, identity: str | None):
        self.name = server.name
        self.address = server.control
        self._config = config
        self._identity = identity
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, dict[str, Any]] = {}

    def connect(self, seconds: float) -> wire.HelloReply:
        """Connects, unless there is a connection that works, and asks who is there.

        Raises:
            ServerUnavailable: nobody answers within `seconds`.
            SecurityError: a certificate, theirs or ours, is refused.
            VersionMismatch: another release, protocol or party.
        """
        deadline = time.monotonic() + seconds
        if self._channel is not None:
            with contextlib.suppress(ServerUnavailable, SecurityError):
                return self._greet(seconds)
            self.close()
        if self._config.local:
            channel = grpc.insecure_channel(self.address, options=OPTIONS)
        else:
            credentials = self._config.credentials(self._identity)
            pem = credentials.read()
            _warn(pem)
            trusted = probe(credentials, pem, self.address, self.name, deadline)
            channel = grpc.secure_channel(
                self.address,
                grpc.ssl_channel_credentials(trusted, pem.key, pem.certificate),
                options=(*OPTIONS, ("grpc.ssl_target_name_override", self.name)),
            )
        self._open(channel)
        return self._greet(max(0.1, deadline - time.monotonic()), wait=True)

    def _greet(self, seconds: float, wait: bool = False) -> wire.HelloReply:
        reply = self._ask("Hello", wire.HelloRequest(version=VERSION), seconds, wait)
        party = int(self.name.removeprefix("server"))
        expected = (VERSION, self._config.protocol, party)
        if (reply.version, reply.protocol, reply.party) != expected:
            raise VersionMismatch(
                f"{self.name} at {self.address}: expected release {VERSION}, protocol {expected[1]}, party {party}. "
                f"Received: {reply.version[:20]}, {reply.protocol[:20]}, {reply.party}"
            )
        return reply

    def _open(self, channel: grpc.Channel) -> None:
        self._channel = channel
        for name, reply in REPLIES.items():
            self._calls[name] = {
                kind: getattr(channel, kind)(
                    f"/{SERVICE}/{name}",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=reply.FromString,
                )
                for kind in ("unary_unary", "stream_unary", "unary_stream", "stream_stream")
            }

    def _start(self, call: str, requests: Any, streams: bool = False, **options: Any) -> Any:
        """Calls with one request or an iterator of them.

        An iterator of one is sent as a single request: the same on the wire, and saves gRPC a thread.
        """
        kind = "unary"
        if isinstance(requests, Iterator):
            first = next(requests)
            second = next(requests, None)
            kind = "unary" if second is None else "stream"
            requests = first if second is None else itertools.chain((first, second), requests)
        return self._calls_to(call)[f"{kind}_{'stream' if streams else 'unary'}"](requests, **options)

    def _calls_to(self, call: str) -> dict[str, Any]:
        if self._channel is None:
            raise ServerUnavailable(f"{self.name} at {self.address} is not connected")
        return self._calls[call]

    def _ask(self, call: str, request: Any, seconds: float, wait: bool = False, streams: bool = False) -> Any:
        """The reply, or with `streams` the list of all."""
        try:
            reply = self._start(call, request, streams, timeout=seconds, wait_for_ready=wait or None)
            return list(reply) if streams else reply
        except grpc.RpcError as error:
            failure, kind = from_call(error, self.name, self.address)
            if wait and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                failure = ServerUnavailable(f"{self.name} does not answer at {self.address}")
            raise failure from CallFailed(failure, kind)

    def health(self) -> wire.HealthReply:
        """How much the server has to do."""
        return self._ask("Health", wire.HealthRequest(), CALL_SECONDS)

    def probe(self, sent: int, received: int, peer: str = "") -> tuple[float, float]:
        """Seconds that it takes to send and receive so many bytes, up to a message, and the server's round trip to a
        peer of lower index, or 0.
        """
        request = wire.ProbeRequest(data=bytes(sent), reply=received, peer=peer)
        began = time.monotonic()
        reply = self._ask("Probe", request, CALL_SECONDS)
        return time.monotonic() - began, reply.seconds

    def upload(self, handle: bytes, elements: int, seeds: bytes, words: np.ndarray) -> None:
        """Stores one tensor's material on this server."""

        def requests() -> Iterator[wire.UploadRequest]:
            for index, data in enumerate(chunks(seeds, words)):
                first = {"handle": handle, "elements": elements} if index == 0 else {}
                yield wire.UploadRequest(data=data, **first)

        self._ask("Upload", requests(), UPLOAD_SECONDS)

    def delete(self, handles: list[bytes]) -> int:
        """Forgets stored shares; returns how many there were."""
        return self._ask("Delete", wire.DeleteRequest(handles=handles), CALL_SECONDS).deleted

    def prepare(self, text: bytes) -> str:
        """Sends a plan; returns the digest that the server computed."""
        pieces = [text[i : i + limits.CHUNK_BYTES] for i in range(0, len(text), limits.CHUNK_BYTES)]
        requests = (wire.PrepareRequest(total=len(text) if i == 0 else 0, data=piece) for i, piece in enumerate(pieces))
        return self._ask("Prepare", requests, UPLOAD_SECONDS).digest

    def run(self, requests: Iterator[wire.RunRequest], seconds: float, short: bool) -> grpc.Call:
        """Starts a job's call; the result streams `RunReply` and can be cancelled.

        Args:
            short: neither progress nor a result of more than `CHUNK_BYTES` is to come: with a request of one message
                the job takes one message each way.
        """
        first = next(requests)
        second = next(requests, None)
        if second is None:
            return self._calls_to("RunShort" if short else "Run")["unary_stream"](first, timeout=seconds)
        both = itertools.chain((first, second), requests)
        return self._calls_to("Run")["stream_stream"](both, timeout=seconds)

    # --- saved shares -------------------------------------------------------------------------------------------------
    def save(self, generation: Generation, handles: Mapping[str, Handle], about: str, policy: str) -> None:
        """Writes stored tensors to the server's disk."""
        entries = [
            wire.Entry(label=label, handle=handle.id, shape=handle.shape, fraction=handle.fraction, dtype=handle.dtype)
            for label, handle in handles.items()
        ]
        first = {"snapshot": _snapshot(generation), "about": about, "policy": policy}
        self._ask("Save", pieces(wire.SaveRequest, first, entries), UPLOAD_SECONDS)

    def put(
        self, generation: Generation, entries: list[wire.Entry], about: str, policy: str, data: Iterator[bytes]
    ) -> None:
        """Streams tensors to the server's disk; `data` is their material, in order, in pieces that fit a message."""
        first = {"snapshot": _snapshot(generation), "about": about, "policy": policy}
        heads = pieces(wire.PutRequest, first, entries)
        requests = itertools.chain(heads, (wire.PutRequest(data=piece) for piece in data))
        self._ask("Put", requests, limits.MAX_SECONDS)

    def commit(self, generation: Generation) -> None:
        """Makes what was written loadable."""
        self._ask("Commit", wire.CommitRequest(snapshot=_snapshot(generation)), CALL_SECONDS)

    def saved(self, name: str, others: bool = False) -> dict[Source, wire.Found]:
        """Generations of a name, or of all names: the caller's own, or those of others that it may use."""
        replies = self._ask("Saved", wire.SavedRequest(name=name, others=others), CALL_SECONDS, streams=True)
        result: dict[Source, wire.Found] = {}
        for found in (found for reply in replies for found in reply.found):
            s = found.snapshot
            source = Source(s.owner, s.name, s.number, s.nonce.hex())
            if source in result:  # one of many tensors comes in several
                result[source].entries.extend(found.entries)
            else:
                result[source] = found
        return result

    def load(self, source: Source, own: bool, base: bytes) -> tuple[list[wire.Entry], str]:
        """Puts saved tensors into the server's store; what they are, and the description."""
        snapshot = _snapshot(generation_of(source))
        if not own:
            snapshot.owner = source.owner
        replies = self._ask("Load", wire.LoadRequest(snapshot=snapshot, base=base), UPLOAD_SECONDS, streams=True)
        return [entry for reply in replies for entry in reply.entries], replies[0].about if replies else ""

    def forget(self, generations: Sequence[Generation]) -> int:
        """Removes saved shares; returns how many files there were."""
        request = wire.ForgetRequest(snapshots=[_snapshot(generation) for generation in generations])
        return self._ask("Forget", request, CALL_SECONDS).forgotten

    def forget_policies(self, name: str) -> int:
        """Removes policies of what was forgotten; returns how many there were."""
        return self._ask("Forget", wire.ForgetRequest(policies=name), CALL_SECONDS).policies

    # --- owners and receivers -----------------------------------------------------------------------------------------
    def set_policy(self, name: str, policy: str) -> None:
        """Puts a policy on shares of the caller."""
        self._ask("SetPolicy", wire.SetPolicyRequest(name=name, policy=policy), CALL_SECONDS)

    def plan_text(self, digest: str) -> bytes:
        """The text of a plan that somebody has prepared."""
        replies = self._ask("PlanText", wire.PlanTextRequest(digest=digest), UPLOAD_SECONDS, streams=True)
        return b"".join(reply.data for reply in replies)

    def deliveries(self) -> list[wire.Delivery]:
        """What waits for the caller."""
        replies = self._ask("Deliveries", wire.DeliveriesRequest(), CALL_SECONDS, streams=True)
        return [item for reply in replies for item in reply.deliveries]

    def receive(self, job: bytes) -> list[wire.Contribution]:
        """This server's contributions to a result."""
        replies = self._ask("Receive", wire.ReceiveRequest(id=job), UPLOAD_SECONDS, streams=True)
        return [piece for reply in replies for piece in reply.contributions]

    def forget_delivery(self, job: bytes) -> None:
        """Lets the server forget a result."""
        self._ask("Receive", wire.ReceiveRequest(id=job, forget=True), CALL_SECONDS, streams=True)

    def audit(self, start: int) -> tuple[list[wire.AuditEntry], wire.Head, list[wire.Segment]]:
        """The server's log from a number on, its end, and its closed parts; signatures that may be there are not
        checked.
        """
        replies = self._ask("Audit", wire.AuditRequest(start=start), UPLOAD_SECONDS, streams=True)
        entries = [entry for reply in replies for entry in reply.entries]
        return entries, replies[-1].head, [part for reply in replies for part in reply.segments]

    def close(self) -> None:
        """Ends the connection; idempotent."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _warn(pem: Pem) -> None:
    """Python shows a warning of one text once."""
    end, name = pem.expires
    if 0 <= days_left(end) < WARN_DAYS:
        warnings.warn(
            f"{name} is valid until {end:%Y-%m-%d}, {days_left(end)} days; make a new one with "
            "`private-keras keys --renew`",
            stacklevel=2,
        )


def _snapshot(generation: Generation) -> wire.Snapshot:
    return wire.Snapshot(name=generation.name, number=generation.number, nonce=generation.nonce)


def chunks(seeds: bytes, words: np.ndarray) -> Iterator[bytes]:
    """A tensor's material in pieces that fit a message."""
    data = memoryview(words.reshape(-1).view(np.uint8))
    first = limits.CHUNK_BYTES - len(seeds)
    yield seeds + bytes(data[:first])
    for start in range(first, len(data), limits.CHUNK_BYTES):
        yield bytes(data[start : start + limits.CHUNK_BYTES])
