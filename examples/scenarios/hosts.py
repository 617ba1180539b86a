"""Hosts for the parties of a scenario, on this machine: network namespaces with addresses of their own where it allows
them (root, `unshare`, `ip`), addresses of the loopback network otherwise.
"""

import os
import subprocess
from contextlib import ExitStack
from types import TracebackType
from typing import Self

END_SECONDS = 2.0


class Unavailable(Exception):
    """This machine has no such hosts; says why."""


class Loopback:
    """127.a.b.1, 127.a.b.2, ..., others for each process that launches a scenario."""

    kind = "loopback addresses"

    def __init__(self, names: list[str]):
        process = os.getpid()
        self._addresses = {
            name: f"127.{1 + process % 250}.{process // 250 % 250}.{i}" for i, name in enumerate(names, 1)
        }

    def address(self, name: str) -> str:
        """Where a host is."""
        return self._addresses[name]

    def command(self, name: str) -> list[str]:
        """What to put before a command, so that it runs on a host."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Namespaces:
    """10.77.0.1, 10.77.0.2, ...: a network namespace for each host, all on one bridge, which is in another.

    Namespaces have no names: each lives as long as a process in it, and these end when this process does.

    Raises:
        Unavailable: no rights, or no such tools.
    """

    kind = "network namespaces"

    def __init__(self, names: list[str]):
        self._stack = ExitStack()
        self._pids: dict[str, int] = {}
        self._addresses = {name: f"10.77.{i // 250}.{i % 250 + 1}" for i, name in enumerate(names)}
        try:
            switch = self._namespace()
            self._do(switch, "ip", "link", "add", "bridge0", "type", "bridge")
            self._do(switch, "ip", "link", "set", "bridge0", "up")
            for i, name in enumerate(names):
                host = self._pids[name] = self._namespace()
                _do("ip", "link", "add", f"port{i}", "netns", str(switch),
                    "type", "veth", "peer", "name", "net0", "netns", str(host))  # fmt: skip
                self._do(switch, "ip", "link", "set", f"port{i}", "master", "bridge0", "up")
                self._do(host, "ip", "addr", "add", f"{self._addresses[name]}/16", "dev", "net0")
                self._do(host, "ip", "link", "set", "net0", "up")
                self._do(host, "ip", "link", "set", "lo", "up")
        except BaseException:
            self._stack.close()
            raise

    def address(self, name: str) -> str:
        """Where a host is."""
        return self._addresses[name]

    def command(self, name: str) -> list[str]:
        """What to put before a command, so that it runs on a host."""
        return ["nsenter", f"--net=/proc/{self._pids[name]}/ns/net"]

    def _namespace(self) -> int:
        """A process in a new namespace, which ends with its standard input."""
        try:
            process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo ready; exec cat"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise Unavailable(f"{error.filename} is not there") from None
        self._stack.callback(_end, process)
        if process.stdout.readline() != b"ready\n":
            raise Unavailable("no rights to make network namespaces")
        return process.pid

    def _do(self, pid: int, *command: str) -> None:
        _do("nsenter", f"--net=/proc/{pid}/ns/net", *command)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def hosts(names: list[str]) -> Namespaces | Loopback:
    """A host for each name."""
    try:
        return Namespaces(names)
    except Unavailable:
        return Loopback(names)


def _do(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"{error.filename} is not there") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")


def _end(process: subprocess.Popen) -> None:
    process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
