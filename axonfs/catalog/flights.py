"""One call at a time per key, shared by all who ask meanwhile; and one question put to several.

Sits beside the trio code of tree and fetch. The call runs in a nursery of the mount, never in
the task of the first asker, so an asker that is cancelled cancels nothing for the others.
All state changes are plain code between checkpoints; trio thread only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import trio

from axonfs.errors import AxonError, DeadlineError

T = TypeVar("T")
S = TypeVar("S")


class LateError(DeadlineError):
    """A joiner's patience ended before the call did; the call goes on."""


@dataclass(slots=True)
class _Flight:
    done: trio.Event = field(default_factory=trio.Event)
    value: Any = None
    error: Exception | None = None


class Flights:
    """Calls under way, by key."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flights: dict[Hashable, _Flight] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether the call for `key` is under way."""
        return key in self._flights

    async def join(
        self,
        key: Hashable,
        call: Callable[[], Awaitable[T]],
        *,
        fresh: bool = False,
        patience: float = math.inf,
    ) -> T:
        """The outcome of `call`, or of the call for `key` that is under way.

        Args:
            fresh: not of one that began before this: it may have been answered already.

        Raises:
            whatever the call raises; each joiner gets it. Cancelling a joiner leaves the call.
            LateError: there is no outcome after `patience` seconds; the call goes on.
        """
        if fresh and (before := self._flights.get(key)):
            await before.done.wait()
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._run, key, flight, call)
        with trio.move_on_after(patience):
            await flight.done.wait()
        if not flight.done.is_set():
            raise LateError(f"no answer within {patience:g} s", hint="it is still waited for")
        if isinstance(flight.error, AxonError):
            raise flight.error.located()  # a copy: each joiner adds its own spec and path
        if flight.error is not None:
            raise flight.error
        return cast(T, flight.value)

    async def in_turn(
        self,
        key: Hashable,
        asked: Sequence[S],
        call: Callable[[S], Awaitable[T]],
        head_start: float,
    ) -> AsyncGenerator[tuple[S, T | AxonError], None]:
        """The outcome of `call` for each of `asked`, in their order: a value or an error.

        One that takes longer than `head_start` seconds gives a LateError, and its own outcome
        after those of all others: so the next one's answer waits no longer for it.
        """
        late: list[S] = []
        for one in itertools.chain(asked, late):
            patience = math.inf if one is asked[-1] or one in late else head_start
            try:
                outcome: T | AxonError = await self.join(
                    (key, one), partial(call, one), patience=patience
                )
            except AxonError as exc:
                outcome = exc
                if isinstance(exc, LateError):
                    late.append(one)
            yield one, outcome

    async def together(
        self,
        key: Hashable,
        asked: Sequence[S],
        call: Callable[[S], Awaitable[T]],
        head_start: float,
    ) -> list[AxonError]:
        """Make `call` for all of `asked` at once; the errors of those that failed.

        Returns when all are done, or `head_start` seconds after the first that did not fail: the
        other calls go on.
        """
        failures: list[AxonError] = []
        answered = trio.Event()

        async def ask(one: S) -> None:
            try:
                await self.join((key, one), partial(call, one))
                answered.set()
            except AxonError as exc:
                failures.append(exc)

        async def limit() -> None:
            await answered.wait()
            await trio.sleep(head_start)
            asking.cancel_scope.cancel()

        async with trio.open_nursery() as limiting:
            limiting.start_soon(limit)
            async with trio.open_nursery() as asking:
                for one in asked:
                    asking.start_soon(ask, one)
            limiting.cancel_scope.cancel()
        return failures

    async def _run(
        self, key: Hashable, flight: _Flight, call: Callable[[], Awaitable[Any]]
    ) -> None:
        try:
            flight.value = await call()
        except Exception as exc:  # for the joiners; a cancelled nursery goes on unwinding
            flight.error = exc
        except BaseException:
            flight.error = trio.RunFinishedError("the mount is closing")
            raise
        finally:
            del self._flights[key]
            flight.done.set()
