"""Single requests of any method, whole answers: log-ins, and writes to registries.

Beside documents.py and bodies.py, which read. Follows no redirects and retries nothing. Blocking;
any thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple, Self

import httpcore

from axonfs.errors import MalformedError
from axonfs.http_client.answers import HEADERS, Answer, check_framing
from axonfs.http_client.connections import (
    Ends,
    blocking_connections,
    check_surplus,
    request,
    translating,
)
from axonfs.http_client.faults import fault
from axonfs.http_client.fields import fields
from axonfs.http_client.limits import Limits
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.stages import told
from axonfs.http_client.urls import Url, shown
from axonfs.steps import Cause, Step
from axonfs.units import size

MAX_ANSWER = 4 << 20


_Pools = dict[tuple[bool, Url | None], httpcore.ConnectionPool]


class Said(NamedTuple):
    """An answer and its body."""

    answer: Answer
    body: bytes


class Calls:
    """A client for single requests; `with` closes its connections, or its end does.

    Args:
        trust: the certificate authorities; by default the system's.
        ends: when a connection ends though bytes arrive; by default never.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        trust: Trust | None = None,
        *,
        ends: Ends | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._ends = ends or Ends()
        self._trust = trust or Trust()
        self._routes = Routes.of_environment()
        self._pools: _Pools = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._pools).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            _close(self._pools)

    def send(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] = b"",
        length: int | None = None,
        limit: int = MAX_ANSWER,
        *,
        wait: float | None = None,
    ) -> Said:
        """The answer to one request, whatever its status is.

        Args:
            length: of `content`, if that is no bytes.
            limit: the maximum size of the answer's body.
            wait: seconds from one byte to the next, if the server may take longer than usual.

        Raises:
            AxonError: there is no answer; `transient` says whether to try again.
            MalformedError: the answer is larger than `limit`.
        """
        proxy = self._routes.proxy(url.origin)
        sent = {**HEADERS, **url.credentials, **(headers or {})}
        if method not in ("GET", "HEAD"):
            count = len(content) if isinstance(content, bytes) else length
            sent["Content-Length"] = str(count)
        limits = (
            self._limits if wait is None else replace(self._limits, first_byte=wait, stall=wait)
        )
        step = Step(Cause.DOCUMENT, f"asking {url.origin.authority}")
        parts = request(
            url,
            sent,
            connect=limits.connect,
            wait=limits.stall,
            trace=told(step, url.origin, proxy),
            forwarded=proxy is not None and not url.origin.secure,
        )
        name = shown(str(url))
        asking = Step(Cause.DOCUMENT, "asking", about=f"for {name}", source=name)
        with asking, step, translating(url, limits):
            pool = self._pool(url.origin.secure, proxy)
            with pool.stream(method, content=content, **parts) as response:
                answer = Answer(str(url), response.status, fields(response.headers))
                check_framing(answer)
                said = Said(answer, _body(response, url, limit))
                check_surplus(response)
                return said

    def _pool(self, secure: bool, proxy: Url | None) -> httpcore.ConnectionPool:
        with self._lock:
            key = secure, proxy
            if key not in self._pools:
                self._pools[key] = blocking_connections(secure, proxy, self._trust, self._ends)
            return self._pools[key]


def _close(pools: _Pools) -> None:
    while pools:
        pools.popitem()[1].close()


def _body(response: httpcore.Response, url: Url, limit: int) -> bytes:
    body = bytearray()
    for piece in response.iter_stream():
        body += piece
        if len(body) > limit:
            raise fault(MalformedError, f"the answer is larger than {size(limit)}", shown(str(url)))
    return bytes(body)
