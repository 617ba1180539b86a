"""What small steps take: `python benchmarks/steps.py [WORKLOADS]`, names of the suite's as `--only` takes them.

Seconds of the slowest server for one of many in a row, least and median of some jobs, and the processor time that each
server needs for one, which other work on the machine disturbs less.
"""
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import private_keras as pk  # noqa: E402
from benchmarks.suite.table import chosen  # noqa: E402
from benchmarks.suite.work import PlanWork  # noqa: E402

TICK = 1 / os.sysconf("SC_CLK_TCK")
DEFAULT = "logistic-step-128,logistic-predict-1,A-predict-1,D-predict-1"
JOBS, IN_A_ROW = 15, 100


def processor(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def main(only: str) -> None:
    """Prints a table."""
    print("| workload | least, s | median, s | processor s of servers 0, 1, 2 | rounds |\n|---|---|---|---|---|")
    for workload in chosen(only):
        with pk.LocalCluster() as cluster:
            work = workload.make(cluster, False)
            work.first()
            seconds, before, steps = [], [processor(pid) for pid in cluster.pids], 0
            for _ in range(JOBS):
                if isinstance(work, PlanWork) and work.steps > 1:
                    work.run()
                    seconds.append(cluster.stats.last.computing / work.steps)
                    steps += work.steps
                else:
                    seconds.append(work.in_a_row(cluster, IN_A_ROW))
                    steps += 2 * IN_A_ROW  # the first job of two is not timed
            used = ", ".join(f"{(processor(p) - b) / steps:.3g}" for p, b in zip(cluster.pids, before, strict=True))
            rounds = cluster.stats.last.rounds / (work.steps if work.steps > 1 else IN_A_ROW)
            least, median = min(seconds), statistics.median(seconds)
            print(f"| {workload.title} | {least:.3g} | {median:.3g} | {used} | {rounds:.0f} |")
            work.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
