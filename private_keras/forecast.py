"""What a plan will cost on a network, before it runs: rounds and bytes exactly, seconds as a forecast."""
import html
import math
from dataclasses import dataclass

from private_keras.errors import InputError
from private_keras.plan.plan import Plan, Step
from private_keras.server.execute.account import account

# What one server does per second: products of ring elements in matmul and conv, and bytes masked and moved elsewhere.
_PRODUCTS = 15e9
_BYTES = 1e9
_WORD = 8


@dataclass(frozen=True)
class Network:
    """Links between servers.

    Args:
        rtt: seconds for a message and its answer.
        bandwidth: bits per second, each direction of each link.
    """

    rtt: float
    bandwidth: float

    def __post_init__(self):
        if not (math.isfinite(self.rtt) and self.rtt >= 0 and self.bandwidth > 0):
            raise InputError(f"Network: expected rtt >= 0 seconds and bandwidth > 0 bits per second. Received: {self}")


# Unix sockets of one machine; a data centre; two sites of one continent.
NETWORKS = {"local": Network(60e-6, 40e9), "lan": Network(300e-6, 10e9), "wan": Network(40e-3, 100e6)}


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer: rounds, payload bytes of all servers together, the part that can be sent ahead, seconds."""

    layer: str
    rounds: int
    bytes: int
    ahead: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """Cost of a plan, layer by layer; prints as a table.

    Attributes:
        name: of the plan.
        network: the links that seconds are for.
        layers: in the order of execution; the last row is the opening of the outputs.
    """

    name: str
    network: Network
    layers: tuple[LayerCost, ...]

    @property
    def rounds(self) -> int:
        return sum(row.rounds for row in self.layers)

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.layers)

    @property
    def ahead(self) -> int:
        return sum(row.ahead for row in self.layers)

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.layers)

    def _rows(self) -> list[tuple[str, ...]]:
        total = LayerCost("total", self.rounds, self.bytes, self.ahead, self.seconds)
        return [
            (row.layer, f"{row.rounds}", f"{row.bytes:,}", f"{row.ahead:,}", f"{row.seconds:.2g}")
            for row in (*self.layers, total)
        ]

    def __str__(self) -> str:
        link = f"round trip {self.network.rtt * 1e3:g} ms, {self.network.bandwidth / 1e6:g} Mbit/s"
        lines = [f"Cost of {self.name!r} ({link}); bytes are those of all servers together"]
        rows = [_HEADER, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
        for row in rows:
            numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        return "<table>" + line(_HEADER, "th") + "".join(line(row, "td") for row in self._rows()) + "</table>"


_HEADER = ("layer", "rounds", "bytes", "of them ahead", "seconds")


def forecast(plan: Plan, network: str | Network = "local", protocol: str = "trio") -> Forecast:
    """Cost of running a plan once, its weights being on the servers already.

    Rounds and bytes are what the protocol declares, step by step. Seconds are round trips, the transfer over the
    busiest link, and an estimate of the arithmetic on two cores; that links and processors work at once is ignored.

    Args:
        plan: what would run.
        network: "local", "lan", "wan" or a `Network`.
        protocol: as in `cluster.json`.

    Raises:
        InputError: an unknown network.
    """
    if isinstance(network, str) and network in NETWORKS:
        network = NETWORKS[network]
    if not isinstance(network, Network):
        raise InputError(f"network: expected one of {sorted(NETWORKS)} or Network(rtt=..., bandwidth=...). Received: "
                         f"{network!r}")
    layers: dict[str, LayerCost] = {}
    for step, cost in zip(plan.steps, account(plan, protocol), strict=True):
        busiest = max((n for _, n in cost.sent), default=0)
        seconds = cost.rounds * network.rtt + 8 * busiest / network.bandwidth + _work(plan, step) + cost.bytes / _BYTES
        name = step.layer or "-"
        row = layers.get(name, LayerCost(name, 0, 0, 0, 0.0))
        layers[name] = LayerCost(
            name, row.rounds + cost.rounds, row.bytes + cost.bytes, row.ahead + cost.ahead, row.seconds + seconds
        )
    opened = 2 * _WORD * sum(plan.types[item.value].size for item in plan.outputs)
    opening = LayerCost("opening of the outputs", 1, opened, 0, network.rtt + 8 * opened / network.bandwidth)
    return Forecast(plan.name, network, (*layers.values(), opening))


def _work(plan: Plan, step: Step) -> float:
    """Seconds of arithmetic: two products per evaluator for matmul and conv, inner sizes read from the types."""
    size = plan.types[step.output].size
    if step.op == "matmul":
        return 2 * size * plan.types[step.inputs[0]].shape[-1] / _PRODUCTS
    if step.op == "conv":
        return 2 * size * math.prod(plan.types[step.inputs[1]].shape[:-1]) / _PRODUCTS
    return _WORD * size / _BYTES
