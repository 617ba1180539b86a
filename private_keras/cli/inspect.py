"""`private-keras inspect`: what a plan does, as text; for owners, before they allow its digest."""

import argparse
import re
from pathlib import Path

from private_keras.cluster import connect
from private_keras.errors import FileError, InputError
from private_keras.forecast.inspection import inspected
from private_keras.plan.limits import MAX_JSON_BYTES
from private_keras.plan.plan import Plan

DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "inspect", help="show plans",
        description="Shows a plan: inputs and whose they are, steps, what is opened to whom, what that shows of "
        "whose inputs, and what a run costs. With a digest, the plan that somebody has prepared on the servers; as a "
        "file, what pk.plans(...).save or --plans of other commands wrote.",
    )  # fmt: skip
    command.add_argument("plans", nargs="+", metavar="plan", help="a plan's JSON file, or its digest, sha256:...")
    command.add_argument("--config", type=Path, help="the cluster's description, for a digest")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.add_argument("--network", default="lan", help="for the forecast: local, lan, wan (default: lan)")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    digests = [plan for plan in given.plans if DIGEST.fullmatch(plan)]
    texts: dict[str, str | bytes] = {}
    if digests:
        if given.config is None:
            raise InputError(f"a plan with digest {digests[0]} is looked up on the servers: give --config")
        with connect(given.config, identity=given.identity) as cluster:
            texts = {digest: cluster.plan_text(digest) for digest in digests}
    for number, name in enumerate(given.plans):
        plan = Plan.from_json(texts[name]) if name in texts else read_plan(Path(name))
        print("\n\n" * (number > 0) + inspected(plan, given.network))
    return 0


def read_plan(path: Path) -> Plan:
    """The plan in a file, checked.

    Raises:
        FileError: a file that cannot be read.
        PlanError: what is in it is no plan.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise FileError(f"{path} is larger than any plan ({MAX_JSON_BYTES} bytes)")
        return Plan.from_json(path.read_bytes())
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {path}: {error.strerror}") from None
