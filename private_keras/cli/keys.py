"""`private-keras keys`: certificates for a cluster: made, renewed, shown."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from private_keras.cluster.keys import DAYS, check_days, make_keys, renew, show
from private_keras.transport.credentials import WARN_DAYS, days_left


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "keys", help="make, renew and show certificates",
        description="Makes an authority and a certificate for each name, and prints their pins for cluster.json. "
        "Every party gets authority.pem and its own .pem and .key; authority.key stays with who made it. With --alone "
        "each party makes its own certificate, and gives the others the .pem and its pin.",
    )  # fmt: skip
    command.add_argument("names", nargs="*", help="parties: server0 server1 server2 and the clients' names")
    command.add_argument("--directory", type=Path, default=Path("keys"), help="where to write (default: keys)")
    command.add_argument("--days", type=int, default=DAYS, help=f"validity in days (default: {DAYS})")
    command.add_argument("--alone", action="store_true", help="without an authority: for clusters that pin all parties")
    command.add_argument(
        "--renew", metavar="NAME", action="append", default=[],
        help="a new certificate for a party that has one; files from before are kept under another name",
    )  # fmt: skip
    command.add_argument("--new-key", action="store_true", help="with --renew: a new key too, which changes the pin")
    command.add_argument("--show", action="store_true", help="names, pins and ends of the certificates that are there")
    command.set_defaults(command=partial(_run, command.error))


def _run(wrong: Callable[[str], NoReturn], given: argparse.Namespace) -> int:
    if (bool(given.names) + bool(given.renew) + given.show) != 1 or given.new_key and not given.renew:
        wrong("expected names, or --renew NAME [--new-key], or --show")
    if given.show:
        for name, pin, end in show(given.directory):
            days = days_left(end)
            state = "EXPIRED" if days < 0 else "renew soon" if days < WARN_DAYS else "valid"
            print(f"{name}: {pin} until {end:%Y-%m-%d} ({days} days, {state})")
        return 0
    check_days(given.days)
    if given.renew:
        pins = {name: renew(given.directory, name, given.days, given.new_key) for name in given.renew}
    else:
        pins = make_keys(given.directory, given.names, given.days, given.alone)
    for name, pin in pins.items():
        print(f"{name}: {pin}")
    return 0
