"""One job on all servers at once: three calls, their contributions added up, one error that names the culprit."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import numpy as np

from private_keras.cluster.client import CallFailed, ServerClient, chunks
from private_keras.cluster.handle import Handle, Traffic
from private_keras.cluster.loop import Rows
from private_keras.errors import ClusterError, DeadlineExceeded, FrameError, PeerLost, ServerUnavailable
from private_keras.plan.plan import Plan
from private_keras.server import limits
from private_keras.server.failures import from_call
from private_keras.server.schedule import INDEX
from private_keras.server.sizes import WORD
from private_keras.server.wire import messages_pb2 as wire

# After a first error the other servers have this long to tell theirs, which may be closer to the cause.
GRACE_SECONDS = 0.5
# Servers keep the deadline; the call itself ends a little later, so that their errors arrive.
MARGIN_SECONDS = 1.0

# Calls that were cancelled end at once; nothing waits longer for one that does not.
END_SECONDS = 5.0
GAVE_UP = 5  # rank of what a server says of another one that ended the job, and tells why itself

Inline = list[tuple[bytes, np.ndarray]]  # by party: seeds and words
OnStep = Callable[[int], None]


@dataclass(frozen=True)
class Inputs:
    """What goes into a job, by input name, and under which handles its results stay.

    Attributes:
        secret: stored handles, or each party's material.
        rows: of stored handles, indices as uint32 (steps, rows).
        public: ring elements (1, *shape) or (steps, *shape).
        kept: by output name.
        item: id of the item of stock that is used up; then `secret` has words of the batch without seeds.
        ahead: whether the job makes an item of stock.
        seeds: of such a job: by name, of the masks of the batch to come.
        delivery: name of what receivers other than the client get.
    """

    secret: Mapping[str, Handle | Inline] = field(repr=False)
    rows: Mapping[str, Rows]
    public: Mapping[str, np.ndarray]
    kept: Mapping[str, Handle]
    steps: int
    item: bytes = b""
    ahead: bool = False
    seeds: Mapping[str, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)
    delivery: str = ""


@dataclass
class _Part:
    """What one server answered."""

    contributions: list[bytearray] = field(repr=False)
    done: wire.Done | None = None
    steps: int = 0


@dataclass(frozen=True)
class Result:
    """What a job gave.

    Attributes:
        opened: ring elements by output name.
        traffic: what it took.
        stored: bytes that each server holds of an item of stock that was made.
    """

    opened: dict[str, np.ndarray] = field(repr=False)
    traffic: Traffic
    stored: tuple[int, ...]


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
    clients: list[ServerClient], pool: futures.Executor, plan: Plan, inputs: Inputs, seconds: float,
    on_step: OnStep | None, job: bytes,
) -> Result:
    """Runs a prepared plan.

    Args:
        clients: by party; of a job that uses stock, the evaluators alone.
        pool: of threads, as many as jobs ask for: with fewer, a job could start on some servers and wait for the rest.
        seconds: deadline.
        on_step: told in this thread how many steps all servers have done, now and then and at the end.
        job: 16 random bytes, used for no job before.

    Raises:
        PrivateKerasError: the error closest to the cause, naming the server. `KeyboardInterrupt` cancels the job first.
    """
    began = time.monotonic()
    calls = _Calls()
    tasks: list[futures.Future] = []
    parts = [_Part([bytearray() for _ in plan.outputs]) for _ in clients]
    short = on_step is None and sum(_result_sizes(plan)) <= limits.CHUNK_BYTES

    def one(party: int, client: ServerClient) -> None:
        call = client.run(_requests(party, job, plan, inputs, seconds), seconds + MARGIN_SECONDS, short)
        calls.add(call)
        _collect(client, call, plan, parts[party])

    # gRPC is used by the pool's threads alone, never by the caller's: a KeyboardInterrupt that strikes inside gRPC's
    # code would leave one of its locks taken, and every later call would wait for it.
    try:
        # The higher party first, because it dials the lower and the helper's messages are waited for.
        tasks += [pool.submit(one, party, client) for party, client in reversed(list(enumerate(clients)))]
        if on_step is not None:
            _watch(tasks, parts, on_step)
        _settle(tasks, calls)
    except BaseException:
        calls.cancel()
        futures.wait(tasks, timeout=GRACE_SECONDS)
        raise
    if on_step is not None:
        on_step(inputs.steps)
    opened = {}
    for index, item in enumerate(plan.outputs):
        if not item.receivers or inputs.ahead:
            continue
        shape = plan.types[item.value].shape
        total = np.zeros(shape, np.uint64)
        for part in parts:
            if part.contributions[index]:
                total += np.frombuffer(part.contributions[index], "<u8").reshape(shape)
        opened[item.name] = total
    traffic = Traffic(
        runs=1, rounds=max(part.done.rounds for part in parts), sent=tuple(sum(part.done.sent) for part in parts),
        seconds=time.monotonic() - began, computing=max(part.done.seconds for part in parts),
    )  # fmt: skip
    return Result(opened, traffic, tuple(part.done.stored for part in parts))


def _watch(tasks: list[futures.Future], parts: list[_Part], on_step: OnStep) -> None:
    """Tells about progress until the job ends or a server fails."""
    told = 0
    while True:
        done, running = futures.wait(tasks, timeout=limits.PROGRESS_SECONDS, return_when=futures.FIRST_EXCEPTION)
        if not running or any(task.exception() for task in done):
            return
        steps = min(part.steps for part in parts)
        if steps > told:
            told = steps
            on_step(steps)


def _requests(party: int, job: bytes, plan: Plan, inputs: Inputs, seconds: float) -> Iterator[wire.RunRequest]:
    """A party's messages: what is small goes in the first."""
    request = wire.RunRequest(
        job=job, digest=plan.digest, seconds=seconds, steps=inputs.steps, item=inputs.item, ahead=inputs.ahead,
        delivery=inputs.delivery,
    )  # fmt: skip
    for index, item in enumerate(plan.outputs):
        if item.name in inputs.kept:
            request.kept.add(output=index, handle=inputs.kept[item.name].id)
    pieces: list[tuple[int, Iterator[bytes]]] = []
    for index, item in enumerate(plan.inputs):
        if item.name in inputs.public:
            values = inputs.public[item.name]
            request.inputs.add(name=item.name, values=len(values))
            pieces.append((index, chunks(b"", np.ascontiguousarray(values, WORD))))
        elif item.name in inputs.rows:
            rows = inputs.rows[item.name]
            request.inputs.add(name=item.name, handle=rows.handle.id, rows=True)
            pieces.append((index, chunks(b"", np.ascontiguousarray(rows.indices, INDEX))))
        elif item.name in inputs.seeds:
            seeds = inputs.seeds[item.name]
            request.inputs.add(name=item.name, seeds=seeds[party] if party < len(seeds) else b"".join(seeds))
        else:
            given = inputs.secret[item.name]
            request.inputs.add(name=item.name, handle=given.id if isinstance(given, Handle) else b"")
            if not isinstance(given, Handle):
                pieces.append((index, chunks(*given[party])))
    room = limits.CHUNK_BYTES
    for index, data in ((index, data) for index, parts in pieces for data in parts):
        if len(data) > room:
            yield request
            request, room = wire.RunRequest(), limits.CHUNK_BYTES
        request.pieces.add(input=index, data=data)
        room -= len(data)
    yield request


