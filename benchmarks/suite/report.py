"""Results for people: tables in Markdown, a picture, two runs side by side."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib

from benchmarks.suite.measure import Record
from benchmarks.suite.table import targets

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - the backend is chosen first


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without an exponent where people can read them."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _times(a: float | None, b: float | None) -> str:
    return "" if not a or not b else f"{number(a / b, 2)}x"


def speed(records: Sequence[Record], peers: Sequence[Record]) -> str:
    """Seconds beside what is asked for, the best peer's, whole calls, and the same in the clear."""
    goals = targets()
    beside = sorted({peer["peer"] for peer in peers})
    heads = [
        "workload", "servers, s", "least", "in a row, s", "asked for", "best peer", "ahead of it",
        *(f"{peer}, this run" for peer in beside), "whole call", "first call", "in the clear", "times that",
    ]  # fmt: skip
    rows = []
    for record in records:
        goal = goals[record["workload"]]
        if "failed" in record:
            rows.append([record["title"], "failed", *[""] * (len(heads) - 2)])
            continue
        seconds, row = record["seconds"], record.get("row")
        # Peers were timed one run after the other in one program.
        judged = seconds if row is None else row
        asked = goal.get("target") if record["network"] == "embedded" else goal.get(record["network"])
        # Peers were measured on one machine without emulated links.
        best = goal.get("peer") if record["network"] == "embedded" else None
        peer = f"{number(best)} {goal['peer_name']}" if best else ""
        now = {p["peer"]: p for p in peers if p["workload"] == record["workload"]}
        rows.append([
            record["title"], number(seconds), number(record["seconds_least"]), number(row),
            "" if asked is None else f"{asked:g} {'yes' if judged <= asked else 'no'}",
            peer, _times(best, judged),
            *(number(now[p].get("seconds")) if p in now else "" for p in beside),
            number(record["call"]), number(record["first"]), number(record["plain"]), _times(seconds, record["plain"]),
        ])  # fmt: skip
    return table(heads, rows)


def costs(records: Sequence[Record]) -> str:
    """Rounds, bytes of each server, memory, errors beside the best peer's."""
    goals = targets()
    heads = [
        "workload", "rounds", "sent by server 0", "server 1", "server 2", "peak MB", "largest error", "best peer's",
        "largest value", "runs", "others' cores",
    ]  # fmt: skip
    rows = []
    for record in records:
        if "failed" in record:
            continue
        goal = goals[record["workload"]]
        peer = f"{number(goal['peer_error'])} {goal['peer_error_name']}" if "peer_error" in goal else ""
        error = number(record["error"], 2)
        if "error_up_to" in record:
            # A peer's error is that of the values that it was measured on.
            up_to, of_these = record["error_up_to"]
            error += f"; {number(of_these, 2)} up to {up_to:g}"
            peer += f" up to {up_to:g}"
        rows.append([
            record["title"], f"{record['rounds']:.0f}", *(f"{sent:,.0f}" for sent in record["sent"]),
            f"{record['peak_mb']:.0f}", error, peer, number(record["largest"]),
            str(record["runs"]), f"{record['others']:.1f}",
        ])  # fmt: skip
    return table(heads, rows)


def floors(records: Sequence[Record]) -> str:
    """How far from what the machine could do, and what bounds it."""
    rows = []
    for record in records:
        if "floor" not in record:
            continue
        parts = record["floor"]
        total = sum(parts.values())
        rows.append([
            record["title"], *(number(parts[name]) for name in ("products", "bytes", "rounds")), number(total),
            number(record["seconds_least"]), _times(record["seconds_least"], total), max(parts, key=parts.get),
        ])  # fmt: skip
    heads = ["workload", "products, s", "bytes, s", "rounds, s", "sum", "least measured", "times the sum", "bound by"]
    return table(heads, rows)


def stock(records: Sequence[Record]) -> str:
    """What predictions take when servers have made them ready: before the batch is there, and with it."""
    rows = [
        [r["title"], number(r["seconds"]), number(r["ahead"]), number(r["online"]), number(r["online_least"]),
         _times(r["seconds"], r["online"]), number(r["call"]), number(r["online_call"]),
         f"{sum(r['ahead_sent']):,}", f"{sum(r['online_sent']):,}"]
        for r in records if "online" in r
    ]  # fmt: skip
    heads = ["workload", "servers, s", "ahead, s", "online, s", "least", "faster", "whole call", "call, online",
             "bytes ahead", "bytes online"]  # fmt: skip
    return table(heads, rows)


