"""Measures everything: `python -m benchmarks run`, and what is done with results. See docs/performance.md.

    python -m benchmarks run [--only NAMES] [--quick] [--networks embedded,tcp,lan,wan] [--peer spu=/path/to/python]
    python -m benchmarks forecast
    python -m benchmarks scaling
    python -m benchmarks profile WORKLOAD
    python -m benchmarks table RESULTS.json [--into docs/performance.md]
    python -m benchmarks compare BEFORE.json AFTER.json
"""
import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.run import SCRIPTS, peer
from benchmarks.peers.run import run as run_peer
from benchmarks.suite import profile, report, results, scaling
from benchmarks.suite.measure import QUICK, Effort, Record
from benchmarks.suite.table import chosen

DIRECTORY = Path(__file__).parent / "results"


def _seconds(record: Record) -> str:
    return report.number(record.get("seconds")) or f"failed: {record['failed']}"


def _run(given: argparse.Namespace) -> None:
    workloads = chosen(given.only)
    heavy = {workload.name for workload in workloads if workload.heavy}
    effort = QUICK if given.quick else Effort()
    records: list[Record] = []
    peers: list[Record] = []

    def after(record: Record) -> None:
        # After each workload, so that a run that is stopped leaves what it has.
        records.append(record)
        print(f"{record['network']:9s} {record['title']:70s} {_seconds(record)}", flush=True)
        if record["network"] == results.EMBEDDED:
            for name, python in given.peer:
                peers.append(run_peer(name, python, record["workload"], 1 if record["workload"] in heavy else 3))
                print(f"{name:>9s} {record['title']:70s} {_seconds(peers[-1])}", flush=True)
        results.write(given.out / "results.json", records, peers)

    here = results.speed()
    for network in given.networks:
        results.collect(workloads, network, effort if network == results.EMBEDDED else QUICK, here, after)
    content = results.read(given.out / "results.json")
    (given.out / "results.md").write_text(report.markdown(content))
    report.picture(content, given.out / "results.png")
    print(report.markdown(content))
    print(f"written: {given.out}/results.json, results.md, results.png")


def _forecast(given: argparse.Namespace) -> None:
    workloads = [w for w in chosen("A,B,C,D") if "-predict-" in w.name]
    here = results.speed()
    records = []
    for network in results.FORECASTS:
        effort = dataclasses.replace(QUICK, alone=True)
        records += results.collect(workloads, network, effort, here, lambda record: None)
    _say("forecast", report.forecasts(records), given.into)


def _scaling(given: argparse.Namespace) -> None:
    found = scaling.measured(given.quick)
    given.out.mkdir(parents=True, exist_ok=True)
    scaling.picture(found, given.out / "scaling.png")
    text = scaling.markdown(found)
    (given.out / "scaling.md").write_text(text)
    _say("scaling", text, given.into)
    print(f"written: {given.out}/scaling.md, scaling.png")


def _profile(given: argparse.Namespace) -> None:
    for workload in chosen(given.workload):
        print(profile.markdown(workload.title, profile.profiled(workload, given.seconds)))


def _networks(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(results.NAMES):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(results.NAMES)}. Received: {', '.join(unknown)}")
    return names


def _table(given: argparse.Namespace) -> None:
    _say("table", report.markdown(results.read(given.results)), given.into)


def _compare(given: argparse.Namespace) -> None:
    _say("compare", report.compare(results.read(given.before), results.read(given.after)), given.into)


def _say(name: str, text: str, page: Path | None) -> None:
    """Prints it, or puts it into a document."""
    if page is None:
        print(text)
    else:
        report.insert(page, name, text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast it is, and beside what.")
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("run", help="measure workloads; write a table, JSON and a picture")
    command.add_argument("--only", default="", help="names of workloads or how they begin, separated by commas")
    command.add_argument("--quick", action="store_true", help="few runs of each")
    command.add_argument(
        "--networks", type=_networks, default=list(results.NAMES), help="some of embedded,tcp,lan,wan (default: all)"
    )
    command.add_argument(
        "--peer", type=peer, action="append", default=[], metavar="NAME=PYTHON",
        help=f"another library beside, with the interpreter that has it: {', '.join(SCRIPTS)}",
    )  # fmt: skip
    command.add_argument("--out", type=Path, default=DIRECTORY, help="directory (default: benchmarks/results)")
    command.set_defaults(command=_run)

    command = commands.add_parser("forecast", help="seconds that `cost` tells next to measured ones, networks A to D")
    command.set_defaults(command=_forecast)

    command = commands.add_parser("scaling", help="cost against batch size, features, depth and samples")
    command.add_argument("--quick", action="store_true", help="small sizes alone")
    command.add_argument("--out", type=Path, default=DIRECTORY, help="directory (default: benchmarks/results)")
    command.set_defaults(command=_scaling)

    command = commands.add_parser("profile", help="where servers spend processor time; needs py-spy")
    command.add_argument("workload", help="its name or how it begins")
    command.add_argument("--seconds", type=float, default=8.0, help="how long to look (default: 8)")
    command.set_defaults(command=_profile)

    command = commands.add_parser("table", help="the tables of a run, as Markdown")
    command.add_argument("results", type=Path)
    command.set_defaults(command=_table)

    command = commands.add_parser("compare", help="two runs side by side")
    command.add_argument("before", type=Path)
    command.add_argument("after", type=Path)
    command.set_defaults(command=_compare)

    for name in ("forecast", "scaling", "table", "compare"):
        about = f"put it between the page's marks '{name}: begin' and '{name}: end'"
        commands.choices[name].add_argument("--into", type=Path, metavar="PAGE.md", help=about)
    given = parser.parse_args(arguments)
    given.command(given)


if __name__ == "__main__":
    main(sys.argv[1:])
