"""A look at a server's certificate before gRPC connects: for the pin, and for errors that say what is wrong."""

import ssl
import time

from private_keras.errors import DeadlineExceeded, SecurityError
from private_keras.transport.credentials import Credentials, Pem
from private_keras.transport.tls import connect, handshake, make_context


def probe(credentials: Credentials, pem: Pem, address: str, name: str, deadline: float) -> bytes:
    """Checks who answers at a control address, and that it accepts us.

    Args:
        pem: what `credentials` hold now.

    Returns:
        What gRPC is to trust, as PEM: the cluster's authority, or where `name` is pinned, that one certificate.

    Raises:
        ServerUnavailable: nobody answers.
        SecurityError: another party, an expired or foreign certificate, another key than pinned; or it refuses ours.
    """
    context = make_context(credentials, pem, server_side=False)
    context.set_alpn_protocols(["h2"])
    found, secured = handshake(context, connect(address, name, deadline), name, credentials.pins, deadline)
    with secured:
        if found != name:
            raise SecurityError(f"expected {name} at {address}. Received: a certificate of {found}")
        # In TLS 1.3 a server judges the client's certificate after the client's handshake is over. An HTTP/2 server
        # that is content speaks first.
        secured.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            answer = secured.recv(1)
        except ssl.SSLError as error:
            raise SecurityError(
                f"{name} refuses the certificate {credentials.certificate.name}: {error.reason}"
            ) from None
        except TimeoutError:
            raise DeadlineExceeded(f"{name} at {address} does not finish the connection") from None
        except OSError:
            answer = b""
        if not answer:
            raise SecurityError(
                f"{name} closed the connection: it refuses the certificate {credentials.certificate.name}"
            )
        if name in credentials.pins:
            return ssl.DER_cert_to_PEM_cert(secured.getpeercert(binary_form=True)).encode()
    return pem.trusted
