"""Answers that change: kept, and served while the question is asked again.

Sits below tree, above flights. Knows no source: a question is a key and the call that asks it.
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

# How long an answer is taken as current, in seconds.
TTL = 60.0
# A forced refresh is refused when the last one is younger than this.
MIN_AGE = 5.0
# Answers that are kept.
KEPT = 16384

T = TypeVar("T")


@dataclass(slots=True)
class _Answer:
    """What was answered to a question, when, and when it was last asked in the background."""

    value: Any
    asked: float
    tried: float = -math.inf

    @property
    def denies(self) -> bool:
        """Whether it is that something does not exist."""
        value = self.value
        return value is None or (isinstance(value, Versions) and not value.versions)


class Memo:
    """The last answer to each question.

    Args:
        nursery: runs the questions that are asked in the background.
        flights: shares a question among those who ask it at the same time.
        doubtful: whether an answer that something does not exist may be wrong, since a source
            does not answer; such an answer is never served again.
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
        """Whether an answer is kept, so that `recent` does not wait."""
        return key in self._answers

    async def recent(
        self,
        key: Hashable,
        call: Callable[[], Awaitable[T]],
        *,
        fresh: bool = False,
        brief: bool = False,
    ) -> T:
        """The answer to `key`, asked again in the background when it is older than TTL.

        Args:
            fresh: wait for a new answer unless the last one is younger than MIN_AGE.
            brief: an answer is current for MIN_AGE and not for TTL.
        """
        if known := self._answers.get(key):
            age = trio.current_time() - known.asked
            # What did not exist a while ago may exist now.
            denied = known.denies and (age >= TTL or self._doubtful())
            if (age < MIN_AGE or not fresh) and not denied:
                return cast(T, self.served(key, call, brief=brief))
        return await self._ask(key, call, fresh=fresh)

    def served(
        self, key: Hashable, call: Callable[[], Awaitable[T]], *, brief: bool = False
    ) -> T | None:
        """The answer that is kept, whatever it is, or None; asked again as with `recent`."""
        known, now = self._answers.get(key), trio.current_time()
        if known is None:
            return None
        if now - known.asked >= (MIN_AGE if brief else TTL) and now - known.tried >= MIN_AGE:
            known.tried = now
            self.ask_soon(key, call)
        return cast(T, known.value)

    def ask_soon(self, key: Hashable, call: Callable[[], Awaitable[Any]]) -> None:
        """Ask in the background; a failure is logged, and what is kept stays."""
        if key not in self._flights:
            self._nursery.start_soon(self._ask_quietly, key, call)

    def keep(self, key: Hashable, value: object) -> None:
        """Keep an answer that came with another one."""
        if len(self._answers) >= KEPT:
            self._answers.clear()
        self._answers[key] = _Answer(value, trio.current_time())

    def drop(self, key: Hashable) -> None:
        """Wait for the answer the next time."""
        self._answers.pop(key, None)

    def invalidate(self) -> None:
        """Have everything asked for again, and serve what is kept until then.

        That includes what is being asked for now, which may tell how things were before.
        """
        self._invalidated += 1
        for answer in self._answers.values():
            answer.asked = answer.tried = -math.inf

    async def _ask(
        self, key: Hashable, call: Callable[[], Awaitable[T]], *, fresh: bool = False
    ) -> T:
        return await self._flights.join(key, lambda: self._answered(key, call), fresh=fresh)

    async def _answered(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `call`, kept also if the task that asked is cancelled meanwhile."""
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
            log.info("keeping what was known: %s", known)
