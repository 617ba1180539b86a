"""The embedded cluster: three server processes on this machine, over Unix sockets, that end with this process."""

import atexit
import json
import logging
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from private_keras.cluster.cluster import NetworkCluster
from private_keras.cluster.display import Facts
from private_keras.errors import ClusterError, InputError, ServerUnavailable
from private_keras.server.config import PROTOCOLS, parse_config
from private_keras.server.process import READY
from private_keras.transport.unix import check_private

START_SECONDS = 60.0
END_SECONDS = 2.0
REAP_SECONDS = 0.3
MODULE = "private_keras"
# Longest path of a Unix socket, with its terminating zero (sockaddr_un on Linux).
SOCKET_PATH_BYTES = 108
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

log = logging.getLogger("private_keras")


class _Process:
    """One embedded server: its process, and the line whose end tells it that we are gone."""

    def __init__(self, config: Path, party: int, storage: Path | None):
        self.name = f"server{party}"
        self._errors = config.parent / f"{self.name}.log"
        self._line, theirs = socket.socketpair()
        given = {"--config": config, "--party": party, "--log": "warning", "--lifeline": theirs.fileno()}
        if storage is not None:
            given["--storage"] = storage
        arguments = ["serve", *(str(part) for option in given.items() for part in option)]
        with theirs, open(self._errors, "ab") as errors:
            # In a session of its own, so that Ctrl-C in a terminal reaches the client alone.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, *arguments],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                pass_fds=[theirs.fileno()], start_new_session=True, env=_environment(), cwd=config.parent,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, deadline: float) -> None:
        """Returns when the server listens; raises `ServerUnavailable` with its last words when it does not."""
        said = b""
        poll = select.poll()
        poll.register(self._line.fileno(), select.POLLIN)
        while said != READY:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            piece = self._line.recv(64) if ready else b""
            if not piece:
                try:
                    why = f"ended with exit code {self._process.wait(END_SECONDS)}"
                except subprocess.TimeoutExpired:
                    why = "does not start in time"
                raise ServerUnavailable(f"{self.name} {why}: {self.last_words()}")
            said += piece

    def last_words(self) -> str:
        """The end of its log: events and crashes, without values."""
        try:
            text = self._errors.read_text(errors="replace").strip()
        except OSError:
            text = ""
        return text[-1500:] or "(the log is empty)"

    def ended(self) -> int | None:
        """Exit code of a process that has ended."""
        return self._process.poll()

    def let_go(self) -> None:
        """Tells it to end."""
        self._line.close()

    def end(self, deadline: float) -> None:
        """Waits for the end, and forces it at the deadline."""
        self._line.close()
        try:
            self._process.wait(max(0.05, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _environment() -> dict[str, str]:
    """Servers find the same package as the client, and leave the threads to it."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **THREADS, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


class LocalCluster(NetworkCluster):
    """Three servers on this machine. Use as a context manager, or `close` it; it ends with this process in any case.

        with pk.LocalCluster() as cluster:
            y = model.predict(x)

    When a server has died, all are started anew at the next use; stored shares must then be shared again.

    Args:
        protocol: name of the protocol.
        storage: directory for what is saved, of all three servers; by default one of this user,
            `$XDG_DATA_HOME/private_keras/local` or `~/.local/share/private_keras/local`, made at the first `save`.
    """

    def __init__(self, protocol: str = "trio", storage: str | Path | None = None):
        if protocol not in PROTOCOLS:
            raise InputError(f"expected a protocol of {sorted(PROTOCOLS)}. Received: {protocol!r}")
        self._storage = _default_storage() if storage is None else Path(storage).absolute()
        self._directory = _private_directory()
        self._path = self._directory / "cluster.json"
        self._processes: list[_Process] = []
        where = f"unix:{self._directory}/server"
        servers = [{"control": f"{where}{i}.control", "data": f"{where}{i}.data"} for i in range(PROTOCOLS[protocol])]
        description = {"protocol": protocol, "servers": servers}
        self._description = json.dumps(description)
        try:
            super().__init__(parse_config(description, self._directory), None)
        except BaseException:
            self._directory.rmdir()
            raise
        atexit.register(self.close)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids of the servers, by party."""
        return [process.pid for process in self._processes]

    @property
    def directory(self) -> Path:
        """Where sockets and logs are; mode 0700, removed at the end."""
        return self._directory

    def _start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        self._directory.mkdir(mode=0o700, exist_ok=True)
        check_private(self._directory)
        self._path.write_text(self._description)
        self._processes = [_Process(self._path, party, self._storage) for party in range(len(self._clients))]
        for process in self._processes:
            process.wait_ready(deadline)
        self.connect()

    def _dead(self) -> list[_Process]:
        return [process for process in self._processes if process.ended() is not None]

    def _check(self) -> None:
        if self._stale:
            # A connection ends a moment before its process can be seen to have ended.
            deadline = time.monotonic() + REAP_SECONDS
            while not self._dead() and time.monotonic() < deadline:
                time.sleep(0.01)
        if not self._dead() and self._processes:
            try:
                super()._check()
            except ServerUnavailable:
                if not self._dead():
                    raise
        dead = self._dead()
        for process in dead:
            log.warning(
                "%s had ended (exit code %s); all servers are started anew, and what was stored must be shared again. "
                "Its log: %s",
                process.name, process.ended(), process.last_words(),
            )  # fmt: skip
        if dead or not self._processes:
            self._stale = True  # until the new ones have started
            self._end()
            self._start()
            self._stale = False

    def _facts(self) -> Facts:
        dead = [] if self._closed else self._dead()
        ended = [("ended", f"{process.name}; all are started anew at the next use") for process in dead]
        return [*super()._facts(), *ended]

    def close(self) -> None:
        if self._closed:
            return
        atexit.unregister(self.close)
        forked = os.getpid() != self._process
        super().close()
        if not forked:
            self._end()

    def _end(self) -> None:
        """Ends the servers, all at once, and removes what they leave."""
        deadline = time.monotonic() + END_SECONDS
        for process in self._processes:
            process.let_go()
        for process in self._processes:
            process.end(deadline)
        self._processes = []
        shutil.rmtree(self._directory, ignore_errors=True)


def _default_storage() -> Path | None:
    """Where a user's programs keep data; None for a user without a home, whose servers then save nothing."""
    given = os.environ.get("XDG_DATA_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "share"
    except RuntimeError:
        return None
    return base / "private_keras" / "local"


def _private_directory() -> Path:
    """A new directory with mode 0700 whose path leaves room for a socket's name."""
    for parent in (None, "/tmp"):
        directory = tempfile.mkdtemp(prefix="private_keras_", dir=parent)
        if len(os.fsencode(directory)) + len("/server0.control") < SOCKET_PATH_BYTES:
            return Path(directory)
        os.rmdir(directory)
    raise ClusterError("no directory with a path short enough for Unix sockets; set TMPDIR to a short one")
