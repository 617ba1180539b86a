"""Results for somebody else: what their sender holds, and how their receiver gets them."""
import contextlib
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from private_keras.cluster.current import current
from private_keras.errors import HandleNotFound, InputError
from private_keras.plan.plan import Plan
from private_keras.server.config import NAME as PARTY
from private_keras.server.storage import check_name

DEFAULT_NAME = "result"
# Results of several jobs that are one: name, which run of them, which part and of how many.
_PART = re.compile(r"(?P<name>.+)/(?P<run>[0-9a-f]{8})\.(?P<part>[0-9]{1,7})\.(?P<parts>[0-9]{1,7})")
_LONGEST = 80 - len("/01234567.9999999.9999999")


@dataclass(frozen=True)
class Delivery:
    """What was sent to somebody else, who alone can open it: `pk.receive("sender/name")`.

    Attributes:
        to: the receiver.
        name: what it is called.
        shape: of the result; of a dict of results, shapes by name.
    """

    to: str
    name: str
    shape: Any

    def __repr__(self) -> str:
        return f"<Delivery {self.name!r} to {self.to}, shape {self.shape}>"


class Address:
    """Where results of one call go.

    Args:
        to: the receiver.
        name: what they are called; None for `DEFAULT_NAME`.
        parts: how many jobs give them; None while that is not known.

    Raises:
        InputError: no party's name, or no name of a result.
    """

    def __init__(self, to: str, name: str | None, parts: int | None = 1):
        self.to = to
        self.name = DEFAULT_NAME if name is None else name
        if not isinstance(to, str) or not PARTY.fullmatch(to):
            raise InputError(f"to: expected a party's name, as in its certificate. Received: {ascii(to)[:100]}")
        check_name(self.name)
        if len(self.name) > _LONGEST:
            raise InputError(f"name: expected at most {_LONGEST} characters. Received: {len(self.name)}")
        if _PART.fullmatch(self.name):
            raise InputError("name: expected a name that does not end like that of a part of a result")
        self._parts = parts
        self._run = secrets.token_hex(4)

    def part(self, index: int) -> str:
        """What the servers call the result of one of the jobs."""
        return self.name if self._parts == 1 else f"{self.name}/{self._run}.{index}.{self._parts}"


def addressed(plan: Plan, to: str) -> Plan:
    """The plan that opens to somebody else what it would open to its client."""
    outputs = tuple(replace(item, receivers=(to,)) if item.receivers else item for item in plan.outputs)
    return replace(plan, outputs=outputs)


def deliveries() -> list[str]:
    """What others have sent to this client, whole: "analyst/scores", oldest first."""
    return list(dict.fromkeys(f"{sender}/{name}" for (sender, name, _), _ in _whole(current())))


def receive(name: str) -> Any:
    """What somebody else has sent to this client; the servers forget it then.

    Args:
        name: "analyst/scores", for what analyst sent as "scores". Of several with that name, the oldest.

    Returns:
        A NumPy array; a dict of them where several were sent together.

    Raises:
        HandleNotFound: there is nothing, not all of it yet, or it was received before.
    """
    with fetched(name) as result:
        return result


@contextlib.contextmanager
def fetched(name: str) -> Iterator[Any]:
    """What `receive` returns; the servers forget it after the `with` block, and keep it where that raises.

    Raises:
        HandleNotFound: as `receive`.
    """
    cluster = current()
    if not isinstance(name, str):
        raise InputError(f'expected a name like "analyst/scores". Received: {type(name).__name__}')
    for (sender, called, _), parts in _whole(cluster):
        if f"{sender}/{called}" == name:
            yield _joined([cluster.fetch(part) for part in parts])
            for part in parts:
                cluster.received(part)
            return
    raise HandleNotFound(f"nothing waits here as {name!r}, or not all of it yet. If it was received before, sent to "
                         "somebody else, too old, or lost by a server without storage, its sender can send it again. "
                         "pk.deliveries() lists what waits")


def _whole(cluster: Any) -> Iterator[tuple[tuple[str, str, str], list[Any]]]:
    """Deliveries of which all parts are there, with their parts in order."""
    found: dict[tuple[str, str, str], tuple[int, dict[int, Any]]] = {}
    for item in cluster.deliveries():
        part = _PART.fullmatch(item.name)
        if part is None:
            found[item.sender, item.name, item.id.hex()] = 1, {0: item}
            continue
        key = item.sender, part["name"], part["run"]
        found.setdefault(key, (int(part["parts"]), {}))[1][int(part["part"])] = item
    for key, (count, parts) in found.items():
        if len(parts) == count and set(parts) == set(range(count)):
            yield key, [parts[index] for index in range(count)]


def _joined(parts: list[Mapping[str, np.ndarray]]) -> Any:
    whole = {
        name: parts[0][name] if len(parts) == 1 else np.concatenate([part[name] for part in parts])
        for name in parts[0]
    }
    return next(iter(whole.values())) if len(whole) == 1 else whole
