"""Caches answers that may change: a stale answer is served while it is refreshed in the background.

Sits below tree, above flights. Knows no source: each answer has a key and the call that fetches it.
Trio thread only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import trio

from axonfs.catalog.flights import Flights
from axonfs.errors import fault_of
from axonfs.formats.listing import Versions

log = logging.getLogger(__name__)

# Seconds until an answer is stale.
TTL = 60.0
# A forced refresh uses the last answer if that is younger than this.
MIN_AGE = 5.0
# Number of answers that are cached.
KEPT = 16384

T = TypeVar("T")


@dataclass(slots=True)
class _Answer:
    """A cached answer, the time of its request, and the time of the last background refresh."""

    value: Any
    asked: float
    tried: float = -math.inf

    @property
    def denies(self) -> bool:
        """Whether the answer is that something does not exist."""
        value = self.value
        return value is None or (isinstance(value, Versions) and not value.versions)


class Memo:
    """The last answer for each key.

    Args:
        nursery: runs the refreshes in the background.
        flights: shares a request among callers that need it at the same time.
        doubtful: whether an answer that something does not exist may be wrong, since a source
            does not answer; such an answer is not served from the cache.
    """

    def __init__(
        self, nursery: trio.Nursery, flights: Flights, doubtful: Callable[[], bool]
    ) -> None:
        self._nursery = nursery
        self._flights = flights
        self._doubtful = doubtful
        self._answers: dict[Hashable, _Answer] = {}
        self._invalidated = 0  # times

    def __contains__(self, key: Hashable) -> bool:
        """Whether an answer is cached, so that `recent` does not wait."""
        return key in self._answers

    async def recent(
        self,
        key: Hashable,
        call: Callable[[], Awaitable[T]],
        *,
        fresh: bool = False,
        brief: bool = False,
    ) -> T:
        """The answer for `key`, refreshed in the background if it is older than TTL.

        Args:
            fresh: wait for a new answer unless the last one is younger than MIN_AGE.
            brief: an answer is stale after MIN_AGE instead of TTL.
        """
        if known := self._answers.get(key):
            age = trio.current_time() - known.asked
            # A name that did not exist then may exist now.
            denied = known.denies and (age >= TTL or self._doubtful())
            if (age < MIN_AGE or not fresh) and not denied:
                return cast(T, self.served(key, call, brief=brief))
        return await self._ask(key, call, fresh=fresh)

    def served(
        self, key: Hashable, call: Callable[[], Awaitable[T]], *, brief: bool = False
    ) -> T | None:
        """The cached answer, however old, or None; refreshed in the background as by `recent`."""
        known, now = self._answers.get(key), trio.current_time()
        if known is None:
            return None
        if now - known.asked >= (MIN_AGE if brief else TTL) and now - known.tried >= MIN_AGE:
            known.tried = now
            self.ask_soon(key, call)
        return cast(T, known.value)

    def ask_soon(self, key: Hashable, call: Callable[[], Awaitable[Any]]) -> None:
        """Refresh in the background; a failure is logged, and the cached answer stays."""
        if key not in self._flights:
            self._nursery.start_soon(self._ask_quietly, key, call)

    def keep(self, key: Hashable, value: object) -> None:
        """Cache an answer that came with another one."""
        if len(self._answers) >= KEPT:
            self._answers.clear()
        self._answers[key] = _Answer(value, trio.current_time())

    def drop(self, key: Hashable) -> None:
        """Drop a cached answer, so that the next caller waits for a new one."""
        self._answers.pop(key, None)

    def invalidate(self) -> None:
        """Make every answer stale; they are served until they are refreshed.

        This includes the answers in flight, which may be from before the change.
        """
        self._invalidated += 1
        for answer in self._answers.values():
            answer.asked = answer.tried = -math.inf

    async def _ask(
        self, key: Hashable, call: Callable[[], Awaitable[T]], *, fresh: bool = False
    ) -> T:
        return await self._flights.join(key, lambda: self._answered(key, call), fresh=fresh)

    async def _answered(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call`, cached even if the caller is cancelled meanwhile."""
        invalidated = self._invalidated
        value = await call()
        self.keep(key, value)
        if invalidated != self._invalidated:
            self._answers[key].asked = -math.inf
        return value

    async def _ask_quietly(self, key: Hashable, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await self._ask(key, call)
        except Exception as exc:
            if (known := fault_of(exc)) is None:
                raise
            log.info("serving the cached answer: %s", known)
