"""Facts about the machine, and what processes on it take: from /proc."""

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from private_keras.ring import default_kernel

_TICKS = os.sysconf("SC_CLK_TCK")
PACKAGES = ("private-keras", "keras", "tensorflow", "numpy")
MEGABYTE = 1024  # of the kilobytes that /proc gives


def facts() -> dict[str, object]:
    """What a figure depends on beside the code."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / MEGABYTE**2, 1),
        "kernel": str(default_kernel()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "numpy_blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def memory(pid: int, field: str) -> float:
    """Megabytes of a process: VmRSS now, VmHWM at most."""
    return next(int(line.split()[1]) / MEGABYTE for line in _lines(f"/proc/{pid}/status") if line.startswith(field))


def forget_peak(pid: int) -> None:
    """VmHWM starts anew from what the process has now. Needs no rights over one's own processes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


class Others:
    """How busy processes that take no part keep the machine: what decides whether a figure can be trusted."""

    def __init__(self, pids: Sequence[int]):
        self._pids = [os.getpid(), *pids]
        self._began = time.perf_counter(), self._busy(), self._own()

    def cores(self) -> float:
        """Cores' worth of their work since the start."""
        seconds, busy, own = self._began
        passed = time.perf_counter() - seconds
        return max(0.0, (self._busy() - busy - (self._own() - own)) / max(passed, 1e-9))

    def _busy(self) -> float:
        ticks = [int(n) for n in _lines("/proc/stat")[0].split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / _TICKS

    def _own(self) -> float:
        total = 0.0
        for pid in self._pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / _TICKS
        return total
