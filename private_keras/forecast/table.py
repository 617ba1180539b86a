"""A forecast as people read it."""

import html
from dataclasses import dataclass

from private_keras.forecast.network import Network


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
