"""Runs at most one call per key, shared by all callers; and sends one request to several sources.

Used by tree and fetch. The call runs in a nursery of the mount and not in the task of the first
caller, so a caller that is cancelled does not cancel it for the others. All state changes are plain
code between checkpoints; trio thread only.
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
from axonfs.steps import Cause, Step, outermost

T = TypeVar("T")
S = TypeVar("S")


class LateError(DeadlineError):
    """A caller's timeout passed before the call ended; the call continues."""


@dataclass(slots=True)
class _Flight:
    done: trio.Event = field(default_factory=trio.Event)
    task: object = None  # that makes the call
    value: Any = None
    error: Exception | None = None


class Flights:
    """The calls in flight, by key."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flights: dict[Hashable, _Flight] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether a call for `key` is in flight."""
        return key in self._flights

    async def join(
        self,
        key: Hashable,
        call: Callable[[], Awaitable[T]],
        *,
        fresh: bool = False,
        patience: float = math.inf,
    ) -> T:
        """The result of the call for `key` that is in flight, else of `call`.

        Args:
            fresh: do not use a call that is already in flight, which may have its answer by now.

        Raises:
            Exception: what the call raises; each caller gets it. Cancelling one caller does not
                cancel the call.
            LateError: the call did not end within `patience` seconds; it continues.
        """
        if fresh and (before := self._flights.get(key)):
            with _joined(before):
                await before.done.wait()
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._run, key, flight, call)
        with trio.move_on_after(patience), _joined(flight):
            await flight.done.wait()
        if not flight.done.is_set():
            raise LateError(f"no answer within {patience:g} s", hint="the request continues")
        if isinstance(flight.error, AxonError):
            raise flight.error.located()  # a copy: each caller adds its own spec and path
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
        """The results of `call` for each of `asked`, in their order: a value or an error.

        A call that takes longer than `head_start` seconds yields a LateError, and its own result
        after those of all others, so that it does not delay the next one.
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
        """Run `call` for all of `asked` at once; return the errors of those that failed.

        Returns when all are done, or `head_start` seconds after the first success: the other calls
        continue.
        """
        failures: list[AxonError] = []
        answered = trio.Event()

        async def ask(one: S) -> None:
            try:
                with Step(Cause.DOCUMENT, "asking", within=waiting):
                    await self.join((key, one), partial(call, one))
                answered.set()
            except AxonError as exc:
                failures.append(exc)

        async def limit() -> None:
            await answered.wait()
            await trio.sleep(head_start)
            asking.cancel_scope.cancel()

        with Step(Cause.DOCUMENT, "asking the registries") as waiting:
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
        flight.task = trio.lowlevel.current_task()
        try:
            with Step(Cause.OTHER, "working on it"):  # also for the threads that the call uses
                flight.value = await call()
        except Exception as exc:  # for the callers; a cancellation must propagate
            flight.error = exc
        except BaseException:
            flight.error = trio.RunFinishedError("the mount is closing")
            raise
        finally:
            del self._flights[key]
            flight.done.set()


def _joined(flight: _Flight) -> Step:
    return Step(Cause.OTHER, "waiting", on=lambda: outermost(flight.task))
