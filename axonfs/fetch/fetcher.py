"""Bring absent chunks of objects into the store: who waits for what, and what goes first.

Sits between vfs and {store, http_client}. It does not know names, inodes or HTTP. One `Feed` per
object in use; one job per ranged GET. Readers wait for landings of chunks, never for jobs, so
readers of one chunk share one request and a reader that leaves cancels nothing.

Threading: all of this state belongs to the trio thread and changes in plain functions without a
checkpoint. The bytes of a job move in a worker thread (`transfer.py`), which reports each landed
chunk through `run_sync_soon`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from axonfs.catalog.flights import Flights
from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, OfflineError
from axonfs.fetch.feed import Feed
from axonfs.fetch.job import Job
from axonfs.fetch.local import held_object
from axonfs.fetch.overflow import Overflow
from axonfs.fetch.package import Packages
from axonfs.fetch.runner import Runner
from axonfs.formats.chunktable import ChunkTable, single_table
from axonfs.formats.manifest import ChunkRef, FileEntry
from axonfs.http_client import Bodies, Limits
from axonfs.ranges import Range
from axonfs.sources import HubCache
from axonfs.store import Store

_Key = tuple[str, int, ChunkRef | None, str | None, bool]


class Fetcher:
    """The feeds of all objects in use, and the streams that fill them.

    `began` is called in the trio thread with objects that are in use from now on, and not whole.

    Args:
        streams: ranged GETs at a time of one origin, at the most; fewer where they are enough.
        limits: timeouts, and the deadline in seconds without progress.
        landed: called in the trio thread after each landed chunk, and when an object is no
            longer in use (the evictor listens).
        blobs: a place on this machine that is looked into before anything is sent.
    """

    def __init__(
        self,
        store: Store,
        bodies: Bodies,
        nursery: trio.Nursery,
        *,
        streams: int = 16,
        limits: Limits | None = None,
        offline: bool = False,
        landed: Callable[[], None] = lambda: None,
        blobs: HubCache | None = None,
    ) -> None:
        self.store = store
        self.offline = offline
        self.began: Callable[[list[str]], None] = lambda digests: None
        self.withdrawn: set[str] = set()  # digests of objects some bytes of which proved wrong
        self.closing = False  # read by worker threads, which then end within a moment
        self.flights = Flights(nursery)
        self.overflow = Overflow()
        self.limits = limits or Limits()
        self._landed = landed
        self._blobs = blobs
        self._feeds: dict[_Key, Feed] = {}
        self.jobs = Runner(self, bodies, nursery, self.limits, streams)
        self.packages = Packages(self, bodies, self.limits)
        self._fetched = self._copied = 0
        self._requests = 0

    async def open(self, version: Version, entry: FileEntry) -> Feed:
        """The feed of `entry`'s object; close it when the handle is closed."""
        feed = self.feed(entry)
        if feed is None:
            stored = await trio.to_thread.run_sync(held_object, self.store, entry)
            feed = self.feed(entry)  # another task may have opened it meanwhile
            if feed is None:
                feed = self._feeds[_key(entry)] = Feed(entry, stored, self)
                if not feed.local.complete:
                    self.began([entry.digest])
            else:
                stored.release()
        feed.opened(version)
        return feed

    def feed(self, entry: FileEntry) -> Feed | None:
        """The feed of an object in use."""
        return self._feeds.get(_key(entry))

    def feeds(self) -> list[Feed]:
        """Every feed in use."""
        return list(self._feeds.values())

    def forget(self, feed: Feed) -> None:
        """Drop a feed that nobody has open and that has no job; its object is released."""
        self.overflow.forget(feed)
        if self.feed(feed.entry) is feed:
            del self._feeds[_key(feed.entry)]
            self._landed()

    @property
    def busy(self) -> bool:
        """Whether jobs are under way or wait."""
        return any(lane.schedule.running or lane.schedule.waiting for lane in self.jobs.lanes)

    def statistics(self) -> dict[str, Any]:
        """Figures for `status`: bytes and requests since the mount, bytes copied from a place on
        this machine, jobs under way and waiting, what these jobs have yet to bring, streams for
        bulk work of the origin that has the most, and bytes per second of late.
        """
        schedules, now = [lane.schedule for lane in self.jobs.lanes], trio.current_time()
        return {
            "bytes": self._fetched,
            "copied": self._copied,
            "requests": self._requests,
            "in_flight": sum(schedule.running for schedule in schedules),
            "queued": sum(schedule.waiting for schedule in schedules),
            "in_flight_bytes": sum(schedule.in_flight_bytes for schedule in schedules),
            "streams": max(schedule.streams.limit for schedule in schedules),
            "rate": round(sum(schedule.streams.current_rate(now) for schedule in schedules)),
        }

    # -- what a transfer reports: no checkpoint in any of these ---------------------------------

    def arrived(self, job: Job, chunks: Range, size: int, data: bytes | None = None) -> None:
        """Chunks of `job` are in the store (called in the trio thread by the transfer).

        Args:
            data: their bytes, where the disk did not take them.
        """
        if job.feed.blob:
            self._copied += size
        else:
            self._fetched += size
        self.jobs.progressed(job, size)
        unit = job.feed.object.chunk_size
        for chunk in range(*chunks):
            piece = None if data is None else data[(chunk - chunks.start) * unit :][:unit]
            if piece is not None:
                self.overflow.put(job.feed, chunk, piece)
            job.feed.arrived(chunk, piece)
        self._landed()

    # -- what a pass over a package reports -------------------------------------------------

    def asked(self) -> None:
        """A request went out."""
        self._requests += 1

    def received(self, size: int) -> None:
        """Some bytes of a package came."""
        self._fetched += size

    def unpacked(self, entry: FileEntry) -> None:
        """The object of `entry` is complete and right."""
        if feed := self.feed(entry):
            feed.unpacked()
        self._landed()

    # -- what jobs need ---------------------------------------------------------------------

    def may_have_blob(self, feed: Feed) -> bool:
        """Whether the object is on this machine outside the cache, or was not looked for yet."""
        return feed.blob is not None or (self._blobs is not None and not feed.blob_sought)

    async def seek_blob(self, feed: Feed) -> None:
        """Look once whether the object lies on this machine already."""
        blobs = self._blobs
        if blobs is None or feed.blob_sought:
            return

        async def seek() -> None:
            size = feed.object.chunk_size
            feed.blob = await trio.to_thread.run_sync(
                blobs.find, feed.entry, size, lambda: self.closing
            )
            feed.blob_sought = True
            if feed.blob and feed.blob.table:
                feed.table = feed.blob.table

        await self.flights.join(("blob", feed), seek)

    async def fetch_table(self, feed: Feed, origin: Version) -> None:
        """Have the feed know its chunk table, if it can be had."""
        with suppress(AxonError, OSError):  # the transfer asks again, and has a reader to tell
            await self.ensure_table(feed, origin)

    async def ensure_table(
        self, feed: Feed, origin: Version | None = None, *, adopted: bool = True
    ) -> None:
        """Have the feed know its chunk table, from the store or from a source.

        Args:
            adopted: False where only the index's own sums are needed, so that nothing is sent.
        """
        entry = feed.entry
        if feed.table is not None or entry.chunks is None or not adopted:
            return
        if entry.size <= entry.chunks.size:  # its one chunk is the object
            feed.table = single_table(entry.digest, entry.size, entry.chunks.size)
            return
        origin = origin or next(iter(feed.origins), None)
        key = ("table", _key(entry))
        feed.table = await self.flights.join(key, lambda: self._table(entry, origin))

    async def _table(self, entry: FileEntry, origin: Version | None) -> ChunkTable:
        table = await trio.to_thread.run_sync(self.store.table, entry)
        if table is not None:
            return table
        if self.offline or origin is None or origin.source is None:
            raise OfflineError("its chunk table is not in the cache, and nothing may be sent")
        table = await origin.source.table(origin.base, entry)
        assert table is not None  # the entry has a reference to it
        await trio.to_thread.run_sync(self.store.put_table, entry.digest, table)
        return table

    # -- giving up bytes ---------------------------------------------------------------------

    async def punch(self, goal: int) -> list[str]:
        """Have objects in use give up about `goal` bytes; returns the digests that did."""
        pinned = await trio.to_thread.run_sync(self.store.pinned_digests)
        shrunk = []
        for feed in self.feeds():
            if goal <= 0:
                break
            if self.feed(feed.entry) is not feed or feed.entry.digest in pinned:
                continue  # its last reader left while another feed gave up chunks, or it is pinned
            if freed := await feed.punch(goal):
                goal -= freed
                shrunk.append(feed.entry.digest)
        return shrunk


def _key(entry: FileEntry) -> _Key:
    """Entries that agree about everything but the path share a feed."""
    return entry.digest, entry.size, entry.chunks, entry.git, entry.named
