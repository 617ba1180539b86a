"""Who calls: the name in the client's certificate, or the local user on a Unix socket in a private directory."""

import grpc
from cryptography import x509

from private_keras.errors import SecurityError
from private_keras.server.config import ClusterConfig
from private_keras.transport.tls import check_pin, name_of

LOCAL = "local"


class Identities:
    """Tells callers apart.

    Args:
        config: names the clients that may call, and their pins.
    """

    def __init__(self, config: ClusterConfig):
        self._config = config
        self._known: dict[bytes, str] = {}

    def of(self, context: grpc.ServicerContext) -> str:
        """The caller's identity.

        Raises:
            SecurityError: no certificate, another key than the pinned one, or a name that may not call.
        """
        if self._config.local:
            return LOCAL
        shown = context.auth_context().get("x509_pem_cert") or []
        if len(shown) != 1:
            raise SecurityError("a client must show a certificate of the cluster's authority")
        name = self._known.get(shown[0])
        if name is None:
            name = self._check(x509.load_pem_x509_certificate(shown[0]))
            if len(self._known) < 1000:
                self._known[shown[0]] = name
        return name

    def _check(self, certificate: x509.Certificate) -> str:
        name = name_of(certificate)
        check_pin(certificate, name, self._config.pins)
        if name in {server.name for server in self._config.servers}:
            raise SecurityError(f"{name} is a server of this cluster and cannot be its client")
        if self._config.clients is not None and name not in self._config.clients:
            raise SecurityError(f"{name} is not among the clients in the cluster's description")
        return name
