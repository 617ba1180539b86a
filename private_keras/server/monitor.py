"""Health, readiness and metrics over plain HTTP, for an orchestrator and Prometheus: GET /healthz, /readyz, /metrics.

It has no certificate and asks for none, and says nothing that the server's log does not say: keep it on loopback or in
a network of the operator's own.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

from private_keras.errors import ClusterError, InputError
from private_keras.server.config import HOST

# For a whole call, however it comes in.
CALLER_SECONDS = 2.0
# At once; one more is turned away.
CALLERS = 32
LOOPBACK = "127.0.0.1"


class Monitor:
    """Answers in a thread of its own until `close`.

    Args:
        address: "host:port", or a port on loopback.
        metrics: the text of /metrics.
        unready: why the server should get no requests now; empty when it may.

    Raises:
        InputError: not an address.
        ClusterError: it cannot be listened on.
    """

    def __init__(self, address: str, metrics: Callable[[], str], unready: Callable[[], list[str]]):
        host, port = parse_address(address)

        class Handler(BaseHTTPRequestHandler):
            timeout = CALLER_SECONDS
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._answer(200, "alive\n")
                elif self.path == "/readyz":
                    reasons = unready()
                    self._answer(503 if reasons else 200, "".join(f"{reason}\n" for reason in reasons) or "ready\n")
                elif self.path == "/metrics":
                    self._answer(200, metrics(), "text/plain; version=0.0.4; charset=utf-8")
                else:
                    self._answer(404, "there are /healthz, /readyz and /metrics\n")

            def _answer(self, code: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
                body = text.encode()
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def version_string(self) -> str:
                return "private_keras"

            def log_message(self, *_: Any) -> None:
                """The server's own log has what matters."""

        try:
            self._server = _Server((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise ClusterError(f"cannot listen on {address} for metrics: {error}") from None
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True).start()

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any):
        self._free = threading.BoundedSemaphore(CALLERS)
        super().__init__(*arguments)

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread for it
            self._free.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: Any) -> None:
        # A timeout of the socket is one between two bytes.
        timer = threading.Timer(CALLER_SECONDS, _end, [request])
        timer.daemon = True
        try:
            timer.start()
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's name, which can take long and is not used.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, *_: Any) -> None:
        """A caller that is slow, or went away."""


def _end(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "port"; raises InputError."""
    match = HOST.fullmatch(address if ":" in address else f"{LOOPBACK}:{address}")
    if match is None or int(match["port"]) > 65535:
        raise InputError(f"expected host:port or a port. Received: {address!r}")
    return match["host"].strip("[]"), int(match["port"])