def forecasts(records: Sequence[Record]) -> str:
    """Whole seconds that `cost` tells next to those of the servers."""
    rows = [
        [r["title"], r["network"], number(r["forecast"]), number(r["seconds"]), number(r["forecast"] / r["seconds"], 2)]
        for r in records if "forecast" in r
    ]  # fmt: skip
    return table(["workload", "network", "forecast, s", "measured, s", "forecast / measured"], rows)


def markdown(content: Mapping) -> str:
    """Everything that `results.write` has kept."""
    facts = content["machine"]
    parts = [
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gb']:g} GB; {facts['kernel']}; "
        f"{facts['system']}, Python {facts['python']}, "
        f"{', '.join(f'{name} {version}' for name, version in facts['versions'].items())}; revision "
        f"{content['revision']}; {facts['date'][:10]}, load {facts['load'][0]:g} at the end."
    ]
    for network in dict.fromkeys(record["network"] for record in content["results"]):
        records = [record for record in content["results"] if record["network"] == network]
        peers = content["peers"] if network == "embedded" else []
        about = f"Links: {records[0]['links']}"
        if records[0]["round_trip"]:
            about += f", {records[0]['round_trip'] * 1e3:.2g} ms for a byte and its answer"
        parts += [f"### {network}", about + ".", speed(records, peers), costs(records)]
        if network == "embedded":
            parts += ["What the machine could do:", floors(records)]
        if any("online" in record for record in records):
            parts += ["Made ahead; bytes of all servers:", stock(records)]
    if any("forecast" in record for record in content["results"]):
        parts += ["### forecast", forecasts(content["results"])]
    return "\n\n".join(parts) + "\n"


def picture(content: Mapping, path: Path) -> None:
    """How many times faster than asked for, and than the best peer, for each workload."""
    goals = targets()
    records = [r for r in content["results"] if r["network"] == "embedded" and "seconds" in r and goals[r["workload"]]]
    figure, axis = pyplot.subplots(figsize=(9, 1.2 + 0.34 * len(records)), layout="constrained")
    bars = ((0.2, "peer", "best peer", "tab:blue"), (-0.2, "target", "asked for", "tab:orange"))
    for shift, key, label, colour in bars:
        places = [i for i, record in enumerate(records) if key in goals[record["workload"]]]
        ratios = [goals[records[i]["workload"]][key] / records[i].get("row", records[i]["seconds"]) for i in places]
        axis.barh([i + shift for i in places], ratios, 0.38, label=f"times faster than {label}", color=colour)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log")
    axis.set_yticks(range(len(records)), [record["title"] for record in records])
    axis.invert_yaxis()
    axis.set_xlabel("times faster (right of 1: faster)")
    axis.legend(loc="upper right")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def insert(page: Path, name: str, text: str) -> None:
    """Puts a text into a document, in place of what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        SystemExit: there is no such place.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"{page}: no place for it; expected {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def compare(before: Mapping, after: Mapping) -> str:
    """Two results side by side, workloads that both have."""
    old = {(record["network"], record["workload"]): record for record in before["results"] if "seconds" in record}
    columns: list[tuple[str, Callable[[Record], float]]] = [
        ("s", lambda r: r["seconds"]), ("least s", lambda r: r["seconds_least"]), ("call", lambda r: r["call"]),
        ("rounds", lambda r: r["rounds"]), ("MB sent", lambda r: sum(r["sent"]) / 1e6),
        ("peak MB", lambda r: r["peak_mb"]),
    ]  # fmt: skip
    heads = ["workload", "network", *(part for name, _ in columns for part in (f"{name} before", "after"))]
    heads += ["faster", "by the least"]
    rows = []
    for new in after["results"]:
        was = old.get((new["network"], new["workload"]))
        if was is None or "seconds" not in new:
            continue
        figures = [number(of(record)) for _, of in columns for record in (was, new)]
        faster = [_times(was[key], new[key]) for key in ("seconds", "seconds_least")]
        rows.append([new["title"], new["network"], *figures, *faster])
    named = (f"{name}: {c['revision']}, {c['machine']['date']}." for name, c in (("Before", before), ("After", after)))
    return " ".join(named) + "\n\n" + table(heads, rows)
