"""Objects' bytes: ranged GETs with blocking sockets, straight into a reused buffer.

Beside documents.py, which sends all other requests. Per second of processor time httpcore moves a
tenth of the bytes of a blocking `readinto`, and it needs the event loop for that.

Threading: for worker threads. Several threads may call every method at once. A call has one
connection and one buffer to itself until it returns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self

from axonfs import memory
from axonfs.errors import AccessDeniedError, UnavailableError, UnrangedError, VanishedError
from axonfs.http_client.answers import (
    HEADERS,
    Answer,
    check_etag,
    check_status,
    codings,
    range_headers,
)
from axonfs.http_client.caches import Caches
from axonfs.http_client.exchanges import Exchanges, Options
from axonfs.http_client.faults import fault
from axonfs.http_client.limits import Limits
from axonfs.http_client.location import Location
from axonfs.http_client.pauses import Pauses
from axonfs.http_client.pool import Pool, ReceiveBuffers
from axonfs.http_client.reading import MOMENT, Body, Exchange, Reading, mapped
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.signing import Signed, Signers, signer_of
from axonfs.http_client.stages import signing
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
from axonfs.http_client.wire import CancelledReadError
from axonfs.ranges import Range
from axonfs.steps import Cause, Step

Sink = Callable[[int, memoryview], object]
_EXPECTED = frozenset({200, 206})
SIGNED_URLS = 4096  # that are remembered, of about 1000 characters each


class Bodies:
    """Reads ranges of objects over kept-alive connections; `with` closes them.

    Args:
        trust: the certificate authorities; by default the system's.
        signers: for URLs of other schemes than http and https.
        caches: the site caches of sources.
    """

    def __init__(
        self,
        limits: Limits,
        trust: Trust | None = None,
        *,
        routes: Routes | None = None,
        signers: Signers | None = None,
        caches: Caches | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self.limits = limits
        self.caches = caches or Caches()
        self.pauses = pauses or Pauses()
        self._signers = signers or {}
        self._routes = routes or Routes.of_environment()
        self._pool = Pool()
        self._exchanges = Exchanges(self.limits, self._routes, trust or Trust(), self._pool)
        self._buffers = ReceiveBuffers(memory.for_streams())
        self._signed: dict[str, Url] = {}  # by a signed location's URL: its last redirect

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections. A connection in use closes when its read ends."""
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
        most: int = 0,
        moment: float = MOMENT,
        grain: int | None = None,
        cancelled: Callable[[], bool] = bool,
        validated: Callable[[str], str | None] | None = None,
        patience: float | None = None,
        redirected: Callable[[Origin], object] = bool,
        share: Callable[[int], int] | None = None,
    ) -> None:
        """Request the bytes `[start, stop)` of an object of `size` bytes, without retries.

        Args:
            sink: called with the offset and a view of each piece, in order. A piece ends at a
                multiple of `unit` or at the end of the answer. The view is valid until `sink`
                returns. If the server ignores ranges, `sink` gets the whole object, from 0 to
                `size`.
            most: a piece has as many units as arrive within `moment` seconds, up to `most` bytes.
            grain: at a fault `sink` gets what there is up to a multiple of `grain`; by default of
                `unit`.
            cancelled: polled between receives, a few times a second. Once it returns true, the
                read ends early without an error. Connecting is not interrupted.
            validated: called with the ETag of the first answer, if it has one, before any of its
                bytes. Returns the ETag that all answers of this read must have, or None.
            patience: seconds to wait for a connection and for each byte, if less than the usual.
            redirected: called with the origin of a redirect to another origin, before the request
                to it.
            share: called before each receive of the body with the number of bytes to come; returns
                how many of them to receive now. It may block: that time is not the server's.

        Exceptions from `sink` and `redirected` pass through.

        Raises:
            AxonError: the fault, with `transient` and `retry_after` set for the next attempt.
        """
        requested = Range(start, stop)
        near = location.cache is not None
        options = Options(cancelled, patience, redirected, share, location.spread, near)
        with (
            contextlib.suppress(CancelledReadError),
            self._open(location, requested, size, options, validated) as reading,
        ):
            wanted = Range(0, size) if reading.whole else requested
            most = max(unit, most - most % unit)
            self._stream(reading, wanted, sink, most, unit, grain or unit, moment)

    def open(
        self,
        location: Location,
        start: int,
        size: int,
        *,
        stop: int | None = None,
        cancelled: Callable[[], bool] = bool,
        patience: float | None = None,
        share: Callable[[int], int] | None = None,
    ) -> Reading:
        """Request the bytes of an object from `start` to its end, `size`, without retries.

        The reading is a context manager that ends the request.

        Args:
            stop: where the request ends before the object's end.
            cancelled, patience, share: as for `read`.

        Raises:
            AxonError: as `read`. The reading's methods raise it, too.
            CancelledReadError: `cancelled` returned true. The reading's methods raise it, too.
        """
        near = location.cache is not None
        options = Options(cancelled, patience, bool, share, location.spread, near)
        return self._open(location, Range(start, stop or size), size, options)

    def _open(
        self,
        location: Location,
        requested: Range,
        size: int,
        options: Options,
        validated: Callable[[str], str | None] | None = None,
    ) -> Reading:
        if not 0 <= requested.start < requested.stop <= size:
            raise ValueError(
                f"[{requested.start}, {requested.stop}) is not in an object of {size} bytes"
            )
        tied = location

        def ask(at: int) -> Body:
            return self._request_body(tied, Range(at, requested.stop), size, options)

        with contextlib.ExitStack() as opened:
            body = ask(requested.start)
            reading = Reading(body, ask, self._pool, self.limits, requested.size, options.share)
            opened.enter_context(reading)
            etag = reading.answer.headers.get("etag")
            if validated and etag and not location.signed and not codings(reading.answer):
                tied = replace(location, etag=validated(etag))
                if tied.etag:  # may come from another answer that arrived at the same time
                    check_etag(reading.answer, tied.etag)
            opened.pop_all()
        return reading

    def _stream(
        self,
        reading: Reading,
        wanted: Range,
        sink: Sink,
        most: int,
        unit: int,
        grain: int,
        moment: float,
    ) -> None:
        """Give `sink` the bytes, in pieces that end at a multiple of `unit`, or of `grain` where a
        fault ends them."""
        # Of few sizes, so that it was mostly used before; what is never filled takes no memory.
        buffer = self._buffers.take(most if wanted.size > unit else wanted.size)
        # The buffer begins with the byte `base`; `sink` had those before `start`, and those before
        # `at` were received.
        base = start = at = wanted.start
        try:
            with Step(Cause.RECEIVING, reading.said):
                while start < wanted.stop:
                    stop = min(base - base % unit + most, wanted.stop)
                    at += reading.fill(buffer[at - base : stop - base], at, unit, moment)
                    end = at if at == stop else at - at % (grain if reading.broken else unit)
                    if end > start:
                        sink(start, buffer[start - base : end - base])
                        start = end
                    base = start if start in (at, stop) else base
        finally:
            self._buffers.put(buffer)

    def _request_body(
        self, location: Location, requested: Range, size: int, options: Options
    ) -> Body:
        exchange = self._request(location, requested, options)
        try:
            hidden = location.cache and "etag" not in exchange.answer.headers  # by the cache
            with mapped(exchange.answer.url, self.limits):
                body = Body(exchange, requested, size, None if hidden else location.etag)
            if location.ranged and body.whole and requested.size < size:
                what = "it sent the whole object in place of a range"
                raise exchange.answer.fault(UnrangedError, what, transient=True)
            return body
        except BaseException:
            exchange.wire.hang_up()
            raise

    def first_origin(self, location: Location) -> Origin:
        """The origin that gets the first request for the bytes at `location`."""
        if location.cache is not None:
            return location.cache.url.origin
        signed = signer_of(self._signers, location.url) is not None
        return (self._signed.get(location.url) or target_of(location.url, signed=signed)).origin

    def proxied(self, location: Location) -> bool:
        """Whether the environment names a proxy for the bytes at `location`."""
        return self._routes.proxy(self.first_origin(location)) is not None

    def _request(self, location: Location, requested: Range, options: Options) -> Exchange:
        """The answer with the body, after redirects."""
        signer = signer_of(self._signers, location.url)
        started = self._start(location)
        url, secrets = started
        cache = location.cache  # whose answers to If-Range differ; their ETags are compared
        headers = {**HEADERS, **range_headers(requested, None if cache else location.etag)}
        if not cache and (signed := self._signed.get(location.url)):
            found = self._request_signed(location, signed, headers, options)
            if found:
                return found
        for _ in range(MAX_REDIRECTS + 1):
            if cache:
                cache.asked()
            found = self._exchanges.send(url, {**headers, **secrets}, options)
            own = url.origin == started.url.origin  # not yet redirected to another one
            if signer and own and _is_for_signer(found.answer, location):
                said = self._exchanges.drain(found)
                if signer.refused(location.url, started, found.answer, said):
                    started = self._start(location)
                    url, secrets = started
                    continue
                if found.answer.status not in REDIRECTS:
                    check_status(found.answer, _EXPECTED, VanishedError)
            elif found.answer.status not in REDIRECTS:
                self._check(found, location, started.url.origin)
                self._remember(location, started.url.origin, url)
                return found
            else:
                self._exchanges.drain(found)
            following = follow(url, found.answer.headers.get("location"))
            if cache and following.origin != url.origin:
                what = f"it redirects to {shown(str(following))}, and should follow that itself"
                raise fault(UnavailableError, what, shown(str(url)), transient=True)
            if following.origin != url.origin:
                self._report_redirect(location, started.url.origin, following, options)
            secrets, url = carried(secrets, url, following), following
        raise endless(location.url)

    def _start(self, location: Location) -> Signed:
        """The URL and the credentials of the first request, or of one that is signed again."""
        signer = signer_of(self._signers, location.url)
        if signer:
            with signing(location.url):
                signed = signer.sign(location.url)
        else:
            url = target_of(location.url)
            signed = Signed(url, {**url.credentials, **location.headers})
        return self._through(location, signed) if location.cache else signed

    def _through(self, location: Location, signed: Signed) -> Signed:
        """What to send to a site cache in place of a request to the source."""
        site = self.caches.of(location.url)
        assert site is not None  # a location has a cache only if its URL does
        assert location.cache is not None
        url = site.rewritten(location.cache, location.url, signed.url)
        assert url is not None
        more = {**location.headers, **site.source_headers(location.cache, signed.url)}
        return Signed(url, {**signed.headers, **more, **url.credentials})

    def _request_signed(
        self,
        location: Location,
        url: Url,
        headers: Mapping[str, str],
        options: Options,
    ) -> Exchange | None:
        """The answer from the target of an earlier redirect; None if that URL is now refused."""
        try:
            found = self._exchanges.send(url, headers, options)
        except BaseException:
            self._signed.pop(location.url, None)
            raise
        if found.answer.status in _EXPECTED:
            return found
        self._signed.pop(location.url, None)
        self._exchanges.drain(found)
        return None

    def _report_redirect(
        self, location: Location, first: Origin, url: Url, options: Options
    ) -> None:
        """Call `redirected`. If it raises because the job must wait, remember the redirect."""
        try:
            options.redirected(url.origin)
        except BaseException:
            self._remember(location, first, url)
            raise

    def _remember(self, location: Location, first: Origin, url: Url) -> None:
        """Remember a signed URL: hubs limit requests, so send one per file, not one per range."""
        if location.signed and url.origin != first:
            if len(self._signed) >= SIGNED_URLS:
                self._signed.clear()
            self._signed[location.url] = url

    def _check(self, found: Exchange, location: Location, first: Origin) -> None:
        url = found.url
        try:
            check_status(found.answer, _EXPECTED, VanishedError)
        except AccessDeniedError as exc:
            self._exchanges.drain(found)
            if location.signed and url.origin != first:
                what = f"the signed URL was refused: {exc.what}"
                raise fault(UnavailableError, what, shown(str(url)), transient=True) from exc
            exc.hint = location.access or exc.hint
            raise
        except BaseException:
            self._exchanges.drain(found)
            raise


def _is_for_signer(answer: Answer, location: Location) -> bool:
    """Whether a signer is told of an answer. Those of site caches are about credentials alone."""
    if location.cache is not None:
        return answer.status in (401, 403)
    return answer.status not in _EXPECTED
