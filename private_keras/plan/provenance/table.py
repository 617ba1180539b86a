"""What a plan's outputs show of whom, as text for who is to allow it."""

from private_keras.plan.plan import Plan
from private_keras.plan.provenance import Level, trace

WORDS = {
    Level.RAW: "the data themselves, or what is as good as them",
    Level.ROWS: "results for single rows",
    Level.REDUCED: "what is reduced over rows",
}
# Whose inputs are the same for all rows, unless a job takes rows of them.
_WEIGHTS = "model-owner"


def as_text(plan: Plan) -> str:
    """Each output: to whom it is opened, and what it shows of whose inputs."""
    carried = {item.carry for item in plan.outputs}
    secret = [item for item in plan.inputs if not item.public]
    rows = [item.name for item in secret if item.owner != _WEIGHTS and item.name not in carried and item.type.shape]
    shown = trace(plan, {item.name: {item.owner: Level.RAW} for item in secret}, rows)
    public = [item.name for item in plan.inputs if item.public]
    lines = [f"Shows, where a job takes rows of {_some(rows)}"]
    if public:
        lines.append(f"(whoever runs the plan chooses the numbers of rows, and {_some(public)})")
    for item in plan.outputs:
        to = f"opened to {', '.join(item.receivers)}" if item.receivers else "kept as shares"
        lines.append(f"  {item.name}, {to}")
        for owner, what in sorted(shown[item.name].items()):
            lines.append(f"    of {owner}: {WORDS[what.level]}")
        if not shown[item.name]:
            lines.append("    nothing but public values")
    return "\n".join(lines)


def _some(names: list[str]) -> str:
    return (", ".join(names[:8]) or "nothing") + (f" and {len(names) - 8} more" if len(names) > 8 else "")
