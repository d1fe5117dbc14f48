"""Answers a request EINTR at once when its reader gets a signal; what it waited for continues.

Beside the adapter. For most requests the kernel sends FUSE_INTERRUPT. It sends none for O_DIRECT
and for its own readahead, whose reader waits for a page; so `watch` looks at the threads whose
requests take long. No program gets an error from readahead: the kernel then asks for the page
alone, and interrupts that request.

Reads that native threads have parked are looked at too.

To cancel a handler stops nothing that others wait for: fetches and documents run in the engine's
nursery. A handler behind its last checkpoint is not cancelled, and its answer counts. Without the
extension the mount learns of no signal, and readers wait for their answers.

Trio thread only.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import pyfuse3
import trio

from axonfs.fuse import openreply, signals
from axonfs.fuse.reads import NativeReads, ParkedRead

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
    `tried`: the page was read before, and the kernel tries a page fault within a system call twice.
    `endless`: nothing may ever answer it, so it ends also when its program is to be stopped, traced
    or frozen; a machine could not suspend otherwise.
    """

    cancel: Callable[[], object]
    thread: int
    page: _Page | None = None
    direct: bool = False
    tried: bool = False
    endless: bool = False

    @property
    def insists(self) -> bool:
        """Whether an error would fail a page fault within a system call, so that only a fatal
        signal cancels the request."""
        if self.page is None:
            return False
        call = signals.call(self.thread)
        return call in signals.SENDING or (self.tried and call != -1)

    def look(self) -> None:
        """Cancel if the thread got a signal for which the kernel sends no interrupt, or if it has
        ended while its readahead was in flight."""
        found = signals.pending(self.thread)
        if found is None:
            gone = not self.direct and signals.is_gone(self.thread)
        else:
            mine = found.own | (found.shared if found.first else 0)
            gone = found.asleep and bool(mine and mine & (signals.FATAL if self.insists else -1))
        if gone:
            self.cancel()


class Interrupts:
    """The waiting requests of one connection, by the kernel's number for each."""

    def __init__(self, native: NativeReads) -> None:
        self._native = native
        self._parked: dict[int, _Waiting] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._answered: dict[_Page, float] = {}
        openreply.on_interrupt(self.interrupted)

    async def heeded(self, handler: Callable[[], Awaitable[T]], *, endless: bool = False) -> T:
        """Run `handler` until a signal cancels it. Call it before a request's first checkpoint.

        Args:
            endless: whether it may never end by itself.

        Raises:
            FUSEError: EINTR, the reader got a signal.
        """
        return await self._until(handler, openreply.thread(), endless=endless)

    async def read(self, offset: int, handler: Callable[[], Awaitable[T]]) -> T:
        """Like `heeded`, for a read at `offset`."""
        thread, direct = openreply.thread(), bool(openreply.flags() & os.O_DIRECT)
        page = None if direct else (thread, openreply.inode(), offset)
        return await self._until(handler, thread, page, direct=direct)

    async def _until(
        self,
        handler: Callable[[], Awaitable[T]],
        thread: int,
        page: _Page | None = None,
        *,
        direct: bool = False,
        endless: bool = False,
    ) -> T:
        request = openreply.request()
        if not request:
            return await handler()
        with trio.CancelScope() as scope:
            waiting = _Waiting(scope.cancel, thread, page, direct, endless=endless)
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
            self._look_at_parked()
            waiting = self._parked.get(request)
        if waiting is None:
            return
        found = signals.pending(waiting.thread)
        if found and not found.own | found.shared and not waiting.endless:
            return  # it is stopped, traced or frozen; `watch` notices a later signal
        waiting.tried = waiting.page is not None and self._tried_again(waiting.page)
        if not waiting.insists:
            waiting.cancel()

    def _look_at_parked(self) -> None:
        """Learn which reads native threads have parked, and keep what is known of them."""
        self._parked = {
            read.request: self._parked.get(read.request) or self._parked_read(read)
            for read in self._native.parked()
        }

    def _parked_read(self, read: ParkedRead) -> _Waiting:
        direct = bool(read.flags & os.O_DIRECT)
        page = None if direct else (read.thread, read.inode, read.offset)
        cancel = functools.partial(self._native.interrupt, read.request)
        return _Waiting(cancel, read.thread, page, direct)

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
            before = self._parked
            self._look_at_parked()
            stay = [waiting for request, waiting in self._parked.items() if request in before]
            for waiting in [*self._waiting.values(), *stay]:
                if waiting.thread:
                    waiting.look()
