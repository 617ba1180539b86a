"""All workloads, and what is asked of them."""

import json
from pathlib import Path

from benchmarks.suite import large, logistic, primitives, small
from benchmarks.suite.work import Workload

WORKLOADS: list[Workload] = [*primitives.WORKLOADS, *small.WORKLOADS, *logistic.WORKLOADS, *large.WORKLOADS]
TARGETS_FILE = Path(__file__).with_name("targets.json")


def chosen(only: str) -> list[Workload]:
    """Workloads whose names begin with one of the names, separated by commas; all for "".

    Raises:
        SystemExit: a name that none begins with.
    """
    starts = [part.strip() for part in only.split(",") if part.strip()]
    for start in starts:
        if not any(workload.name.startswith(start) for workload in WORKLOADS):
            raise SystemExit(f"no workload begins with {start!r}; there are {', '.join(w.name for w in WORKLOADS)}")
    return [w for w in WORKLOADS if not starts or any(w.name.startswith(start) for start in starts)]


def targets() -> dict[str, dict]:
    """By workload: `target` seconds, best peer's seconds and error, and where each comes from."""
    return json.loads(TARGETS_FILE.read_text())["workloads"]
