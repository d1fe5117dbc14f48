"""httpcore's connection pools, requests and exceptions, for the clients that use httpcore.

httpcore sends URLs and header fields unchanged, and follows no redirects. The modules that make
requests document their meaning. Pools are for trio, or blocking for any thread.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import h11
import httpcore

from axonfs.errors import DeadlineError, UnavailableError
from axonfs.http_client.dial import proxy_authorization
from axonfs.http_client.faults import UP, fault, network_fault, not_http, not_sent
from axonfs.http_client.limits import Limits
from axonfs.http_client.routes import Trust
from axonfs.http_client.urls import Url, shown
from axonfs.names import printable

_KEPT: dict[str, Any] = {
    "max_connections": None,
    "max_keepalive_connections": 8,
    "keepalive_expiry": 30.0,
}


def connections(secure: bool, proxy: Url | None, trust: Trust) -> httpcore.AsyncConnectionPool:
    """A pool of connections to origins of one scheme, through `proxy` if there is one."""
    if proxy is None:
        return httpcore.AsyncConnectionPool(ssl_context=_context(secure, trust), **_KEPT)
    return httpcore.AsyncHTTPProxy(**_through(proxy), ssl_context=_context(secure, trust), **_KEPT)


def blocking_connections(
    secure: bool, proxy: Url | None, trust: Trust, ends: Ends
) -> httpcore.ConnectionPool:
    """Like `connections`, for threads."""
    options = {**_KEPT, "network_backend": _Backend(ends)}
    if proxy is None:
        return httpcore.ConnectionPool(ssl_context=_context(secure, trust), **options)
    return httpcore.HTTPProxy(**_through(proxy), ssl_context=_context(secure, trust), **options)


def _context(secure: bool, trust: Trust) -> ssl.SSLContext:
    # Without TLS any context will do, and an empty one costs no time to load.
    return trust.context if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _through(proxy: Url) -> dict[str, Any]:
    headers = [(name.encode(), text.encode()) for name, text in proxy_authorization(proxy).items()]
    return {"proxy_url": _target(proxy), "proxy_headers": headers}


class _LateError(httpcore.ReadTimeout):
    """A connection was used for longer than it may be."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Seconds after which a connection ends, also if single bytes arrive again and again.

    Args:
        used: since it was made.
        answer: since the last byte of a request was sent, unless that request may wait longer.
    """

    used: float = inf
    answer: float = inf


class _Backend(httpcore.SyncBackend):
    def __init__(self, ends: Ends) -> None:
        self._ends = ends

    def connect_tcp(self, *args: Any, **named: Any) -> httpcore.NetworkStream:
        until = time.monotonic() + self._ends.used
        return _Stream(super().connect_tcp(*args, **named), self._ends, until)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, ends: Ends, until: float) -> None:
        self._stream = stream
        self._ends = ends
        self._until = until
        self._asked = inf  # when the last byte of a request was sent

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._stream.read(max_bytes, self._left(timeout))
        except httpcore.ReadTimeout:
            self._left(timeout)
            raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._asked = inf
        self._stream.write(buffer, self._left(timeout))
        self._asked = time.monotonic()

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        layer = self._stream.start_tls(ssl_context, server_hostname, self._left(timeout))
        return _Stream(layer, self._ends, self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left(self, timeout: float | None) -> float | None:
        """The shortest of `timeout` and the times that are left."""
        answer = max(self._ends.answer, timeout or 0)
        now = time.monotonic()
        left, seconds = min(
            (self._until - now, self._ends.used), (self._asked + answer - now, answer)
        )
        if left <= 0:
            raise _LateError(f"no whole answer within {seconds:g} s")
        shortest = left if timeout is None else min(left, timeout)
        return None if shortest == inf else shortest


def check_surplus(response: httpcore.Response) -> None:
    """After an answer was read, close its connection if more bytes followed.

    httpcore would take surplus bytes for the next answer. Before it reuses a connection it looks
    for bytes on the socket only, but its parser or TLS may hold them already.
    """
    stream: Any = response.stream
    parser: h11.Connection = stream._stream._connection._h11_state
    layer = response.extensions["network_stream"].get_extra_info("ssl_object")
    if parser.trailing_data[0] or (layer and _decrypts_more(layer)):
        parser.send_failed()


def _decrypts_more(layer: Any) -> bool:
    if not isinstance(layer, ssl.SSLObject):  # of a blocking socket: its `read` would wait
        return bool(layer.pending())
    try:
        layer.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass
    return True


def request(
    url: Url,
    headers: Mapping[str, str],
    *,
    connect: float,
    wait: float,
    trace: Callable[[str, Any], Any] | None = None,
    forwarded: bool = False,
) -> dict[str, Any]:
    """The arguments of a pool's `stream`, except the method.

    Args:
        connect, wait: seconds to connect, and from one byte to the next.
        trace: called with what httpcore does.
        forwarded: the request goes to an HTTP proxy, so its request line has the whole URL.
    """
    lines = [("Host", url.origin.authority), *headers.items()]
    timeout = {"connect": connect, "read": wait, "write": wait, "pool": None}
    return {
        "url": _target(url),
        "headers": [(name.encode(), text.encode()) for name, text in lines],
        "extensions": {"timeout": timeout, "sni_hostname": url.origin.host, "trace": trace}
        | ({"target": str(url).encode()} if forwarded else {}),
    }


def _target(url: Url) -> httpcore.URL:
    scheme, host, port, address = url.origin
    place = (address or host).encode()
    return httpcore.URL(scheme=scheme.encode(), host=place, port=port, target=url.target.encode())


@contextlib.contextmanager
def translating(url: Url, limits: Limits) -> Iterator[None]:
    """Turn httpcore's exceptions into AxonErrors."""
    source = shown(str(url))
    try:
        yield
    except httpcore.ConnectTimeout as exc:
        what = f"no connection within {limits.connect:g} s"
        raise fault(DeadlineError, what, source, transient=True, hint=UP) from exc
    except _LateError as exc:
        raise fault(DeadlineError, str(exc), source, transient=True, hint=UP) from exc
    except httpcore.TimeoutException as exc:
        what = f"received nothing for {limits.first_byte:g} s"
        raise fault(DeadlineError, what, source, transient=True, hint=UP) from exc
    except httpcore.ProxyError as exc:
        what = f"the proxy does not connect: {printable(str(exc))}"
        raise fault(UnavailableError, what, source, hint="check HTTPS_PROXY") from exc
    except httpcore.RemoteProtocolError as exc:
        raise not_http(exc, source) from exc
    except httpcore.LocalProtocolError as exc:
        raise not_sent(source) from exc
    except (httpcore.NetworkError, OSError) as exc:  # OSError: unreadable certificates
        raise network_fault(exc, source) from exc
