"""Documents: small HTTP resources such as manifests, indexes and chunk tables.

Beside bodies.py, which has the bytes of objects. Retries happen here, because callers get a
document as a whole and do not see its progress. Trio only. Every method may be cancelled at any
await, and then closes its connection.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import httpcore
import trio

from axonfs.errors import AxonError, DeadlineError, MalformedError, NotFoundError, UnavailableError
from axonfs.http_client import local
from axonfs.http_client.answers import (
    HEADERS,
    Answer,
    check_framing,
    check_status,
    codings,
    content_length,
)
from axonfs.http_client.caches import Caches
from axonfs.http_client.coding import CodingError, CutError, decoded
from axonfs.http_client.connections import check_surplus, connections, request, translating
from axonfs.http_client.faults import UP, deadline_passed, fault
from axonfs.http_client.fields import fields, next_page
from axonfs.http_client.limits import (
    DEADLINES_MAX,
    DRAIN_BYTES,
    DRAIN_SECONDS,
    PROGRESS_BYTES,
    Limits,
)
from axonfs.http_client.resolver import TrioResolver
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.shares import Shares, Visit
from axonfs.http_client.signing import Signed, Signer, Signers, signer_of
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
from axonfs.units import size

DECODED_PIECE = 1 << 20
SIGNING = 32  # threads that sign at a time: each may wait for a server of credentials
_LOST = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document as its source sent it.

    Args:
        final_url: the URL after redirects.
        following: the URL of the next page, if the answer names one.
    """

    body: bytes
    etag: str | None
    final_url: str
    following: str | None = None


