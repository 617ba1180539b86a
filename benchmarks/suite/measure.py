"""Measures workloads: seconds of servers and of whole calls, bytes, rounds, memory, errors; the same in the clear."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from benchmarks.suite import machine
from benchmarks.suite.bounds import Speeds, floor
from benchmarks.suite.table import targets
from benchmarks.suite.work import Work, Workload
from private_keras.cluster import Cluster, Stats, Traffic
from private_keras.forecast import Machine, Network
from private_keras.plan.plan import Plan

Record = dict[str, object]


@dataclass(frozen=True)
class Effort:
    """How long to measure a workload: at least `least` runs, more until `seconds` are over, at most `most`; with
    `alone`, single runs only, none from stock and none in a row, and what runs in the clear, on the same cores and with
    threads that spin when it is over, is over before.
    """

    least: int = 5
    most: int = 40
    seconds: float = 3.0
    alone: bool = False

    def of(self, workload: Workload) -> "Effort":
        """Fewer runs for what takes seconds each."""
        return replace(self, least=min(self.least, 3)) if workload.heavy else self


QUICK = Effort(3, 10, 0.5)
IN_A_ROW = 20
# Threads of NumPy's and TensorFlow's pools go on spinning for some milliseconds after they were used, on cores that the
# servers share.
REST = 0.05


@dataclass(frozen=True)
class Here:
    """What is known of the place before a workload runs.

    Attributes:
        network: the links between servers, for a forecast; None for none.
        servers: how fast they are, for the forecast.
        speeds: of the machine, for what is left to gain.
    """

    network: Network | None
    servers: Machine
    speeds: Speeds


class Jobs(Stats):
    """A cluster's counters that remember every job, and the plan of each."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Traffic] = []
        self.plans: list[Plan] = []

    @contextmanager
    def watching(self, cluster: Cluster) -> Iterator[None]:
        """Counts what the cluster runs in the block."""
        run = cluster.run

        def watched(plan: Plan, *arguments, **options):
            self.plans.append(plan)
            return run(plan, *arguments, **options)

        cluster.stats, cluster.run = self, watched
        try:
            yield
        finally:
            del cluster.run

    def forget(self) -> None:
        """Begins anew."""
        self.seen.clear()
        self.plans.clear()

    def add(self, run: Traffic, ahead: Traffic | None = None) -> None:
        """Counts a job."""
        super().add(run, ahead)
        self.seen.append(run)


def timed(call: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(
    workload: Workload, cluster: Cluster, pids: Sequence[int], effort: Effort,
    here: Here, tiny: bool = False,
) -> Record:
    """One line of the results.

    Args:
        cluster: current, with servers that this process may look at.
        pids: of the servers.

    Returns:
        Seconds are medians, with the least of all beside them. `seconds`: of the slowest server, from shares in place
        to shares of the result in place. `call`: the whole call. `plain`: the same in the clear. `first`: the first
        call. `row`: of one of many in one job. For what has several steps a run, figures are those of a step. `ahead`,
        `online` and `online_call`: the same work from stock, what servers did before the batch was there and after.
    """
    jobs = Jobs()
    with jobs.watching(cluster):
        work = workload.make(cluster, tiny)
        try:
            record = _measured(workload, work, jobs, pids, effort, here)
            row = None if workload.heavy or effort.alone else work.in_a_row(cluster, IN_A_ROW)
            return record if row is None else {**record, "row": row}
        finally:
            work.close()


def _measured(
    workload: Workload, work: Work, jobs: Jobs, pids: Sequence[int], effort: Effort, here: Here
) -> Record:
    first = timed(work.first)
    work.plain()
    for pid in pids:
        machine.forget_peak(pid)
    before = max((machine.memory(pid, "VmRSS") for pid in pids), default=0.0)
    forecast = None if here.network is None else work.forecast(here.network, here.servers)
    return {
        "workload": workload.name, "title": workload.title, "first": first,
        **({} if forecast is None else {"forecast": forecast}),
        **_runs(workload, work, jobs, effort.of(workload), pids, here.speeds),
        "memory_before_mb": before, "peak_mb": max((machine.memory(pid, "VmHWM") for pid in pids), default=0.0),
        **({} if workload.heavy or effort.alone else _from_stock(work, jobs, effort)),
    }  # fmt: skip


def _from_stock(work: Work, jobs: Jobs, effort: Effort) -> Record:
    """The same work with all done ahead that can be; nothing for what cannot be made ahead."""
    ahead: list[float] = []
    online: list[float] = []
    calls: list[float] = []
    end = time.perf_counter() + effort.seconds
    while len(calls) < effort.least or (len(calls) < effort.most and time.perf_counter() < end):
        if not work.prepare():
            return {}
        calls.append(timed(work.run))
        ahead.append(jobs.last_ahead.computing)
        online.append(jobs.last.computing)
    return {
        "ahead": statistics.median(ahead), "ahead_least": min(ahead),
        "online": statistics.median(online), "online_least": min(online),
        "online_call": statistics.median(calls), "ahead_sent": list(jobs.last_ahead.sent),
        "online_sent": list(jobs.last.sent),
    }  # fmt: skip


def _runs(
    workload: Workload, work: Work, jobs: Jobs, effort: Effort, pids: Sequence[int], speeds: Speeds
) -> Record:
    """Runs on shares and in the clear in turns, so that both have the same machine."""
    calls: list[float] = []
    traffic: list[Traffic] = []
    others = machine.Others(pids)
    end = time.perf_counter() + effort.seconds
    work.run()
    plain = [timed(work.plain) / work.steps]
    time.sleep(REST)
    work.run()
    while len(calls) < effort.least or (len(calls) < effort.most and time.perf_counter() < end):
        jobs.forget()
        calls.append(timed(work.run) / work.steps)
        traffic.append(work.traffic(jobs.seen))
        if not effort.alone:
            plain.append(timed(work.plain) / work.steps)
            time.sleep(REST)
    busy = others.cores()
    seconds = [run.computing / work.steps for run in traffic]
    error, largest = work.error()
    peers = targets()[workload.name].get("peer_error_up_to")
    longest = max(zip(jobs.seen, jobs.plans, strict=True), key=lambda job: job[0].computing)[1]
    rounds, sent = traffic[-1].rounds / work.steps, [nbytes / work.steps for nbytes in traffic[-1].sent]
    return {
        "seconds": statistics.median(seconds), "seconds_least": min(seconds),
        "call": statistics.median(calls), "call_least": min(calls),
        "plain": statistics.median(plain), "plain_least": min(plain),
        "runs": len(calls),
        "rounds": rounds, "sent": sent, "floor": floor(longest, rounds, sum(sent), speeds),
        "error": error, "largest": largest, "others": round(busy, 2),
        **({} if peers is None else {"error_up_to": [peers, work.error_up_to(peers)]}),
    }  # fmt: skip
