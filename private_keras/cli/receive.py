"""`private-keras receive`: results that others have sent."""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from private_keras.cli.named import check_out
from private_keras.cluster import connect, deliveries
from private_keras.cluster.results import fetched
from private_keras.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "receive", help="fetch results that others sent you",
        description="Lists what others have sent to you; with a name, opens it and writes it to a file. Servers forget "
        "what was received.",
    )  # fmt: skip
    command.add_argument("name", nargs="?", help="sender/name, as this command lists them")
    command.add_argument("--out", type=Path, help="where to write it: a .npy file, or .npz for several arrays")
    command.add_argument("--config", type=Path, required=True, help="the cluster's description")
    command.add_argument("--identity", help="your name, for a cluster over TLS")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    if (given.name is None) != (given.out is None):
        raise InputError("expected a name and --out, to receive a result; or neither, to list what waits")
    check_out(given.out)
    if given.out is not None and given.out.suffix not in (".npy", ".npz"):
        raise InputError(f"--out: expected a .npy or .npz file. Received: {given.out.name}")
    with connect(given.config, identity=given.identity):
        if given.name is None:
            print("\n".join(deliveries()) or "nothing waits")
            return 0
        # Until the file is on disk, the servers keep it.
        with fetched(given.name) as result:
            _write(given.out, result)
    print(f"written to {given.out}")
    return 0


def _write(path: Path, result: Any) -> None:
    """A new file, whole on disk or not there."""
    with open(path, "xb") as file:
        try:
            if path.suffix == ".npy" and isinstance(result, np.ndarray):
                np.save(file, result)
            else:
                np.savez(file, **(result if isinstance(result, dict) else {"result": result}))
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise
