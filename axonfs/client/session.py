"""An engine in a thread of its own: how code without an event loop uses it.

The thread runs trio with one engine until `close`. Other threads hand it work and wait. Ctrl-C in
the main thread cancels the work that this thread waits for, and nothing else.

A session that clients share ends by itself when none of them has used it for a moment, so that a
program that holds a client does not keep the cache from other processes.

Threading: any thread may call the methods of `Session`, but not the thread of the session itself.
A process that was forked has no such thread: there the session takes no work (`abandon`).
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeVar

import trio

from axonfs.call import Event
from axonfs.client.cached import CachedFiles
from axonfs.engine import Engine, open_engine
from axonfs.service import Service
from axonfs.settings.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

# Opening an engine again costs a few milliseconds, and what its tree has learnt of its sources.
LINGER = 2.0
# The end of an engine waits for its disk and network threads, which notice within a moment.
STOP_SECONDS = 30.0


class ClosedError(ValueError):
    """The session ended before the work was done; a ValueError, as for a closed file."""


class Session:
    """The parts of one process, used from other threads.

    Args:
        owner: whether to own the cache, as `open_engine` says.
        shared: whether it ends by itself, LINGER seconds after the last lease was given back.
        ended: called in the session's thread when the engine is closed.

    Raises:
        AxonError: the engine cannot be opened; BusyError where another process owns the cache.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        owner: bool,
        shared: bool = False,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self.settings = settings
        self.owner = owner
        self._engine: Engine
        self._files: CachedFiles
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        self._stopping: trio.Event
        self._shared = shared
        self._after = ended
        self._leases = self._taken = 0
        self._given_back: deque[None] = deque()  # appending takes no lock, as a finalizer needs
        self._ended = self._abandoned = False
        self._lock = threading.Lock()  # guards what is above and `_calls`; held for an instant
        self._calls: set[_Call[Any]] = set()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="axonfs", daemon=True)
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:  # Ctrl-C, if the engine did not fail
            self.close()
            raise

    @property
    def engine(self) -> Engine:
        """The engine; only the session's own thread may use it."""
        return self._engine

    @property
    def files(self) -> CachedFiles:
        """The open files; only the session's own thread may use them."""
        return self._files

    @property
    def alive(self) -> bool:
        """Whether it takes work."""
        return not self._ended

    @property
    def leases(self) -> int:
        """How many users it has."""
        return self._leases - len(self._given_back)

    def lease(self) -> bool:
        """Count one more user; False if it has ended."""
        with self._lock:
            if self._ended:
                return False
            while self._given_back:
                self._given_back.popleft()
                self._leases -= 1
            self._leases += 1
            self._taken += 1
            return True

    def give_back(self) -> None:
        """Count one user less. Takes no lock, so a finalizer may call it in any thread."""
        self._given_back.append(None)

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` in the session's thread and return what it returns.

        Raises:
            ClosedError: the session ended before.
        """
        call = self._submit(work)
        try:
            return call.future.result()
        finally:
            self._finish(call)

    def events(self, request: Event) -> Iterator[Event]:
        """The events with which `axonfs.service` answers; closing the iterator cancels the work."""
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

        async def answer() -> None:
            async with aclosing(Service(self._engine).handle(request)) as answers:
                async for event in answers:
                    events.put(event)

        call = self._submit(answer)
        call.future.add_done_callback(lambda _: events.put(None))
        try:
            while (event := events.get()) is not None:
                yield event
            call.future.result()
        finally:
            self._finish(call)

    def post(self, work: Callable[[], object]) -> None:
        """Have a plain function run in the session's thread soon; nothing if it has ended.

        Does not wait, so a finalizer may call it in any thread.
        """
        with suppress(trio.RunFinishedError):
            if not self._abandoned:
                self._token.run_sync_soon(work)

    def close(self, *, join: bool = True) -> None:
        """End the work and close the engine."""
        if self._ready.done() and not self._ready.exception():
            self.post(self._stopping.set)
        else:  # it is still being opened
            self._ready.add_done_callback(lambda ready: ready.exception() or self._stopping.set())
        if join and threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)

    def abandon(self) -> None:
        """In a forked process: take no work, and leave the cache's lock to the parent process.

        Nothing is closed properly, since the index and the sockets are the parent's.
        """
        self._abandoned = self._ended = True
        if self._ready.done() and not self._ready.exception():
            self._engine.store.leave_to_parent()

    def _submit(self, work: Callable[[], Awaitable[T]]) -> _Call[T]:
        call = _Call(work)
        with self._lock:
            if self._ended:
                raise ClosedError("the client's session has ended")
            self._calls.add(call)
        self.post(lambda: self._nursery.start_soon(call.run) if self.alive else None)
        return call

    def _finish(self, call: _Call[Any]) -> None:
        """Cancel the work if it is not done: at Ctrl-C, or when its caller gives up."""
        with self._lock:
            self._calls.discard(call)
        if not call.future.done():
            self.post(call.scope.cancel)
            wait([call.future], STOP_SECONDS)  # so that nothing writes to the caller's buffer later

    def _run(self) -> None:
        fault: BaseException = ClosedError("the client's session has ended")
        try:
            trio.run(self._main)
        except BaseException as exc:
            fault = exc
            if self._ready.done():  # else the caller of the constructor gets it
                log.error("the engine of this process failed", exc_info=exc)
        finally:
            self._after()
            self._end(fault)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = trio.Event()
        async with (
            open_engine(self.settings, owner=self.owner) as self._engine,
            trio.open_nursery() as self._nursery,
        ):
            self._files = CachedFiles(self._engine)
            self._ready.set_result(None)
            try:
                await self._until_stopped()
            finally:
                with self._lock:
                    self._ended = True
                self._nursery.cancel_scope.cancel()

    async def _until_stopped(self) -> None:
        """Return when `close` was called, or a shared session had no user for a while."""
        taken = -1
        while True:
            with trio.move_on_after(LINGER if self._shared else math.inf) as waited:
                await self._stopping.wait()
            with self._lock:
                idle = taken == self._taken and not self.leases and not self._calls
                if idle or not waited.cancelled_caught:
                    self._ended = True
                    return
                taken = self._taken

    def _end(self, fault: BaseException) -> None:
        """Settle what still waits."""
        with self._lock:
            self._ended = True
            calls, self._calls = self._calls, set()
        if not self._ready.done():
            self._ready.set_exception(fault)
        for call in calls:
            call.settle(fault)


class _Call(Generic[T]):
    """Some work in the session's thread, and the future that its caller waits for."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self.future: Future[T] = Future()
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        """Do the work; the future is settled in any case."""
        try:
            with self.scope:
                result = await self._work()
                if not self.future.done():
                    self.future.set_result(result)
        except Exception as exc:
            self.settle(exc)
        finally:
            self.settle(ClosedError("the client's session has ended"))

    def settle(self, fault: BaseException) -> None:
        """The work failed, unless it is done already."""
        if not self.future.done():
            self.future.set_exception(fault)
