"""The command line: `private-keras COMMAND`, one file a command, each with `--help`.

Exit codes: 0 done, 1 an error of ours (its message on stderr), 2 wrong arguments, 130 interrupted.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from private_keras.cli import audit, doctor, fit, forget, inspect, keys, names, predict, receive, serve, share
from private_keras.errors import PrivateKerasError
from private_keras.version import VERSION

# Each has `add(commands)`, which adds a parser whose `command` runs it and gives the exit code. In the order of --help.
COMMANDS = (serve, keys, doctor, share, names, forget, predict, fit, receive, inspect, audit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    given = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            return given.command(given)
    except PrivateKerasError as error:
        print(f"private-keras: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"private-keras: warning: {message}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Reads the arguments of every command."""
    made = argparse.ArgumentParser(
        prog="private-keras", description="Keras on secret shares: servers, keys and checks."
    )
    made.add_argument("--version", action="version", version=VERSION)
    commands = made.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    return made
