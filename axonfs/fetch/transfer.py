"""One ranged GET on its way into the store: check each chunk, write it, tell the trio thread.

Below runner. Runs in a worker thread from start to end; the only state it shares with the trio
thread is the job's range and the download's table and ETags, which it reads, and what it reports
through `run_sync_soon`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace

import trio

from axonfs import memory
from axonfs.catalog.tree import Version
from axonfs.descriptors import is_shortage
from axonfs.errors import CorruptError, refused
from axonfs.fetch.arrivals import Arrivals
from axonfs.fetch.download import Job, Priority
from axonfs.fetch.network import Network
from axonfs.formats.chunktable import ChunkTable
from axonfs.http_client import MOMENT, Location, Origin
from axonfs.ranges import Range
from axonfs.steps import Cause, Step
from axonfs.store import DISK_FAULTS

# Seconds; shorter waits for bandwidth are not worth a word to the trio thread.
LONG_WAIT = 0.05
# What a stream stores at a time where no reader waits: as much as arrives within a moment, but at
# least what gets one folio of the page cache, if written at once and aligned. A mapping enters that
# with one entry, and is read 12 times as fast as that of a file written by 256 KiB.
SMALLEST_PIECE = memory.LARGE_PAGE
LARGEST_PIECE = 8 << 20
# Where a reader waits, it is at least one chunk, and the moment is so many seconds.
SHORT_MOMENT = 0.01


class ElsewhereError(Exception):
    """The bytes are at `origin`, where no stream is free."""

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.origin = origin


def largest_piece(running: int) -> int:
    """What each of so many jobs may store at a time, in bytes. Of few sizes: buffers are reused.

    Each has a buffer for one, so more jobs take smaller pieces.
    """
    most = LARGEST_PIECE
    while most > SMALLEST_PIECE and most * running > memory.for_streams():
        most //= 2
    return most


class Transfer:
    """The bytes of one attempt at `job`.

    Args:
        patience: seconds to wait for the source, where that is less than the usual.
        arrivals: gets what landed.
        redirected: called in the trio thread; whether the job may go on at another origin.
        held_back: called in the trio thread after the mount's bandwidth kept the job waiting, with
            the seconds.
    """

    def __init__(
        self,
        job: Job,
        version: Version,
        location: Location,
        network: Network,
        patience: float | None,
        arrivals: Arrivals,
        redirected: Callable[[Job, Origin], bool],
        held_back: Callable[[Job, float], object],
    ) -> None:
        self._job = job
        self._download = job.download
        self._version = version
        self._location = location
        self._network = network
        self._arrivals = arrivals
        self._may_go_on = redirected
        self._held_back = held_back
        self._cache = location.cache
        self._blob = job.download.blob
        self._object = job.download.object
        self._token = trio.lowlevel.current_trio_token()
        self._first = job.next
        self._patience = patience
        self._etag: str | None = None
        self._taken = False
        self._most = largest_piece(network.running)
        self._waited = 0.0  # for bandwidth, and not reported yet
        self.lacked_table = False  # it failed for want of the table, which is no fault of the bytes

    def run(self) -> None:
        """Fetch, verify and store what the job still misses.

        Raises:
            ElsewhereError: they are at another origin, and the job has to wait for a stream there.
            AxonError: one attempt failed; chunks reported before that are in the store.
            NoSpaceError, OSError: the cache's disk refused what was to be had on it.
        """
        stored = self._object
        start = self._first * stored.chunk_size
        stop = min(self._job.chunks.stop * stored.chunk_size, stored.size)
        if self._blob:
            self._blob.read(start, stop, self._take, unit=self.unit, cancelled=self._superfluous)
            return
        tied = self._download.tied
        compared = tied and not self._location.signed
        etag = self._download.answers.etag(self._location.url) if compared else None
        self._network.bodies.read(
            replace(self._location, etag=etag, spread=self._location.signed or not tied),
            start,
            stop,
            stored.size,
            self._take,
            unit=self.unit,
            grain=stored.chunk_size,
            most=self._most,
            moment=SHORT_MOMENT if self._job.priority is Priority.DEMAND else MOMENT,
            cancelled=self._superfluous,
            validated=self._note_etag,
            patience=self._patience,
            redirected=self._redirected,
            share=self._share,
        )

    def _share(self, most: int) -> int:
        """The job's share of the bandwidth; waiting for it is no silence of the source."""
        job, asked = self._job, time.monotonic()
        job.held = True
        share = self._network.bandwidth.share(most, lambda: job.priority, self._superfluous)
        job.held = False
        self._waited += time.monotonic() - asked
        if self._waited > LONG_WAIT:
            self._token.run_sync_soon(self._held_back, job, self._waited)
            self._waited = 0.0
        return share

    def _redirected(self, origin: Origin) -> None:
        if not trio.from_thread.run_sync(self._may_go_on, self._job, origin):
            raise ElsewhereError(origin)

    @property
    def unit(self) -> int:
        """How many bytes to store at a time, at least: a chunk where a reader waits."""
        size = self._object.chunk_size
        return size if self._job.priority is Priority.DEMAND else max(size, SMALLEST_PIECE)

    def _note_etag(self, etag: str) -> str | None:
        """Without a chunk table the ETag ties the ranges of an object together."""
        self._etag = etag
        if not self._download.tied:
            return None
        answers = self._download.answers
        answers.note(self._location.url, etag)
        return answers.etag(self._location.url)

    def _superfluous(self) -> bool:
        """Whether no reader needs this: another job brings it, or the mount is ending."""
        return self._job.superfluous or self._network.closing

    def _take(self, offset: int, view: memoryview) -> None:
        if not (self._taken or self._blob):
            self._taken = True
            self._download.answers.took(self._location.url, self._etag, self._cache)
        if self._cache:
            self._cache.received(len(view))
        size = self._object.chunk_size
        chunk = offset // size
        came = Range(chunk, chunk + -(-len(view) // size))
        if came.start < self._first or came.stop > self._job.chunks.stop:
            self._token.run_sync_soon(self._download.without_ranges, self._job)
        table = self._table()
        for run in self._download.local.missing(*came):
            part = view[run.start * size - offset : run.stop * size - offset]
            right = Range(run.start, self._wrong(table, run, part))
            if right.size:
                part = part[: right.size * size]
                data = self._land(right, part, table)
                self._arrivals.put(self._job, right, len(part), data)
            if right != run:
                raise self._corrupt(right.stop)

    def _land(self, run: Range, view: memoryview, table: ChunkTable | None) -> bytes | None:
        """Write chunks; their bytes for the readers where the disk does not take them."""
        try:
            if self._download.local.distrusts(run):
                raise OSError(errno.EIO, "the cache's disk did not give back what it took")
            proven = table is not None and table is self._download.own_table
            with Step(Cause.DISK, "writing to the cache's disk"):
                self._object.land(run.start, view, proven=proven)
        except DISK_FAULTS as exc:
            self._object.health.failed(exc)
            if self._job.priority is Priority.BACKGROUND:  # only the disk is of use
                if is_shortage(exc):
                    raise refused(exc) from exc  # which is tried again
                raise
            return bytes(view)
        return None

    def _wrong(self, table: ChunkTable | None, run: Range, view: memoryview) -> int:
        """The first chunk of the run with the wrong digest, else the end of the run."""
        if table is None:
            return run.stop  # judged as a whole, when a reader wants the complete object
        size = self._object.chunk_size
        wrong = (
            chunk
            for chunk in range(*run)
            if not table.right(chunk, view[(chunk - run.start) * size :][:size])
        )
        return next(wrong, run.stop)

    def _corrupt(self, chunk: int) -> CorruptError:
        return CorruptError(
            f"chunk {chunk} of object {self._object.digest[:12]} has the wrong digest",
            source=self._location.asked,
            hint="the source or something on the way altered it",
        )

    def _table(self) -> ChunkTable | None:
        """The table, waited for if it is still on its way: it is asked for beside the bytes."""
        download = self._download
        if download.lacks_table:
            self.lacked_table = True
            trio.from_thread.run(download.find_table, self._version)
            self.lacked_table = False
        return download.table
