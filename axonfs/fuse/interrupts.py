"""A request whose reader got a signal is answered EINTR at once, and what it waits for goes on.

Beside the adapter. For most requests the kernel says so (FUSE_INTERRUPT). For what it reads ahead
of a reader, which then waits for a page, and for O_DIRECT it does not, so `watch` looks at the
threads whose requests take long. No program sees an error of what was read ahead: the kernel asks
for the page alone, and interrupts that.

A handler that is cancelled stops nothing that others wait for: fetches and documents come in the
engine's nursery. One that is behind its last checkpoint is not stopped, and its answer counts.
Without the extension the mount does not learn of signals, and requests wait as without them.

Trio thread only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import pyfuse3
import trio

from axonfs.fuse import openreply, signals

T = TypeVar("T")

# How often `watch` looks, in seconds; a look at one thread takes 30 µs.
INTERVAL = 0.2
# A page fault within a system call, write(2) of a mapping say, is tried twice, the second time
# within this many seconds. An error of that one would be the program's EFAULT.
AGAIN = 0.05
_KEPT = 64

_Page = tuple[int, int, int]  # thread, inode, offset


@dataclass(slots=True)
class _Waiting:
    """A request under way and the thread that asked, 0 if that is in another pid namespace.

    `page` is what a read may be for, unless it is `direct`. `insists` says that an error would be
    one of a page fault within a system call, so that only a fatal signal is heeded.
    """

    scope: trio.CancelScope
    thread: int
    page: _Page | None = None
    direct: bool = False
    insists: bool = False

    def look(self) -> None:
        """Cancel if the thread got a signal that the kernel does not tell of, or has ended and left
        a read ahead behind."""
        found = signals.pending(self.thread)
        if found is None:
            gone = not self.direct and signals.is_gone(self.thread)
        else:
            mine = found.own | (found.shared if found.first else 0)
            gone = found.asleep and bool(mine & (signals.FATAL if self.insists else -1))
        if gone:
            self.scope.cancel()


class Interrupts:
    """The requests of one connection that wait, by the kernel's number for each."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._answered: dict[_Page, float] = {}
        openreply.on_interrupt(self.interrupted)

    async def heeded(self, handler: Callable[[], Awaitable[T]]) -> T:
        """What `handler` returns; to be called before the first checkpoint of a request.

        Raises:
            FUSEError: EINTR, the reader got a signal.
        """
        return await self._until(_Waiting(trio.CancelScope(), openreply.thread()), handler)

    async def read(self, offset: int, handler: Callable[[], Awaitable[T]]) -> T:
        """As `heeded`, for a read."""
        thread, direct = openreply.thread(), bool(openreply.flags() & os.O_DIRECT)
        page = None if direct else (thread, openreply.inode(), offset)
        return await self._until(_Waiting(trio.CancelScope(), thread, page, direct), handler)

    async def _until(self, waiting: _Waiting, handler: Callable[[], Awaitable[T]]) -> T:
        request = openreply.request()
        if not request:
            return await handler()
        with waiting.scope:
            self._waiting[request] = waiting
            try:
                return await handler()
            finally:
                self._waiting.pop(request, None)
        raise pyfuse3.FUSEError(errno.EINTR)

    def interrupted(self, request: int) -> None:
        """The kernel says that the reader of `request` got a signal; it may have been answered."""
        waiting = self._waiting.get(request)
        if waiting is None:
            return
        found = signals.pending(waiting.thread)
        if found and not found.own | found.shared:
            return  # it is stopped, traced or frozen; `watch` sees a signal that comes later
        again = waiting.page is not None and self._tried_again(waiting.page)
        if again and not signals.faults(waiting.thread):
            waiting.insists = True
        else:
            waiting.scope.cancel()

    def _tried_again(self, page: _Page) -> bool:
        """Whether the read of `page` was answered EINTR a moment ago."""
        now = trio.current_time()
        again = now - self._answered.pop(page, -1.0) < AGAIN
        self._answered[page] = now
        while len(self._answered) > _KEPT:
            del self._answered[next(iter(self._answered))]
        return again

    async def watch(self) -> None:
        """Cancel requests whose threads got a signal that the kernel does not tell of."""
        while True:
            await trio.sleep(INTERVAL)
            for waiting in list(self._waiting.values()):
                if waiting.thread:
                    waiting.look()
