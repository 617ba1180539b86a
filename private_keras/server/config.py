"""`cluster.json`: which servers make up a cluster, where they are, and who they are.

The talk's form names addresses only; the data port is the control port + 1, certificates lie in `keys` beside the file:

    {"server0": "10.0.0.1:4000", "server1": "10.0.0.2:4000", "server2": "10.0.0.3:4000", "analyst": "10.0.0.9:0"}

The long form:

    {"protocol": "trio",
     "servers": [{"name": "server0", "control": "10.0.0.1:4000", "data": "10.0.0.1:4001",
                  "certificate": "sha256:..."}, ...],
     "parties": {"hospital-a": {"roles": ["server", "owner"], "address": "10.0.0.1:0", "certificate": "sha256:..."},
                 "analyst": {"roles": ["analyst"]}},
     "limits": {"jobs": 8, "queued_each": 60},
     "authority": "keys/authority.pem", "keys": "keys"}

`limits` are those of `allowance.py`. `certificate` is the pin of a party's public key, as `private-keras keys` prints;
without one, any certificate of the authority with the party's name is good.
`"authority": null` means that there is none: every party is pinned and its
certificate, made by itself, lies in `keys`. `clients` are parties with all roles (`roles.py`) but `server`. A server's
`operator` is the party on whose host it runs, if that is one of `parties`. Paths are relative to the file. A party's
`address` is for people; nobody dials it. Addresses `unix:/path` are for one machine.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from private_keras.errors import InputError
from private_keras.server import roles
from private_keras.server.allowance import Allowance, parse_allowance
from private_keras.transport.credentials import Credentials

PROTOCOLS = {"trio": 3}
PIN = re.compile(r"sha256:[0-9a-f]{64}")
HOST = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
NAME = re.compile(r"[A-Za-z0-9-]{1,63}")
MAX_FILE_BYTES = 1 << 20
ENTRIES = frozenset({"protocol", "servers", "clients", "parties", "limits", "authority", "keys"})


@dataclass(frozen=True)
class ServerAddress:
    """One server: `control` for clients, `data` for the other servers; `operator`: the party that runs it, or empty."""

    name: str
    control: str
    data: str
    operator: str = ""


@dataclass(frozen=True)
class ClusterConfig:
    """A cluster's description.

    Attributes:
        protocol: name of the protocol.
        servers: by party index.
        clients: names that may use the servers; None: everyone with a certificate of the authority.
        pins: party -> "sha256:..." of its public key.
        authority: certificate authority's PEM file; None on Unix sockets, and where every party made its own.
        keys: directory with `<name>.pem` and `<name>.key`; None on Unix sockets.
        roles: by name, of clients that have not all of them.
        allowance: what clients may take.
    """

    protocol: str
    servers: tuple[ServerAddress, ...]
    clients: frozenset[str] | None = None
    pins: dict[str, str] = field(default_factory=dict)
    authority: Path | None = None
    keys: Path | None = None
    roles: dict[str, frozenset[str]] = field(default_factory=dict)
    allowance: Allowance = Allowance()

    @property
    def local(self) -> bool:
        """Whether all servers are on this machine, over Unix sockets."""
        return self.servers[0].control.startswith("unix:")

    @property
    def names(self) -> list[str]:
        """Everybody whom the description names, servers first."""
        return [*(server.name for server in self.servers), *sorted(self.clients or ())]

    def credentials(self, name: str) -> Credentials:
        """Files that prove to be `name`."""
        if self.keys is None:
            raise InputError("a cluster on Unix sockets has no certificates")
        trusted = (self.authority,) if self.authority else tuple(self.keys / f"{party}.pem" for party in self.pins)
        return Credentials(trusted, self.keys / f"{name}.pem", self.keys / f"{name}.key", self.pins)

    def roles_of(self, name: str) -> frozenset[str]:
        """What a client may do."""
        return self.roles.get(name, roles.CLIENT)


def read_config(path: str | Path) -> ClusterConfig:
    """Reads a `cluster.json`.

    Raises:
        InputError: missing, not JSON, or not a cluster's description; says which entry.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(
                f"{path}: expected a cluster's description. Received: a file of {path.stat().st_size} bytes"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the cluster's description: {error}") from None
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    return parse_config(content, path.parent, str(path))


