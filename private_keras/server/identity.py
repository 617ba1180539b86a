"""Who calls: the name in the client's certificate, or the local user on a Unix socket in a private directory."""

import datetime

import grpc
from cryptography import x509

from private_keras.errors import SecurityError
from private_keras.server import roles
from private_keras.server.config import ClusterConfig
from private_keras.server.plans import CLIENT
from private_keras.transport.credentials import check_pin, name_of

LOCAL = "local"


class Identities:
    """Tells callers apart.

    Args:
        config: names the clients that may call, and their pins.
    """

    def __init__(self, config: ClusterConfig):
        self._config = config
        self._known: dict[bytes, tuple[str, datetime.datetime]] = {}

    def of(self, context: grpc.ServicerContext, call: str) -> str:
        """The caller's identity.

        Raises:
            SecurityError: no certificate, one that has ended since the connection began, another key than the pinned
                one, a name that may not call, or a call that none of its roles allows.
        """
        if self._config.local:
            return LOCAL
        shown = context.auth_context().get("x509_pem_cert") or []
        if len(shown) != 1:
            raise SecurityError("a client must show a certificate of the cluster's authority")
        known = self._known.get(shown[0])
        if known is None:
            certificate = x509.load_pem_x509_certificate(shown[0])
            known = self._check(certificate), certificate.not_valid_after_utc
            if len(self._known) < 1000:
                self._known[shown[0]] = known
        name, end = known
        if datetime.datetime.now(datetime.UTC) > end:
            raise SecurityError(
                f"the certificate of {name} has expired; make a new one with `private-keras keys --renew`"
            )
        self.require(name, call)
        return name

    def require(self, name: str, call: str) -> None:
        """Raises `SecurityError` for a call that none of a client's roles allows, or what amounts to it."""
        roles.require(name, self._config.roles_of(name), call)

    def _check(self, certificate: x509.Certificate) -> str:
        name = name_of(certificate)
        check_pin(certificate, name, self._config.pins)
        if name == CLIENT:
            raise SecurityError(f"{name!r} is what plans call whoever runs them, and no party's name; take another one")
        if name in {server.name for server in self._config.servers}:
            raise SecurityError(f"{name} is a server of this cluster and cannot be its client")
        if self._config.clients is not None and name not in self._config.clients:
            raise SecurityError(f"{name} is not among the clients in the cluster's description")
        return name
