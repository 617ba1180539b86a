"""`private-keras serve`: one server of a cluster."""

import argparse
from pathlib import Path
from typing import NoReturn

from private_keras.server.log import LEVELS
from private_keras.server.process import Options, serve


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "serve", help="run one server of a cluster", description="Runs one server until it is stopped."
    )
    command.add_argument("--config", type=Path, required=True, help="the cluster's description, cluster.json")
    command.add_argument("--party", type=int, required=True, help="which server this is: 0, 1, 2")
    command.add_argument(
        "--bind", metavar="HOST", help="listen on this host instead of the one in the description, for example 0.0.0.0"
    )
    command.add_argument(
        "--log", choices=LEVELS, default="info", help="least important events to log on stderr (default: info)"
    )
    command.add_argument(
        "--lifeline",
        type=int,
        metavar="FD",
        help="end when the socket with this file descriptor is closed (embedded servers)",
    )
    command.add_argument(
        "--storage", type=Path, metavar="DIRECTORY",
        help="keep on disk what clients save; without it they cannot save (see docs/operations.md)",
    )  # fmt: skip
    command.add_argument(
        "--metrics", metavar="[HOST:]PORT",
        help="answer GET /healthz, /readyz and /metrics over plain HTTP, on loopback if no host is given",
    )  # fmt: skip
    command.add_argument(
        "--metrics-by-client", action="store_true", help="count requests by who makes them (a client's name is a label)"
    )
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> NoReturn:
    options = Options(given.bind, given.log, given.storage, given.metrics, given.metrics_by_client)
    serve(given.config, given.party, given.lifeline, options)
