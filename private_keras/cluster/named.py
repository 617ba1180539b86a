"""What is kept under names on all servers of a cluster, as a client may know it."""

import datetime
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from private_keras.server.config import ClusterConfig
from private_keras.server.policy import Policy
from private_keras.server.terms import Source
from private_keras.server.wire import messages_pb2 as wire

SETTLED_SECONDS = 60.0


@dataclass(frozen=True)
class Tensor:
    """One tensor among those under a name.

    Attributes:
        label: its name among them.
        fraction: fractional bits.
        dtype: as its owner had it; empty where nobody said.
    """

    label: str
    shape: tuple[int, ...]
    fraction: int
    dtype: str


@dataclass(frozen=True)
class Named:
    """Shares under a name.

    Attributes:
        policy: of one's own; None of those of others.
        bytes: on the disk of the server that takes most.
        created: seconds since 1970, by a server's clock.
        agreed: whether all servers have the same policy.
    """

    owner: str
    name: str
    entries: tuple[Tensor, ...]
    policy: Policy | None
    bytes: int
    created: float
    agreed: bool = True

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


def named(told: Sequence[Mapping[Source, wire.Found]], others: bool) -> list[Named]:
    """The newest generation of each name that all servers have.

    Args:
        told: what each server says.
        others: whether these are names of others.
    """
    common = {source for source, found in told[0].items() if all(_committed(each, source) for each in told)}
    newest: dict[tuple[str, str], Source] = {}
    for source in sorted(common):
        newest[source.owner, source.name] = source
    result = []
    for source in newest.values():
        found = told[0][source]
        entries = tuple(Tensor(e.label, tuple(e.shape), e.fraction, e.dtype) for e in found.entries)
        policy = None if others else Policy.from_json(found.policy)
        most = max(each[source].bytes for each in told)
        agreed = len({each[source].policy for each in told}) == 1
        result.append(Named(source.owner, source.name, entries, policy, most, found.created, agreed))
    return result


def doubts(told: Mapping[str, Mapping[Source, wire.Found]], now: float) -> list[str]:
    """Where servers differ in what they keep for its owner: a change did not reach all, or one was put back to an older
    copy of itself.

    Args:
        told: by server, what it says of the owner's shares.
        now: seconds since 1970; what is newer than a minute may be on its way.
    """
    found = []
    for source in sorted({source for each in told.values() for source in each}):
        having = [server for server, each in told.items() if _committed(each, source)]
        if not having or any(each[source].created > now - SETTLED_SECONDS for each in told.values() if source in each):
            continue
        lacking = [server for server in told if server not in having]
        if lacking:
            found.append(f"{source}: {', '.join(having)} kept a version of it that {', '.join(lacking)} did not: share "
                         "it again, or delete it")
        elif len({each[source].policy for each in told.values()}) > 1:
            by_policy: dict[str, list[str]] = {}
            for server, each in told.items():
                by_policy.setdefault(each[source].policy, []).append(server)
            said = "; ".join(f"{', '.join(servers)}: {policy}" for policy, servers in by_policy.items())
            found.append(f"{source}: servers have different policies of it, {said}. Set it again (pk.set_policy)")
    return [f"{text}. A change did not reach all servers, or one was put back to an older copy of itself: "
            "private-keras audit says which" for text in found]


def _committed(told: Mapping[Source, wire.Found], source: Source) -> bool:
    return source in told and told[source].committed


def warn_of(policy: Policy, config: ClusterConfig) -> None:
    """Gives a warning for a policy that allows less than it seems to: it has ended, or names somebody unknown."""
    if policy.until is not None and policy.until < datetime.datetime.now(datetime.UTC):
        warnings.warn(f"the policy ended on {policy.until:%Y-%m-%d %H:%M} UTC: nobody else can use the shares",
                      stacklevel=2)
    unknown = sorted({*policy.use, *policy.reveal_to} - set(config.names)) if config.clients is not None else []
    if unknown:
        warnings.warn(f"the policy names {', '.join(unknown)}, and the cluster's description does not: parties are "
                      f"{', '.join(sorted(config.clients))}", stacklevel=2)


def as_table(rows: Iterable[Named]) -> str:
    """For people."""
    lines = []
    for row in rows:
        tensors = ", ".join(f"{e.label} {e.dtype or 'real'}{list(e.shape)}" for e in row.entries[:4])
        more = f" and {len(row.entries) - 4} more" if len(row.entries) > 4 else ""
        lines.append(f"{row}  {tensors}{more}  {row.bytes:,} bytes")
        if row.policy is not None:
            lines.append(f"    policy: {row.policy.to_json()}")
    return "\n".join(lines) or "none"
