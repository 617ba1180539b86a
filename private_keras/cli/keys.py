"""`private-keras keys`: certificates for a cluster."""

import argparse
from pathlib import Path

from private_keras.cluster.keys import DAYS, make_keys


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "keys", help="make certificates for a cluster",
        description="Makes an authority and a certificate for each name, and prints their pins for cluster.json. "
        "Every party gets authority.pem and its own .pem and .key; authority.key stays with who made it.",
    )  # fmt: skip
    command.add_argument("names", nargs="+", help="parties: server0 server1 server2 and the clients' names")
    command.add_argument("--directory", type=Path, default=Path("keys"), help="where to write (default: keys)")
    command.add_argument("--days", type=int, default=DAYS, help=f"validity in days (default: {DAYS})")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    for name, pin in make_keys(given.directory, given.names, given.days).items():
        print(f"{name}: {pin}")
    return 0
