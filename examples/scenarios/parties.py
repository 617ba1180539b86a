"""What scenarios have in common: three servers and all parties, each a process with its own certificate and address.

    python joint_prediction.py                                          # everything, on this machine
    python joint_prediction.py --party analyst --config cluster.json    # one party, on its own host

A scenario is a dict of functions, one for each party. What a party reports is one line of JSON on its standard output.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hosts import Loopback, Namespaces, hosts

SERVERS = ("server0", "server1", "server2")
CONTROL, DATA = 4000, 4001
WAIT_SECONDS = 120.0
ROOT = Path(__file__).resolve().parents[2]
Scenario = Mapping[str, Callable[[], None]]
T = TypeVar("T")


# --- inside a party ---------------------------------------------------------------------------------------------------
def waited_for(get: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
    """What `get` gives once another party has done its part: shared something, or sent it."""
    from private_keras.errors import HandleNotFound

    deadline = time.monotonic() + seconds
    while True:
        try:
            return get()
        except HandleNotFound:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def refused(use: Callable[[], Any]) -> str:
    """What the servers say when they refuse something, as they should."""
    from private_keras.errors import SecurityError

    try:
        use()
    except SecurityError as error:
        return str(error)
    raise SystemExit("this should have been refused")


def report(**facts: Any) -> None:
    """Tells whoever watches this party's console."""
    print(json.dumps(facts, default=lambda item: np.asarray(item).tolist()), flush=True)


def main(scenario: Scenario, roles: Mapping[str, Sequence[str]]) -> None:
    """The command line of a scenario.

    Args:
        roles: of each party, as in cluster.json.
    """
    parser = argparse.ArgumentParser(description="Without arguments: servers and all parties on this machine.")
    parser.add_argument("--party", choices=list(scenario), help="be this party")
    parser.add_argument("--config", type=Path, help="the cluster's description")
    given = parser.parse_args()
    if given.party is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and parties end, too
        with stage(roles) as place:
            print(f"{len(SERVERS)} servers and {len(scenario)} parties on {place.hosts.kind}", flush=True)
            for party, lines in place.play(Path(sys.argv[0]), list(scenario), show=True).items():
                print(f"{party}: done, {len(lines)} reports")
        return
    import private_keras as pk

    with pk.connect(given.config, identity=given.party):
        scenario[given.party]()


# --- around them ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stage:
    """Servers that run.

    Attributes:
        config: the description that all parties have.
        hosts: where parties are.
    """

    config: Path
    hosts: Namespaces | Loopback

    def play(self, script: Path, parties: Sequence[str], show: bool = False) -> dict[str, list[dict[str, Any]]]:
        """Runs a scenario; gives what each party reports.

        Raises:
            RuntimeError: a party failed; with what it said last.
        """
        logs = {party: self.config.parent / f"{script.stem}.{party}.log" for party in parties}
        found: dict[str, list[dict[str, Any]]] = {party: [] for party in parties}
        with ExitStack() as stack:
            processes = {
                party: stack.enter_context(self._started(script, party, logs[party], found[party], show))
                for party in parties
            }
            deadline = time.monotonic() + 4 * WAIT_SECONDS
            while any(process.poll() is None for process in processes.values()) and time.monotonic() < deadline:
                if any(process.poll() for process in processes.values()):
                    break
                time.sleep(0.1)
            for party, process in processes.items():
                if process.poll():
                    said = logs[party].read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{script.stem}: {party} failed with exit code {process.returncode}:\n{said}")
            if time.monotonic() >= deadline:
                raise RuntimeError(f"{script.stem}: not done after {4 * WAIT_SECONDS:g} s")
        return found

    @contextmanager
    def _started(
        self, script: Path, party: str, log: Path, found: list[dict[str, Any]], show: bool
    ) -> Iterator[subprocess.Popen]:
        """A party's process, and a thread that reads what it reports until it ends."""
        command = [sys.executable, str(script), "--party", party, "--config", str(self.config)]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*self.hosts.command(party), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
        reader = threading.Thread(target=_read, args=(party, process, found, show))
        reader.start()
        try:
            yield process
        finally:
            _end(process)
            reader.join()
            process.stdout.close()


def _read(party: str, process: subprocess.Popen, found: list[dict[str, Any]], show: bool) -> None:
    for line in process.stdout:
        if show:
            print(f"[{party}] {line}", end="", flush=True)
        if line.startswith("{"):
            found.append(json.loads(line))


@contextmanager
def stage(roles: Mapping[str, Sequence[str]]) -> Iterator[Stage]:
    """Three servers, each on its own host, and a description with keys for all parties; all ends with the block."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="private_keras_stage_")))
        place = stack.enter_context(hosts([*SERVERS, *roles]))
        config = describe(directory, place, roles)
        for party, name in enumerate(SERVERS):
            command = ["serve", "--config", str(config), "--party", str(party), "--storage", str(directory / name)]
            stack.enter_context(_server(place, name, command, directory / f"{name}.log"))
        yield Stage(config, place)


def describe(directory: Path, place: Namespaces | Loopback, roles: Mapping[str, Sequence[str]]) -> Path:
    """Writes `cluster.json` and a certificate for everybody.

    On hosts that are apart, each makes its own key (`private-keras keys --alone`) and gives the others the certificate.
    """
    done = subprocess.run(
        [sys.executable, "-m", "private_keras", "keys", *SERVERS, *roles, "--directory", str(directory / "keys")],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    pins = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": sha256:" in line)
    servers = [
        {
            "name": name, "control": f"{place.address(name)}:{CONTROL}", "data": f"{place.address(name)}:{DATA}",
            "certificate": pins[name],
        }
        for name in SERVERS
    ]  # fmt: skip
    parties = {
        name: {"roles": list(of), "address": f"{place.address(name)}:0", "certificate": pins[name]}
        for name, of in roles.items()
    }
    path = directory / "cluster.json"
    path.write_text(json.dumps({"protocol": "trio", "servers": servers, "parties": parties}, indent=1))
    return path


@contextmanager
def _server(place: Namespaces | Loopback, name: str, command: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*place.command(name), sys.executable, "-m", "private_keras", *command], stdin=subprocess.DEVNULL,
            stdout=errors, stderr=errors, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while '"server started"' not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
