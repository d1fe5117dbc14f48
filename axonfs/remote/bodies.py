"""Objects' bytes: ranged GETs with blocking sockets, straight into a reused buffer.

Sits beside documents.py, which has everything else that is asked over HTTP. httpx moves a tenth
of what a blocking `readinto` does per second of CPU, and through the event loop at that.

Threading: for worker threads; every method may be called from several at once. A call uses one
connection and one buffer, both its own until it returns.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from axonfs.errors import AccessDeniedError, UnavailableError, VanishedError
from axonfs.ranges import Range, aligned
from axonfs.remote.answers import HEADERS, Answer, body_range, check_status, range_headers
from axonfs.remote.dial import Dialer
from axonfs.remote.faults import deadline_passed, fault, network_fault
from axonfs.remote.limits import DRAIN_BYTES, DRAIN_SECONDS, Limits
from axonfs.remote.pool import Buffers, Pool
from axonfs.remote.routes import Routes, Trust
from axonfs.remote.urls import (
    MAX_REDIRECTS,
    REDIRECTS,
    Url,
    carried,
    endless,
    follow,
    shown,
    target_of,
)
from axonfs.remote.wire import CancelledReadError, SlowError, Wire

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
class _Reply:
    """An answer whose body is still on the wire."""

    wire: Wire
    response: http.client.HTTPResponse
    answer: Answer


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
        validated: Callable[[str], object] = bool,
    ) -> None:
        """Ask once for the bytes `[start, stop)` of an object of `size` bytes.

        Args:
            sink: called with offset and view of pieces, in order, each of which ends at a
                multiple of `unit` or with the answer. The view is good until it returns; what it
                raises passes through. A server that ignores ranges gets its whole object read,
                and the sink is given all of it, from 0 to `size`.
            cancelled: asked between receives, a few times a second; once it is true the read
                ends early and without an error. Connecting is not interrupted.
            validated: told the ETag of the answer, if it has one, before any of its bytes.

        Raises:
            AxonError: what went wrong, with `transient` and `retry_after` for whoever retries.
        """
        if not 0 <= start < stop <= size:
            raise ValueError(f"[{start}, {stop}) is not in an object of {size} bytes")
        with contextlib.suppress(CancelledReadError):
            asked = Range(start, stop)
            reply, url = self._find(location, asked, cancelled)
            with self._ending(reply, url):
                held = body_range(reply.answer, asked, size, location.etag)
                if (etag := reply.answer.headers.get("etag")) and not location.signed:
                    validated(etag)
                reply.wire.expect(held.size)
                self._stream(reply, held, sink, unit)

    # -- asking ------------------------------------------------------------------------------

    def _find(
        self, location: Location, asked: Range, cancelled: Callable[[], bool]
    ) -> tuple[_Reply, Url]:
        """The answer that has a body, after redirects."""
        url = target_of(location.url)
        secrets: Mapping[str, str] = {**url.credentials, **location.headers}
        headers = {**HEADERS, **range_headers(asked, location.etag)}
        if known := self._signed.get(location.url):
            reply = self._ask_signed(location, known, headers, cancelled)
            if reply:
                return reply, known
        for _ in range(MAX_REDIRECTS + 1):
            reply = self._ask(url, {**headers, **secrets}, cancelled)
            if reply.answer.status not in REDIRECTS:
                self._check(reply, url, location)
                self._remember(location, url)
                return reply, url
            self._drain(reply, url)
            following = follow(url, reply.answer.headers.get("location"))
            secrets, url = carried(secrets, url, following), following
        raise endless(location.url)

    def _ask_signed(
        self,
        location: Location,
        url: Url,
        headers: Mapping[str, str],
        cancelled: Callable[[], bool],
    ) -> _Reply | None:
        """The answer of a URL that was redirected to earlier; None if it no longer serves."""
        try:
            reply = self._ask(url, headers, cancelled)
        except BaseException:
            self._signed.pop(location.url, None)
            raise
        if reply.answer.status in _EXPECTED:
            return reply
        self._signed.pop(location.url, None)
        self._drain(reply, url)
        return None

    def _remember(self, location: Location, url: Url) -> None:
        """A hub wants to be asked once per file, not once per range: it counts requests."""
        if location.signed and url.origin != target_of(location.url).origin:
            if len(self._signed) >= SIGNED_URLS:
                self._signed.clear()
            self._signed[location.url] = url

    def _check(self, reply: _Reply, url: Url, location: Location) -> None:
        try:
            check_status(reply.answer, _EXPECTED, VanishedError)
        except AccessDeniedError as exc:
            self._drain(reply, url)
            if location.signed and url.origin != target_of(location.url).origin:
                what = f"a signed URL is refused: {exc.what}"
                raise fault(UnavailableError, what, shown(str(url)), transient=True) from exc
            exc.hint = location.access or exc.hint
            raise
        except BaseException:
            self._drain(reply, url)
            raise

    def _ask(self, url: Url, headers: Mapping[str, str], cancelled: Callable[[], bool]) -> _Reply:
        """One request: on a kept wire if there is one, else on a new one.

        A kept wire may be closed by the server at the very moment it is used, or bring what the
        last answer had too much. That is no answer to this request, so it goes out again, on a
        wire that is new.
        """
        if cancelled():
            raise CancelledReadError
        with _mapped(str(url), self.limits):
            if kept := self._pool.take(url.origin):
                with contextlib.suppress(ConnectionError, ssl.SSLError, http.client.BadStatusLine):
                    return self._ask_on(kept, url, headers, cancelled)
            return self._ask_on(self._dialer.dial(url), url, headers, cancelled)

    def _ask_on(
        self, wire: Wire, url: Url, headers: Mapping[str, str], cancelled: Callable[[], bool]
    ) -> _Reply:
        target, extra = self._dialer.target(url)
        try:
            response = wire.ask(url, target, {**headers, **extra}, cancelled)
        except BaseException:
            wire.hang_up()
            raise
        headers = {name.lower(): text for name, text in reversed(response.getheaders())}
        return _Reply(wire, response, Answer(str(url), response.status, headers))

    # -- reading -----------------------------------------------------------------------------

    def _stream(self, reply: _Reply, body: Range, sink: Sink, unit: int) -> None:
        buffer = self._buffers.take(min(unit, body.size))
        try:
            for part in aligned(body, unit):
                piece = buffer[: part.size]
                self._fill(reply, piece, part.start)
                sink(part.start, piece)
                reply.wire.progressed()  # the sink's time is not the server's
        finally:
            self._buffers.put(buffer)
        self._expect_end(reply)

    def _fill(self, reply: _Reply, view: memoryview, offset: int) -> None:
        filled = 0
        with _mapped(reply.answer.url, self.limits):
            while filled < len(view):
                count = reply.response.readinto(view[filled:])
                if not count:
                    what = f"the body ended early, at byte {offset + filled}"
                    raise fault(UnavailableError, what, shown(reply.answer.url), transient=True)
                filled += count

    def _expect_end(self, reply: _Reply) -> None:
        """A body with a length has ended here; of the other kinds the end must follow."""
        with _mapped(reply.answer.url, self.limits):
            if reply.response.readinto(bytearray(1)):
                what = "the body is longer than it should be"
                raise fault(UnavailableError, what, shown(reply.answer.url), transient=True)

    # -- ending ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _ending(self, reply: _Reply, url: Url) -> Iterator[None]:
        """Keep the wire if its answer was read to the end, else hang up."""
        done = False
        try:
            yield
            done = True
        finally:
            if done and not reply.response.will_close and not reply.wire.spent():
                self._pool.put(url.origin, reply.wire)
            else:
                reply.wire.hang_up()

    def _drain(self, reply: _Reply, url: Url) -> None:
        """Read an error page that is short and already there; it is not worth a wait."""
        reply.wire.hurry(DRAIN_SECONDS)
        with contextlib.suppress(OSError, http.client.HTTPException), self._ending(reply, url):
            if len(reply.response.read(DRAIN_BYTES)) == DRAIN_BYTES:
                raise http.client.IncompleteRead(b"")


@contextlib.contextmanager
def _mapped(url: str, limits: Limits) -> Iterator[None]:
    """Turn what sockets, TLS and http.client raise into this program's errors."""
    try:
        yield
    except SlowError as exc:
        raise deadline_passed(limits.deadline, shown(url)) from exc
    except http.client.HTTPException as exc:
        what = f"its answer is not HTTP that makes sense ({type(exc).__name__})"
        if isinstance(exc, ConnectionError):  # RemoteDisconnected is both
            what = "it hung up without an answer"
        raise fault(UnavailableError, what, shown(url), transient=True) from exc
    except OSError as exc:
        raise network_fault(exc, shown(url)) from exc
