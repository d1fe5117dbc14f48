"""The kernel's requests: those under way, how long each kind took, and each one while it is heard.

Beside the adapter, which says when Python begins and ends a request. The native threads count the
reads that they answer (native/operations.c); this module adds both up. Reads of a file that the
kernel reads itself never come here: only its opens do, of the kind `passed_through`.

Requests for the access log itself are left out everywhere, or each read of it would be news.

Trio thread only.
"""

from __future__ import annotations

import errno
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import trio

from axonfs.fuse import openreply
from axonfs.fuse.latencies import Latency, total
from axonfs.fuse.programs import Program, Programs
from axonfs.steps import this_task
from axonfs.vfs.journal import Known

# How a read was answered: at once, or after its bytes had come. How an open was: see the module.
CACHE, COLD, PASSED_THROUGH, SERVED = "cache", "cold", "passed_through", "served"
# A listener hears in steps of this many seconds. The native ring holds what comes meanwhile.
INTERVAL = 0.1
# Operations that wait for a listener; more are left out.
KEPT = 16384
_BILLION = 1_000_000_000
_FINISHED = struct.Struct("=QQQQQIIiI")  # struct finished of native/operations.c
_KNOWN_PATHS = 4096


class UnderWay(NamedTuple):
    """A request that is not answered yet. `since` is by `time.monotonic`, also over a hand-over.

    `waits_for` is "chunks" or "disk" for a read that native threads have, else empty: Python
    handles it, in `task`. `handle` is 0 unless it is a read; `size` is in bytes.
    """

    operation: str
    request: int
    thread: int
    inode: int
    path: str
    handle: int
    offset: int
    size: int
    since: float
    waits_for: str = ""
    task: object = None


class Finished(NamedTuple):
    """A request that was answered at `time` (unix), `seconds` after it had come.

    `size` is what a read got. `kind` is that of reads and opens, else empty. `errno` is 0 without
    an error. A path is relative to the mountpoint; `program` may hold any character.
    """

    time: float
    operation: str
    path: str
    offset: int
    size: int
    seconds: float
    errno: int
    pid: int
    program: str
    kind: str
    handle: int


@dataclass(slots=True, eq=False)
class Request:
    """A request that Python handles; `arrived` in ns, by `time.monotonic_ns`."""

    operation: str
    number: int
    thread: int
    inode: int
    arrived: int
    name: str = ""
    handle: int = 0
    offset: int = 0
    size: int = 0
    kind: str = ""
    task: object = field(default_factory=this_task)


class Listener:
    """What one listener has not heard yet.

    Args:
        gathers: it calls `Operations.gather` itself, and needs no task that does so.
    """

    def __init__(self, *, gathers: bool = False) -> None:
        self.gathers = gathers
        self._kept: deque[Finished] = deque()
        self._left_out = 0
        self._news = trio.Event()

    def tell(self, batch: Sequence[Finished], left_out: int) -> None:
        """Keep `batch` as far as there is room; `left_out` were lost before."""
        room = max(KEPT - len(self._kept), 0)
        self._kept.extend(batch[:room])
        self._left_out += left_out + max(len(batch) - room, 0)
        if self:
            self._news.set()

    def __bool__(self) -> bool:
        """Whether there is something to hear."""
        return bool(self._kept or self._left_out)

    async def wait(self) -> None:
        """Return when there is something to hear; has no checkpoint if there is."""
        while not self:
            if self._news.is_set():  # another task may wait for it
                self._news = trio.Event()
            await self._news.wait()

    def take(self, most: int = KEPT) -> tuple[list[Finished], int]:
        """Up to `most` operations in the order of their end, and how many were left out since the
        last call because the listener or this process was too slow."""
        left_out, self._left_out = self._left_out, 0
        return [self._kept.popleft() for _ in range(min(most, len(self._kept)))], left_out


