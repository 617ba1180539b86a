"""The control plane: one method per call of `wire/messages.proto`. Trusts nothing that arrives."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import grpc

from private_keras.errors import InputError, PlanError, PrivateKerasError
from private_keras.plan.limits import MAX_JSON_BYTES
from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.collect import Collector
from private_keras.server.execute import Program
from private_keras.server.jobs import Job, Jobs
from private_keras.server.lanes import Lanes
from private_keras.server.log import Log
from private_keras.server.material import Receiver
from private_keras.server.metrics import Metrics
from private_keras.server.oversight import Judge, Oversight
from private_keras.server.plans import Plans
from private_keras.server.policy import Policy
from private_keras.server.run import Outcome, Runner, replies, result_bytes
from private_keras.server.saving import Saving
from private_keras.server.sizes import stored_bytes
from private_keras.server.stock import Stock
from private_keras.server.store import Kept, Store
from private_keras.server.wire import messages_pb2 as wire


class Service:
    """Answers clients.

    Args:
        about: what `Hello` replies, apart from the identity.
        health: what `Health` replies.
        require: raises for an identity and a call that none of its roles allows.
    """

    def __init__(
        self,
        about: wire.HelloReply,
        store: Store,
        stock: Stock,
        jobs: Jobs,
        collector: Collector,
        runner: Runner,
        saving: Saving,
        oversight: Oversight,
        kernel: Kernel,
        log: Log,
        metrics: Metrics,
        health: Callable[[], wire.HealthReply],
        lanes: Lanes,
        require: Callable[[str, str], None],
    ):
        self._about = about
        self._store = store
        self._stock = stock
        self._jobs = jobs
        self._collector = collector
        self._runner = runner
        self._saving = saving
        self._oversight = oversight
        self._kernel = kernel
        self._log = log
        self._metrics = metrics
        self._health = health
        self._lanes = lanes
        self._require = require
        self._plans = Plans(about.protocol)

    # --- calls --------------------------------------------------------------------------------------------------------
    def hello(self, request: wire.HelloRequest, identity: str, context: grpc.ServicerContext) -> wire.HelloReply:
        """Who and what this server is."""
        reply = wire.HelloReply()
        reply.CopyFrom(self._about)
        reply.identity = identity
        return reply

    def health(self, request: wire.HealthRequest, identity: str, context: grpc.ServicerContext) -> wire.HealthReply:
        """How much there is to do."""
        return self._health()

    def probe(self, request: wire.ProbeRequest, identity: str, context: grpc.ServicerContext) -> wire.ProbeReply:
        """Something to measure a connection by."""
        if request.reply > limits.CHUNK_BYTES:
            raise InputError(f"expected at most {limits.CHUNK_BYTES} bytes back. Received: {request.reply}")
        seconds = 0.0
        if request.peer:
            seconds = self._lanes.round_trip(request.peer, time.monotonic() + limits.DIAL_SECONDS)
        return wire.ProbeReply(data=bytes(request.reply), seconds=seconds)

    def upload(
        self, requests: Iterator[wire.UploadRequest], identity: str, context: grpc.ServicerContext
    ) -> wire.UploadReply:
        """Stores one tensor's material for its owner."""
        first = _first(requests)
        nbytes = stored_bytes(first.elements)
        with self._store.room(nbytes, identity) as room:
            receiver = Receiver(self._about.party, first.elements, "upload")
            receiver.feed(first.data)
            for request in requests:
                receiver.feed(request.data)
            self._store.put(identity, [Kept(first.handle, receiver.finish(self._kernel), nbytes)], room)
        return wire.UploadReply()

    def delete(self, request: wire.DeleteRequest, identity: str, context: grpc.ServicerContext) -> wire.DeleteReply:
        """Forgets shares of the caller; stock: items that are named, or were made for these shares; and what jobs with
        such ids have left for others.
        """
        handles = list(request.handles)
        deleted = self._store.delete(handles, identity) + self._stock.delete(handles, identity)
        return wire.DeleteReply(deleted=deleted + self._oversight.withdraw(handles, identity))

    def prepare(
        self, requests: Iterator[wire.PrepareRequest], identity: str, context: grpc.ServicerContext
    ) -> wire.PrepareReply:
        """Takes a plan."""
        first = _first(requests)
        if not 0 < first.total <= MAX_JSON_BYTES:
            raise PlanError(f"expected a plan of 1 to {MAX_JSON_BYTES} bytes. Received: {first.total}")
        with self._store.room(first.total, identity):
            digest = self._plans.prepare(_whole(first, requests), identity)
        self._log.write("info", "plan prepared", digest=digest[:16], client=identity)
        return wire.PrepareReply(digest=digest)

    def run(
        self, requests: Iterator[wire.RunRequest], identity: str, context: grpc.ServicerContext
    ) -> Iterator[wire.RunReply]:
        """Runs a job and streams this server's contributions to whoever runs it."""
        return self._run(_first(requests), requests, identity, context)

    def runshort(self, request: wire.RunRequest, identity: str, context: grpc.ServicerContext) -> wire.RunReply:
        """Runs a job whose request and result are one message each."""
        prepared = self._plans.get(request.digest)
        nbytes = result_bytes(prepared.program)
        if nbytes > limits.CHUNK_BYTES:
            raise InputError(
                f"expected a result of at most {limits.CHUNK_BYTES} bytes, for one message. Received: {nbytes}"
            )
        # Progress is told by messages without contributions; the last one has everything.
        running = self._run(request, iter(()), identity, context)
        for reply in running:
            if reply.HasField("done") and not context.is_active():
                running.close()  # nobody is there for the result; gRPC does the same to a stream
        return reply

    def _run(
        self, first: wire.RunRequest, requests: Iterator[wire.RunRequest], identity: str, context: grpc.ServicerContext
    ) -> Iterator[wire.RunReply]:
        if not 0 < first.seconds <= limits.MAX_SECONDS:
            raise InputError(f"expected a deadline of up to {limits.MAX_SECONDS:g} s. Received: {first.seconds}")
        with self._jobs.begin(first.job, identity, time.monotonic() + first.seconds) as job:
            context.add_callback(job.cancel)  # the call ends early when the client cancels it or is gone
            outcome, program = yield from self._outcome(job, first, requests)
            self._count(outcome, "ahead" if first.ahead else "run")
            self._log.write(
                "info", "job done", job=first.job.hex()[:8], digest=first.digest[:16], client=identity,
                rounds=outcome.rounds, sent=sum(outcome.sent), seconds=round(outcome.seconds, 4), ahead=first.ahead,
            )  # fmt: skip
            try:
                yield from replies(program, outcome)
            except BaseException:  # the client is gone, or does not want the result: it will not use what it keeps
                self._store.delete(outcome.kept, identity)
                self._stock.delete(outcome.kept, identity)
                # Nor was it told that others have theirs; what cannot go now grows old.
                with suppress(PrivateKerasError):
                    self._oversight.withdraw([first.job], identity)
                raise

    def _outcome(
        self, job: Job, first: wire.RunRequest, rest: Iterator[wire.RunRequest]
    ) -> Generator[wire.RunReply, None, tuple[Outcome, Program]]:
        """The job itself; yields its progress. Its inline material is gone when this returns."""
        try:
            if first.ahead and first.item:
                raise InputError("expected a job that makes stock or one that uses it. Received: both at once")
            if first.ahead:
                self._stock.check_free(job.owner)
            with ExitStack() as held:
                item = held.enter_context(self._stock.taken(first.item, job.owner))
                prepared = self._plans.get(first.digest)
                plan = prepared.program.plan
                judge = held.enter_context(self._oversight.ordered(job.id, job.owner, plan, first))
                given = held.enter_context(self._collector.collect(job, prepared, first, rest, judge, item))
                run = self._runner.make if first.ahead else self._runner.run
                steps = run(job, prepared.program, given)
                while True:
                    try:
                        yield wire.RunReply(steps=next(steps))
                    except StopIteration as end:
                        return self._released(judge, end.value), prepared.program
        except BaseException:
            self._runner.abandon(job)
            raise

    def _count(self, outcome: Outcome, kind: str) -> None:
        self._metrics.add("jobs_total", kind=kind)
        self._metrics.add("job_seconds_total", outcome.seconds)
        self._metrics.add("rounds_total", outcome.rounds)
        self._metrics.add("lane_bytes_total", sum(outcome.sent), direction="sent")
        self._metrics.add("lane_bytes_total", outcome.received, direction="received")

    def _released(self, judge: Judge, outcome: Outcome) -> Outcome:
        """What of an outcome is for the caller, after all else has gone where it belongs."""
        try:
            judge.end(outcome.contributions)
        except BaseException:
            self._store.delete(outcome.kept, judge.order.caller)
            raise
        own = {item.name for item in judge.order.plan.outputs if judge.for_caller(item.receivers)}
        return replace(outcome, contributions={n: words for n, words in outcome.contributions.items() if n in own})

    def cancel(self, request: wire.CancelRequest, identity: str, context: grpc.ServicerContext) -> wire.CancelReply:
        """Ends a job of the caller."""
        return wire.CancelReply(found=self._jobs.cancel(request.job, identity))

    def save(
        self, requests: Iterator[wire.SaveRequest], identity: str, context: grpc.ServicerContext
    ) -> wire.SaveReply:
        """Writes shares to disk."""
        first = _first(requests)
        if Policy.from_json(first.policy).use:  # that others may use them is an owner's to allow
            self._require(identity, "SetPolicy")
        return self._saving.save(first, requests, identity)

    def put(self, requests: Iterator[wire.PutRequest], identity: str, context: grpc.ServicerContext) -> wire.PutReply:
        """Writes shares to disk as they come."""
        return self._saving.put(_first(requests), requests, identity)

    def commit(self, request: wire.CommitRequest, identity: str, context: grpc.ServicerContext) -> wire.CommitReply:
        """Makes shares that were written loadable."""
        reply = self._saving.commit(request, identity)
        self._log.write("info", "shares saved", name=request.snapshot.name, client=identity)
        return reply

    def saved(
        self, request: wire.SavedRequest, identity: str, context: grpc.ServicerContext
    ) -> Iterator[wire.SavedReply]:
        """What the caller has saved."""
        return self._saving.saved(request, identity)

    def load(
        self, request: wire.LoadRequest, identity: str, context: grpc.ServicerContext
    ) -> Iterator[wire.LoadReply]:
        """Puts saved shares into the store."""
        self._log.write("info", "shares wanted", name=ascii(request.snapshot.name)[:100], client=identity)
        return self._saving.load(request, identity)

    def forget(self, request: wire.ForgetRequest, identity: str, context: grpc.ServicerContext) -> wire.ForgetReply:
        """Removes saved shares."""
        return self._saving.forget(request, identity)

    def setpolicy(
        self, request: wire.SetPolicyRequest, identity: str, context: grpc.ServicerContext
    ) -> wire.SetPolicyReply:
        """Changes who may do what with named shares of the caller."""
        return self._oversight.set_policy(request, identity)

    def plantext(
        self, request: wire.PlanTextRequest, identity: str, context: grpc.ServicerContext
    ) -> Iterator[wire.PlanTextReply]:
        """A plan that is prepared here, for those whose shares it is to use."""
        text = self._plans.get(request.digest.removeprefix("sha256:")).program.plan.to_json().encode()
        for start in range(0, len(text), limits.CHUNK_BYTES):
            yield wire.PlanTextReply(data=text[start : start + limits.CHUNK_BYTES])

    def deliveries(
        self, request: wire.DeliveriesRequest, identity: str, context: grpc.ServicerContext
    ) -> Iterator[wire.DeliveriesReply]:
        """What others' jobs have opened to the caller."""
        return self._oversight.deliveries(identity)

    def receive(
        self, request: wire.ReceiveRequest, identity: str, context: grpc.ServicerContext
    ) -> Iterator[wire.ReceiveReply]:
        """Contributions to one of these."""
        return self._oversight.receive(request, identity)

    def audit(
        self, request: wire.AuditRequest, identity: str, context: grpc.ServicerContext
    ) -> Iterator[wire.AuditReply]:
        """The audit log, as the caller may read it."""
        return self._oversight.read_audit(request, identity)


def _first(requests: Iterator[Any]) -> Any:
    first = next(requests, None)
    if first is None:
        raise InputError("the call ended before its first message")
    return first


def _whole(first: wire.PrepareRequest, rest: Iterator[wire.PrepareRequest]) -> bytes:
    """A plan's text from its pieces."""
    text = bytearray(first.data)
    for request in rest:
        text += request.data
        if len(text) > first.total:
            break
    if len(text) != first.total:
        raise PlanError(
            f"expected a plan of {first.total} bytes. Received: {'more' if len(text) > first.total else len(text)}"
        )
    return bytes(text)
