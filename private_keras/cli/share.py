"""`private-keras share`: an owner's file onto the servers, under a name and a policy."""

import argparse
import json
import sys
from pathlib import Path

from private_keras.cli.bar import Bar
from private_keras.cluster import Column, connect
from private_keras.data import read
from private_keras.errors import FileError, InputError
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.server.policy import KINDS, Policy

LABEL = "data"


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "share", help="share a file under a name and a policy",
        description="Reads a .csv, .npy or .parquet file twice, in blocks: checks all of it, then sends it to the "
        "servers as shares. Errors name column and row, never a value.",
    )  # fmt: skip
    command.add_argument("file", type=Path, help="a .csv, .npy or .parquet file")
    command.add_argument("--name", required=True, help="what it is called: up to 80 letters, digits and _ . : / -")
    who = command.add_argument_group("policy: who may do what with it; nobody but you by default")
    who.add_argument("--policy", type=Path, help="a JSON file with use, plans, reveal_to, uses, until")
    who.add_argument("--use", action="append", default=[], metavar="PARTY", help="may run plans on it; repeat for more")
    who.add_argument("--plans", action="append", default=[], metavar="KIND",
                     help=f"what these may run: {', '.join(KINDS)}, or a digest sha256:...; repeat for more")
    who.add_argument("--reveal-to", action="append", default=[], metavar="PARTY", help="may receive results")
    who.add_argument("--uses", type=int, help="jobs in all; no limit by default")
    who.add_argument("--until", help="last day, or an instant with its zone; no end by default")
    what = command.add_argument_group("data")
    what.add_argument("--columns", help="of a table, those to take, in this order: a,b,c; all by default")
    what.add_argument("--as", dest="dtype", choices=("float", "int"), help="by default integers where all columns are")
    what.add_argument("--range", action="append", default=[], metavar="COLUMN=LOW:HIGH",
                      help="least and largest value of a column; of an array, LOW:HIGH")
    what.add_argument("--categories", action="append", default=[], metavar="COLUMN[=A,B,...]",
                      help="a column of text becomes codes 0, 1, ... in this order; without names, those found, sorted")
    what.add_argument("--fill", action="append", default=[], metavar="COLUMN=NUMBER", help="for missing values")
    what.add_argument("--delimiter", default=",", help="of a CSV file (default: a comma)")
    what.add_argument("--codes", type=Path, help="where to write the categories, a JSON file that stays with you")
    command.add_argument("--config", type=Path, help="the cluster's description; without it, three servers start here")
    command.add_argument("--identity", help="your name, for a cluster over TLS")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    policy = _policy(given)
    if given.codes is not None and given.codes.exists():
        raise FileError(f"{given.codes} exists and is not overwritten")
    quiet = given.quiet or not sys.stderr.isatty()
    looking = Bar("rows looked at", None, quiet)
    data = read(
        given.file, columns=given.columns.split(",") if given.columns else None, dtype=given.dtype,
        ranges=_ranges(given.range), categories=_categories(given.categories), fill=_fill(given.fill),
        delimiter=given.delimiter, progress=looking.update,
    )  # fmt: skip
    looking.end()
    sending = Bar("numbers sent", data.size, quiet)
    with connect(given.config, identity=given.identity) as cluster:
        column = Column(data.shape, DEFAULT_FRACTION if data.real else 0, data.dtype.name, data.blocks)
        cluster.put(given.name, {LABEL: column}, data.about(), policy, lambda done, total: sending.update(done))
    sending.end()
    if given.codes is not None:
        given.codes.write_text(json.dumps(data.categories, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{given.name}: shape {data.shape}, {data.dtype}{_of(data.columns)}; {_told(policy)}")
    return 0


def _of(columns: tuple[str, ...]) -> str:
    return f", columns {', '.join(columns)}" if columns else ""


def _told(policy: Policy) -> str:
    if not policy.use:
        return "nobody else may use it"
    parts = [f"{', '.join(policy.use)} may run {', '.join(policy.plans) or 'nothing yet'}"]
    parts.append(f"results go to {', '.join(policy.reveal_to) or 'nobody'}")
    if policy.uses is not None:
        parts.append(f"{policy.uses} times")
    if policy.until is not None:
        parts.append(f"until {policy.until:%Y-%m-%d %H:%M} UTC")
    return ", ".join(parts)


def _policy(given: argparse.Namespace) -> Policy:
    apart = {"use": given.use, "plans": given.plans, "reveal_to": given.reveal_to, "uses": given.uses,
             "until": given.until}  # fmt: skip
    if given.policy is None:
        return Policy(**apart)
    if any(value not in (None, []) for value in apart.values()):
        raise InputError("--policy holds all of the policy: leave out --use, --plans, --reveal-to, --uses, --until")
    try:
        return Policy.from_json(given.policy.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {given.policy} ({type(error).__name__})") from None


def _ranges(texts: list[str]) -> dict[str, tuple[float, float]] | tuple[float, float] | None:
    pairs = [_split(text, "--range", "COLUMN=LOW:HIGH, or LOW:HIGH") for text in texts]
    if len(pairs) == 1 and not pairs[0][0]:
        return _limits(pairs[0][1])
    return {name: _limits(limits) for name, limits in pairs} or None


def _limits(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon:
        raise InputError("--range: expected COLUMN=LOW:HIGH, or LOW:HIGH. Received: no colon")
    return _number(low, "--range"), _number(high, "--range")


def _categories(texts: list[str]) -> dict[str, list[str] | None]:
    found: dict[str, list[str] | None] = {}
    for text in texts:
        name, equals, names = text.partition("=")
        found[name] = names.split(",") if equals else None
    return found


def _fill(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, value = _split(text, "--fill", "COLUMN=NUMBER")
        number = _number(value, "--fill")
        found[name] = int(number) if number.is_integer() else number
    return found


def _split(text: str, option: str, expected: str) -> tuple[str, str]:
    name, equals, rest = text.rpartition("=")
    if option == "--fill" and not (equals and name):
        raise InputError(f"{option}: expected {expected}. Received: no name and number")
    return name, rest


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option}: expected a number. Received: other text") from None
