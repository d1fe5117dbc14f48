"""Fetches several objects of one version: their parts in order, several parts at a time.

Above fetch; each load and each pin has a `Bulk`. The owner decides what to fetch of each object and
how to handle errors. Trio thread only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError
from axonfs.fetch import Feed, Fetcher, Priority
from axonfs.formats.manifest import FileEntry
from axonfs.ranges import Range

T = TypeVar("T")


def turned(items: Iterable[T], begin: float) -> list[T]:
    """The items from the part `begin` of them on, and then those before; 0 keeps their order."""
    listed = list(items)
    first = int(begin * len(listed))
    return listed[first:] + listed[:first]


@dataclass(slots=True, eq=False)
class _File:
    """A file that is being fetched; `pending` counts its parts, plus 1 while more may follow."""

    entry: FileEntry
    feed: Feed
    pending: int = 1
    failed: bool = False


class Bulk:
    """The fetch of several objects, and its progress; `close` it.

    `reached` is the path of the file that was started last; `copied` counts the bytes that came
    from a copy on this machine.

    Args:
        local: the number of local bytes of each object, by digest.
        parts: returns the parts to fetch of an object.
        failed: called with a file that cannot be fetched, and the error. If it raises, the fetch
            ends; else it continues with the other files.
        begin: where each file that has a chunk table begins, as a part of it; the parts before that
            come last. (Without a table a file is hashed as it comes, from its beginning.)
    """

    def __init__(
        self,
        fetcher: Fetcher,
        version: Version,
        local: Mapping[str, int],
        *,
        parts: Callable[[Feed], Iterable[Range]],
        failed: Callable[[FileEntry, AxonError | OSError], None],
        begin: float = 0.0,
    ) -> None:
        self.reached = ""
        self.copied = 0
        self._fetcher = fetcher
        self._version = version
        self._begun = dict(local)
        self._local = dict(local)
        self._parts = parts
        self._failed = failed
        self.begin = begin
        self._files: list[_File] = []

    async def fetch(
        self,
        entries: Iterable[FileEntry],
        *,
        width: int,
        room: float = math.inf,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Fetch the files in their order, at most `room` bytes; one file per object.

        Args:
            width: the number of parts in flight.
            task_status: started when the last part is in flight.
        """
        async with trio.open_nursery() as nursery:
            send, parts = trio.open_memory_channel[tuple[_File, Range]](0)
            for _ in range(width):
                nursery.start_soon(self._fetch_parts, parts)
            await self._send_parts(entries, room, send)
            task_status.started()

    @property
    def local(self) -> int:
        """Bytes of the objects that are local now."""
        for file in self._files:
            self._local[file.entry.digest] = file.feed.local_bytes
        return sum(self._local.values())

    def missing(self, entries: Iterable[FileEntry]) -> int:
        """Bytes of `entries` that were not local when it began."""
        return sum(entry.size - self._begun[entry.digest] for entry in entries)

    @property
    def fetched(self) -> int:
        """Bytes that became local since it began, whichever reader fetched them."""
        return max(self.local - sum(self._begun.values()), 0)

    @property
    def path(self) -> str:
        """The first file that is being fetched; empty if none is."""
        return self._files[0].entry.path if self._files else ""

    def close(self) -> None:
        """Close the files that are still open, and stop requests that no other task waits for."""
        for file in list(self._files):
            file.feed.withdraw()
            self._close(file)

    async def _send_parts(
        self,
        entries: Iterable[FileEntry],
        room: float,
        parts: trio.MemorySendChannel[tuple[_File, Range]],
    ) -> None:
        async with parts:
            for entry in entries:
                if (file := await self._open(entry)) is None:
                    continue
                for part in turned(self._parts(file.feed), self.begin if entry.chunks else 0.0):
                    room -= file.feed.object.bytes_of(part).size
                    if room < 0:
                        self._part_ended(file)
                        return
                    file.pending += 1
                    await parts.send((file, part))
                self._part_ended(file)

    async def _open(self, entry: FileEntry) -> _File | None:
        try:
            file = _File(entry, await self._fetcher.open(self._version, entry))
        except (AxonError, OSError) as exc:
            self._failed(entry, exc)
            return None
        self.reached = entry.path
        self._files.append(file)
        await file.feed.find_copy()  # else each part would look for it, and start in any order
        return file

    async def _fetch_parts(self, parts: trio.MemoryReceiveChannel[tuple[_File, Range]]) -> None:
        async for file, part in parts:
            try:
                if not file.failed:
                    await file.feed.need(part, Priority.BACKGROUND, urgent=False)
            except (AxonError, OSError) as exc:
                if not file.failed:
                    self._failed(file.entry, exc)
                file.failed = True
            self._part_ended(file)

    def _part_ended(self, file: _File) -> None:
        file.pending -= 1
        if file.pending == 0:
            self._close(file)

    def _close(self, file: _File) -> None:
        digest = file.entry.digest
        self._local[digest] = file.feed.local_bytes
        if file.feed.copied:
            self.copied += self._local[digest] - self._begun[digest]
        self._files.remove(file)
        file.feed.close()
