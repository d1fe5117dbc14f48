"""Answers a request EINTR at once when its reader gets a signal; what it waited for continues.

Beside the adapter. For most requests the kernel sends FUSE_INTERRUPT. It sends none for O_DIRECT
and for its own readahead, whose reader waits for a page; so `watch` looks at the threads whose
requests take long. No program gets an error from readahead: the kernel then asks for the page
alone, and interrupts that request.

To cancel a handler stops nothing that others wait for: fetches and documents run in the engine's
nursery. A handler behind its last checkpoint is not cancelled, and its answer counts. Without the
extension the mount learns of no signal, and readers wait for their answers.

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

# How often `watch` looks at waiting threads, in seconds; one look takes 30 µs a thread.
INTERVAL = 0.2
# The kernel tries a page fault within a system call (write(2) of a mapping, for example) twice, the
# second time within this many seconds. If that fails too, the program gets EFAULT.
AGAIN = 0.05
_KEPT = 64

_Page = tuple[int, int, int]  # thread, inode, offset


@dataclass(slots=True)
class _Waiting:
    """A request in flight. `thread` asked for it; 0 if that is in another pid namespace.

    `page` is the page that a read may be for; None for O_DIRECT (`direct`) and other requests.
    `insists`: an error would fail a page fault within a system call, so that only a fatal signal
    cancels the request.
    """

    scope: trio.CancelScope
    thread: int
    page: _Page | None = None
    direct: bool = False
    insists: bool = False

    def look(self) -> None:
        """Cancel if the thread got a signal for which the kernel sends no interrupt, or if it has
        ended while its readahead was in flight."""
        found = signals.pending(self.thread)
        if found is None:
            gone = not self.direct and signals.is_gone(self.thread)
        else:
            mine = found.own | (found.shared if found.first else 0)
            gone = found.asleep and bool(mine & (signals.FATAL if self.insists else -1))
        if gone:
            self.scope.cancel()


class Interrupts:
    """The waiting requests of one connection, by the kernel's number for each."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._answered: dict[_Page, float] = {}
        openreply.on_interrupt(self.interrupted)

    async def heeded(self, handler: Callable[[], Awaitable[T]]) -> T:
        """Run `handler` until a signal cancels it. Call it before a request's first checkpoint.

        Raises:
            FUSEError: EINTR, the reader got a signal.
        """
        return await self._until(_Waiting(trio.CancelScope(), openreply.thread()), handler)

    async def read(self, offset: int, handler: Callable[[], Awaitable[T]]) -> T:
        """Like `heeded`, for a read at `offset`."""
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
        """The reader of `request`, which may have been answered, got a signal."""
        waiting = self._waiting.get(request)
        if waiting is None:
            return
        found = signals.pending(waiting.thread)
        if found and not found.own | found.shared:
            return  # it is stopped, traced or frozen; `watch` notices a later signal
        again = waiting.page is not None and self._tried_again(waiting.page)
        if again and not signals.faults(waiting.thread):
            waiting.insists = True
        else:
            waiting.scope.cancel()

    def _tried_again(self, page: _Page) -> bool:
        """Whether the read of `page` was answered EINTR less than AGAIN seconds ago."""
        now = trio.current_time()
        again = now - self._answered.pop(page, -1.0) < AGAIN
        self._answered[page] = now
        while len(self._answered) > _KEPT:
            del self._answered[next(iter(self._answered))]
        return again

    async def watch(self) -> None:
        """Cancel requests whose threads got a signal for which the kernel sends no interrupt."""
        while True:
            await trio.sleep(INTERVAL)
            for waiting in list(self._waiting.values()):
                if waiting.thread:
                    waiting.look()
