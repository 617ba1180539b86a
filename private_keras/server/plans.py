"""Plans that clients have sent: validated once, made ready to run, kept by digest."""

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from private_keras.plan.plan import Plan
from private_keras.server import limits
from private_keras.server.execute import Program
from private_keras.server.execute.account import Room, room
from private_keras.server.jobs import PlanNotPrepared

# In a plan, the name of whoever runs it.
CLIENT = "client"


@dataclass(frozen=True)
class Prepared:
    """A plan that can run.

    Attributes:
        room: what a run of it needs.
    """

    program: Program
    room: Room

    @property
    def working_bytes(self) -> int:
        """What steps need beside their inputs and results, at most: what they send and receive, once as it travels and
        once as it is made or taken apart.
        """
        return 2 * self.room.moved


class Plans:
    """Thread safe; the plans used last are kept, of whoever has fewer than others: who sends one plan after the other
    drives out its own.

    Args:
        protocol: name of the protocol that plans run on.
    """

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._programs: OrderedDict[str, Prepared] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._senders: dict[str, set[str]] = {}

    def prepare(self, text: bytes, identity: str) -> str:
        """Validates a plan and keeps it for who sends it; returns its digest. Raises `PlanError`."""
        # A plan's digest is that of its canonical text: a text with a known digest is a plan that was validated before.
        known = hashlib.sha256(text).hexdigest()
        # One after the other: parsing takes many times the memory of the text.
        with self._reading:
            with self._lock:
                if known in self._programs:
                    self._programs.move_to_end(known)
                    self._senders[known].add(identity)
                    return known
            plan = Plan.from_json(text)
            program = Program(plan)
            needed = room(program, self._protocol)
        with self._lock:
            self._programs[plan.digest] = Prepared(program, needed)
            self._sizes[plan.digest] = len(text)
            self._senders.setdefault(plan.digest, set()).add(identity)
            self._programs.move_to_end(plan.digest)
            while len(self._programs) > limits.MAX_PLANS:
                self._forget_one(dict.fromkeys(self._programs, 1))
            while len(self._programs) > 1 and sum(self._sizes.values()) > limits.PLANS_BYTES:
                self._forget_one(self._sizes)
        return plan.digest

    def _forget_one(self, weights: Mapping[str, int]) -> None:
        """Takes away from who has the most the plan whose last use is longest ago, but for the one that came last; it
        is forgotten when nobody else has sent it.
        """
        held: Counter[str] = Counter()
        for digest, senders in self._senders.items():
            held.update(dict.fromkeys(senders, weights[digest]))
        *before, _ = self._programs
        digest = max(before, key=lambda digest: max(held[identity] for identity in self._senders[digest]))
        identity = max(self._senders[digest], key=lambda identity: held[identity])
        self._senders[digest].discard(identity)
        if not self._senders[digest]:
            del self._programs[digest], self._sizes[digest], self._senders[digest]

    def get(self, digest: str) -> Prepared:
        """The plan with this digest.

        Raises:
            PlanNotPrepared: unknown, or forgotten.
        """
        with self._lock:
            prepared = self._programs.get(digest)
            if prepared is None:
                raise PlanNotPrepared(f"no plan with digest {digest[:16]!r} is prepared on this server; send it first")
            self._programs.move_to_end(digest)
        return prepared
