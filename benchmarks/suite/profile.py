"""Where servers spend processor time: py-spy's samples of a server at work, by the innermost function of ours.

The profiler is an optional tool (`pip install py-spy`); what it cannot see, inside a call of the native kernel, counts
for the kernel's method.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import private_keras as pk
from benchmarks.suite.work import Workload

RATE = 500  # samples a second
_OURS = "private_keras/"
ROLES = ("evaluator 0", "evaluator 1", "helper")


def profiled(workload: Workload, seconds: float) -> dict[str, Counter]:
    """Samples by role and place of a workload that runs again and again; a thread that waits is in none of them.

    Raises:
        SystemExit: the profiler is not installed, or may not look at the servers.
    """
    tool = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if tool is None:
        raise SystemExit("the profiler is missing: pip install py-spy")
    with pk.LocalCluster() as cluster, tempfile.TemporaryDirectory() as directory:
        work = workload.make(cluster, False)
        work.first()
        files = [Path(directory) / str(party) for party in range(len(cluster.pids))]
        running = [
            subprocess.Popen(
                [tool, "record", "-f", "raw", "-r", str(RATE), "-d", f"{seconds:g}", "-p", str(pid), "-o", str(file)],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
            for pid, file in zip(cluster.pids, files, strict=True)
        ]  # fmt: skip
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            work.run()
        for process in running:
            said = process.communicate(timeout=60)[1].decode()
            if process.returncode:
                raise SystemExit(f"the profiler failed: {said.strip()[-400:]}")
        work.close()
        return {role: _places(file) for role, file in zip(ROLES, files, strict=True)}


def _places(file: Path) -> Counter:
    """Samples of threads at a job, by place."""
    found: Counter = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if _OURS in frame]
        # What gRPC and Python do around jobs is left out. Branches of steps have stacks of their own.
        if any("server/run.py" in frame or "server/execute/" in frame for frame in frames):
            found[_place(frames[-1])] += int(count)
    return found


def _place(frame: str) -> str:
    """`function (room/file.py)` of `function (/long/path/private_keras/room/file.py:12)`."""
    name, _, where = frame.partition(" (")
    return f"{name} ({where.split(_OURS)[-1].partition(':')[0].rstrip(')')})"


def markdown(title: str, found: dict[str, Counter], rows: int = 12) -> str:
    """The places where most time goes, in per cent of the processor time of jobs."""
    total = {role: max(sum(places.values()), 1) for role, places in found.items()}
    share = {role: {place: 100 * n / total[role] for place, n in places.items()} for role, places in found.items()}
    sums: Counter = Counter()
    for places in share.values():
        sums.update(places)
    everywhere = [place for place, _ in sums.most_common(rows)]
    lines = [f"### {title}", "", f"| where | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for place in everywhere:
        lines.append(f"| {place} | " + " | ".join(f"{share[role].get(place, 0.0):.0f}%" for role in found) + " |")
    return "\n".join(lines) + "\n"
