"""`private-keras doctor`: checks of a cluster."""

import argparse
from pathlib import Path

from private_keras.cluster.doctor import examine


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "doctor", help="check a cluster",
        description="Checks ports, certificates, clocks, releases and storage, and measures connections: from here, "
        "between servers, and with two small jobs. Exit code 1 when something does not work.",
    )  # fmt: skip
    command.add_argument("--config", type=Path, required=True, help="the cluster's description, cluster.json")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    report, healthy = examine(given.config, given.identity)
    print(report)
    return 0 if healthy else 1
