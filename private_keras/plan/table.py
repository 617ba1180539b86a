"""The plan as a table for people: who provides what, what is computed, what is opened and to whom."""
import html
from collections.abc import Sequence
from typing import Protocol as Shape

from private_keras.plan.records import PlanInput, PlanOutput, Step, TensorType

Row = tuple[str, ...]


class Described(Shape):
    """What the table needs of a plan."""

    name: str
    kind: str
    inputs: tuple[PlanInput, ...]
    steps: tuple[Step, ...]
    outputs: tuple[PlanOutput, ...]
    types: dict[str, TensorType]
    digest: str


def as_text(plan: Described) -> str:
    """The plan in columns of plain text."""
    parts = [f"Plan {plan.name!r} ({plan.kind})"]
    for title, header, rows in _sections(plan):
        parts.append("")
        parts.append(title)
        parts.extend(_columns(header, rows))
    parts.extend(("", _closing(plan)))
    return "\n".join(parts)


def as_html(plan: Described) -> str:
    """The same as HTML, every text escaped."""
    parts = [f"<h4>Plan {html.escape(plan.name)} ({html.escape(plan.kind)})</h4>"]
    for title, header, rows in _sections(plan):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h5>{html.escape(title)}</h5><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    parts.append(f"<p>{html.escape(_closing(plan))}</p>")
    return "".join(parts)


def _sections(plan: Described) -> list[tuple[str, Row, list[Row]]]:
    secret, public = (
        [(i.name, _shape(i.type), _bits(i.type), _provider(i), i.label) for i in plan.inputs if i.public == known]
        for known in (False, True)
    )
    steps, last = [], None
    for step in plan.steps:
        kind = plan.types[step.output]
        layer = step.layer if step.layer != last else ""
        last = step.layer
        operands = " ".join(step.inputs[:6]) + (" ..." if len(step.inputs) > 6 else "")
        steps.append((layer, step.op, operands, step.output, _shape(kind), _bits(kind)))
    opened = [
        (o.name, o.value, _shape(plan.types[o.value]), str(plan.types[o.value].size), ", ".join(o.receivers))
        for o in plan.outputs
        if o.receivers
    ]
    kept = [
        (o.name, o.value, _shape(plan.types[o.value]), o.carry or "-") for o in plan.outputs if not o.receivers
    ]
    provided = ("input", "shape", "fraction", "provided by", "label")
    sections = [
        ("Provided, secret", provided, secret),
        ("Provided, public", provided, public),
        ("Computed on shares", ("layer", "operation", "of", "value", "shape", "fraction"), steps),
        ("Kept as shares", ("output", "value", "shape", "next step's input"), kept),
        ("Opened", ("output", "value", "shape", "numbers", "to"), opened),
    ]
    return [section for section in sections if section[2] or section[0] in ("Provided, secret", "Opened")]


def _provider(item: PlanInput) -> str:
    return f"{item.owner}: {item.shares}" if item.shares else item.owner


def _closing(plan: Described) -> str:
    opened = [o for o in plan.outputs if o.receivers]
    count = len(opened)
    numbers = sum(plan.types[o.value].size for o in opened)
    values = "1 value is" if count == 1 else f"{count} values are"
    return f"{values} opened ({numbers} numbers), nothing else. Digest sha256:{plan.digest}"


def _shape(kind: TensorType) -> str:
    return "(" + ", ".join(str(n) for n in kind.shape) + ")"


def _bits(kind: TensorType) -> str:
    return str(kind.fraction) if kind.fraction else "integer"


def _columns(header: Row, rows: Sequence[Row]) -> list[str]:
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
