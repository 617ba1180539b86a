"""Runs another library's script in its environment, for one workload at a time."""

import argparse
import json
import subprocess
from pathlib import Path

from benchmarks.suite.measure import Record

ROOT = Path(__file__).parents[2]
SCRIPTS = {"spu": "benchmarks.peers.spu_parties", "crypten": "benchmarks.peers.crypten_parties"}
SECONDS = 900


def peer(text: str) -> tuple[str, str]:
    """`spu=/path/to/python` as a name and an interpreter, for argparse."""
    name, _, python = text.partition("=")
    if name not in SCRIPTS or not Path(python).is_file():
        raise argparse.ArgumentTypeError(
            f"expected NAME=/path/to/python with NAME one of {', '.join(SCRIPTS)}. Received: {text!r}"
        )
    return name, python


def run(name: str, python: str, workload: str, runs: int) -> Record:
    """A peer's line for a workload, or one that says why there is none."""
    command = [python, "-m", SCRIPTS[name], workload, "--runs", str(runs), "--seconds", str(SECONDS)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"peer": name, "workload": workload, "failed": f"not done after {2 * SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"peer"')]
    if not lines:
        return {"peer": name, "workload": workload, "failed": done.stderr.strip()[-300:]}
    return json.loads(lines[-1])
