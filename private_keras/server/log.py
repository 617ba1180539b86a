"""The server's log: one JSON object a line on stderr. Names, sizes and times; never a value, key or nonce."""

import json
import sys
import threading
import time
import traceback

LEVELS = ("error", "warning", "info")


class Log:
    """Writes events of one server.

    Args:
        server: its name.
        level: the least important kind that is written.
    """

    def __init__(self, server: str, level: str = "info"):
        self._server = server
        self._kinds = LEVELS[: LEVELS.index(level) + 1]
        self._lock = threading.Lock()

    def write(self, kind: str, event: str, **fields: str | int | float) -> None:
        """One line. `kind` is error, warning or info; `fields` hold public facts only."""
        if kind not in self._kinds:
            return
        line = json.dumps(
            {"time": round(time.time(), 3), "server": self._server, "kind": kind, "event": event, **fields}
        )
        with self._lock:
            print(line, file=sys.stderr, flush=True)

    def crash(self, event: str, error: BaseException) -> None:
        """An exception that nobody expected: its kind and where it came from, not its text, which may quote values."""
        frames = traceback.extract_tb(error.__traceback__)[-6:]
        self.write(
            "error",
            event,
            error=type(error).__name__,
            at=" < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames)),
        )
