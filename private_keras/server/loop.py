"""One job's steps: the same plan again and again on one party's shares, by one protocol object.

Nothing is checked here: whoever makes a `Feed` has checked it. A step adds to the plan's own cost a NumPy `take` for
each input of rows, and one round for what is carried and not in masked form yet.
"""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

import numpy as np

from private_keras.protocols.protocol import Protocol, Share
from private_keras.server import limits
from private_keras.server.execute import Program
from private_keras.server.execute.program import OnStep

TakeRows = Callable[[np.ndarray], Share]
# Yields how many steps are done, and returns the outputs of the last one as shares, by name.
Steps = Generator[int, None, dict[str, Share]]


@dataclass(frozen=True)
class Feed:
    """What the plan's inputs are, at one party, by name; every input in one of the three.

    Attributes:
        steps: how often the plan runs.
        fixed: shares, the same at every step; of a carried input, what it is at the first.
        rows: how to take rows of a stored tensor, and their indices (steps, rows).
        public: ring elements (1, *shape) for all steps or (steps, *shape).
    """

    steps: int
    fixed: Mapping[str, Share]
    rows: Mapping[str, tuple[TakeRows, np.ndarray]] = field(default_factory=dict)
    public: Mapping[str, np.ndarray] = field(default_factory=dict)


def run_steps(program: Program, protocol: Protocol, feed: Feed, on_step: OnStep | None = None) -> Steps:
    """Runs all steps; yields after each.

    Args:
        on_step: called after each step of the plan, as in `Program.compute`.
    """
    carries = [(item.name, item.carry) for item in program.plan.outputs if item.carry]
    inputs: dict[str, Share | np.ndarray] = dict(feed.fixed)
    outputs: dict[str, Share] = {}
    for done in range(feed.steps):
        for name, (take, indices) in feed.rows.items():
            inputs[name] = take(indices[done])
        for name, values in feed.public.items():
            # With the dots, a value of rank 0 stays an array.
            inputs[name] = values[done if len(values) > 1 else 0, ...]
        outputs = program.compute(protocol, inputs, on_step)
        if done + 1 < feed.steps:
            # Together, in one round; the next step starts from the masked form as the first did.
            protocol.mask(*(outputs[name] for name, _ in carries))
            for name, carry in carries:
                inputs[carry] = outputs[name]
        yield done + 1
    return outputs


def paced(steps: Steps) -> Steps:
    """The same, but yields now and then only, for people who watch."""
    told = time.monotonic()
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            return end.value
        now = time.monotonic()
        if now - told >= limits.PROGRESS_SECONDS:
            told = now
            yield done
