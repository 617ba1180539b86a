"""What a server's operator allows clients: how much at once, in the queue, on the server, and how often.

The `limits` entry of `cluster.json`; what it leaves out is as below. Each server keeps to its own description. Server 0
gives turns, so that `jobs` and `jobs_each` of the others say how many may be there, and not how many compute.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from private_keras.errors import InputError
from private_keras.server import limits


@dataclass(frozen=True)
class Allowance:
    """Numbers that an operator may choose.

    Attributes:
        jobs: that compute at once.
        jobs_each: of one client.
        queued: jobs beyond these that wait for their turn.
        queued_each: of one client.
        stored_share: of the room for shares, and of the number of tensors, that one client may take: 0 to 1.
        requests_a_minute: of one client, jobs, plans and uploads together; 0: any number.
        drain_seconds: that running jobs get after SIGTERM.
    """

    jobs: int = 8
    jobs_each: int = 8
    queued: int = 120
    queued_each: int = 60
    stored_share: float = 1.0
    requests_a_minute: int = 0
    drain_seconds: float = 30.0

    @property
    def present(self) -> int:
        """Jobs on the server, computing and waiting."""
        return self.jobs + self.queued

    @property
    def present_each(self) -> int:
        """Of one client."""
        return self.jobs_each + self.queued_each


# The least and the most of each.
_RANGES = {
    "jobs": (1, 64),
    "jobs_each": (1, 64),
    "queued": (0, limits.MAX_QUEUED),
    "queued_each": (0, limits.MAX_QUEUED),
    "stored_share": (0.0, 1.0),
    "requests_a_minute": (0, 1_000_000),
    "drain_seconds": (0.0, 3600.0),
}


def parse_allowance(content: Any, where: str) -> Allowance:
    """The `limits` entry; raises `InputError` that says which number cannot be."""
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected an object of numbers. Received: {type(content).__name__}")
    unknown = sorted(set(content) - set(_RANGES))
    if unknown:
        raise InputError(f"{where}: unknown limits {unknown}; known are {', '.join(_RANGES)}")
    for name, value in content.items():
        least, most = _RANGES[name]
        kinds = int | float if isinstance(least, float) else int
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most or math.isnan(value):
            raise InputError(f"{where}: {name}: expected {least} to {most}. Received: {value!r}")
    return dataclasses.replace(Allowance(), **content)
