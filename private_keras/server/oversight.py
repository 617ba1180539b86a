"""What owners and receivers rely on: jobs are judged, uses counted, results kept for whom they are, all of it logged.

`Consent` says whether a job may run; this is when it is asked, and what becomes of the answer.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from private_keras.errors import HandleNotFound, InputError, SecurityError
from private_keras.plan.plan import Plan
from private_keras.server import limits
from private_keras.server.asked import Asked, Granted
from private_keras.server.audit import Audit, sign_head
from private_keras.server.catalogue import Catalogue, Delivery, Output
from private_keras.server.chain import START
from private_keras.server.config import ClusterConfig
from private_keras.server.consent import Consent, Refused
from private_keras.server.identity import LOCAL
from private_keras.server.outbox import Outbox
from private_keras.server.plans import CLIENT
from private_keras.server.policy import Policy
from private_keras.server.roles import RECEIVER
from private_keras.server.schedule import Schedule
from private_keras.server.sizes import WORD
from private_keras.server.storage import check_name
from private_keras.server.store import Room, Store
from private_keras.server.terms import Source, Terms
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.credentials import Pem

ENTRIES = 4096


@dataclass(frozen=True)
class Ordered:
    """One job as it was ordered, and what it may do.

    Attributes:
        receivers: others than the caller, and the numbers of the outputs that each gets.
        servers: how many take part.
        granted: set when its inputs are known.
        room: for what waits for receivers.
    """

    id: bytes
    caller: str
    plan: Plan
    delivery: str
    receivers: dict[str, list[int]]
    servers: int
    ahead: bool
    room: Room = field(repr=False)
    granted: Granted | None = None

    @property
    def logged(self) -> bool:
        """Whether the job concerns somebody beside its caller."""
        return bool(self.receivers or self.granted is not None and self.granted.asked.others)


class Oversight:
    """Thread safe.

    Args:
        server: this server's name.
        config: who may use the cluster, and receive results.
        pem: the server's certificate and key as they are now; None on Unix sockets.
    """

    def __init__(
        self, server: str, catalogue: Catalogue, store: Store, outbox: Outbox, config: ClusterConfig,
        pem: Callable[[], Pem] | None,
    ):  # fmt: skip
        self._server = server
        self._catalogue = catalogue
        self._store = store
        self._receivers = _receivers(config)
        self._pem = pem
        self._consent = Consent(catalogue.names.policy, config.clients)
        self._outbox = outbox
        self.audit = Audit(catalogue, server, self._sign)

    def may_load(self, source: Source, caller: str) -> bool:
        """Whether somebody may have handles of named shares."""
        return self._consent.may_load(source, caller)

    # --- jobs ---------------------------------------------------------------------------------------------------------
    @contextmanager
    def ordered(self, job: bytes, caller: str, plan: Plan, first: wire.RunRequest) -> Iterator["Judge"]:
        """A job from its order to its end; takes room for what it will leave for others.

        Raises:
            InputError: results for others without a name, or no results for others and a name.
            SecurityError: receivers that the cluster does not know.
        """
        receivers: dict[str, list[int]] = {}
        for index, item in enumerate(plan.outputs):
            for receiver in item.receivers:
                if receiver not in (CLIENT, caller):
                    receivers.setdefault(receiver, []).append(index)
        strangers = sorted(name for name in receivers if self._receivers is not None and name not in self._receivers)
        if strangers:
            raise SecurityError(
                f"plan {plan.name!r} opens results to {', '.join(strangers)}, but the cluster's description has no "
                f"receiver of that name; name one that it has, or {CLIENT!r} for who runs the plan, {caller}"
            )
        if bool(receivers and not first.ahead) != bool(first.delivery):
            raise InputError(
                f"plan {plan.name!r} opens results to {', '.join(sorted(receivers)) or 'nobody but the caller'}: "
                f"expected {'no' if first.delivery else 'a'} name for the delivery. Received: {first.delivery!r:.100}"
            )
        sizes = [plan.types[plan.outputs[index].value].size for indices in receivers.values() for index in indices]
        nbytes = 0 if first.ahead else WORD.itemsize * sum(sizes)
        if first.delivery:
            check_name(first.delivery)
            self._outbox.check_free(job, caller, sorted(receivers), nbytes)
        with self._store.room(nbytes, caller) as room:
            servers = 2 if first.item else 3
            yield Judge(self, Ordered(job, caller, plan, first.delivery, receivers, servers, first.ahead, room))

    def _check(self, order: Ordered, terms: Mapping[str, Terms], rows: frozenset[str], steps: int) -> Ordered:
        return replace(order, granted=self._consent.check(Asked(order.caller, order.plan, terms, rows, steps)))

    def _begin(self, order: Ordered, schedule: Schedule) -> None:
        granted = order.granted
        self._consent.check_rows(granted, schedule.rows)
        if order.ahead:
            return  # nothing is opened; the job that uses what is made is judged again, and counts
        if not order.logged:
            return
        with self._catalogue.transaction():  # all uses are counted or none, and no use without an entry
            for source in granted.used:
                self._catalogue.names.count_use(source)
            self._log("run", order, steps=schedule.steps, servers=order.servers)

    def _end(self, order: Ordered, contributions: Mapping[str, np.ndarray | None]) -> None:
        if order.ahead:
            return
        granted = self._consent.check(order.granted.asked)  # as policies are now
        order = replace(order, granted=granted)
        deliveries = [self._delivery(order, receiver, contributions) for receiver in order.receivers]
        if deliveries:
            # No result waits that is not in the log, and the other way round.
            self._outbox.put(deliveries, order.room, lambda: self._log("opened", order))
        elif order.logged:
            self._log("opened", order)

    @staticmethod
    def _delivery(
        order: Ordered, receiver: str, contributions: Mapping[str, np.ndarray | None]
    ) -> tuple[Delivery, list[np.ndarray]]:
        outputs, parts = [], []
        for index in order.receivers[receiver]:
            item = order.plan.outputs[index]
            kind, words = order.plan.types[item.value], contributions.get(item.name)
            present = words is not None and bool(words.any())
            outputs.append(Output(item.name, kind.shape, kind.fraction, present))
            if present:
                parts.append(np.ascontiguousarray(words, np.uint64).reshape(-1))
        return Delivery(
            order.id, order.caller, receiver, order.delivery, order.plan.digest, order.servers, tuple(outputs),
            time.time(),
        ), parts  # fmt: skip

    def _log(self, event: str, order: Ordered, **facts: int) -> None:
        plan, granted = order.plan, order.granted
        sources = granted.asked.others
        receivers = order.receivers
        # What is of owners comes first: who writes the plan could hide it behind openings of its own.
        opened = sorted(
            (item for item in plan.outputs if item.receivers), key=lambda item: not granted.opened.get(item.name)
        )  # fmt: skip
        openings = [
            {
                "output": item.name,
                "shape": list(plan.types[item.value].shape),
                "to": [order.caller if receiver == CLIENT else receiver for receiver in item.receivers],
                "shows": {str(s): level.name.lower() for s, level in sorted(granted.opened.get(item.name, {}).items())},
            }
            for item in opened[:limits.AUDIT_OUTPUTS]
        ]
        if len(opened) > len(openings):
            facts["unlisted"] = len(opened) - len(openings)
        self.audit.write(
            event, [order.caller, *receivers, *(source.owner for source in sources)], caller=order.caller,
            job=order.id.hex(), plan=plan.name, kind=plan.kind, digest=plan.digest, sources=[str(s) for s in sources],
            uses=[str(s) for s in granted.used], openings=openings, kept=len(granted.kept),
            **({"delivery": order.delivery} if order.delivery else {}), **facts,
        )  # fmt: skip

    def refused(self, caller: str, call: str, error: SecurityError) -> None:
        """Logs a refusal, for the caller and for the owner whose policy it was."""
        owners = [error.source.owner] if isinstance(error, Refused) else []
        self.audit.refused(caller, owners, call, str(error))

    def withdraw(self, jobs: Sequence[bytes], caller: str) -> int:
        """Removes what a caller's jobs have left for others."""
        return self._outbox.withdraw(jobs, caller)

    # --- calls --------------------------------------------------------------------------------------------------------
    def set_policy(self, request: wire.SetPolicyRequest, caller: str) -> wire.SetPolicyReply:
        """Puts a policy on a name of the caller."""
        policy = Policy.from_json(request.policy)
        if not self._catalogue.names.set_policy(caller, check_name(request.name), policy):
            raise HandleNotFound(f"no shares are saved as {request.name!r} on this server, or by another identity")
        self.audit.write("policy", [caller], caller=caller, name=request.name, policy=policy.to_json())
        return wire.SetPolicyReply()

    def deliveries(self, caller: str) -> Iterator[wire.DeliveriesReply]:
        """What waits for the caller."""
        reply = wire.DeliveriesReply()
        for found in self._outbox.listed(caller):
            entries = [wire.Entry(label=o.name, shape=o.shape, fraction=o.fraction) for o in found.outputs]
            reply.deliveries.add(
                sender=found.sender, name=found.name, id=found.id, entries=entries, created=found.created,
                digest=found.digest, servers=found.servers,
            )  # fmt: skip
            if len(reply.deliveries) >= ENTRIES or reply.ByteSize() > limits.CHUNK_BYTES:
                yield reply
                reply = wire.DeliveriesReply()
        yield reply

    def receive(self, request: wire.ReceiveRequest, caller: str) -> Iterator[wire.ReceiveReply]:
        """This server's contributions to a result for the caller; or forgets it, when the caller has it."""
        if request.forget:
            self._outbox.forget(request.id, caller, lambda found: self._log_delivery("received", found))
            yield wire.ReceiveReply()
            return
        found = self._outbox.get(request.id, caller)
        self._log_delivery("sent", found)
        for index, data in self._outbox.read(found):
            yield wire.ReceiveReply(contributions=[wire.Contribution(output=index, data=data)])
        yield wire.ReceiveReply()

    def _log_delivery(self, event: str, found: Delivery) -> None:
        self.audit.write(
            event, [found.sender, found.receiver], caller=found.receiver, sender=found.sender, delivery=found.name,
            job=found.id.hex(), digest=found.digest,
        )  # fmt: skip

    def _sign(self, count: int, chain: bytes) -> tuple[bytes, bytes]:
        """The server's signature on a head of its log, and its certificate; empty without one."""
        if self._pem is None:
            return b"", b""
        pem = self._pem()
        return sign_head(pem.key, self._server, count, chain), pem.certificate

    def read_audit(self, request: wire.AuditRequest, caller: str) -> Iterator[wire.AuditReply]:
        """The log as the caller may read it, then its closed parts; at its end how long it is, signed where the server
        has a certificate.
        """
        reply, count, chain = wire.AuditReply(), request.start, START
        closed = self.audit.segments(request.start)
        for row in self.audit.entries(request.start, caller):
            reply.entries.add(number=row.number, text=row.text, content=row.content, chain=row.chain)
            count, chain = row.number + 1, row.chain
            if len(reply.entries) >= ENTRIES or reply.ByteSize() > limits.CHUNK_BYTES:
                yield reply
                reply = wire.AuditReply()
        for part in closed:
            if part.count > count:  # its entries are not here
                count, chain = part.count, part.chain
            head = wire.Head(
                count=part.count, chain=part.chain, signature=part.signature, certificate=part.certificate,
                durable=True, seconds=part.closed,
            )  # fmt: skip
            reply.segments.add(first=part.first, before=part.before, head=head)
            if reply.ByteSize() > limits.CHUNK_BYTES:
                yield reply
                reply = wire.AuditReply()
        head = wire.Head(count=count, chain=chain, durable=self.audit.durable, seconds=time.time())
        if count > request.start:
            head.signature, head.certificate = self._sign(count, chain)
        reply.head.CopyFrom(head)
        yield reply


