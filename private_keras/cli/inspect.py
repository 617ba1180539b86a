"""`private-keras inspect`: what a plan does, as text; for owners, before they allow its digest."""

import argparse
import re
from pathlib import Path

from private_keras.errors import FileError, InputError
from private_keras.plan.limits import MAX_JSON_BYTES
from private_keras.plan.plan import Plan
from private_keras.plan.provenance import table

DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "inspect", help="show a plan",
        description="Shows a plan: inputs and whose they are, steps, what is opened to whom, what that shows of "
        "whose inputs, and what a run costs. With a digest, the plan that somebody has prepared on the servers.",
    )  # fmt: skip
    command.add_argument("plan", help="a plan's JSON file, or its digest, sha256:...")
    command.add_argument("--config", type=Path, help="the cluster's description, for a digest")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.add_argument("--network", default="lan", help="for the forecast: local, lan, wan (default: lan)")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    # These load the client's side, and no other command of a server's host needs it.
    from private_keras.cluster import connect
    from private_keras.forecast import forecast

    if DIGEST.fullmatch(given.plan):
        if given.config is None:
            raise InputError(f"a plan with digest {given.plan} is looked up on the servers: give --config")
        with connect(given.config, identity=given.identity) as cluster:
            text = cluster.plan_text(given.plan)
    else:
        text = _read(Path(given.plan))
    plan = Plan.from_json(text)
    print(plan.describe())
    print()
    print(table.as_text(plan))
    print()
    print(forecast(plan, given.network))
    print(f"\ndigest sha256:{plan.digest}")
    return 0


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise FileError(f"{path} is larger than any plan ({MAX_JSON_BYTES} bytes)")
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {path}: {error.strerror}") from None
