"""What a call fails with: a gRPC code and a message. Maps the package's errors to the codes of the
specification's error scheme.
"""

from __future__ import annotations

import grpc

from axonfs import errors
from axonfs.errors import AxonError
from axonfs.names import printable

# The status travels in a header, for which HTTP/2 has limits.
MOST = 1000

# The first that fits; what is not here is INTERNAL.
_CODES: tuple[tuple[type[BaseException], grpc.StatusCode], ...] = (
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.AccessDeniedError, grpc.StatusCode.PERMISSION_DENIED),
    (errors.UntrustedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.UnverifiedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NoSpaceError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.BusyError, grpc.StatusCode.ABORTED),
    (errors.DeadlineError, grpc.StatusCode.UNAVAILABLE),
    (errors.OfflineError, grpc.StatusCode.UNAVAILABLE),
    (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE),
)


class RefusedError(Exception):
    """A call fails with `code`; the text is for the pod's events."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def invalid(text: str) -> RefusedError:
    """A field of the request is missing or invalid."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)


def unavailable(text: str) -> RefusedError:
    """The mount, or what it needs, does not answer now."""
    return RefusedError(grpc.StatusCode.UNAVAILABLE, text)


def status_of(exc: Exception) -> tuple[grpc.StatusCode, str]:
    """The code and the message of a call that failed with `exc`."""
    text = printable(str(exc) or type(exc).__name__, MOST)
    if isinstance(exc, RefusedError):
        return exc.code, text
    if isinstance(exc, AxonError):
        found = (code for kind, code in _CODES if isinstance(exc, kind))
        return next(found, grpc.StatusCode.INTERNAL), text
    if isinstance(exc, OSError):
        return grpc.StatusCode.INTERNAL, text
    return grpc.StatusCode.INTERNAL, f"this is a bug: {type(exc).__name__}; see the plugin's log"