class Operations:
    """The requests of one mount.

    Args:
        known: what the kernel knows, for the paths of inodes.
        silent: the inode of the access log.
    """

    def __init__(self, known: Known, silent: int = 0) -> None:
        self.programs = Programs()
        self._known = known
        self._silent = silent
        self._extension = openreply.extension()
        self._running: dict[Request, None] = {}
        self.latest = Request("", 0, 0, 0, 0)  # begun last; for its handler, before a checkpoint
        self._latencies: dict[tuple[str, str], Latency] = {}
        self._errors: dict[str, dict[int, int]] = {}
        self._listeners: set[Listener] = set()
        self._listened = trio.Event()
        self._finished: list[Finished] = []
        self._left_out = 0
        self._paths: dict[int, str] = {}

    # The adapter's part.

    def begin(self, operation: str, arguments: Sequence[Any]) -> Request:
        """Note a request whose handler is about to be called with `arguments`."""
        number, inode, thread, arrived = openreply.described()
        if not number:  # without the extension
            inode, thread = self._described(operation, arguments)
        request = Request(operation, number, thread, inode, arrived or time.monotonic_ns())
        if operation == "read":
            request.handle, request.offset, request.size = arguments
        elif operation == "lookup":
            request.name = arguments[1].decode(errors="replace")
        if inode != self._silent or not inode:
            self._running[request] = None
        self.latest = request
        return request

    def _described(self, operation: str, arguments: Sequence[Any]) -> tuple[int, int]:
        """The inode and thread of a request, as far as its handler's arguments tell."""
        if operation in ("read", "release"):
            handle = self._known.handles.get(arguments[0])
            return handle.inode if handle else 0, 0
        inode = 1 if operation == "statfs" else arguments[0]
        return inode, getattr(arguments[-1], "pid", 0)

    def end(self, request: Request, error: int = 0) -> None:
        """Note that a request is about to be answered, with this errno if it is not 0."""
        if request not in self._running:
            return
        del self._running[request]
        now = time.monotonic_ns()
        took = max(now - request.arrived, 0)
        key = request.operation, request.kind
        if (latency := self._latencies.get(key)) is None:
            latency = self._latencies[key] = Latency()
        latency.note(took)
        if error:
            counts = self._errors.setdefault(request.operation, {})
            counts[error] = counts.get(error, 0) + 1
        if self._listeners:
            self._hear(request, error, took)

    def drop(self, request: Request) -> None:
        """Note that a request stays unanswered, for the next worker."""
        self._running.pop(request, None)

    # What others learn.

    def path(self, inode: int) -> str:
        """The path of an inode in the mount; `/` is the mountpoint."""
        found = self._paths.get(inode)
        if found is not None:
            return found
        node = self._known.nodes.get(inode)
        if node is None:
            return "/" if inode == 1 else f"inode {inode}"
        if len(self._paths) >= _KNOWN_PATHS:
            self._paths.clear()
        # A number is a hash of the path, so it never means another one.
        return self._paths.setdefault(inode, "/".join(node.path) or "/")

    def path_of(self, request: Request) -> str:
        """The path that a request is about."""
        path = self.path(request.inode)
        return f"{path}/{request.name}".lstrip("/") if request.name else path

    def under_way(self) -> list[UnderWay]:
        """The requests that are not answered yet, except those in the queue for Python."""
        found = [
            UnderWay(
                request.operation,
                request.number,
                request.thread,
                request.inode,
                self.path_of(request),
                request.handle,
                request.offset,
                request.size,
                request.arrived / _BILLION,
                task=request.task,
            )
            for request in self._running
        ]
        if self._extension is not None:
            for reads, waits_for in (
                (self._extension.parked(), "chunks"),
                (self._extension.at_disk(), "disk"),
            ):
                found += [self._native(read, waits_for) for read in reads]
        return found

    def _native(self, read: tuple[int, ...], waits_for: str) -> UnderWay:
        number, thread, inode, offset, _, handle, size, since = read
        path = self.path(inode)
        since_seconds = since / _BILLION
        return UnderWay(
            "read", number, thread, inode, path, handle, offset, size, since_seconds, waits_for
        )

    def statistics(self) -> dict[str, dict[str, Any]]:
        """By operation: count, seconds, buckets and errors; of reads and opens also by kind."""
        latencies = {key: [latency] for key, latency in self._latencies.items()}
        errors = {operation: dict(counts) for operation, counts in self._errors.items()}
        if self._extension is not None:
            *kinds, failed = self._extension.latencies()
            for kind, (nanoseconds, buckets) in zip((CACHE, COLD), kinds, strict=True):
                latencies.setdefault(("read", kind), []).append(Latency(nanoseconds, buckets))
            for error, count in failed.items():
                mine = errors.setdefault("read", {})
                mine[error] = mine.get(error, 0) + count
        report: dict[str, dict[str, Any]] = {}
        for operation in sorted({operation for operation, _ in latencies}):
            kinds_of = {k: total(all_) for (op, k), all_ in latencies.items() if op == operation}
            report[operation] = {
                **total(list(kinds_of.values())).report(),
                "errors": _named(errors.get(operation, {})),
            }
            if named := {kind: each.report() for kind, each in kinds_of.items() if kind}:
                report[operation]["kinds"] = named
        return report

    # Listening.

    @property
    def listeners(self) -> int:
        """How many listen: readers of the access log, profiles and traces."""
        return len(self._listeners)

    @contextmanager
    def listen(self, *, gathers: bool = False) -> Iterator[Listener]:
        """A listener that hears of each request that is answered while the block runs.

        Args:
            gathers: see `Listener`.
        """
        listener = Listener(gathers=gathers)
        self.join(listener)
        try:
            yield listener
        finally:
            self.leave(listener)

    def join(self, listener: Listener) -> None:
        """Have a listener hear of each request, until it leaves."""
        if not self._listeners:
            self._switch(on=True)
        self._listeners.add(listener)
        self._need_gathering()

    def leave(self, listener: Listener) -> None:
        """Stop telling a listener."""
        self._listeners.discard(listener)
        if not self._listeners:
            self._switch(on=False)
        self._need_gathering()

    def _switch(self, *, on: bool) -> None:
        self._finished.clear()
        self._left_out = 0
        if self._extension is not None:
            self._extension.listen(on)

    def _need_gathering(self) -> None:
        if not all(listener.gathers for listener in self._listeners):
            self._listened.set()
        elif self._listened.is_set():
            self._listened = trio.Event()

    async def run(self) -> None:
        """Tell listeners what was answered, until cancelled."""
        while True:
            await self._listened.wait()
            await trio.sleep(INTERVAL)
            self.gather()

    def gather(self) -> None:
        """Tell listeners what was answered until now; no checkpoint."""
        batch, self._finished = self._finished, []
        left_out, self._left_out = self._left_out, 0
        if self._extension is not None:
            native, missed = self._extension.finished()
            batch += self._heard_of(native)
            batch.sort()
            left_out += missed
        for listener in self._listeners:
            listener.tell(batch, left_out)

    def _hear(self, request: Request, error: int, took: int) -> None:
        if len(self._finished) >= KEPT:
            self._left_out += 1
            return
        self._finished.append(
            Finished(
                time.time(),
                request.operation,
                self.path_of(request),
                request.offset,
                0 if error else request.size,
                took / _BILLION,
                error,
                *self.programs.of(request.thread),
                request.kind,
                request.handle,
            )
        )

    def _heard_of(self, native: bytes) -> Iterator[Finished]:
        """The reads that native threads have answered."""
        path, programs = self.path, dict[int, Program]()
        ahead = time.time() - time.monotonic()
        for end, took, inode, handle, offset, size, thread, error, cold in _FINISHED.iter_unpack(
            native
        ):
            program = programs.get(thread)
            if program is None:
                program = programs[thread] = self.programs.of(thread)
            yield Finished(
                end / _BILLION + ahead,
                "read",
                path(inode),
                offset,
                size,
                took / _BILLION,
                error,
                *program,
                COLD if cold else CACHE,
                handle,
            )


def _named(errors: dict[int, int]) -> dict[str, int]:
    return {errno.errorcode.get(error, str(error)): count for error, count in errors.items()}
