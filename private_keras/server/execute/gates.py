"""Comparisons that are paid for once: the bits of `relu x` stay until the last `gate` of the same x.

The bits are a value of their own, under a name that no value of a plan can have, so they are freed like any other.
"""
from collections.abc import Collection, Sequence

from private_keras.plan.plan import Step

# Steps that compare x with zero, and can leave the bits [x > 0] beside their result.
KEEPERS = ("relu", "abs", "gate")


def bits_of(name: str) -> str:
    """The name of the bits [x > 0] of a value. Names of a plan have no blanks."""
    return f"{name} > 0"


def kept_bits(steps: Sequence[Step], public: Collection[str]) -> list[tuple[str, str]]:
    """For each step: the name of the bits that it uses, and of those that it leaves; "" for none.

    Args:
        steps: a plan's.
        public: names of values that all servers know; nothing is kept of them, they cost nothing.
    """
    gated = {step.inputs[0] for step in steps if step.op == "gate"} - set(public)
    there: set[str] = set()
    result = []
    for step in steps:
        uses = keeps = ""
        x = step.inputs[0] if step.inputs else ""
        if x in gated:
            if step.op == "gate" and x in there:
                uses = bits_of(x)
            elif x not in there and step.op in KEEPERS:
                keeps = bits_of(x)
                there.add(x)
        result.append((uses, keeps))
    return result
