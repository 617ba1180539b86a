"""The forecast itself: a plan's steps on a clock for the evaluators and one for the helper, which runs ahead."""

from private_keras.forecast.machine import Machine, Work, work_of
from private_keras.forecast.network import Network, network_of
from private_keras.forecast.table import Forecast, LayerCost
from private_keras.plan.plan import Plan
from private_keras.protocols.protocol import Cost
from private_keras.server.execute.account import account

_WORD = 8
_OPENING = "opening of the outputs"


class _Clock:
    """Seconds since the start of a job, as steps are taken one after the other.

    The evaluators wait for each other in every round and for what the helper deals; the helper waits for nobody. Where
    all servers share a machine, nothing is over before its cores could have done all the work.
    """

    def __init__(self, machine: Machine, network: Network):
        self._machine = machine
        self._network = network
        self._evaluating = self._helping = self._dealt = machine.start
        self._busy = 0.0
        self._told = 0.0

    def step(self, work: Work, cost: Cost) -> float:
        """Takes a step; seconds by which the end of the job moved."""
        machine, network = self._machine, self._network
        own, helping = machine.seconds(work), machine.helping(work)
        exchanged = max((n for pair, n in cost.sent if pair in ((0, 1), (1, 0))), default=0)
        self._helping += helping
        if cost.ahead:
            self._dealt = max(self._dealt, self._helping) + network.sending(cost.ahead)
            self._evaluating = max(self._evaluating, self._dealt + network.rtt / 2)
        self._evaluating += own + cost.rounds * (network.rtt / 2 + machine.opening) + network.sending(exchanged)
        self._busy += 2 * (own + cost.rounds * machine.opening / 2) + helping
        return self._advance()

    def open(self, nbytes: int) -> float:
        """The outputs go to the client, and the servers agree on the end."""
        self._evaluating += self._network.sending(nbytes) + self._network.rtt / 2
        return self._advance()

    def _advance(self) -> float:
        shared = self._machine.start + self._busy / self._network.cores if self._network.cores else 0.0
        end = max(self._evaluating, shared)
        moved, self._told = end - self._told, end
        return moved


def forecast(
    plan: Plan, network: str | Network = "local", machine: Machine | None = None, protocol: str = "trio"
) -> Forecast:
    """Cost of running a plan once, its weights being on the servers already.

    Rounds and bytes are what the protocol declares, step by step. Seconds are those from shares in place to shares of
    the result on their way, with the helper running ahead: how well they are met, docs/performance.md tells.

    Args:
        plan: what would run.
        network: "local", "lan", "wan" or a `Network`.
        machine: how fast a server is; without it, the machine of docs/performance.md.
        protocol: as in `cluster.json`.

    Raises:
        InputError: an unknown network.
    """
    network = network_of(network)
    clock = _Clock(machine or Machine(), network)
    layers: dict[str, LayerCost] = {}
    for step, cost in zip(plan.steps, account(plan, protocol), strict=True):
        seconds = clock.step(work_of(plan, step, cost), cost)
        name = step.layer or "-"
        row = layers.get(name, LayerCost(name, 0, 0, 0, 0.0))
        layers[name] = LayerCost(
            name, row.rounds + cost.rounds, row.bytes + cost.bytes, row.ahead + cost.ahead, row.seconds + seconds
        )
    opened = 2 * _WORD * sum(plan.types[item.value].size for item in plan.outputs if item.receivers)
    opening = LayerCost(_OPENING, 1, opened, 0, clock.open(opened // 2))
    return Forecast(plan.name, network, (*layers.values(), opening))
