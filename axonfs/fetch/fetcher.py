"""Bring absent chunks of objects into the store: who waits for what, and what goes first.

Sits between vfs and {store, remote}. It does not know names, inodes or HTTP. One `Feed` per
object in use; one job per ranged GET. Readers wait for landings of chunks, never for jobs, so
readers of one chunk share one request and a reader that leaves cancels nothing.

Threading: all of this state belongs to the trio thread and changes in plain functions without a
checkpoint. The bytes of a job move in a worker thread (`transfer.py`), which reports each landed
chunk through `run_sync_soon`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from axonfs.chunktable import ChunkTable, single_table
from axonfs.errors import (
    AxonError,
    CorruptError,
    DeadlineError,
    EtagError,
    OfflineError,
    UnavailableError,
    VanishedError,
)
from axonfs.fetch.feed import Feed
from axonfs.fetch.job import Job, Priority
from axonfs.fetch.local import held_object
from axonfs.fetch.overflow import Overflow
from axonfs.fetch.package import Packages
from axonfs.fetch.schedule import Schedule
from axonfs.fetch.transfer import Transfer
from axonfs.flights import Flights
from axonfs.manifest import ChunkRef, FileEntry
from axonfs.ranges import Range
from axonfs.remote import Bodies, HubCache, Limits
from axonfs.store import Store
from axonfs.tree import Version

log = logging.getLogger(__name__)

MAX_CORRUPT = 3
# How often a job looks for the node of a source whose answers its object began with.
MAX_NODES = 8


_Key = tuple[str, int, ChunkRef | None, str | None, bool]


class Fetcher:
    """The feeds of all objects in use, and the streams that fill them.

    `began` is called in the trio thread with objects that are in use from now on, and not whole.

    Args:
        streams: ranged GETs at a time over all objects, at the most; fewer where they are enough.
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
        self._bodies = bodies
        self._nursery = nursery
        self._limits = limits or Limits()
        self._landed = landed
        self._blobs = blobs
        self._threads = trio.CapacityLimiter(streams)
        self._feeds: dict[_Key, Feed] = {}
        self._schedule = Schedule(streams)
        self.packages = Packages(self, bodies, self._limits, self._threads)
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
        return self._schedule.running > 0 or self._schedule.waiting > 0

    def statistics(self) -> dict[str, Any]:
        """Figures for `status`: bytes and requests since the mount, bytes copied from a place on
        this machine, jobs under way and waiting, what these jobs have yet to bring, streams for
        bulk work, and bytes per second of late.
        """
        schedule = self._schedule
        return {
            "bytes": self._fetched,
            "copied": self._copied,
            "requests": self._requests,
            "in_flight": schedule.running,
            "queued": schedule.waiting,
            "in_flight_bytes": schedule.in_flight_bytes,
            "streams": schedule.streams.limit,
            "rate": round(schedule.streams.current_rate(trio.current_time())),
        }

    # -- jobs: no checkpoint in any of these ------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job; the most urgent goes first."""
        self._schedule.add(job)
        self.dispatch()

    def promote(self, job: Job, priority: Priority) -> None:
        """Make a job more urgent than it was."""
        self._schedule.promote(job, priority)
        self.dispatch()

    def withdraw(self, feed: Feed) -> None:
        """End the prefetches of `feed`; a task that still waits for one of them asks again."""
        for job in [job for job in feed.jobs if job.priority is Priority.PREFETCH]:
            if self._schedule.withdraw(job):
                feed.ended(job, None)
            else:
                job.superfluous = True

    def dispatch(self) -> None:
        """Start queued jobs while streams are free."""
        while job := self._schedule.take():
            job.running = True
            self._nursery.start_soon(self._run, job)

    def arrived(self, job: Job, chunks: Range, size: int, data: bytes | None = None) -> None:
        """Chunks of `job` are in the store (called in the trio thread by the transfer).

        Args:
            data: their bytes, where the disk did not take them.
        """
        if job.feed.blob:
            self._copied += size
        else:
            self._fetched += size
        job.progress = trio.current_time()
        schedule = self._schedule
        schedule.streams.landed(size, job.progress, short=schedule.short_of_streams())
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

    # -- one job ---------------------------------------------------------------------------

    async def _run(self, job: Job) -> None:
        error: AxonError | None = None
        try:
            await self._attempts(job)
        except AxonError as exc:
            error = exc
        except OSError as exc:  # the disk, not the network: Bodies maps all of its own
            error = AxonError(f"the cache's disk failed: {exc}", hint="see axonfs status")
        finally:
            if error and not job.feed.awaited(job):
                log.info("%s; nobody waits for it", error)
            self._schedule.rest(job)
            job.running = False
            job.feed.ended(job, error)
            self.dispatch()

    async def _attempts(self, job: Job) -> None:
        attempt = corrupt = nodes = 0
        job.progress = trio.current_time()
        while job.remaining():
            origin = job.feed.origins[attempt % len(job.feed.origins)]
            before = job.progress
            try:
                await self._attempt(job, origin)
                return
            except AxonError as exc:
                attempt = 1 if job.progress > before else attempt + 1
                if isinstance(exc, EtagError) and (job.feed.answers.mix(exc) or nodes < MAX_NODES):
                    nodes += 1
                    continue
                corrupt += isinstance(exc, CorruptError)
                if exc.overloaded:
                    self._schedule.streams.refused(trio.current_time())
                self._give_up_or_log(job, exc, attempt, corrupt)
                pause = self._pause(job, exc, attempt)
            await self._rest(job, pause)

    async def _rest(self, job: Job, pause: float) -> None:
        """Sleep without a stream, so that a dead source holds up no other.

        Afterwards there may be more jobs than streams; `_threads` has the surplus wait.
        """
        self._schedule.rest(job)
        self.dispatch()
        await trio.sleep(pause)
        self._schedule.resume(job)

    def _pause(self, job: Job, exc: AxonError, attempt: int) -> float:
        """Until the next attempt, the last of which begins when the deadline ends.

        That may be sooner than the source asked for: its answer decides what readers get.
        """
        left = job.progress + self._limits.deadline - trio.current_time()
        return min(self._limits.pause(attempt, exc.retry_after), max(left, 0.0))

    async def _attempt(self, job: Job, origin: Version) -> None:
        await self._seek_blob(job.feed)
        entry = job.feed.entry
        if job.feed.blob is None and (entry.named or self.packages.needed(origin, entry)):
            await self._unpack(job, origin)
            return
        try:
            await self._transfer(job, origin)
        except VanishedError:
            if not self.packages.need(origin, entry):
                raise
            await self._unpack(job, origin)

    async def _unpack(self, job: Job, origin: Version) -> None:
        """Wait for the package without a stream: the pass has one for all files."""
        self._schedule.rest(job)
        self.dispatch()
        try:
            await self.packages.unpack(origin)
        finally:
            self._schedule.resume(job)

    async def _transfer(self, job: Job, origin: Version) -> None:
        if job.priority is not Priority.DEMAND:
            await self.ensure_table(job.feed, origin)
        elif job.feed.table is None:  # beside the bytes, to spare the reader a round trip
            self._nursery.start_soon(self._fetch_table, job.feed, origin)
        assert origin.source is not None  # Feed.opened keeps only origins that have one
        location = origin.source.locate(origin.base, origin.holding(job.feed.entry))
        self._requests += job.feed.blob is None
        piece = self._schedule.streams.piece(trio.current_time())
        transfer = Transfer(job, origin, location, self, trio.lowlevel.current_trio_token(), piece)
        try:
            await trio.to_thread.run_sync(transfer.run, self._bodies, limiter=self._threads)
        except AxonError:
            job.feed.blob = None  # whatever is wrong with it, the next attempt asks the source
            raise

    async def _seek_blob(self, feed: Feed) -> None:
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

    async def _fetch_table(self, feed: Feed, origin: Version) -> None:
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

    def _give_up_or_log(self, job: Job, exc: AxonError, attempt: int, corrupt: int) -> None:
        """Raise what the readers get, or say that it is tried again."""
        again = exc.transient or (isinstance(exc, CorruptError) and corrupt < MAX_CORRUPT)
        another = attempt < len(job.feed.origins) and corrupt < MAX_CORRUPT
        if job.feed.object.quarantined or not (again or another):
            raise exc
        waited = trio.current_time() - job.progress
        if waited >= self._limits.deadline:
            raise _deadline(exc, waited) from exc
        if not job.feed.awaited(job):
            raise exc  # readahead does not insist; a reader that comes will ask again
        log.info("%s; trying again (%d)", exc, attempt)

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


def _deadline(exc: AxonError, waited: float) -> AxonError:
    """What a reader gets after the deadline: ETIMEDOUT for silence, EIO for refusals."""
    silent = isinstance(exc, DeadlineError) or isinstance(exc.__cause__, TimeoutError)
    kind = DeadlineError if silent else UnavailableError
    what = f"no progress for {waited:.0f} s; last: {exc.what}"
    return kind(what, source=exc.source, hint="is the registry up? axonfs doctor asks it")
