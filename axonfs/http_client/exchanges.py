"""One request and its answer, on a connection that is kept or made for it.

Below bodies.py, which knows what to ask for. Blocking, for worker threads; several threads may call
every method at once.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import h11

from axonfs.descriptors import is_shortage
from axonfs.http_client.answers import Answer, check_framing
from axonfs.http_client.dial import Dialer
from axonfs.http_client.limits import CONNECT_NEAR, DRAIN_BYTES, DRAIN_SECONDS, Limits
from axonfs.http_client.pool import Pool
from axonfs.http_client.reading import Exchange, mapped
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.urls import Origin, Url
from axonfs.http_client.wire import CancelledReadError, Wire
from axonfs.steps import Cause, Step


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one read, for each of its requests.

    Args:
        cancelled, patience, redirected, share: as for `Bodies.read`.
        spread: whether any address of the host will do.
        near: whether the server is a site cache.
    """

    cancelled: Callable[[], bool]
    patience: float | None
    redirected: Callable[[Origin], object]
    share: Callable[[int], int] | None
    spread: bool
    near: bool

    @property
    def to_connect(self) -> float | None:
        """Seconds for a connection, if less than the usual: a site cache is near."""
        if not self.near:
            return self.patience
        return CONNECT_NEAR if self.patience is None else min(self.patience, CONNECT_NEAR)


class Exchanges:
    """Sends requests, and keeps connections in `pool` for the next ones."""

    def __init__(self, limits: Limits, routes: Routes, trust: Trust, pool: Pool) -> None:
        self._limits = limits
        self._dialer = Dialer(limits, routes, trust)
        self._pool = pool

    def send(self, url: Url, headers: Mapping[str, str], options: Options) -> Exchange:
        """Send one request, on an idle wire if the pool has one, else on a new wire.

        The server may close an idle wire just before its use, and an idle wire may still carry
        surplus bytes of its last answer. In both cases the request is sent again on a new wire.
        """
        if options.cancelled():
            raise CancelledReadError
        with mapped(str(url), self._limits):
            if kept := self._pool.take(url.origin, spread=options.spread):
                with contextlib.suppress(ConnectionError, ssl.SSLError, h11.RemoteProtocolError):
                    return self._send_on(kept, url, headers, options)
            return self._send_on(self._dial(url, options), url, headers, options)

    def _dial(self, url: Url, options: Options) -> Wire:
        try:
            return self._dialer.dial(url, options.to_connect, spread=options.spread)
        except OSError as exc:
            if not is_shortage(exc):
                raise
            self._pool.hang_up()  # frees the descriptors of idle connections
            return self._dialer.dial(url, options.to_connect, spread=options.spread)

    def _send_on(
        self, wire: Wire, url: Url, headers: Mapping[str, str], options: Options
    ) -> Exchange:
        target, extra = self._dialer.target(url)
        try:
            sent = {**headers, **extra}
            with Step(Cause.FIRST_BYTE, partial(wire.awaited, url.origin.authority)):
                reply = wire.request(url, target, sent, options.cancelled, options.patience)
            answer = Answer(str(url), reply.status, reply.fields)
            check_framing(answer)
        except BaseException:
            wire.hang_up()
            raise
        return Exchange(wire, reply, answer, url)

    def drain(self, found: Exchange) -> bytes:
        """Read the rest of a short answer that has already arrived, so its wire can be reused;
        return its start."""
        found.wire.hurry(DRAIN_SECONDS)
        said, left = bytearray(), DRAIN_BYTES
        with contextlib.suppress(OSError, h11.RemoteProtocolError, CancelledReadError):
            while left > 0 and (piece := found.reply.read(left)):
                said += piece
                left -= len(piece)
        found.end(self._pool)
        return bytes(said)
