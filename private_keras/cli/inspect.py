"""`private-keras inspect`: what a plan does, as text."""

import argparse
from pathlib import Path

from private_keras.errors import FileError
from private_keras.plan.limits import MAX_JSON_BYTES
from private_keras.plan.plan import Plan


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "inspect", help="show a plan", description="Shows a plan: inputs, steps, and what is opened to whom."
    )
    command.add_argument("plan", type=Path, help="a plan's JSON file")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
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
