"""One ranged GET on its way into the store: check each chunk, write it, tell the trio thread.

Runs in a worker thread from start to end; the only state it shares with the trio thread is the
job's range and the feed's table and ETags, which it reads, and what it reports through
`run_sync_soon`.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from axonfs.descriptors import is_shortage
from axonfs.errors import CorruptError, refused
from axonfs.fetch.job import Job, Priority
from axonfs.http_client import Bodies, Location, Origin
from axonfs.ranges import Range
from axonfs.store import DISK_FAULTS

if TYPE_CHECKING:
    from axonfs.catalog.tree import Version
    from axonfs.fetch.fetcher import Fetcher
    from axonfs.formats.chunktable import ChunkTable


class ElsewhereError(Exception):
    """The bytes are at `origin`, where no stream is free."""

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.origin = origin


class Transfer:
    """The bytes of one attempt at `job`.

    Args:
        piece: how many bytes to store at a time where no reader waits.
        patience: seconds to wait for the source, where that is less than the usual.
    """

    def __init__(
        self,
        job: Job,
        origin: Version,
        location: Location,
        fetcher: Fetcher,
        piece: int,
        patience: float | None,
    ) -> None:
        self._job = job
        self._location = location
        self._origin = origin
        self._blob = job.feed.blob
        self._fetcher = fetcher
        self._token = trio.lowlevel.current_trio_token()
        self._object = job.feed.object
        self._first = job.next
        self._piece = piece
        self._patience = patience
        self._etag: str | None = None
        self._taken = False

    def run(self, bodies: Bodies) -> None:
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
            self._blob.read(start, stop, self._take, unit=self._unit(), cancelled=self._superfluous)
            return
        feed = self._job.feed
        bodies.read(
            replace(self._location, etag=feed.answers.etag(self._location.url)),
            start,
            stop,
            stored.size,
            self._take,
            unit=self._unit(),
            cancelled=self._superfluous,
            validated=self._note_etag,
            patience=self._patience,
            redirected=self._redirected,
        )

    def _redirected(self, origin: Origin) -> None:
        if not trio.from_thread.run_sync(self._fetcher.jobs.redirected, self._job, origin):
            raise ElsewhereError(origin)

    def _unit(self) -> int:
        """How many bytes to store at a time: a chunk where a reader waits, else a piece."""
        size = self._object.chunk_size
        return size if self._job.priority is Priority.DEMAND else max(size, self._piece)

    def _note_etag(self, etag: str) -> str | None:
        """Without a chunk table the ETag ties the ranges of an object together."""
        self._etag = etag
        if self._job.feed.entry.chunks is not None:
            return None
        answers = self._job.feed.answers
        answers.note(self._location.url, etag)
        return answers.etag(self._location.url)

    def _superfluous(self) -> bool:
        """Whether nobody needs this any more: another job brings it, or the mount is ending."""
        return self._job.superfluous or self._fetcher.closing

    def _take(self, offset: int, view: memoryview) -> None:
        if not (self._taken or self._blob):
            self._taken = True
            self._job.feed.answers.took(self._location.url, self._etag)
        size = self._object.chunk_size
        chunk = offset // size
        if not self._first <= chunk < self._job.chunks.stop:
            self._token.run_sync_soon(self._job.feed.without_ranges, self._job)
        for run in self._job.feed.local.missing(chunk, chunk + -(-len(view) // size)):
            part = view[run.start * size - offset : run.stop * size - offset]
            for number in range(*run):
                self._verify(number, part[(number - run.start) * size :][:size])
            data = self._land(run, part)
            self._token.run_sync_soon(self._fetcher.arrived, self._job, run, len(part), data)

    def _land(self, run: Range, view: memoryview) -> bytes | None:
        """Write chunks; their bytes for the readers where the disk does not take them."""
        try:
            if self._job.feed.local.distrusts(run):
                raise OSError(errno.EIO, "the cache's disk did not give back what it took")
            self._object.land(run.start, view)
        except DISK_FAULTS as exc:
            self._object.health.failed(exc)
            if self._job.priority is Priority.PREFETCH:  # only the disk is of use
                if is_shortage(exc):
                    raise refused(exc) from exc  # which is tried again
                raise
            return bytes(view)
        return None

    def _verify(self, chunk: int, view: memoryview) -> None:
        table = self._table()
        if table is None:
            return  # judged as a whole, by whoever wants to read the complete object
        if not table.right(chunk, view):
            raise CorruptError(
                f"chunk {chunk} of object {self._object.digest[:12]} has the wrong digest",
                source=self._location.url,
                hint="the source or something on the way altered it",
            )

    def _table(self) -> ChunkTable | None:
        """The table, waited for if it is still on its way: it is asked for beside the bytes."""
        feed = self._job.feed
        if feed.table is None and feed.entry.chunks is not None:
            trio.from_thread.run(self._fetcher.ensure_table, feed, self._origin)
        return feed.table
