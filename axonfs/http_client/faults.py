"""Make the errors of this package: each says what happened, where, and whether to retry.

Pure; knows the exceptions of sockets and TLS. Both clients turn the exceptions of their libraries
into AxonErrors with this module, so the same fault has the same message in both.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import TypeVar

from axonfs import descriptors
from axonfs.errors import AxonError, DeadlineError, ShortageError, UnavailableError
from axonfs.names import printable

# The hint if a source does not answer.
UP = "check that the registry is running; axonfs doctor asks it"

# OpenSSL's words for an answer that is plain text.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")

_REPR = re.compile(r"bytearray\(b(.*)\)", re.DOTALL)  # in h11's messages

Kind = TypeVar("Kind", bound=AxonError)


def fault(
    kind: type[Kind],
    what: str,
    source: str,
    *,
    transient: bool = False,
    retry_after: float | None = None,
    hint: str | None = None,
) -> Kind:
    """An error of `kind`; `transient` and `retry_after` are for the code that retries.

    Args:
        source: the URL, without credentials (`urls.shown`).
    """
    error = kind(what, source=source, hint=hint)
    error.transient = transient
    error.retry_after = retry_after
    return error


def deadline_passed(seconds: float, source: str, cause: AxonError | None = None) -> DeadlineError:
    """The error for a source without progress for `seconds`; `cause` ended the last attempt."""
    what = f"no progress for {seconds:g} s"
    if cause is not None:
        what += f"; the last attempt failed: {cause.what}"
    return fault(DeadlineError, what, source, transient=True, hint=UP)


def not_http(exc: Exception, source: str) -> UnavailableError:
    """The error for an answer that the HTTP parser rejects with `exc`."""
    text = _REPR.sub(r"\1", str(exc)) or type(exc).__name__
    what = f"invalid HTTP response: {printable(text)}"
    return fault(UnavailableError, what, source, transient=True)


def not_sent(source: str) -> UnavailableError:
    """The error for an invalid request. Does not quote the parser, whose text may hold a token."""
    what = "cannot send the request: the URL or a token has characters that HTTP does not allow"
    return fault(UnavailableError, what, source)


def network_fault(exc: BaseException, source: str) -> UnavailableError:
    """The error for an exception of a socket, the resolver or TLS, wrapped or not."""
    causes = list(_causes(exc))
    for short in filter(descriptors.is_shortage, causes):
        descriptors.complain(short)
        what = f"cannot send a request: {_reason(short)}"
        return fault(ShortageError, what, source, transient=True, hint="raise ulimit -n")
    for refused in (cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)):
        what = f"the TLS certificate is not trusted: {refused.verify_message}"
        hint = "for a private CA set SSL_CERT_FILE to its PEM file"
        return fault(UnavailableError, what, source, hint=hint)
    if any(isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS for cause in causes):
        hint = "if it has none, use http://, or ?plain_http=yes for an OCI registry"
        return fault(UnavailableError, "the server does not answer in TLS", source, hint=hint)
    for unknown in (cause for cause in causes if isinstance(cause, socket.gaierror)):
        what = f"the host name does not resolve: {unknown.strerror}"
        return fault(UnavailableError, what, source, transient=True, hint="check the URL")
    known = [_reason(cause) for cause in causes if isinstance(cause, OSError) and cause.strerror]
    text = known[-1] if known else str(exc) or type(exc).__name__
    return fault(UnavailableError, text.rstrip("."), source, transient=True)


def _reason(exc: OSError) -> str:
    """The system's text for the error; trio's text would show the address as a Python tuple."""
    if exc.errno and not isinstance(exc, ssl.SSLError):
        return os.strerror(exc.errno)
    return str(exc.strerror)


def _causes(exc: BaseException | None, depth: int = 10) -> Iterator[BaseException]:
    """`exc` and its causes: HTTP libraries wrap the first exception several times, trio in
    groups."""
    if exc is None or depth == 0:
        return
    yield exc
    members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    for cause in (*members, exc.__cause__ or exc.__context__):
        yield from _causes(cause, depth - 1)
