"""Objects' bytes: ranged GETs with blocking sockets, straight into a reused buffer.

Sits beside documents.py, which has everything else that is asked over HTTP. httpcore moves a tenth
of what a blocking `readinto` does per second of CPU, and through the event loop at that.

Threading: for worker threads; every method may be called from several at once. A call uses one
connection and one buffer, both its own until it returns.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import h11

from axonfs.descriptors import is_shortage
from axonfs.errors import AccessDeniedError, UnavailableError, VanishedError
from axonfs.http_client.answers import (
    HEADERS,
    Answer,
    check_etag,
    check_framing,
    check_status,
    codings,
    range_headers,
)
from axonfs.http_client.dial import Dialer
from axonfs.http_client.faults import fault
from axonfs.http_client.limits import DRAIN_BYTES, DRAIN_SECONDS, Limits
from axonfs.http_client.pool import Buffers, Pool
from axonfs.http_client.reading import Body, Exchange, Reading, mapped
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.urls import (
    MAX_REDIRECTS,
    REDIRECTS,
    Origin,
    Url,
    carried,
    endless,
    follow,
    shown,
    target_of,
)
from axonfs.http_client.wire import CancelledReadError, Wire
from axonfs.ranges import Range, aligned

Sink = Callable[[int, memoryview], object]
_EXPECTED = frozenset({200, 206})
SIGNED_URLS = 4096  # remembered; each is some 1000 characters


@dataclass(frozen=True, slots=True)
class Location:
    """Where an object's bytes are.

    Args:
        headers: credentials, sent to this URL's origin only.
        etag: that of an answer whose bytes these have to be of, if any.
        signed: it redirects to a URL on another host that may be asked until it is refused, as
            a hub's do. Only `url` is then asked again, and an ETag means nothing.
        access: what a person can do where access is denied.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    etag: str | None = None
    signed: bool = False
    access: str | None = None


@dataclass(frozen=True, slots=True)
class _Asking:
    """How one `read` asks."""

    cancelled: Callable[[], bool]
    patience: float | None
    redirected: Callable[[Origin], object]


