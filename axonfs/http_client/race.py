"""Ask the site caches of a source for one document, and the source itself if none has it.

One after another, in the order of the document's URL. The next one is asked at once when one fails,
and beside one that is slow, and the first answer counts. Trio only.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

import trio

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    DeadlineError,
    NotFoundError,
    ShortageError,
)
from axonfs.http_client.caches import Cache, SiteCaches

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds until the next cache is asked beside one that has not answered, and until the source is.
# A cache that has to ask the source first is slow, and the source should be asked once, so the
# source is asked last.
SLOW, VERY_SLOW = 3.0, 10.0
# The same for a cache that was set aside, which this request tries again: no reader waits for it.
TRIAL = 0.3


@dataclass(frozen=True, slots=True)
class _Asked:
    cache: Cache | None
    began: float
    trial: bool


class Race(Generic[T]):
    """One document.

    Args:
        url: below the source.
        ask: requests the document from a cache, or from the source itself (None).
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
        self._error: AxonError | None = None  # of the source itself
        self._tell, self._told = trio.open_memory_channel[tuple[_Asked, T | AxonError]](inf)

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
                return self._error or self._missing or self._site.none_left(self._url)
            with trio.move_on_after(wait):
                asked, answer = await self._told.receive()
                self._pending.remove(asked)
                if not isinstance(answer, AxonError):
                    self._pass_over_slow()
                    return answer
                if self._is_final(asked, answer):
                    return answer

    def _begin_next(self, nursery: trio.Nursery, began: float) -> float:
        """Ask the next one if it is its turn; return the seconds until one more may be asked."""
        if cache := self._site.choose(self._url, self._tried):
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
        answer: T | AxonError
        try:
            answer = await self._ask(asked.cache)
        except AxonError as exc:
            answer = exc
        self._tell.send_nowait((asked, answer))

    def _is_final(self, asked: _Asked, error: AxonError) -> bool:
        """Whether a failure is the source's answer, and no other one has to be asked."""
        cache, again = asked.cache, self._missing is not None
        if isinstance(error, AccessDeniedError | ShortageError) or error.status == 429:
            return True
        if cache is None:
            self._error = error
            return isinstance(error, NotFoundError)
        if isinstance(error, NotFoundError):
            cache.answered()
            self._missing = error
            return again  # two say so
        log.info("the site cache %s is set aside: %s", cache.name, error)
        cache.failed(error)
        return False

    def _pass_over_slow(self) -> None:
        """Set aside the caches that were asked long before the one that answered."""
        late = trio.current_time() - SLOW
        for asked in self._pending:
            if asked.cache and not asked.trial and asked.began <= late:
                what = f"it did not answer for {SLOW:g} s, and another one did"
                asked.cache.failed(DeadlineError(what, source=asked.cache.name))
