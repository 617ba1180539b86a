"""One job on all servers at once: three calls, their contributions added up, one error that names the culprit."""

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass

import grpc
import numpy as np

from private_keras.cluster.client import CallFailed, ServerClient, chunks
from private_keras.cluster.handle import Handle, Traffic
from private_keras.errors import ClusterError, DeadlineExceeded, FrameError, PeerLost, ServerUnavailable
from private_keras.plan.plan import Plan
from private_keras.server import limits
from private_keras.server.failures import from_call
from private_keras.server.wire import messages_pb2 as wire

# After a first error the other servers have this long to tell theirs, which may be closer to the cause.
GRACE_SECONDS = 0.5
# Servers keep the deadline; the call itself ends a little later, so that their errors arrive.
MARGIN_SECONDS = 1.0

# Calls that were cancelled end at once; nothing waits longer for one that does not.
END_SECONDS = 5.0

Inline = list[tuple[bytes, np.ndarray]]  # by party: seeds and words


@dataclass
class _Part:
    """What one server answered."""

    contributions: list[bytearray]
    done: wire.Done | None = None


class _Calls:
    """The calls of one job, which can be cancelled while they are being started. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: list[grpc.Call] = []
        self._cancelled = False

    def add(self, call: grpc.Call) -> None:
        """A call that has started; ended at once if the job was cancelled before."""
        with self._lock:
            self._started.append(call)
            cancelled = self._cancelled
        if cancelled:
            call.cancel()

    def cancel(self) -> None:
        """Ends all calls, on a thread of its own: the caller's may be interrupted again."""
        threading.Thread(target=self._cancel, name="cancel", daemon=True).start()

    def _cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            started = list(self._started)
        for call in started:
            call.cancel()


def run_job(
    clients: list[ServerClient], plan: Plan, inputs: dict[str, Handle | Inline], seconds: float
) -> tuple[dict[str, np.ndarray], Traffic]:
    """Runs a prepared plan.

    Args:
        clients: by party.
        inputs: stored handles, or each party's material.
        seconds: deadline.

    Returns:
        Opened ring elements by output name, and what the job took.

    Raises:
        PrivateKerasError: the error closest to the cause, naming the server. `KeyboardInterrupt` cancels the job first.
    """
    began = time.monotonic()
    job = secrets.token_bytes(limits.ID_BYTES)
    calls = _Calls()
    tasks: list[futures.Future] = []

    def one(party: int, client: ServerClient) -> _Part:
        call = client.run(_requests(party, job, plan, inputs, seconds), seconds + MARGIN_SECONDS)
        calls.add(call)
        return _collect(client, call, plan)

    # gRPC is used by these threads alone, never by the caller's: a KeyboardInterrupt that strikes inside gRPC's code
    # would leave one of its locks taken, and every later call would wait for it.
    # They are the job's own: with threads of a common pool, a job could start on some servers and wait for the rest.
    pool = futures.ThreadPoolExecutor(len(clients), thread_name_prefix="job")
    try:
        tasks += [pool.submit(one, party, client) for party, client in enumerate(clients)]
        _settle(tasks, calls)
    except BaseException:
        calls.cancel()
        futures.wait(tasks, timeout=GRACE_SECONDS)
        raise
    finally:
        pool.shutdown(wait=False)
    parts = [task.result() for task in tasks]
    opened = {}
    for index, item in enumerate(plan.outputs):
        shape = plan.types[item.value].shape
        total = np.zeros(shape, np.uint64)
        for part in parts:
            if part.contributions[index]:
                total += np.frombuffer(part.contributions[index], "<u8").reshape(shape)
        opened[item.name] = total
    return opened, Traffic(
        runs=1, rounds=max(part.done.rounds for part in parts), sent=tuple(sum(part.done.sent) for part in parts),
        seconds=time.monotonic() - began, computing=max(part.done.seconds for part in parts),
    )  # fmt: skip


def _requests(
    party: int, job: bytes, plan: Plan, inputs: dict[str, Handle | Inline], seconds: float
) -> Iterator[wire.RunRequest]:
    """A party's messages: what is small goes in the first."""
    request = wire.RunRequest(job=job, digest=plan.digest, seconds=seconds)
    for item in plan.inputs:
        given = inputs[item.name]
        request.inputs.add(name=item.name, handle=given.id if isinstance(given, Handle) else b"")
    room = limits.CHUNK_BYTES
    for index, item in enumerate(plan.inputs):
        given = inputs[item.name]
        if isinstance(given, Handle):
            continue
        for data in chunks(*given[party]):
            if len(data) > room:
                yield request
                request, room = wire.RunRequest(), limits.CHUNK_BYTES
            request.pieces.add(input=index, data=data)
            room -= len(data)
    yield request


def _collect(client: ServerClient, call: grpc.Call, plan: Plan) -> _Part:
    """Reads one server's replies; nothing beyond the plan's sizes is kept."""
    part = _Part([bytearray() for _ in plan.outputs])
    sizes = [8 * plan.types[item.value].size for item in plan.outputs]
    try:
        for reply in call:
            for piece in reply.contributions:
                if (
                    piece.output >= len(sizes)
                    or len(part.contributions[piece.output]) + len(piece.data) > sizes[piece.output]
                ):
                    raise FrameError(f"{client.name} sent more than the plan's outputs hold")
                part.contributions[piece.output] += piece.data
            if reply.HasField("done"):
                part.done = reply.done
    except grpc.RpcError as error:
        failure, kind = from_call(error, client.name, client.address)
        if isinstance(failure, ServerUnavailable) and not kind:
            failure = PeerLost(
                f"{client.name} was lost during the job: {error.details() or 'the connection ended'}"[:400]
            )
            kind = "Lost"
        elif isinstance(failure, DeadlineExceeded) and not kind:
            kind = "Silent"
        raise CallFailed(failure, kind) from None
    if part.done is None or any(len(got) not in (0, size) for got, size in zip(part.contributions, sizes, strict=True)):
        raise FrameError(f"{client.name} ended the job without its whole result")
    return part


def _settle(tasks: list[futures.Future], calls: _Calls) -> None:
    """Waits for all; on an error ends the others and raises the one closest to the cause."""
    futures.wait(tasks, return_when=futures.FIRST_EXCEPTION)
    if all(task.done() and task.exception() is None for task in tasks):
        return
    first = [error for error in (task.exception() for task in tasks if task.done()) if error is not None]
    if all(_rank(error) > 0 for error in first):
        # At the deadline, a server that says nothing at all is the one to name.
        late = any(isinstance(error, CallFailed) and isinstance(error.error, DeadlineExceeded) for error in first)
        futures.wait(tasks, timeout=GRACE_SECONDS + (MARGIN_SECONDS if late else 0))
    calls.cancel()
    futures.wait(tasks, timeout=END_SECONDS)
    errors = [error for error in (task.exception() for task in tasks if task.done()) if error is not None]
    worst = min(errors, key=_rank)
    raise (worst.error if isinstance(worst, CallFailed) else worst) from worst


def _rank(error: BaseException | None) -> int:
    """How far from the cause an error is likely to be: the smallest counts."""
    if error is None:
        return 9
    if not isinstance(error, CallFailed):
        return 1
    if error.kind == "Lost":
        return 0
    if error.kind == "Silent":
        return 2
    if error.kind == "JobCancelled":
        return 8
    if isinstance(error.error, PeerLost):
        return 5 if error.kind == "GaveUp" else 4
    if isinstance(error.error, DeadlineExceeded | ServerUnavailable):
        return 3
    return 0 if isinstance(error.error, ClusterError) else 1