def parse_config(content: Any, directory: Path, where: str = "cluster.json") -> ClusterConfig:
    """A `ClusterConfig` from parsed JSON of either form; paths are relative to `directory`."""
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected an object with servers. Received: {type(content).__name__}")
    if "servers" not in content:
        content = _long_form(content, where)
    unknown = sorted(set(content) - ENTRIES)
    if unknown:
        raise InputError(f"{where}: unknown entries {unknown}; known are {', '.join(sorted(ENTRIES))}")
    protocol = content.get("protocol", "trio")
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise InputError(f"{where}: expected protocol to be one of {sorted(PROTOCOLS)}. Received: {protocol!r}")
    servers = content["servers"]
    if not isinstance(servers, list) or len(servers) != PROTOCOLS[protocol]:
        count = len(servers) if isinstance(servers, list) else type(servers).__name__
        raise InputError(f"{where}: {protocol} has {PROTOCOLS[protocol]} servers. Received: {count}")
    pins: dict[str, str] = {}
    parsed = tuple(_server(item, i, pins, f"{where}: servers[{i}]") for i, item in enumerate(servers))
    addresses = [a for server in parsed for a in (server.control, server.data)]
    if len(set(addresses)) != len(addresses):
        raise InputError(f"{where}: every server needs addresses of its own. Received: {addresses}")
    local = {a.startswith("unix:") for a in addresses}
    if len(local) == 2:
        raise InputError(f"{where}: Unix sockets and host:port cannot be mixed. Received: {addresses}")
    clients = _clients(content.get("clients"), pins, parsed, where)
    given = _parties(content.get("parties"), pins, parsed, where)
    if clients is not None or given is not None:
        twice = sorted((clients or frozenset()) & set(given or {}))
        if twice:
            raise InputError(f"{where}: {twice} stand both in clients and in parties")
        clients = (clients or frozenset()) | frozenset(given or {})
    _check_operators(parsed, given or {}, where)
    given = given or {}
    allowance = parse_allowance(content.get("limits", {}), f"{where}: limits")
    if local == {True}:
        return ClusterConfig(protocol, parsed, clients, pins, roles=given, allowance=allowance)
    keys = directory / _text(content.get("keys", "keys"), f"{where}: keys")
    authority = content.get("authority", "keys/authority.pem")
    if authority is None:
        unpinned = sorted({*(server.name for server in parsed), *(clients or ())} - set(pins))
        if clients is None or unpinned:
            raise InputError(
                f"{where}: without an authority every server and client needs the pin of its certificate. "
                f"Received: none of {unpinned or 'the clients'}"
            )
        return ClusterConfig(protocol, parsed, clients, pins, None, keys, given, allowance)
    authority = directory / _text(authority, f"{where}: authority")
    return ClusterConfig(protocol, parsed, clients, pins, authority, keys, given, allowance)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return result


def _long_form(content: dict[str, Any], where: str) -> dict[str, Any]:
    """The long form of the talk's `{"server0": "host:port", ...}`; other names are clients."""
    names = [f"server{i}" for i in range(PROTOCOLS["trio"])]
    missing = [name for name in names if name not in content]
    if missing:
        raise InputError(
            f'{where}: expected {{"server0": "host:port", "server1": ..., ...}} or an object with "servers". '
            f"Missing: {', '.join(missing)}"
        )
    servers = []
    for name in names:
        host, port = _address(content[name], f"{where}: {name}")
        servers.append({"name": name, "control": f"{host}:{port}", "data": f"{host}:{port + 1}"})
    clients = {name: {} for name in content if name not in names}
    return {"servers": servers, **({"clients": clients} if clients else {})}


