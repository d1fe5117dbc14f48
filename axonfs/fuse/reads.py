"""Reads answered by native threads: which files they serve, and what they ask of Python.

Beside the adapter, above vfs. The threads (native/, in C) answer reads of attached handles from the
backing files, without the GIL. They serve the chunks that `_Object` marks, as the store tells it,
and park a read that needs others. `run` gets the news: what was read, so that more is fetched
ahead, and which chunks parked reads want. Each wanted chunk ends in one of three ways: it lands, an
error answers the reads, or they are handed over to Python, which answers them as if no thread had
seen them. So no read stays parked.

Trio thread, but for the methods of `_Object` that the store calls.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Any, NamedTuple

import trio

from axonfs import descriptors
from axonfs.fetch import Feed
from axonfs.fuse import openreply
from axonfs.fuse.failures import Failures
from axonfs.ranges import Range
from axonfs.steps import Step, outermost
from axonfs.store import DISK_FAULTS
from axonfs.store.watcher import UNWATCHED
from axonfs.vfs.error_context import naming_place
from axonfs.vfs.files import Files
from axonfs.vfs.handle import Handle
from axonfs.vfs.places import File

log = logging.getLogger(__name__)

# Threads that read the device. One moves 4 GiB/s, and more than four find no work.
READERS = max(2, min(4, os.cpu_count() or 1))
# Threads that answer what had to wait: for a source, or for the disk, which likes several requests.
ANSWERERS = 8


class ParkedRead(NamedTuple):
    """A read that waits for chunks; `flags` are those of its open file (O_*). `since` is when it
    came, in ns by `time.monotonic_ns`."""

    request: int
    thread: int
    inode: int
    offset: int
    flags: int
    handle: int
    size: int
    since: int


class _Object:
    """An object whose reads the native threads answer. `place` is one of its files."""

    def __init__(self, extension: Any, feed: Feed, place: File, *, in_memory: bool) -> None:
        """
        Raises:
            OSError: memory or descriptors are short, or its file cannot be opened.
        """
        stored = feed.object
        self.feed = feed
        self.place = place
        self.handles = 0
        self.restarts = None if feed.compared else feed.restarts
        self.shut = False
        self._extension = extension
        self.number: int = extension.add(stored.opened(), stored.size, stored.chunk_size, in_memory)
        if not self.number:
            raise OSError(errno.EMFILE, "the native threads serve no more files")
        stored.presence.watcher = self
        for run in stored.presence.usable.extents(0, stored.count):
            self.serve(run)
        for run in feed.download.coming:
            self.coming(run)

    def landed(self, chunks: Range) -> None:
        """The store has the chunks. If only the digest of the whole can tell now, serve nothing."""
        if self.feed.due:
            self._shut()
        else:
            self._extension.landed(self.number, *chunks)

    def cleared(self, chunks: Range) -> None:
        """The store, or what is known of the disk or the sources, takes the chunks away."""
        if self.feed.tabled:
            self._extension.cleared(self.number, *chunks)
        else:  # what the readers have may be wrong, and Python compares that
            self._shut()

    def coming(self, chunks: Range) -> None:
        """A request brings the chunks: a read that waits for them is no news for a while."""
        self._extension.coming(self.number, *chunks)

    def given_up(self, chunks: Range) -> None:
        """The request ended without the chunks."""
        self._extension.given_up(self.number, *chunks)

    def _shut(self) -> None:
        self.shut = True
        self._extension.shut(self.number)

    def serve(self, chunks: Range) -> None:
        """Have the threads serve the chunks if that is right, else hand their reads to Python."""
        epoch = self._extension.epoch(self.number)
        right = self.feed.direct and self.feed.present(*chunks)
        if not (right and self._extension.landed(self.number, *chunks, epoch)):
            self._extension.declined(self.number, *chunks)

    def drop(self) -> None:
        """Forget it after its last handle; a newer one may watch the same object."""
        self._extension.drop(self.number)
        self.unwatch()

    def unwatch(self) -> None:
        """Learn of no more chunks; the threads serve none any more."""
        presence = self.feed.object.presence
        if presence.watcher is self:
            presence.watcher = UNWATCHED


class NativeReads:
    """The native threads of one mount. `why_not` says why none runs; None while they do.

    Args:
        in_memory: whether the backing files are in memory, where reading them never waits.
    """

    def __init__(self, files: Files, failures: Failures, *, in_memory: bool) -> None:
        self.why_not: str | None = "the mount has not begun"
        self._files = files
        self._failures = failures
        self._in_memory = in_memory
        self._extension = openreply.extension()
        self._objects: dict[int, _Object] = {}
        self._handles: dict[int, tuple[_Object, Handle]] = {}
        self._bringing: dict[object, tuple[Feed, Range]] = {}  # by task
        self._news = -1

    def start(self, device: int) -> None:
        """Begin to read `device`, the connection's descriptor; the handshake was made on it."""
        if self._extension is None:
            self.why_not = openreply.UNAVAILABLE
            return
        os.set_blocking(device, True)
        try:
            self._news = self._extension.start(device, READERS, ANSWERERS)
        except OSError as exc:
            os.set_blocking(device, False)
            self.why_not = str(exc)
            log.warning("reads are answered by Python alone: %s", exc)
            return
        self.why_not = None
        self._files.native = self
        self._files.attach_all()

    def stop(self) -> None:
        """End the threads; parked reads stay for the next worker. Blocks for a moment."""
        if self.why_not is None and self._extension is not None:
            self.why_not = "the mount has ended"
            self._files.native = None
            if not self._extension.stop():  # that thread has to learn of chunks that go
                log.warning("a thread still waits for the disk of the cache")
                return
            for attached in self._objects.values():
                attached.unwatch()

    @property
    def answered(self) -> int:
        """How many reads the threads have answered."""
        return int(self._extension.statistics()["answered"]) if self._extension else 0

    def state(self) -> dict[str, Any]:
        """The threads, for `status`."""
        counts = self._extension.statistics() if self._extension else {}
        running = self.why_not is None
        return {"threads": READERS if running else 0, "why_not": self.why_not, **counts}

    def attach(self, handle: Handle) -> None:
        """Have the threads answer the reads of `handle`, if what they serve would be right."""
        feed = handle.feed
        if feed is None or handle.frozen or handle.number in self._handles:
            return
        if not feed.object.size:  # the kernel asks for none of its bytes, and it has no chunk
            return
        if not (isinstance(handle.place, File) and feed.direct and feed.object.fd is not None):
            return
        if len(self._objects) >= descriptors.for_native_threads():
            return
        try:
            attached = self._object(feed, handle.place)
        except DISK_FAULTS as exc:
            log.debug("%s is read by Python: %s", feed.object, exc)
            return
        if attached.feed is not feed:  # another entry's, which ends with that one's handles
            return
        if self._extension is not None and self._extension.attach(handle.number, attached.number):
            attached.handles += 1
            self._handles[handle.number] = attached, handle

    def _object(self, feed: Feed, place: File) -> _Object:
        watcher = feed.object.presence.watcher
        if isinstance(watcher, _Object) and not watcher.shut:
            return watcher
        made = _Object(self._extension, feed, place, in_memory=self._in_memory)
        self._objects[made.number] = made
        return made

    def detach(self, number: int) -> None:
        """Have Python answer the reads of a handle. It learns whether the reader may have bytes
        that nothing was compared with."""
        attached, handle = self._handles.pop(number, (None, None))
        if attached is None or handle is None or self._extension is None:
            return
        reads, count = self._extension.totals(number)
        handle.reads += reads
        handle.bytes_read += count
        if self._extension.detach(number):
            attached.feed.object.touch()
            handle.uncompared = attached.restarts
        attached.handles -= 1
        if attached.handles == 0:
            del self._objects[attached.number]
            attached.drop()

    async def run(self) -> None:
        """Do what the threads ask for, until cancelled."""
        if self.why_not is not None:
            return
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._news)
                self._take_news(nursery)

    def _take_news(self, nursery: trio.Nursery) -> None:
        assert self._extension is not None
        reads, wants = self._extension.news()
        wanted: dict[int, list[Range]] = {}
        for number, first, stop, _ in wants:
            wanted.setdefault(number, []).append(Range(first, stop))
        for number, start, stop, count in reads:
            if (known := self._handles.get(number)) is not None:
                self._read(*known, Range(start, stop), count, wanted)
        for number, runs in wanted.items():
            if (attached := self._objects.get(number)) is not None:
                for run in runs:
                    nursery.start_soon(self._bring, attached, run)

    def _read(
        self,
        attached: _Object,
        handle: Handle,
        span: Range,
        count: int,
        wanted: dict[int, list[Range]],
    ) -> None:
        """Note a run of reads, which has more fetched ahead of it."""
        feed, unit = attached.feed, attached.feed.object.chunk_size
        absent = any(
            feed.absent(run.start)
            for run in wanted.get(attached.number, ())
            if span.start < run.stop * unit and run.start * unit < span.stop
        )
        self._files.note_reads(handle, span, count, absent=absent)
        assert self._extension is not None
        self._extension.mark(handle.number, feed.readahead.due(span.stop))

    async def _bring(self, attached: _Object, chunks: Range) -> None:
        """Have chunks fetched that parked reads want, and the reads answered."""
        assert self._extension is not None
        task = trio.lowlevel.current_task()
        self._bringing[task] = attached.feed, chunks
        with attached.feed.in_use():
            try:
                with naming_place(attached.place):
                    # The threads learn of landings from the store.
                    await attached.feed.need(chunks, urgent=False)
            except Exception as exc:
                path = "/".join(attached.place.path)
                await self._fail(attached, chunks, self._failures.errno_of(exc, "read", path))
            else:
                attached.serve(chunks)
            finally:
                self._bringing.pop(task, None)

    def step_towards(self, feed: Feed, chunks: Range) -> Step | None:
        """What is done now for chunks that parked reads want, beside the jobs that bring them."""
        for task, (other, brought) in self._bringing.items():
            if other is feed and brought.start < chunks.stop and chunks.start < brought.stop:
                return outermost(task)
        return None

    async def _fail(self, attached: _Object, chunks: Range, error: int) -> None:
        """Answer with `error` what waits for chunks that do not come; others may still come."""
        assert self._extension is not None
        for chunk in range(*chunks):
            one = Range(chunk, chunk + 1)
            if chunks.size == 1 or attached.feed.absent(chunk):
                self._extension.failed(attached.number, *one, error)
            else:
                await self._bring(attached, one)

    def parked(self) -> list[ParkedRead]:
        """The reads that wait for chunks."""
        if self.why_not is not None or self._extension is None:
            return []
        return [ParkedRead(*found) for found in self._extension.parked()]

    def totals(self, number: int) -> tuple[int, int]:
        """Reads of a handle that the threads took since it was attached, and their bytes."""
        if self._extension is None or number not in self._handles:
            return 0, 0
        reads, count = self._extension.totals(number)
        return reads, count

    def interrupt(self, request: int) -> None:
        """Answer a parked read EINTR, if it still waits."""
        if self._extension is not None:
            self._extension.interrupt(request, errno.EINTR)
