"""The same plan and the same fixed-point arithmetic in this process, without servers and without secrecy."""

import secrets
import time

import numpy as np

from private_keras.cluster.cluster import ACTIVE, RUN_SECONDS, Cluster, decoded, encoded
from private_keras.cluster.handle import Handle, Stats, Traffic
from private_keras.errors import ClusterError, DeadlineExceeded, HandleNotFound, InputError
from private_keras.plan.plan import Plan
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring import default_kernel, fixedpoint
from private_keras.server import limits
from private_keras.server.execute import Program


class SimulatedCluster(Cluster):
    """For accuracy studies: what a model gives on shares, without what that costs. Keeps nothing secret."""

    protocol = "simulate"

    def __init__(self) -> None:
        self.stats = Stats()
        self._kernel = default_kernel()
        self._incarnation = secrets.token_hex(8)
        self._stored: dict[bytes, np.ndarray] = {}
        self._programs: dict[str, Program] = {}
        self._closed = False

    @property
    def incarnation(self) -> str:
        if self._closed:
            raise ClusterError("this cluster is closed; call pk.connect() for a new one")
        return self._incarnation

    def share(self, values: np.ndarray, fraction: int, name: str) -> Handle:
        incarnation = self.incarnation
        elements = fixedpoint.encode(values, fraction, name)
        if not elements.size:
            raise InputError(f"{name}: expected at least one element. Received: shape {elements.shape}")
        handle = Handle(name, elements.shape, fraction, incarnation, secrets.token_bytes(16))
        self._stored[handle.id] = elements
        return handle

    def delete(self, handle: Handle) -> None:
        self._stored.pop(handle.id, None)

    def run(
        self, plan: Plan, inputs: dict[str, Handle | np.ndarray], deadline: float = RUN_SECONDS
    ) -> dict[str, np.ndarray]:
        if not deadline > 0:
            raise InputError(f"expected a deadline in seconds. Received: {deadline}")
        self.incarnation  # noqa: B018  raises when closed
        began = time.monotonic()
        shares = {}
        for name, given in encoded(plan, inputs).items():
            if isinstance(given, Handle):
                if given.id not in self._stored:
                    raise HandleNotFound(f"the shares of {given.name!r} are not on this cluster; share them again")
                given = self._stored[given.id]
            shares[name] = SimulatedShare(given)

        def on_step(index: int, step: object) -> None:
            if time.monotonic() - began > deadline:
                raise DeadlineExceeded(
                    "the job took longer than its deadline; give a longer one or use smaller batches"
                )

        program = self._programs.get(plan.digest)
        if program is None:
            if len(self._programs) >= limits.MAX_PLANS:
                self._programs.clear()
            program = self._programs[plan.digest] = Program(plan)
        opened = program.run(Simulate(self._kernel), shares, on_step)
        seconds = time.monotonic() - began
        self.stats.add(Traffic(runs=1, seconds=seconds, computing=seconds))
        return decoded(plan, opened)

    def close(self) -> None:
        self._closed = True
        ACTIVE.remove(self)
        self._stored.clear()
