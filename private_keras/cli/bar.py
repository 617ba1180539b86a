"""A progress bar as Keras draws it, for commands that do not load Keras."""
import sys
import time

WIDTH = 20
SECONDS = 0.1


class Bar:
    """On stderr; what was done is drawn again at most ten times a second.

    Args:
        unit: what is counted.
        total: how much there is; None where that is not known.
        quiet: draws nothing.
    """

    def __init__(self, unit: str, total: int | None, quiet: bool):
        self._unit = unit
        self._total = total
        self._quiet = quiet
        self._began = time.monotonic()
        self._drawn = 0.0
        self._done = 0

    def update(self, done: int) -> None:
        """So much is done."""
        self._done = done
        if not self._quiet and time.monotonic() - self._drawn >= SECONDS:
            self._draw()

    def end(self) -> None:
        """Draws it for the last time."""
        if not self._quiet and self._done:
            self._draw()
            print(file=sys.stderr)

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        seconds = self._drawn - self._began
        bar = ""
        if self._total:
            full = WIDTH * self._done // self._total
            bar = f"/{self._total} \033[32m{'━' * full}\033[0m\033[37m{'━' * (WIDTH - full)}\033[0m"
        print(f"\r{self._done}{bar} {seconds:.0f}s {self._unit}", end="", file=sys.stderr, flush=True)