class Bodies:
    """Reads ranges of objects over kept-alive connections; `with` closes them.

    Args:
        trust: whom to trust, where it is not the system's choice.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        trust: Trust | None = None,
        *,
        routes: Routes | None = None,
    ) -> None:
        self.limits = limits or Limits()
        routes = routes or Routes.of_environment()
        self._dialer = Dialer(self.limits, routes, trust or Trust())
        self._pool = Pool()
        self._buffers = Buffers()
        self._signed: dict[str, Url] = {}  # where a signed location's URL led to last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; one in use closes when its read ends."""
        self._pool.close()

    def read(
        self,
        location: Location,
        start: int,
        stop: int,
        size: int,
        sink: Sink,
        *,
        unit: int,
        cancelled: Callable[[], bool] = bool,
        validated: Callable[[str], str | None] | None = None,
        patience: float | None = None,
        redirected: Callable[[Origin], object] = bool,
    ) -> None:
        """Ask once for the bytes `[start, stop)` of an object of `size` bytes.

        Args:
            sink: called with offset and view of pieces, in order, each of which ends at a
                multiple of `unit` or with the answer. The view is good until it returns; what it
                raises passes through. A server that ignores ranges gets its whole object read,
                and the sink is given all of it, from 0 to `size`.
            cancelled: asked between receives, a few times a second; once it is true the read
                ends early and without an error. Connecting is not interrupted.
            validated: told the ETag of the first answer, if it has one, before any of its bytes.
                Returns the one that it and further answers to this read must have, if any.
            patience: seconds to wait for a connection and for each byte, where that is less than
                the usual.
            redirected: called with the origin that a redirect leads to, if it is another one,
                before it is asked; what it raises passes through.

        Raises:
            AxonError: what went wrong, with `transient` and `retry_after` for the next attempt.
        """
        asked = Range(start, stop)
        asking = _Asking(cancelled, patience, redirected)
        with (
            contextlib.suppress(CancelledReadError),
            self._open(location, asked, size, asking, validated) as reading,
        ):
            self._stream(reading, Range(0, size) if reading.whole else asked, sink, unit)

    def open(
        self,
        location: Location,
        start: int,
        size: int,
        *,
        cancelled: Callable[[], bool] = bool,
        patience: float | None = None,
    ) -> Reading:
        """Ask once for the bytes of an object of `size` bytes from `start` on; `with` ends it.

        Args:
            cancelled, patience: as for `read`.

        Raises:
            AxonError: as `read`; so do the reading's methods.
            CancelledReadError: `cancelled` became true; here, or in the reading's methods.
        """
        return self._open(location, Range(start, size), size, _Asking(cancelled, patience, bool))

    def _open(
        self,
        location: Location,
        asked: Range,
        size: int,
        asking: _Asking,
        validated: Callable[[str], str | None] | None = None,
    ) -> Reading:
        if not 0 <= asked.start < asked.stop <= size:
            raise ValueError(f"[{asked.start}, {asked.stop}) is not in an object of {size} bytes")
        tied = location

        def ask(at: int) -> Body:
            return self._ask_for(tied, Range(at, asked.stop), size, asking)

        with contextlib.ExitStack() as opened:
            reading = Reading(ask(asked.start), ask, self._pool, self.limits)
            opened.enter_context(reading)
            etag = reading.answer.headers.get("etag")
            if validated and etag and not location.signed and not codings(reading.answer):
                tied = replace(location, etag=validated(etag))
                if tied.etag:  # that of another answer, which came at the same time, say
                    check_etag(reading.answer, tied.etag)
            opened.pop_all()
        return reading

    def _stream(self, reading: Reading, wanted: Range, sink: Sink, unit: int) -> None:
        buffer = self._buffers.take(min(unit, wanted.size))
        try:
            for part in aligned(wanted, unit):
                piece = buffer[: part.size]
                reading.fill(piece, part.start)
                sink(part.start, piece)
        finally:
            self._buffers.put(buffer)

    def _ask_for(self, location: Location, asked: Range, size: int, asking: _Asking) -> Body:
        exchange = self._find(location, asked, asking)
        try:
            with mapped(exchange.answer.url, self.limits):
                return Body(exchange, asked, size, location.etag)
        except BaseException:
            exchange.wire.hang_up()
            raise

    # -- asking ------------------------------------------------------------------------------

    def first_asked(self, location: Location) -> Origin:
        """The origin that is asked first for the bytes at `location`."""
        return (self._signed.get(location.url) or target_of(location.url)).origin

    def _find(self, location: Location, asked: Range, asking: _Asking) -> Exchange:
        """The answer that has a body, after redirects."""
        url = target_of(location.url)
        secrets: Mapping[str, str] = {**url.credentials, **location.headers}
        headers = {**HEADERS, **range_headers(asked, location.etag)}
        if known := self._signed.get(location.url):
            found = self._ask_signed(location, known, headers, asking)
            if found:
                return found
        for _ in range(MAX_REDIRECTS + 1):
            found = self._ask(url, {**headers, **secrets}, asking)
            if found.answer.status not in REDIRECTS:
                self._check(found, location)
                self._remember(location, url)
                return found
            self._drain(found)
            following = follow(url, found.answer.headers.get("location"))
            if following.origin != url.origin:
                self._tell(location, following, asking)
            secrets, url = carried(secrets, url, following), following
        raise endless(location.url)

    def _ask_signed(
        self,
        location: Location,
        url: Url,
        headers: Mapping[str, str],
        asking: _Asking,
    ) -> Exchange | None:
        """The answer of a URL that was redirected to earlier; None if it no longer serves."""
        try:
            found = self._ask(url, headers, asking)
        except BaseException:
            self._signed.pop(location.url, None)
            raise
        if found.answer.status in _EXPECTED:
            return found
        self._signed.pop(location.url, None)
        self._drain(found)
        return None

    def _tell(self, location: Location, url: Url, asking: _Asking) -> None:
        """Tell of a redirect; one that has to wait for its turn is remembered meanwhile."""
        try:
            asking.redirected(url.origin)
        except BaseException:
            self._remember(location, url)
            raise

    def _remember(self, location: Location, url: Url) -> None:
        """A hub wants to be asked once per file, not once per range: it counts requests."""
        if location.signed and url.origin != target_of(location.url).origin:
            if len(self._signed) >= SIGNED_URLS:
                self._signed.clear()
            self._signed[location.url] = url

    def _check(self, found: Exchange, location: Location) -> None:
        url = found.url
        try:
            check_status(found.answer, _EXPECTED, VanishedError)
        except AccessDeniedError as exc:
            self._drain(found)
            if location.signed and url.origin != target_of(location.url).origin:
                what = f"a signed URL is refused: {exc.what}"
                raise fault(UnavailableError, what, shown(str(url)), transient=True) from exc
            exc.hint = location.access or exc.hint
            raise
        except BaseException:
            self._drain(found)
            raise

    def _ask(self, url: Url, headers: Mapping[str, str], asking: _Asking) -> Exchange:
        """One request: on a kept wire if there is one, else on a new one.

        A kept wire may be closed by the server at the very moment it is used, or bring what the
        last answer had too much. That is no answer to this request, so it goes out again, on a
        wire that is new.
        """
        if asking.cancelled():
            raise CancelledReadError
        with mapped(str(url), self.limits):
            if kept := self._pool.take(url.origin):
                with contextlib.suppress(ConnectionError, ssl.SSLError, h11.RemoteProtocolError):
                    return self._ask_on(kept, url, headers, asking)
            return self._ask_on(self._dial(url, asking.patience), url, headers, asking)

    def _dial(self, url: Url, patience: float | None) -> Wire:
        try:
            return self._dialer.dial(url, patience)
        except OSError as exc:
            if not is_shortage(exc):
                raise
            self._pool.hang_up()  # an idle connection has a descriptor that this one may have
            return self._dialer.dial(url, patience)

    def _ask_on(
        self, wire: Wire, url: Url, headers: Mapping[str, str], asking: _Asking
    ) -> Exchange:
        target, extra = self._dialer.target(url)
        try:
            sent = {**headers, **extra}
            reply = wire.ask(url, target, sent, asking.cancelled, asking.patience)
            answer = Answer(str(url), reply.status, reply.fields)
            check_framing(answer)
        except BaseException:
            wire.hang_up()
            raise
        return Exchange(wire, reply, answer, url)

    def _drain(self, found: Exchange) -> None:
        """Read an error page that is short and already there; it is not worth a wait."""
        found.wire.hurry(DRAIN_SECONDS)
        left = DRAIN_BYTES
        with contextlib.suppress(OSError, h11.RemoteProtocolError, CancelledReadError):
            while left > 0 and (piece := found.reply.read(left)):
                left -= len(piece)
        found.end(self._pool)
