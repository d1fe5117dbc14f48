"""Ask the site caches of a source for one document, and the source itself if none has it.

One after another, in the order of the document's URL. The next one is asked at once when one fails,
and beside one that is slow, and the first answer counts. What the source itself would answer is no
fault of a cache that passes it on: a document that two send alike, or a gateway's word that the
source does not answer. Trio only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar

import trio

from axonfs.errors import AxonError, DeadlineError, NotFoundError
from axonfs.http_client import blame
from axonfs.http_client.caches import Cache, SiteCaches
from axonfs.http_client.urls import shown
from axonfs.steps import Cause, Step, here


class _Document(Protocol):
    @property
    def body(self) -> bytes: ...


T = TypeVar("T", bound=_Document | None)

# Seconds until the next cache is asked beside one that has not answered, and until the source is.
# A cache that has to ask the source first is slow, and the source should be asked once, so the
# source is asked last.
SLOW, VERY_SLOW = 3.0, 10.0
# The same for a cache that was set aside, which this request tries again: no reader waits for it.
TRIAL = 0.3


class UnfitError(Exception):
    """A document of a cache is not what it has to be; `error` says why."""

    def __init__(self, error: AxonError, body: bytes) -> None:
        super().__init__(error.what)
        self.error = error
        self.body = body


@dataclass(frozen=True, slots=True)
class _Asked:
    cache: Cache | None
    began: float
    trial: bool


class Race(Generic[T]):
    """One document.

    Args:
        url: below the source.
        ask: requests the document from a cache, or from the source itself (None). Raises AxonError,
            and UnfitError for what a cache sent.
    """

    def __init__(
        self, site: SiteCaches, url: str, ask: Callable[[Cache | None], Awaitable[T]]
    ) -> None:
        self._site = site
        self._url = url
        self._ask = ask
        self._tried: list[Cache] = []
        self._pending: list[_Asked] = []
        self._own = site.fallback  # whether the source may still be asked
        self._missing: NotFoundError | None = None
        self._unfit: list[tuple[Cache, UnfitError]] = []
        self._faults: dict[str, AxonError] = {}  # by the cache's name
        self._refusals = 0  # of these, with a status
        self._error: AxonError | None = None  # of the source itself
        self._step = here()
        channel = trio.open_memory_channel[tuple[_Asked, T | AxonError | UnfitError]](inf)
        self._tell, self._told = channel

    async def run(self) -> T:
        """The first answer.

        Raises:
            AxonError: the source's own answer, passed on by a cache or not; or there is none.
        """
        async with trio.open_nursery() as nursery:
            answer = await self._first(nursery)
            nursery.cancel_scope.cancel()
        if isinstance(answer, AxonError):
            raise answer
        return answer

    async def _first(self, nursery: trio.Nursery) -> T | AxonError:
        began = trio.current_time()
        while True:
            wait = self._begin_next(nursery, began)
            if not self._pending:
                return self._none()
            with trio.move_on_after(wait):
                asked, answer = await self._told.receive()
                self._pending.remove(asked)
                if not isinstance(answer, AxonError | UnfitError):
                    self._judge(answer)
                    return answer
                if (final := self._final(asked, answer)) is not None:
                    return final

    def _none(self) -> AxonError:
        """The error where nobody has sent the document."""
        if error := self._error or self._missing:
            return error
        if self._unfit:
            return self._unfit[0][1].error
        said = {name: error.what for name, error in self._faults.items()}
        return self._site.none_left(self._url, said)

    def _begin_next(self, nursery: trio.Nursery, began: float) -> float:
        """Ask the next one if it is its turn; return the seconds until one more may be asked."""
        enough = len(self._unfit) + self._refusals >= blame.ENOUGH
        cache = None if enough else self._site.choose(self._url, self._tried)
        if cache:
            self._tried.append(cache)
            trial = cache.set_aside
            self._begin(nursery, cache, trial=trial)
            return TRIAL if trial else SLOW
        if not self._own:
            return inf
        left = began + VERY_SLOW - trio.current_time()
        if left > 0 and any(not asked.trial for asked in self._pending):
            return left
        self._own = False
        self._begin(nursery, None)
        return inf

    def _begin(self, nursery: trio.Nursery, cache: Cache | None, *, trial: bool = False) -> None:
        asked = _Asked(cache, trio.current_time(), trial)
        self._pending.append(asked)
        nursery.start_soon(self._run, asked)

    async def _run(self, asked: _Asked) -> None:
        answer: T | AxonError | UnfitError
        cache = asked.cache.name if asked.cache else None
        about = f"at the site cache {cache}" if cache else ""
        try:
            with Step(Cause.DOCUMENT, "asking", about=about, cache=cache, within=self._step):
                answer = await self._ask(asked.cache)
        except (AxonError, UnfitError) as exc:
            answer = exc
        self._tell.send_nowait((asked, answer))

    def _final(self, asked: _Asked, answer: AxonError | UnfitError) -> AxonError | None:
        """The source's answer, if a failure is that, so that no other one has to be asked."""
        cache = asked.cache
        if isinstance(answer, UnfitError):
            assert cache is not None
            return self._second_unfit(cache, answer)
        if not blame.of_cache(answer):
            return answer
        if cache is None:
            self._error = answer
            self._acquit(answer)
            return answer if isinstance(answer, NotFoundError) else None
        if isinstance(answer, NotFoundError):
            cache.answered()
            before, self._missing = self._missing, answer
            return before and answer  # two say so
        self._faults[cache.name] = answer
        self._refusals += answer.status is not None
        if not blame.of_object(answer):
            blame.set_aside(cache, answer)
        return None

    def _second_unfit(self, cache: Cache, answer: UnfitError) -> AxonError | None:
        """The fault of a document that another cache sent as well: it is the source's."""
        alike = [one for one, before in self._unfit if before.body == answer.body]
        self._unfit.append((cache, answer))
        if not alike:
            return None
        for one in (*alike, cache):
            one.answered()
        answer.error.source = shown(self._url)
        return answer.error

    def _judge(self, answer: T) -> None:
        """Set aside the caches that were far slower than this answer, or sent another one that is
        not what it has to be."""
        body = None if answer is None else answer.body
        for cache, unfit in self._unfit:
            if unfit.body == body:
                cache.answered()
            else:
                blame.set_aside(cache, unfit.error)
        late = trio.current_time() - SLOW
        for asked in self._pending:
            if asked.cache and not asked.trial and asked.began <= late:
                what = f"it did not answer for {SLOW:g} s, and another one did"
                asked.cache.failed(DeadlineError(what, source=asked.cache.name))

    def _acquit(self, error: AxonError) -> None:
        """Use the caches again that only passed on what the source answers."""
        for cache in self._tried:
            fault = self._faults.get(cache.name)
            if fault and error.status is not None and fault.status == error.status:
                cache.answered()