def _server(item: Any, index: int, pins: dict[str, str], where: str) -> ServerAddress:
    if not isinstance(item, dict) or not set(item) <= {"name", "control", "data", "certificate", "operator"}:
        raise InputError(
            f"{where}: expected an object with name, control, data, certificate and operator. Received: {item!r}"
        )
    name = f"server{index}"
    if item.get("name", name) != name:
        raise InputError(
            f"{where}: expected name {name!r}: servers are listed by party index. Received: {item['name']!r}"
        )
    if "control" not in item:
        raise InputError(f"{where}: expected a control address. Received: entries {sorted(item)}")
    control = _text(item["control"], f"{where}: control")
    if control.startswith("unix:"):
        data = _text(item.get("data", ""), f"{where}: data")
        if not data.startswith("unix:/") or not control.startswith("unix:/"):
            raise InputError(
                f"{where}: expected control and data as unix:/absolute/path. Received: {control!r}, {data!r}"
            )
    else:
        host, port = _address(control, f"{where}: control")
        data = f"{host}:{port + 1}"
        if "data" in item:
            _address(item["data"], f"{where}: data")
            data = item["data"]
    _pin(item, name, pins, where)
    operator = _text(item["operator"], f"{where}: operator") if "operator" in item else ""
    return ServerAddress(name, control, data, operator)


def _clients(
    content: Any, pins: dict[str, str], servers: tuple[ServerAddress, ...], where: str
) -> frozenset[str] | None:
    if content is None:
        return None
    if not isinstance(content, dict):
        raise InputError(f"{where}: clients: expected an object of names. Received: {type(content).__name__}")
    for name, item in content.items():
        _check_name(name, servers, f"{where}: clients")
        if not isinstance(item, dict) or not set(item) <= {"certificate"}:
            raise InputError(f"{where}: clients: {name}: expected an object with certificate. Received: {item!r}")
        _pin(item, name, pins, f"{where}: clients: {name}")
    return frozenset(content)


def _parties(
    content: Any, pins: dict[str, str], servers: tuple[ServerAddress, ...], where: str
) -> dict[str, frozenset[str]] | None:
    """Roles by name."""
    if content is None:
        return None
    where = f"{where}: parties"
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected an object of names. Received: {type(content).__name__}")
    found = {}
    for name, item in content.items():
        _check_name(name, servers, where)
        if not isinstance(item, dict) or not set(item) <= {"roles", "address", "certificate"}:
            raise InputError(
                f"{where}: {name}: expected an object with roles, address and certificate. Received: {item!r}"
            )
        given = item.get("roles")
        if not isinstance(given, list) or not given or not all(isinstance(r, str) and r in roles.ROLES for r in given):
            raise InputError(f"{where}: {name}: expected roles among {sorted(roles.ROLES)}. Received: {given!r}")
        if "address" in item:
            _text(item["address"], f"{where}: {name}: address")
        _pin(item, name, pins, f"{where}: {name}")
        found[name] = frozenset(given)
    return found


def _check_operators(servers: tuple[ServerAddress, ...], given: dict[str, frozenset[str]], where: str) -> None:
    operators = [server.operator for server in servers if server.operator]
    if len(set(operators)) != len(operators):
        raise InputError(
            f"{where}: expected another operator for each server: who runs two of them can read everything. "
            f"Received: {operators}"
        )
    claimed = sorted(name for name, held in given.items() if roles.SERVER in held)
    if claimed != sorted(operators):
        raise InputError(
            f"{where}: expected parties with the role server to be the operators of servers. "
            f"Received: roles of {claimed}, operators {sorted(operators)}"
        )


def _check_name(name: str, servers: tuple[ServerAddress, ...], where: str) -> None:
    if not NAME.fullmatch(name) or name in {s.name for s in servers}:
        raise InputError(f"{where}: expected names of letters, digits and hyphens, not a server's. Received: {name!r}")


def _pin(item: dict[str, Any], name: str, pins: dict[str, str], where: str) -> None:
    if "certificate" in item:
        if not isinstance(item["certificate"], str) or not PIN.fullmatch(item["certificate"]):
            raise InputError(
                f"{where}: certificate: expected sha256: and 64 hex digits. Received: {item['certificate']!r}"
            )
        pins[name] = item["certificate"]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{where}: expected text. Received: {value!r}")
    return value


def _address(value: Any, where: str) -> tuple[str, int]:
    match = HOST.fullmatch(value) if isinstance(value, str) else None
    if not match or not 0 <= int(match["port"]) <= 65534:
        raise InputError(f"{where}: expected host:port. Received: {value!r}")
    return match["host"], int(match["port"])
