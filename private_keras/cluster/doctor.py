"""Checks that a person asks for: is each server there, of this release, and how long are certificates good."""

import datetime
from pathlib import Path

from cryptography import x509

from private_keras.cluster.client import ServerClient
from private_keras.cluster.cluster import CONNECT_SECONDS
from private_keras.errors import InputError, PrivateKerasError
from private_keras.server.config import ClusterConfig, read_config

WARN_DAYS = 30


def examine(config: Path, identity: str | None) -> tuple[str, bool]:
    """A report, one line a check, and whether all is well.

    Raises:
        InputError: the description cannot be read, or an identity is missing.
    """
    description = read_config(config)
    if not description.local and identity is None:
        raise InputError("a cluster over TLS needs to know who you are: --identity NAME")
    lines = [f"cluster {config}: protocol {description.protocol}, {len(description.servers)} servers"]
    healthy = _certificates(description, identity, lines)
    for server in description.servers:
        client = ServerClient(description, server, identity)
        try:
            reply = client.connect(CONNECT_SECONDS)
            state = client.health()
            lines.append(
                f"ok    {server.name} at {server.control}: release {reply.version}, kernel {reply.kernel}, "
                f"up {state.seconds:.0f} s, {state.jobs} jobs, {state.stored_bytes:,} bytes stored"
            )
        except PrivateKerasError as error:
            healthy = False
            lines.append(f"FAIL  {type(error).__name__}: {error}")
        finally:
            client.close()
    return "\n".join(lines), healthy


def _certificates(description: ClusterConfig, identity: str | None, lines: list[str]) -> bool:
    """Certificates that lie here: the authority's and the client's."""
    if description.local or identity is None:
        return True
    files = description.credentials(identity)
    healthy = True
    for path in (*files.trusted, files.certificate):
        try:
            end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            healthy = False
            lines.append(f"FAIL  {path}: {getattr(error, 'strerror', None) or 'not a certificate'}")
            continue
        days = (end - datetime.datetime.now(datetime.UTC)).days
        healthy = healthy and days >= 0
        word = "ok   " if days >= WARN_DAYS else "soon " if days >= 0 else "FAIL "
        lines.append(f"{word} {path.name}: valid until {end:%Y-%m-%d} ({days} days)")
    return healthy
