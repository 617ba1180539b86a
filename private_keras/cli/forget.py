"""`private-keras forget`: deletes what an owner keeps on the servers under a name."""

import argparse
from pathlib import Path

from private_keras.cluster import connect
from private_keras.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "forget", help="delete named shares of yours",
        description="Deletes named shares of yours from all servers. What others have made of them stays under their "
        "policy.",
    )  # fmt: skip
    command.add_argument("names", nargs="+", metavar="name", help="as private-keras names lists them")
    command.add_argument(
        "--policies", action="store_true",
        help="give up the policies of what you deleted under these names before, so that nobody can use what others "
        "have made of it any more; deletes no shares. `x*`: all names that begin with x",
    )  # fmt: skip
    command.add_argument("--config", type=Path, help="the cluster's description; without it, three servers start here")
    command.add_argument("--identity", help="your name, for a cluster over TLS")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    with connect(given.config, identity=given.identity) as cluster:
        names = [cluster.own_name(name) for name in given.names]
        if given.policies:
            for name in names:
                print(f"{name}: {cluster.forget_policies(name)} policies given up")
            return 0
        saved = cluster.saved()
        # What a server that was away has kept of a name counts, and goes.
        missing = [name for name in names if name not in saved and not cluster.forget(name)]
        if missing:
            raise InputError(f"you have no shares under the name {missing[0]!r}; see private-keras names. Nothing was "
                             "deleted")
        for name in names:
            cluster.forget(name)
            print(f"{name}: deleted")
    return 0
