"""Open files: their handles, and reads from them.

Sits inside vfs, between vfs.py, which knows names and inodes, and fetch. Trio thread only: bytes in
the page cache are copied here, and threads read the others.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any, Protocol

import trio

from axonfs.ahead.plan import AHEAD
from axonfs.ahead.prefetcher import Prefetcher
from axonfs.errors import BadHandleError
from axonfs.fetch import Download, Feed, Fetcher
from axonfs.ranges import Range, chunk_range, chunk_span
from axonfs.steps import Cause, Step
from axonfs.store import DISK_FAULTS, StoredObject, in_memory, read_all
from axonfs.vfs.buffers import ReplyBuffers
from axonfs.vfs.error_context import naming_place
from axonfs.vfs.handle import Handle, continued, restored, resumed
from axonfs.vfs.journal import Journal, Kind, KnownHandle
from axonfs.vfs.places import File, Place, Text
from axonfs.vfs.streams import Log, Stream


class Native(Protocol):
    """Threads that answer the reads of attached handles by themselves."""

    @property
    def answered(self) -> int:
        """How many reads they have answered."""

    def attach(self, handle: Handle) -> None:
        """Have them answer the reads of `handle`, if they can."""

    def detach(self, number: int) -> None:
        """Have Python answer the reads of a handle, attached or not."""

    def totals(self, number: int) -> tuple[int, int]:
        """The reads of a handle since it was attached, and their bytes."""


class Files:
    """The open handles of one mount.

    Args:
        at: finds the place of an inode; may send requests.
        prefetcher: notified of each file that a reader streams to its end.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        journal: Journal,
        at: Callable[[int], Awaitable[Place]],
        prefetcher: Prefetcher | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._at = at
        self._prefetcher = prefetcher
        self._journal = journal
        self._in_memory = in_memory(fetcher.store.directory)
        self._handles: dict[int, Handle] = {}
        self._buffers = ReplyBuffers()
        self.native: Native | None = None  # threads that answer reads, while they run
        self._reads = 0

    @property
    def reads(self) -> int:
        """Reads of objects; the kernel answers others from its cache or a backing file."""
        return self._reads + (self.native.answered if self.native else 0)

    @property
    def handles(self) -> int:
        """How many handles the kernel has."""
        return len(self._handles)

    async def open(self, number: int, place: Place) -> Handle:
        """Open a file; the caller calls `opened` next. Sends nothing.

        Raises:
            CorruptError: the file is quarantined.
        """
        if isinstance(place, Text):
            handle = Handle(number, place, None, place.render())
        elif isinstance(place, File):
            handle = await self._open_object(number, place)
        elif isinstance(place, Log):
            handle = Handle(number, place, None, stream=place.begin(False))
        else:
            raise BadHandleError("not a file", path="/".join(place.path))
        self._handles[number] = handle
        return handle

    async def _open_object(self, number: int, place: File) -> Handle:
        with naming_place(place):
            feed = await self._fetcher.open(place.version, place.entry)
            try:
                await feed.prepare()
                backing = await _descriptor(feed) if feed.complete else None
            except BaseException:
                feed.close()
                raise
        frozen = backing is not None and feed.freeze()
        backing = backing if frozen else None
        fresh = self._fetcher.withdrew(place.entry.digest) or not feed.allowed
        return Handle(number, place, feed, frozen=frozen, fresh=fresh, backing=backing)

    def opened(self, number: int, inode: int, backing_id: int) -> None:
        """Record how the kernel will be answered: with the id of a backing file, or 0.

        The kernel reads a backing file itself, so its bytes do not change until the release.
        """
        self._journal.note(Kind.OPEN, number, inode, str(backing_id).encode())
        handle = self._handles[number]
        handle.backing = None
        if handle.feed is None:
            return
        if handle.frozen and not backing_id:
            handle.feed.thaw()
        if backing_id:
            handle.feed.object.touch()
        # The inode's first handle froze it; a chunk that was lost since then does not matter.
        handle.frozen = backing_id > 0 and (handle.frozen or handle.feed.object.freeze())
        if self.native is not None:
            self.native.attach(handle)

    def noted(self, number: int) -> bool:
        """Whether the kernel has this handle, or was about to get it."""
        return number in self._journal.known.handles

    async def restore(self, handles: Mapping[int, KnownHandle], place: Place) -> None:
        """Take over the handles of one file from an earlier worker. Sends nothing.

        Raises:
            BadHandleError: there is no file at its path any more.
        """
        if isinstance(place, Text):
            self._take_over(handles, partial(resumed, place))
        elif isinstance(place, Log):
            self._take_over(handles, partial(continued, place))
        elif isinstance(place, File):
            with closing(await self._fetcher.open(place.version, place.entry)) as feed:
                self._take_over(handles, partial(restored, place, feed))
        else:
            raise BadHandleError("not a file", path="/".join(place.path))

    def _take_over(
        self, handles: Mapping[int, KnownHandle], make: Callable[[int, KnownHandle], Handle]
    ) -> None:
        # Meanwhile a read may have restored some of them, and the kernel released others.
        for number, known in handles.items():
            if self.noted(number) and number not in self._handles:
                self._handles[number] = make(number, known)
                if self.native is not None:
                    self.native.attach(self._handles[number])

    async def _handle(self, number: int) -> Handle:
        """The open handle with this number; restores an earlier worker's handles on first use.

        Raises:
            BadHandleError: the kernel has no such handle.
            AxonError: a source that may have its file did not answer.
        """
        known = self._journal.known.handles
        if number in known and number not in self._handles:
            inode = known[number].inode
            place = await self._at(inode)
            same = {other: told for other, told in known.items() if told.inode == inode}
            await self.restore(same, place)
        if handle := self._handles.get(number):
            return handle
        raise BadHandleError(f"handle {number} is not open")

    def stream(self, number: int) -> Stream | None:
        """The stream of a handle of the access log; None of any other."""
        handle = self._handles.get(number)
        return handle.stream if handle else None

    def waits(self, number: int, offset: int, size: int) -> bool:
        """Whether a read would wait for bytes that are not local, or not verified."""
        handle = self._handles.get(number)
        if handle is None:
            return self.noted(number)
        if handle.feed is None or offset >= handle.feed.entry.size:
            return False
        size = min(size, handle.feed.entry.size - offset)
        return not handle.feed.present(*chunk_span(offset, size, handle.feed.object.chunk_size))

    async def read(self, number: int, offset: int, size: int) -> bytes | memoryview:
        """Up to `size` bytes at `offset`; short only at the end of the file.

        The view is valid until the next checkpoint of the trio thread.

        Raises:
            AxonError: the bytes cannot be fetched; the error names the spec and the path.
        """
        handle = await self._handle(number)
        if handle.stream is not None:
            return await handle.stream.read(size)
        if handle.feed is None or not isinstance(handle.place, File):
            return handle.read_text(offset, size)
        size = min(size, handle.feed.entry.size - offset)
        if size <= 0:
            return b""
        self._reads += 1
        if self.native is not None:  # its threads do not know what to do
            self.native.detach(number)
        with naming_place(handle.place):
            view = await self._read(handle.feed, handle.place, offset, size)
            handle.served()
        handle.reads += 1
        handle.bytes_read += size
        if self.native is not None and handle.number in self._handles:
            self.native.attach(handle)
        return view

    async def _read(self, feed: Feed, place: File, offset: int, size: int) -> memoryview:
        stored = feed.object
        chunks = chunk_span(offset, size, stored.chunk_size)
        ahead = None
        if not feed.complete:
            absent = feed.absent(chunks.start)
            ahead = self._ahead(feed, place, Range(offset, offset + size), 1, absent=absent)
        stored.touch()
        with self._buffers.borrowed(size) as view:
            while True:
                epoch = stored.epoch
                if ahead is None and feed.present(*chunks):
                    passed: Mapping[int, bytes] = {}
                else:
                    passed, ahead = await feed.need(chunks, ahead=ahead), None
                try:
                    await self._fill(feed, view, offset, passed)
                    failure = None
                except DISK_FAULTS as exc:
                    failure = exc
                # A chunk's bit is cleared before its bytes are dropped. So if no chunk was dropped
                # meanwhile, these are its bytes.
                if stored.epoch != epoch or not feed.served(chunks, passed):
                    continue
                if failure is None:
                    return view
                feed.distrust(chunks, failure)

    async def _fill(
        self, feed: Feed, view: memoryview, offset: int, passed: Mapping[int, bytes]
    ) -> None:
        """Fill `view` with the bytes from `offset` on: chunks in `passed`, else from the disk.

        Raises:
            OSError: the disk failed, or the backing file is too short.
        """
        stored = feed.object
        if not passed:
            # Bytes in the page cache are read without a thread.
            descriptor = stored.fd
            if self._in_memory and descriptor is not None:
                read_all(descriptor, view, offset)
            elif descriptor is None or read_cached(descriptor, view, offset) != len(view):
                await _read_apart(stored, view, offset)
            return
        for chunk in range(*chunk_span(offset, len(view), stored.chunk_size)):
            bounds = chunk_range(chunk, stored.chunk_size, stored.size)
            start, stop = max(bounds.start, offset), min(bounds.stop, offset + len(view))
            part = view[start - offset : stop - offset]
            if (data := passed.get(chunk)) is not None:
                part[:] = data[start - bounds.start : stop - bounds.start]
            else:
                await _read_apart(stored, part, start)

    def attach_all(self) -> None:
        """Have the native threads answer the reads of all handles that are restored."""
        for handle in self._handles.values():
            if self.native is not None:
                self.native.attach(handle)

    def note_reads(self, handle: Handle, span: Range, count: int, *, absent: bool) -> None:
        """Have chunks fetched ahead after the native threads got `count` reads in a row.

        Args:
            span: the bytes that they asked for.
            absent: whether some of them are neither local nor on their way.
        """
        feed = handle.feed
        if feed is None or feed.complete or not isinstance(handle.place, File):
            return
        feed.object.touch()
        if (ahead := self._ahead(feed, handle.place, span, count, absent=absent)) is not None:
            feed.want(ahead)

    def _ahead(
        self, feed: Feed, place: File, span: Range, count: int, *, absent: bool
    ) -> Range | None:
        """The chunks to fetch ahead after `count` reads in a row of the bytes `span`, if any."""
        ahead = feed.readahead.on_read(span.start, span.size, reads=count, absent=absent)
        if ahead is None:
            return None
        if self._prefetcher and ahead.stop == feed.entry.size:
            self._prefetcher.streamed(place.version, place.entry.path)
        elif self._prefetcher and feed.readahead.scattered and feed.unread < AHEAD // 2:
            self._prefetcher.scattered(place.version, place.entry.path)
        return chunk_span(ahead.start, ahead.size, feed.object.chunk_size)

    def release(self, number: int) -> bool:
        """Close a handle; return whether its file is complete."""
        self._journal.note(Kind.RELEASE, number)
        if self.native is not None:
            self.native.detach(number)
        handle = self._handles.pop(number, None)
        if handle is not None and handle.stream is not None:
            handle.stream.close()
        if handle is None or handle.feed is None:
            return False
        if handle.frozen:
            handle.feed.thaw()
        whole = handle.feed.complete  # before the close, which may close the backing file too
        handle.feed.close()
        return whole

    def download(self, path: str) -> Download | None:
        """The object of the open file at `path`, None if it is not open."""
        for handle in self._handles.values():
            if handle.feed is not None and "/".join(handle.place.path) == path:
                return handle.feed.download
        return None

    def open_files(self) -> list[dict[str, Any]]:
        """The open files, for `status`."""
        files: dict[str, dict[str, Any]] = {}
        for handle in self._handles.values():
            if handle.feed is None or not isinstance(handle.place, File):
                continue
            name = "/".join(handle.place.path)
            row = files.setdefault(
                name,
                {
                    "path": name,
                    "spec": str(handle.place.version.spec),
                    "size": handle.feed.entry.size,
                    "local": handle.feed.local_bytes,
                    "handles": 0,
                    "reads": 0,
                    "bytes_read": 0,
                    "passed_through": handle.frozen,
                    "unverified": handle.feed.entry.unverified,
                },
            )
            row["handles"] += 1
            reads, count = self.native.totals(handle.number) if self.native else (0, 0)
            row["reads"] += handle.reads + reads
            row["bytes_read"] += handle.bytes_read + count
        return list(files.values())


async def _descriptor(feed: Feed) -> int | None:
    """The descriptor of the backing file; None if the file is too short or the disk fails."""
    try:
        descriptor = feed.object.fd
        if descriptor is None:
            with Step(Cause.DISK, "opening the file in the cache"):
                descriptor = await trio.to_thread.run_sync(feed.object.opened)
        return descriptor if os.fstat(descriptor).st_size >= feed.entry.size else None
    except DISK_FAULTS:
        return None


async def _read_apart(stored: StoredObject, view: memoryview, offset: int) -> None:
    with Step(Cause.DISK, "reading from the cache's disk"):
        await trio.to_thread.run_sync(_read_object, stored, view, offset)


def _read_object(stored: StoredObject, view: memoryview, offset: int) -> None:
    """Like `read_all`, but opens the file if needed; blocks."""
    read_all(stored.opened(), view, offset)


def read_cached(fd: int, view: memoryview, offset: int) -> int:
    """Read into `view` from the page cache; return the count, which is smaller if bytes lack."""
    try:
        return os.preadv(fd, [view], offset, os.RWF_NOWAIT)
    except OSError:  # not in the page cache, or a file system without RWF_NOWAIT
        return 0
