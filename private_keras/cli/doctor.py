"""`private-keras doctor`: checks of a cluster."""

import argparse
from pathlib import Path

from private_keras.cluster.doctor import examine


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "doctor", help="check a cluster", description="Reaches each server and checks releases and certificates."
    )
    command.add_argument("--config", type=Path, required=True, help="the cluster's description, cluster.json")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    report, healthy = examine(given.config, given.identity)
    print(report)
    return 0 if healthy else 1