def _result_sizes(plan: Plan) -> list[int]:
    """Bytes of a server's contribution to each output."""
    return [WORD.itemsize * plan.types[item.value].size if item.receivers else 0 for item in plan.outputs]


def _collect(client: ServerClient, call: grpc.Call, plan: Plan, part: _Part) -> None:
    """Reads one server's replies into `part`; nothing beyond the plan's sizes is kept."""
    sizes = _result_sizes(plan)
    try:
        for reply in call:
            for piece in reply.contributions:
                if (
                    piece.output >= len(sizes)
                    or len(part.contributions[piece.output]) + len(piece.data) > sizes[piece.output]
                ):
                    raise FrameError(f"{client.name} sent more than the plan's outputs hold")
                part.contributions[piece.output] += piece.data
            part.steps = max(part.steps, reply.steps)
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


def _settle(tasks: list[futures.Future], calls: _Calls) -> None:
    """Waits for all; on an error ends the others and raises the one closest to the cause."""
    futures.wait(tasks, return_when=futures.FIRST_EXCEPTION)
    if all(task.done() and task.exception() is None for task in tasks):
        return
    first = _errors(tasks)
    if all(_rank(error) > 0 for error in first):
        # At the deadline, a server that says nothing at all is the one to name.
        late = any(isinstance(error, CallFailed) and isinstance(error.error, DeadlineExceeded) for error in first)
        futures.wait(tasks, timeout=GRACE_SECONDS + (MARGIN_SECONDS if late else 0))
        if all(_rank(error) >= GAVE_UP for error in _errors(tasks)):
            futures.wait(tasks, timeout=END_SECONDS)  # a server that gave up is about to say why
    calls.cancel()
    futures.wait(tasks, timeout=END_SECONDS)
    worst = min(_errors(tasks), key=_rank)
    raise (worst.error if isinstance(worst, CallFailed) else worst) from worst


def _errors(tasks: list[futures.Future]) -> list[BaseException]:
    """Of those that have ended by now."""
    return [error for error in (task.exception() for task in tasks if task.done()) if error is not None]


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
        return GAVE_UP if error.kind == "GaveUp" else 4
    if isinstance(error.error, DeadlineExceeded | ServerUnavailable):
        return 3
    return 0 if isinstance(error.error, ClusterError) else 1
