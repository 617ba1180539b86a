"""The command line: `private-keras serve | keys | predict | doctor | inspect`, each with `--help`.

Exit codes: 0 done, 1 an error of ours (its message on stderr), 2 wrong arguments, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from private_keras.cluster import connect
from private_keras.cluster.doctor import examine
from private_keras.cluster.keys import DAYS, make_keys
from private_keras.errors import FileError, PrivateKerasError, UnsupportedError
from private_keras.plan.limits import MAX_JSON_BYTES
from private_keras.plan.plan import Plan
from private_keras.server.log import LEVELS
from private_keras.server.process import serve
from private_keras.version import VERSION


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return given.command(given)
    except PrivateKerasError as error:
        print(f"private-keras: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="private-keras", description="Keras on secret shares: servers, keys and checks."
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="command")

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
    command.set_defaults(command=_serve)

    command = commands.add_parser(
        "keys", help="make certificates for a cluster",
        description="Makes an authority and a certificate for each name, and prints their pins for cluster.json. "
        "Every party gets authority.pem and its own .pem and .key; authority.key stays with who made it.",
    )  # fmt: skip
    command.add_argument("names", nargs="+", help="parties: server0 server1 server2 and the clients' names")
    command.add_argument("--directory", type=Path, default=Path("keys"), help="where to write (default: keys)")
    command.add_argument("--days", type=int, default=DAYS, help=f"validity in days (default: {DAYS})")
    command.set_defaults(command=_keys)

    command = commands.add_parser(
        "doctor", help="check a cluster", description="Reaches each server and checks releases and certificates."
    )
    command.add_argument("--config", type=Path, required=True, help="the cluster's description, cluster.json")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.set_defaults(command=_doctor)

    command = commands.add_parser(
        "predict", help="predict on shares", description="Loads a Keras model, predicts on shares, writes the result."
    )
    command.add_argument("model", type=Path, help="a .h5 or .keras file")
    command.add_argument("data", type=Path, help="inputs as a NumPy .npy file, rows first")
    command.add_argument("--out", type=Path, required=True, help="where to write the predictions, a .npy file")
    command.add_argument("--batch-size", type=int, default=32, help="rows in one job (default: 32)")
    command.add_argument("--config", type=Path, help="the cluster's description; without it, three servers start here")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.set_defaults(command=_predict)

    command = commands.add_parser(
        "inspect", help="show a plan", description="Shows a plan: inputs, steps, and what is opened to whom."
    )
    command.add_argument("plan", type=Path, help="a plan's JSON file")
    command.set_defaults(command=_inspect)
    return parser


def _serve(given: argparse.Namespace) -> NoReturn:
    serve(given.config, given.party, given.bind, given.log, given.lifeline, given.storage)


def _keys(given: argparse.Namespace) -> int:
    for name, pin in make_keys(given.directory, given.names, given.days).items():
        print(f"{name}: {pin}")
    return 0


def _doctor(given: argparse.Namespace) -> int:
    report, healthy = examine(given.config, given.identity)
    print(report)
    return 0 if healthy else 1


def _predict(given: argparse.Namespace) -> int:
    if given.out.exists():
        raise FileError(f"{given.out} exists and is not overwritten")
    if not given.out.parent.is_dir():
        raise FileError(f"{given.out}: there is no directory {given.out.parent}; make it first")
    try:
        with open(given.data, "rb") as file:
            data = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileError(
            f"cannot read {given.data} as one NumPy array: {error}. Write it with numpy.save(path, array)"
        ) from None
    # Keras takes seconds to load, and no other command needs it.
    from private_keras.models import load_model

    model = load_model(given.model)
    with connect(given.config, identity=given.identity) as cluster:
        result = model.predict(data, batch_size=given.batch_size, verbose=0)
        print(cluster.stats)
    if not isinstance(result, np.ndarray):
        raise UnsupportedError("the command writes one array, and this model has several outputs; use Python for it")
    with open(given.out, "xb") as file:
        np.save(file, result)
    print(f"{result.shape} written to {given.out}")
    return 0


def _inspect(given: argparse.Namespace) -> int:
    try:
        if given.plan.stat().st_size > MAX_JSON_BYTES:
            raise FileError(f"{given.plan} is larger than any plan ({MAX_JSON_BYTES} bytes)")
        text = given.plan.read_bytes()
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {given.plan}: {error.strerror}") from None
    plan = Plan.from_json(text)
    print(plan.describe())
    print(f"digest {plan.digest}")
    return 0