def _receivers(config: ClusterConfig) -> frozenset[str] | None:
    """Who can fetch results; None: everybody with a certificate."""
    if config.local:
        return frozenset({LOCAL})
    if config.clients is None:
        return None
    return frozenset(name for name in config.clients if RECEIVER in config.roles_of(name))


class Judge:
    """One job's way through `Oversight`: `inputs`, `begin`, `end`, each once and in this order.

    Attributes:
        order: the job.
    """

    def __init__(self, oversight: Oversight, order: Ordered):
        self._oversight = oversight
        self.order = order

    def inputs(self, terms: Mapping[str, Terms], rows: frozenset[str], steps: int) -> Mapping[str, Terms]:
        """Judges the job by what its inputs come from, before anything of it is computed.

        Returns:
            Terms of what it keeps, by output name.

        Raises:
            SecurityError: which source, what its policy allows, what was asked.
        """
        self.order = self._oversight._check(self.order, terms, rows, steps)
        return self.order.granted.kept

    def begin(self, schedule: Schedule) -> None:
        """Counts uses and logs the job, on disk when this returns; raises `SecurityError` when there are none left."""
        self._oversight._begin(self.order, schedule)

    def end(self, contributions: Mapping[str, np.ndarray | None]) -> None:
        """Judges the job once more, and keeps for receivers what is for them.

        Args:
            contributions: by output name; what is for the caller is the service's to send.
        """
        self._oversight._end(self.order, contributions)

    def for_caller(self, receivers: Sequence[str]) -> bool:
        """Whether an output with these receivers is for who runs the job."""
        return CLIENT in receivers or self.order.caller in receivers
