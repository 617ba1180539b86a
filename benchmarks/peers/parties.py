"""Another library's parties as processes, and what its scripts have in common. Needs NumPy alone."""

import argparse
import json
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

import numpy as np

Times = list[float]
Arrays = list[np.ndarray]


def together(party: Callable[..., object], count: int, arguments: Sequence[Sequence[object]], seconds: float) -> list:
    """What party(rank, *arguments[rank]) returns in a process of its own for each rank; all end with the first error.

    Raises:
        RuntimeError: a party failed, ended, or took longer than so many seconds.
    """
    context = multiprocessing.get_context("spawn")
    lines: list[Connection] = []
    processes = []
    results: list = [None] * count
    try:
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_party, args=(theirs, party, rank, *arguments[rank]), daemon=True)
            process.start()
            theirs.close()
            lines.append(ours)
            processes.append(process)
        deadline = time.monotonic() + seconds
        left = set(lines)
        while left:
            ready = wait(left, max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RuntimeError(f"not done after {seconds:g} s")
            for line in ready:
                try:
                    fine, value = line.recv()
                except EOFError:
                    raise RuntimeError("a party ended without a word") from None
                if not fine:
                    raise RuntimeError(value)
                results[lines.index(line)] = value
                left.discard(line)
    finally:
        for line in lines:
            line.close()
        for process in processes:
            process.join(2 if all(result is not None for result in results) else 0)
            process.kill()
    return results


def _party(line: Connection, party: Callable[..., object], rank: int, *arguments: object) -> None:
    """One process. It ends without its library's own endings, which may wait for parties that are gone."""
    try:
        line.send((True, party(rank, *arguments)))
        line.poll(60)  # until everybody is done
    except BaseException:
        line.send((False, traceback.format_exc()[-2000:]))
    finally:
        os._exit(0)


def timed(run: Callable[[], object], barrier: Callable[[], None], runs: int) -> tuple[Times, object]:
    """Seconds from barrier to barrier of each run after one that is not counted, and the last result."""
    seconds, result = [], None
    for _ in range(runs + 1):
        barrier()
        began = time.perf_counter()
        result = run()
        barrier()
        seconds.append(time.perf_counter() - began)
    return seconds[1:], result


def record(name: str, times: Sequence[Times], results: Arrays, expected: Arrays, steps: int = 1) -> dict[str, object]:
    """A line of results: of the slowest party, divided by the steps of a run."""
    seconds = [max(of_all) / steps for of_all in zip(*times, strict=True)]
    return {
        "workload": name, "seconds": statistics.median(seconds), "seconds_least": min(seconds), "runs": len(seconds),
        "error": max(float(np.abs(a - b).max()) for a, b in zip(results, expected, strict=True)),
        "largest": max(float(np.abs(b).max()) for b in expected),
    }  # fmt: skip


def main(peer: str, version: str, measure: Callable[[str, int, float], dict[str, object]]) -> None:
    """The command line of a peer's script: one JSON line a workload; what fails or is not written says so."""
    parser = argparse.ArgumentParser(description=f"{peer} on one machine, all parties processes of their own.")
    parser.add_argument("workloads", nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600, help="at most, for a workload")
    given = parser.parse_args()
    for name in given.workloads:
        line: dict[str, object] = {"peer": peer, "version": version, "workload": name}
        try:
            line |= measure(name, given.runs, given.seconds)
        except KeyError:
            line |= {"failed": "not written for this library"}
        except RuntimeError as error:
            line |= {"failed": str(error).strip().splitlines()[-1][:300]}
        print(json.dumps(line), flush=True)
