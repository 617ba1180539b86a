"""Where calls come in: who asks, whether it may and how often, and what becomes of an error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from private_keras.errors import InputError, PrivateKerasError, SecurityError
from private_keras.server import limits
from private_keras.server.failures import DETAIL_KEY, code_of, detail_of
from private_keras.server.identity import Identities
from private_keras.server.log import Log
from private_keras.server.metrics import Metrics
from private_keras.server.oversight import Oversight
from private_keras.server.pace import Pace
from private_keras.server.wire import messages_pb2 as wire

SERVICE = "private_keras.v1.Server"
# Every call, and whether its requests and its replies are streams.
STREAMS = {
    "Hello": (False, False),
    "Health": (False, False),
    "Probe": (False, False),
    "Upload": (True, False),
    "Delete": (False, False),
    "Prepare": (True, False),
    "Run": (True, True),
    "RunShort": (False, False),
    "Cancel": (False, False),
    "Save": (True, False),
    "Commit": (False, False),
    "Saved": (False, True),
    "Load": (False, True),
    "Forget": (False, False),
    "SetPolicy": (False, False),
    "PlanText": (False, True),
    "Deliveries": (False, True),
    "Receive": (False, True),
    "Audit": (False, True),
    "Put": (True, False),
}


class Entrance:
    """Guards the calls of a service.

    Args:
        server: its name.
        use_memory: called at the start of each call: lets the arrays of its context come from the server's memory.
        oversight: logs who is refused.
    """

    def __init__(
        self, server: str, identities: Identities, pace: Pace, use_memory: Callable[[], None], metrics: Metrics,
        log: Log, oversight: Oversight,
    ):  # fmt: skip
        self._server = server
        self._identities = identities
        self._pace = pace
        self._use_memory = use_memory
        self._metrics = metrics
        self._log = log
        self._oversight = oversight

    def handler(self, service: Any) -> grpc.GenericRpcHandler:
        """The calls of `service` as gRPC takes them: its methods have the calls' names in small letters.

        Requests are streams to gRPC, of one message where there is one: it would wait for that in one of the server's
        threads before this class is asked who calls, and how often.
        """
        calls = {}
        for name, (many, streamed) in STREAMS.items():
            make = grpc.stream_stream_rpc_method_handler if streamed else grpc.stream_unary_rpc_method_handler
            request, reply = (getattr(wire, name.removesuffix("Short") + kind) for kind in ("Request", "Reply"))
            guarded = (self._guard_stream if streamed else self._guard)(name, getattr(service, name.lower()), many)
            calls[name] = make(guarded, self._reading(request.FromString), self._writing(reply.SerializeToString))
        return grpc.method_handlers_generic_handler(SERVICE, calls)

    def _reading(self, parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def read(data: bytes) -> Any:
            self._metrics.add("control_bytes_total", len(data), direction="received")
            return parse(data)

        return read

    def _writing(self, pack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        def write(message: Any) -> bytes:
            data = pack(message)
            self._metrics.add("control_bytes_total", len(data), direction="sent")
            return data

        return write

    def _guard(self, name: str, call: Callable[..., Any], many: bool) -> Callable[..., Any]:
        def guarded(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._answered(name, context) as identity:
                return call(requests if many else _only(requests), identity, context)

        return guarded

    def _guard_stream(self, name: str, call: Callable[..., Any], many: bool) -> Callable[..., Any]:
        def guarded(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._answered(name, context) as identity:
                yield from call(requests if many else _only(requests), identity, context)

        return guarded

    @contextmanager
    def _answered(self, name: str, context: grpc.ServicerContext) -> Iterator[str]:
        """The caller's identity, for a `with` block whose errors become the call's refusal."""
        identity, result = "", "gone"
        try:
            identity = self._enter(name, context)
            with self._pace.present(identity):
                yield identity
            result = "ok"
        except PrivateKerasError as error:
            result = "refused"
            self._refuse(name, error, identity, context)
        except Exception as error:
            if context.is_active():  # else the client is gone, and gRPC's own iterators say so in many ways
                result = "failed"
                self._crash(name, error, context)
        finally:
            self._metrics.request(name, result, identity)

    def _enter(self, name: str, context: grpc.ServicerContext) -> str:
        """The caller's identity; raises for a call that is not for it, or not now."""
        left = context.time_remaining()
        if left is None or left > 2 * limits.MAX_SECONDS:
            raise InputError("a call needs a deadline of at most two days, so that none can hold the server for ever")
        self._use_memory()  # gRPC gives every call a context of its own
        identity = self._identities.of(context, name)
        self._pace.count(identity, name)
        return identity

    def _refuse(self, name: str, error: PrivateKerasError, identity: str, context: grpc.ServicerContext) -> None:
        self._metrics.add("errors_total", call=name, error=type(error).__name__)
        kind = "warning" if isinstance(error, SecurityError) else "info"
        self._log.write(
            kind, f"{name.lower()} failed", error=type(error).__name__, message=str(error)[: limits.DETAIL_CHARACTERS]
        )
        if identity and isinstance(error, SecurityError):
            try:
                self._oversight.refused(identity, name, error)
            except PrivateKerasError as failure:  # a disk that is full: the caller is refused all the same
                self._log.write("error", "refusal not in the audit log", error=type(failure).__name__)
        detail = detail_of(error, self._server)
        context.set_trailing_metadata(((DETAIL_KEY, detail.SerializeToString()),))
        context.abort(code_of(error), detail.message)

    def _crash(self, name: str, error: Exception, context: grpc.ServicerContext) -> None:
        self._metrics.add("errors_total", call=name, error=type(error).__name__)
        self._log.crash(f"{name.lower()} failed", error)
        own = PrivateKerasError(f"internal error ({type(error).__name__}); the server's log says where")
        context.set_trailing_metadata(((DETAIL_KEY, detail_of(own, self._server).SerializeToString()),))
        context.abort(grpc.StatusCode.INTERNAL, str(own))


def _only(requests: Iterator[Any]) -> Any:
    request = next(requests, None)
    if request is None:
        raise InputError("the call ended before its message")
    return request