@dataclass(slots=True)
class _Call:
    """The state of one call of `get`. Progress moves the deadline of `scope`, up to `until`."""

    asked: str
    signer: Signer | None
    url: Url
    headers: dict[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    limit: int
    scope: trio.CancelScope
    until: float
    visit: Visit
    best: int = 0

    @property
    def expected(self) -> frozenset[int]:
        return frozenset({200, 304} if "If-None-Match" in self.headers else {200})


class Documents:
    """An HTTP client for documents; `async with` closes its connections.

    Args:
        trust: the certificate authorities; by default the system's.
        signers: for URLs of other schemes than http and https.
        caches: the site caches of sources.
        draw: returns the jitter of pauses between attempts, in [0, 1).
    """

    def __init__(
        self,
        limits: Limits | None = None,
        trust: Trust | None = None,
        *,
        routes: Routes | None = None,
        signers: Signers | None = None,
        caches: Caches | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits or Limits()
        self._routes = routes or Routes.of_environment()
        self._trust = trust or Trust()
        self._signers = signers or {}
        self.caches = caches or Caches()
        self._signing = trio.CapacityLimiter(SIGNING)
        self._draw = draw
        self._shares = Shares(self.limits)
        self._clients: dict[tuple[bool, Url | None, str], httpcore.AsyncConnectionPool] = {}

    async def __aenter__(self) -> Self:
        trio.socket.set_custom_hostname_resolver(TrioResolver(self.limits.connect))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def get(
        self,
        url: str,
        *,
        limit: int,
        etag: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fetched | None:
        """The document at `url`, or None if its ETag is still `etag`.

        Args:
            limit: the maximum size in bytes.
            headers: credentials, sent to the URL's own origin only.

        Raises:
            NotFoundError, AccessDeniedError: the source's answer.
            MalformedError: the document is larger than `limit`.
            UnavailableError: no usable answer after all retries.
            DeadlineError: too little progress within the deadline.
        """
        signer = signer_of(self._signers, url)
        if signer and url.startswith("file:"):
            return await self._from_file(url, limit, etag)
        target = target_of(url, signed=signer is not None)
        # Header values must be ASCII, so an ETag of other characters cannot be sent.
        condition = {"If-None-Match": etag} if etag and etag.isascii() else {}
        failure: AxonError | None = None
        with self._shares.visit() as visit:
            with trio.move_on_after(self.limits.deadline) as scope:
                secrets = {**target.credentials, **(headers or {})}
                until = trio.current_time() + DEADLINES_MAX * self.limits.deadline
                sent = {**HEADERS, **condition}
                call = _Call(url, signer, target, sent, secrets, limit, scope, until, visit)
                for attempt in range(1, self.limits.attempts + 1):
                    try:
                        return await self._attempt(call)
                    except AxonError as exc:
                        failure = exc
                        await trio.sleep(self._pause(exc, attempt, call))
            late = deadline_passed(self.limits.deadline, shown(url), failure)
            raise visit.failed(late) from failure

    async def _from_file(self, url: str, limit: int, etag: str | None) -> Fetched | None:
        with trio.move_on_after(self.limits.deadline):
            found = await trio.to_thread.run_sync(
                local.read, url, limit, etag, abandon_on_cancel=True, limiter=self._signing
            )
            return Fetched(found[0], found[1], url) if found else None
        raise deadline_passed(self.limits.deadline, shown(url))

    def _pause(self, exc: AxonError, attempt: int, call: _Call) -> float:
        """How long to wait before the next attempt.

        Raises:
            AxonError: `exc` is final: there will be no next attempt.
        """
        pause = self.limits.pause(attempt, exc.retry_after, draw=self._draw)
        late = trio.current_time() + pause >= call.scope.deadline
        if not exc.transient:
            raise exc
        if attempt >= self.limits.attempts or late or call.visit.hasty:
            raise call.visit.failed(exc)
        return pause

    async def _attempt(self, call: _Call) -> Fetched | None:
        started = await self._start(call)
        url, secrets = started
        for _ in range(MAX_REDIRECTS + 1):
            slots, sent = call.visit.enter(url.origin), {**call.headers, **secrets}
            async with slots, self._response(url, sent, call.visit) as response:
                answer = _answer(call.asked if call.signer else str(url), response)
                if answer.status == 200:
                    return await self._body(answer, response, call)
                call.visit.progressed()
                said = await _drain(response)
            if url.origin == started.url.origin and await self._refused(
                call, started, answer, said
            ):
                started = await self._start(call)
                url, secrets = started
                continue
            if answer.status not in REDIRECTS:
                check_status(answer, call.expected, NotFoundError)
                return None
            following = follow(url, answer.headers.get("location"))
            secrets, url = carried(secrets, url, following), following
        raise endless(str(call.url))

    async def _start(self, call: _Call) -> Signed:
        """The URL and the credentials of the first request, or of one that is signed again."""
        if call.signer is None:
            return Signed(call.url, call.secrets)
        return await trio.to_thread.run_sync(
            call.signer.sign, call.asked, abandon_on_cancel=True, limiter=self._signing
        )

    async def _refused(self, call: _Call, started: Signed, answer: Answer, said: bytes) -> bool:
        """Whether to send a signed request again, with new credentials."""
        if call.signer is None or answer.status in call.expected:
            return False
        return await trio.to_thread.run_sync(
            call.signer.refused,
            call.asked,
            started,
            answer,
            said,
            abandon_on_cancel=True,
            limiter=self._signing,
        )

    @contextlib.asynccontextmanager
    async def _response(
        self, url: Url, headers: dict[str, str], visit: Visit
    ) -> AsyncIterator[httpcore.Response]:
        limits = visit.begin()
        with translating(url, limits):
            proxy = self._routes.proxy(url.origin)
            parts = request(
                url,
                headers,
                connect=limits.connect,
                wait=limits.first_byte,
                forwarded=proxy is not None and not url.origin.secure,
            )
            async with self._client(url.origin, proxy).stream("GET", **parts) as response:
                yield response
                check_surplus(response)

    def _client(self, origin: Origin, proxy: Url | None) -> httpcore.AsyncConnectionPool:
        # A pool knows the addresses of its connections, and not the names in their certificates.
        key = origin.secure, proxy, origin.host if origin.address else ""
        if key not in self._clients:
            self._clients[key] = connections(origin.secure, proxy, self._trust)
        return self._clients[key]

    async def _body(self, answer: Answer, response: httpcore.Response, call: _Call) -> Fetched:
        check_status(answer, call.expected, NotFoundError)
        # The limit is for the decoded document; a coded body may be slightly longer than it.
        room = call.limit + (call.limit // 64 + 4096 if codings(answer) else 0)
        if (content_length(answer.headers) or 0) > room:
            raise _too_large(answer, call.limit)
        body = bytearray()
        pieces = response.aiter_stream()
        while piece := await self._next(pieces, answer, call.visit):
            body += piece
            if len(body) > room:
                await _abandon(pieces)
                raise _too_large(answer, call.limit)
            self._note_progress(call, len(body))
        call.visit.progressed()
        whole = bytes(body)
        if codings(answer):
            whole = await trio.to_thread.run_sync(_decoded, whole, answer, call.limit)
        following = next_page(answer.url, answer.headers.get("link"))
        return Fetched(whole, answer.headers.get("etag"), answer.url, following)

    async def _next(self, pieces: AsyncIterator[bytes], answer: Answer, visit: Visit) -> bytes:
        with trio.move_on_after(visit.limits.stall):
            return await anext(pieces, b"")
        what = f"received nothing for {visit.limits.stall:g} s"
        raise fault(DeadlineError, what, shown(answer.url), transient=True, hint=UP)

    def _note_progress(self, call: _Call, received: int) -> None:
        """Move the deadline when this attempt has received more than any before it."""
        if received >= call.best + PROGRESS_BYTES:
            call.best = received
            call.visit.progressed()
            later = trio.current_time() + self.limits.deadline
            call.scope.deadline = min(later, call.until)


def _answer(url: str, response: httpcore.Response) -> Answer:
    answer = Answer(url, response.status, fields(response.headers))
    check_framing(answer)
    return answer


def _decoded(body: bytes, answer: Answer, limit: int) -> bytes:
    """The decoded bytes of a body in content codings; `limit` applies to them."""
    read, plain = decoded(io.BytesIO(body).read, codings(answer)), bytearray()
    try:
        while piece := read(DECODED_PIECE):
            plain += piece
            if len(plain) > limit:
                raise _too_large(answer, limit)
    except CodingError as exc:
        cut = isinstance(exc, CutError)
        raise fault(UnavailableError, str(exc), shown(answer.url), transient=cut) from exc
    return bytes(plain)


async def _drain(response: httpcore.Response) -> bytes:
    """Read an unused body if it is short and has arrived, so that its connection can be reused;
    return its start.

    Programs look up missing names often, and each of these answers has such a body.
    """
    said = bytearray()
    with contextlib.suppress(*_LOST), trio.move_on_after(DRAIN_SECONDS):
        pieces = response.aiter_stream()
        async for piece in pieces:
            said += piece
            if len(said) > DRAIN_BYTES:
                await _abandon(pieces)
    return bytes(said)


async def _abandon(pieces: AsyncIterator[bytes]) -> None:
    """End a body early, by a cancellation at the innermost await of httpcore's generators.

    Closing only the outermost generator would leave the inner ones to the garbage collector, and
    trio warns about that.
    """
    with trio.CancelScope() as scope:
        scope.cancel()
        async for _ in pieces:
            pass


def _too_large(answer: Answer, limit: int) -> MalformedError:
    return fault(MalformedError, f"the document is larger than {size(limit)}", shown(answer.url))
