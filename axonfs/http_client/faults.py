"""Make the errors of this package: each says what happened, where, and whether to ask again.

Pure, except that it knows the exceptions of sockets and TLS. Both clients turn what their library
raises into an AxonError here or through here, so a fault reads the same on either path.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from typing import TypeVar

from axonfs import descriptors
from axonfs.errors import AxonError, DeadlineError, ShortageError, UnavailableError
from axonfs.names import printable

UP = "is the registry up"  # the hint where a source does not answer

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
    """An error of `kind`, marked for whoever decides about retries.

    Args:
        source: the URL, without credentials (`urls.shown`).
    """
    error = kind(what, source=source, hint=hint)
    error.transient = transient
    error.retry_after = retry_after
    return error


def deadline_passed(seconds: float, source: str, cause: AxonError | None = None) -> DeadlineError:
    """The fault of a source that made no progress for `seconds`, last because of `cause`."""
    what = f"no progress for {seconds:g} s"
    if cause is not None:
        what += f"; the last attempt: {cause.what}"
    return fault(DeadlineError, what, source, transient=True, hint=UP)


def not_http(exc: Exception, source: str) -> UnavailableError:
    """The error for an answer that the parser of HTTP refuses; `exc` has its words."""
    words = printable(str(exc) or type(exc).__name__)
    what = f"its answer is not HTTP that makes sense: {words}"
    return fault(UnavailableError, what, source, transient=True)


def not_sent(source: str) -> UnavailableError:
    """The error for a request that HTTP cannot carry. The parser's words would show a token."""
    what = "the request cannot be sent: the URL or a token has characters that HTTP does not allow"
    return fault(UnavailableError, what, source)


def network_fault(exc: BaseException, source: str) -> UnavailableError:
    """The error for what a socket, the resolver or TLS raised (anywhere in its chain)."""
    causes = list(_causes(exc))
    for short in filter(descriptors.is_shortage, causes):
        descriptors.complain(short)
        what = f"it could not be asked: {_reason(short)}"
        return fault(ShortageError, what, source, transient=True, hint="raise ulimit -n")
    for refused in (cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)):
        what = f"its TLS certificate is not trusted: {refused.verify_message}"
        hint = "for a private CA set SSL_CERT_FILE to its PEM file"
        return fault(UnavailableError, what, source, hint=hint)
    for unknown in (cause for cause in causes if isinstance(cause, socket.gaierror)):
        what = f"its host name does not resolve: {unknown.strerror}"
        return fault(UnavailableError, what, source, transient=True, hint="check the URL")
    known = [_reason(cause) for cause in causes if isinstance(cause, OSError) and cause.strerror]
    text = known[-1] if known else str(exc) or type(exc).__name__
    return fault(UnavailableError, text.rstrip("."), source, transient=True)


def _reason(exc: OSError) -> str:
    """What the system says of it; trio's text has the address in it as a Python tuple."""
    if exc.errno and not isinstance(exc, ssl.SSLError):
        return os.strerror(exc.errno)
    return str(exc.strerror)


def _causes(exc: BaseException | None, depth: int = 10) -> Iterator[BaseException]:
    """`exc` and what is below it: HTTP libraries wrap the real one a few times, trio in groups."""
    if exc is None or depth == 0:
        return
    yield exc
    members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    for cause in (*members, exc.__cause__ or exc.__context__):
        yield from _causes(cause, depth - 1)
