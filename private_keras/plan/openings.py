"""Openings that a plan must declare: an output that is, in effect, somebody's input.

A value *shows* an input when it is computed from that input and public constants alone by steps that move, scale or add
elements: whoever receives it learns that input (or a linear image of it). Opening such a value to anybody but the
input's owner is refused, unless the plan says so by its kind, `reveal`, which a server's policy decides about.

This finds mistakes and the plain forms of abuse. It is no proof about what outputs tell of inputs: that is what owners
judge when they read a plan and pin its digest.
"""
from collections.abc import Sequence

from private_keras.errors import PlanError
from private_keras.plan.primitives import TABLE, Flow
from private_keras.plan.records import PlanInput, PlanOutput, Step

_PUBLIC = ""  # not a name: names are not empty
_MIXED = None


def refuse_undeclared(
    kind: str, inputs: Sequence[PlanInput], steps: Sequence[Step], outputs: Sequence[PlanOutput]
) -> None:
    """Raises a PlanError for an output that shows an input to another party than its owner, unless kind is `reveal`."""
    if kind == "reveal":
        return
    owners = {item.name: item.owner for item in inputs}
    shows = shown_inputs(inputs, steps)
    for item in outputs:
        source = shows[item.value]
        if not source:
            continue
        strangers = [receiver for receiver in item.receivers if receiver != owners[source]]
        if strangers:
            raise PlanError(
                f"output {item.name!r} would open the input {source!r} of {owners[source]!r} "
                f"to {', '.join(strangers)}: "
                "it is computed from that input by moving and scaling alone. An opening of an input must be declared: "
                "use a plan of kind 'reveal', which the owner's policy must allow."
            )


def shown_inputs(inputs: Sequence[PlanInput], steps: Sequence[Step]) -> dict[str, str | None]:
    """For each value the input it shows, "" for public values, None for values that show no single input."""
    shows: dict[str, str | None] = {item.name: _PUBLIC if item.public else item.name for item in inputs}
    for step in steps:
        shows[step.output] = _follow(TABLE[step.op].flow, [shows[name] for name in step.inputs])
    return shows


def _follow(flow: Flow, sources: list[str | None]) -> str | None:
    if all(source == _PUBLIC for source in sources):
        return _PUBLIC
    if flow is Flow.MOVE:
        return sources[0]
    secret = [source for source in sources if source != _PUBLIC]
    if flow is Flow.JOIN:
        return next((source for source in secret if source is not _MIXED), _MIXED)
    if flow is Flow.SUM:
        return secret[0] if len(set(secret)) == 1 else _MIXED
    if flow is Flow.PRODUCT:
        return secret[0] if len(secret) == 1 else _MIXED
    return _MIXED
