"""Documents: small HTTP resources such as manifests, indexes and chunk tables.

Beside bodies.py, which has the bytes of objects. Retries happen here, because callers get a
document as a whole and do not see its progress. Trio only. Every method may be cancelled at any
await, and then closes its connection.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Self

import httpcore
import trio

from axonfs.errors import AxonError, DeadlineError, MalformedError, NotFoundError, naming
from axonfs.http_client import local
from axonfs.http_client.answers import (
    HEADERS,
    Answer,
    check_framing,
    check_status,
    codings,
    content_length,
)
from axonfs.http_client.caches import Cache, Caches, SiteCaches, Through
from axonfs.http_client.connections import check_surplus, connections, request, translating
from axonfs.http_client.faults import UP, deadline_passed, fault
from axonfs.http_client.fetched import Asked, Fetched
from axonfs.http_client.fields import fields, next_page
from axonfs.http_client.limits import DEADLINES_MAX, PROGRESS_BYTES, Limits
from axonfs.http_client.pauses import Pauses
from axonfs.http_client.race import Race, UnfitError
from axonfs.http_client.resolver import TrioResolver
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.shares import Shares, Visit
from axonfs.http_client.signing import Signed, Signers, signer_of
from axonfs.http_client.stages import pausing, retrying, signing, told_async
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
from axonfs.http_client.whole import abandon, check_digest, drain, plain, too_large
from axonfs.steps import Cause, Step

SIGNING = 32  # threads that sign at a time: each may wait for a server of credentials


class Documents:
    """An HTTP client for documents; `async with` closes its connections.

    Args:
        trust: the certificate authorities; by default the system's.
        signers: for URLs of other schemes than http and https.
        caches: the site caches of sources.
        pauses: that origins have asked this process for.
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
        pauses: Pauses | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits or Limits()
        self._routes = routes or Routes.of_environment()
        self._trust = trust or Trust()
        self._signers = signers or {}
        self.caches = caches or Caches()
        self._pauses = pauses or Pauses()
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
        check: Callable[[bytes], object] = bool,
    ) -> Fetched | None:
        """The document at `url`, or None if its ETag is still `etag`.

        Args:
            limit: the maximum size in bytes.
            headers: credentials, sent to the URL's own origin and its site caches only.
            check: raises an AxonError for a document that a site cache should not have sent, so
                that the next one is asked. Runs in a thread, for answers of site caches only.

        Raises:
            NotFoundError, AccessDeniedError: the source's answer.
            MalformedError: the document is larger than `limit`.
            UnavailableError: no usable answer after all retries.
            DeadlineError: too little progress within the deadline.
        """
        with Step(Cause.DOCUMENT, "asking", about=f"for {shown(url)}", source=shown(url)):
            return await self._get(url, limit, etag, headers, check)

    async def _get(
        self,
        url: str,
        limit: int,
        etag: str | None,
        headers: Mapping[str, str] | None,
        check: Callable[[bytes], object],
    ) -> Fetched | None:
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
                call = Asked(url, signer, target, sent, secrets, limit, check, scope, until, visit)
                site = self.caches.of(url)
                most = self.limits.attempts
                for attempt in range(1, most + 1):
                    try:
                        with Step(Cause.DOCUMENT, "asking", about=call.tried):
                            return await (self._race(site, call) if site else self._attempt(call))
                    except AxonError as exc:
                        failure = exc
                        pause = self._pause(exc, attempt, call)
                        coming = f"attempt {attempt + 1} of {most}"
                        caches = site is not None and site.none_may_be_asked
                        with retrying(exc, coming, pause, caches=caches):
                            await trio.sleep(pause)
                        call.tried = f"in {coming} after: {exc.what}"
            late = deadline_passed(self.limits.deadline, shown(url), failure)
            raise visit.failed(late) from failure

    async def _from_file(self, url: str, limit: int, etag: str | None) -> Fetched | None:
        with trio.move_on_after(self.limits.deadline):
            found = await trio.to_thread.run_sync(
                local.read, url, limit, etag, abandon_on_cancel=True, limiter=self._signing
            )
            return Fetched(found[0], found[1], url) if found else None
        raise deadline_passed(self.limits.deadline, shown(url))

    def _pause(self, exc: AxonError, attempt: int, call: Asked) -> float:
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

    async def _race(self, site: SiteCaches, call: Asked) -> Fetched | None:
        """The answer of a site cache, or of the source itself."""

        async def ask(cache: Cache | None) -> Fetched | None:
            if cache is None:
                return await self._attempt(call)
            with self._shares.visit() as visit:
                return await self._ask(Through(site, cache), replace(call, visit=visit, best=0))

        if not site.fallback:  # then the caches stall as one, in the source's place
            call.visit.enter(call.url.origin)
            call.visit.begin()
        try:
            found = await Race(site, call.asked, ask).run()
        except AxonError as exc:
            if not exc.transient:
                call.visit.progressed()
            raise
        call.visit.progressed()
        return found

    async def _ask(self, through: Through, call: Asked) -> Fetched | None:
        """The answer of one site cache."""
        through.cache.asked()
        try:
            fetched = await self._attempt(call, through)
        except MalformedError as exc:  # it is too large, whatever is in it
            raise UnfitError(exc, b"") from exc
        if fetched is not None:
            through.cache.received(len(fetched.body))
            try:
                with naming(source=shown(str(through.cache.url))):
                    await trio.to_thread.run_sync(_check, call, fetched.body)
            except AxonError as exc:
                raise UnfitError(exc, fetched.body) from exc
        through.cache.answered()
        return fetched

    async def _attempt(self, call: Asked, through: Through | None = None) -> Fetched | None:
        started, first = await self._start(call, through)
        more = through.headers(started.url) if through else {}
        secrets, url = started.headers, first
        for _ in range(MAX_REDIRECTS + 1):
            if through is None:
                await self._wait(call, url.origin)
            sent = {**call.headers, **more, **secrets}
            async with self._response(url, sent, call.visit, near=bool(through)) as response:
                told = through.told(url) if through else str(url)
                answer = _answer(call.asked if call.signer else told, response)
                if answer.status == 200:
                    return await self._body(answer, response, call)
                call.visit.progressed()
                said = await drain(response)
            own = url.origin == first.origin and _is_for_signer(answer, call, through)
            if own and await self._refused(call, started, answer, said):
                started, first = await self._start(call, through)
                secrets, url = started.headers, first
                continue
            if answer.status not in REDIRECTS:
                self._check(answer, call, url.origin if through is None else None)
                return None
            following = follow(url, answer.headers.get("location"))
            if through:
                following = through.following(following)
            secrets, url = carried(secrets, url, following), following
        raise endless(str(call.url))

    async def _wait(self, call: Asked, origin: Origin) -> None:
        """Wait while `origin` wants a pause, if that ends in time."""
        left = self._pauses.left(origin)
        if left and trio.current_time() + left < call.scope.deadline:
            with pausing(origin.authority, left):
                await trio.sleep(left)

    def _check(self, answer: Answer, call: Asked, origin: Origin | None) -> None:
        try:
            check_status(answer, call.expected, NotFoundError)
        except AxonError as exc:
            if origin and exc.overloaded and exc.retry_after:
                self._pauses.asked(origin, exc.retry_after)
            raise

    async def _start(self, call: Asked, through: Through | None) -> tuple[Signed, Url]:
        """The first request, or one that is signed again, and where it goes."""
        signed = Signed(call.url, call.secrets)
        if call.signer:
            with signing(call.asked):
                signed = await trio.to_thread.run_sync(
                    call.signer.sign, call.asked, abandon_on_cancel=True, limiter=self._signing
                )
        return signed, through.first(call.asked, signed.url) if through else signed.url

    async def _refused(self, call: Asked, started: Signed, answer: Answer, said: bytes) -> bool:
        """Whether to send a signed request again, with new credentials."""
        if call.signer is None:
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
        self, url: Url, headers: dict[str, str], visit: Visit, *, near: bool
    ) -> AsyncIterator[httpcore.Response]:
        slots, busy = visit.enter(url.origin), f"waiting behind other requests to {url.origin.host}"
        with Step(Cause.QUEUED, busy) as step:
            async with slots:
                limits = visit.begin().near() if near else visit.begin()
                with translating(url, limits):
                    proxy = self._routes.proxy(url.origin)
                    parts = request(
                        url,
                        headers,
                        connect=limits.connect,
                        wait=limits.first_byte,
                        trace=told_async(step, url.origin, proxy),
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

    async def _body(self, answer: Answer, response: httpcore.Response, call: Asked) -> Fetched:
        check_status(answer, call.expected, NotFoundError)
        # The limit is for the decoded document; a coded body may be slightly longer than it.
        room = call.limit + (call.limit // 64 + 4096 if codings(answer) else 0)
        if (content_length(answer.headers) or 0) > room:
            raise too_large(answer, call.limit)
        body = bytearray()
        pieces = response.aiter_stream()
        while piece := await self._next(pieces, answer, call.visit):
            body += piece
            if len(body) > room:
                await abandon(pieces)
                raise too_large(answer, call.limit)
            self._note_progress(call, len(body))
        call.visit.progressed()
        whole = bytes(body)
        if codings(answer):
            whole = await trio.to_thread.run_sync(plain, whole, answer, call.limit)
        following = next_page(answer.url, answer.headers.get("link"))
        return Fetched(whole, answer.headers.get("etag"), answer.url, following)

    async def _next(self, pieces: AsyncIterator[bytes], answer: Answer, visit: Visit) -> bytes:
        with trio.move_on_after(visit.limits.stall):
            return await anext(pieces, b"")
        what = f"received nothing for {visit.limits.stall:g} s"
        raise fault(DeadlineError, what, shown(answer.url), transient=True, hint=UP)

    def _note_progress(self, call: Asked, received: int) -> None:
        """Move the deadline when this attempt has received more than any before it."""
        if received >= call.best + PROGRESS_BYTES:
            call.best = received
            call.visit.progressed()
            later = trio.current_time() + self.limits.deadline
            call.scope.deadline = min(later, call.until)


def _check(call: Asked, body: bytes) -> None:
    """
    Raises:
        AxonError: a cache should not have sent `body`.
    """
    check_digest(call.asked, body)
    call.check(body)


def _is_for_signer(answer: Answer, call: Asked, through: Through | None) -> bool:
    """Whether a signer is told of an answer. Those of site caches are about credentials alone: for
    others it would ask the source itself."""
    return answer.status in (401, 403) if through else answer.status not in call.expected


def _answer(url: str, response: httpcore.Response) -> Answer:
    answer = Answer(url, response.status, fields(response.headers))
    check_framing(answer)
    return answer
