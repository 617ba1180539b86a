"""Errors across the control plane: an exception of ours becomes a gRPC status with a structured detail, and back."""

import grpc
from google.protobuf.message import DecodeError

from private_keras import errors
from private_keras.server import limits
from private_keras.server.jobs import JobCancelled
from private_keras.server.wire import messages_pb2 as wire

DETAIL_KEY = "private-keras-error-bin"

# First match counts, so subclasses stand before their bases.
_CODES: tuple[tuple[type[errors.PrivateKerasError], grpc.StatusCode], ...] = (
    (JobCancelled, grpc.StatusCode.CANCELLED),
    (errors.HandleNotFound, grpc.StatusCode.NOT_FOUND),
    (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.PeerLost, grpc.StatusCode.ABORTED),
    (errors.ServerUnavailable, grpc.StatusCode.ABORTED),
    (errors.VersionMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ClusterError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.SecurityError, grpc.StatusCode.PERMISSION_DENIED),
    (errors.FrameError, grpc.StatusCode.DATA_LOSS),
    (errors.KernelError, grpc.StatusCode.INTERNAL),
    (errors.InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.PlanError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.PrivateKerasError, grpc.StatusCode.INTERNAL),
)


def code_of(error: errors.PrivateKerasError) -> grpc.StatusCode:
    """gRPC status code of an exception."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def detail_of(error: errors.PrivateKerasError, server: str) -> wire.ErrorDetail:
    """The structured detail: the nearest public class, the message, who says it."""
    public = next(c for c in type(error).__mro__ if c.__module__ == errors.__name__)
    return wire.ErrorDetail(
        error=public.__name__, message=str(error)[: limits.DETAIL_CHARACTERS], server=server, kind=type(error).__name__
    )


def from_call(error: grpc.RpcError, server: str, address: str) -> tuple[errors.PrivateKerasError, str]:
    """The exception that a failed call stands for, naming the server; and its exact kind, "" if it gave none."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAIL_KEY:
            try:
                detail = wire.ErrorDetail.FromString(value)
            except DecodeError:
                break
            known = getattr(errors, detail.error, None)
            if not (isinstance(known, type) and issubclass(known, errors.PrivateKerasError)):
                known = errors.ClusterError
            return known(f"{server}: {_shown(detail.message)}"), detail.kind
    code, text = error.code(), _shown((error.details() or "")[:300])
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.ServerUnavailable(f"{server} does not answer at {address}: {text}"), ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded(f"{server} did not answer in time; it is stalled or overloaded"), ""
    if code is grpc.StatusCode.CANCELLED:
        return errors.ClusterError(f"{server}: the call was cancelled"), "JobCancelled"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.VersionMismatch(f"{server} at {address} is not a server of this release: {text}"), ""
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return errors.SecurityError(f"{server}: {text}"), ""
    return errors.ClusterError(f"{server}: {code.name if code else 'error'}: {text}"), ""


def _shown(text: str) -> str:
    """A server's words as a terminal may show them: none that it would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
