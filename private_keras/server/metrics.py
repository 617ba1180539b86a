"""What a server counts and measures, as Prometheus' text. Sizes, counts, times and names; never a value.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

import threading
from collections.abc import Callable, Iterable

PREFIX = "private_keras_"
Labels = tuple[tuple[str, str], ...]
Readings = Iterable[tuple[Labels, float]]

# Counters, and what they count.
COUNTERS = {
    "requests_total": "Calls that have ended, by call and result: ok, refused, or failed.",
    "errors_total": "Calls that did not end well, by call and class of error.",
    "jobs_total": "Jobs that came to their end, by kind: run, or ahead.",
    "job_seconds_total": "Seconds that jobs computed, from all servers being there to the end.",
    "rounds_total": "Rounds of jobs.",
    "lane_bytes_total": "Payload bytes of jobs between servers, by direction.",
    "control_bytes_total": "Bytes of messages from and to clients, by direction.",
}


class Metrics:
    """Thread safe.

    Args:
        by_client: whether requests are counted by who makes them.
    """

    def __init__(self, by_client: bool):
        self._by_client = by_client
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, float]] = {name: {} for name in COUNTERS}
        self._gauges: dict[str, tuple[str, Callable[[], Readings]]] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Counts on."""
        key = tuple(labels.items())
        with self._lock:
            counts = self._counts[name]
            counts[key] = counts.get(key, 0) + value

    def request(self, call: str, result: str, client: str) -> None:
        """A call has ended."""
        self.add("requests_total", call=call, result=result, **({"client": client} if self._by_client else {}))

    def gauge(self, name: str, about: str, read: Callable[[], float | Readings]) -> None:
        """Something that is measured when somebody asks: a number, or several by labels."""

        def readings() -> Readings:
            found = read()
            return [((), found)] if isinstance(found, int | float) else found

        self._gauges[name] = about, readings

    def text(self) -> str:
        """All of it."""
        lines: list[str] = []
        with self._lock:
            counted = {name: list(counts.items()) for name, counts in self._counts.items()}
        for name, found in counted.items():
            _write(lines, name, COUNTERS[name], "counter", found)
        for name, (about, read) in self._gauges.items():
            _write(lines, name, about, "gauge", read())
        return "\n".join(lines) + "\n"


def _write(lines: list[str], name: str, about: str, kind: str, readings: Readings) -> None:
    lines += [f"# HELP {PREFIX}{name} {about}", f"# TYPE {PREFIX}{name} {kind}"]
    for labels, value in readings:
        given = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        lines.append(f"{PREFIX}{name}{'{' + given + '}' if given else ''} {value:.17g}")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
