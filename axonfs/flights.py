"""One call at a time per key; whoever asks meanwhile shares its outcome.

Sits beside the trio code of tree and fetch. The call runs in a nursery of the mount, never in
the task of the first asker, so an asker that is cancelled cancels nothing for the others.
All state changes are plain code between checkpoints; trio thread only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import trio

from axonfs.errors import AxonError

T = TypeVar("T")


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

    async def join(
        self, key: Hashable, call: Callable[[], Awaitable[T]], *, fresh: bool = False
    ) -> T:
        """The outcome of `call`, or of the call for `key` that is under way.

        Args:
            fresh: not of one that began before this: it may have been answered already.

        Raises:
            whatever the call raises; each joiner gets it. Cancelling a joiner leaves the call.
        """
        if fresh and (before := self._flights.get(key)):
            await before.done.wait()
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._run, key, flight, call)
        await flight.done.wait()
        if isinstance(flight.error, AxonError):
            raise flight.error.located()  # a copy: each joiner adds its own spec and path
        if flight.error is not None:
            raise flight.error
        return cast(T, flight.value)

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
