"""One object on its way into the cache: its sources, the jobs that bring it, the readers that wait.

The bottom of fetching. Feeds begin jobs, and runner.py runs them; both find here what they share of
the object. Readers wait for landings of chunks, never for jobs, so readers of one chunk share one
request and a reader that leaves cancels nothing.

Trio thread only; a method that is not async has no checkpoint. Transfers read `table`, `blob`,
`answers`, `local` and a job's range and `superfluous` in their threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, shortages
from axonfs.fetch.answers import Answers
from axonfs.fetch.hashing import Hashing
from axonfs.fetch.local import Local
from axonfs.fetch.lookups import Lookups
from axonfs.fetch.overflow import Overflow
from axonfs.fetch.pace import Pace
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import FileEntry
from axonfs.http_client import Cache, SiteCaches, Stall
from axonfs.ranges import Range, runs
from axonfs.sources import Blob
from axonfs.store import StoredObject


class Priority(IntEnum):
    """Which jobs go first; a lower number is more urgent."""

    DEMAND = 0  # a reader waits
    READAHEAD = 1  # a reader will come here if it goes on as it does
    BACKGROUND = 2  # no reader waits: pins, prefetches, repairs by the scrub


class Job:
    """One ranged GET for chunks of a download; `next` is the first that is not local."""

    def __init__(self, download: Download, chunks: Range, priority: Priority) -> None:
        self.download = download
        self.chunks = chunks
        self.next = chunks.start
        self.priority = priority
        self.running = False
        self.task: object = None  # while it is not queued
        self.failure: AxonError | None = None  # of the last attempt
        self.superfluous = False  # no reader needs the rest; the worker thread reads this
        self.redirected = False  # into its lane, by an answer
        self.progress = self.queued = self.asked = 0.0  # when it last got, began to wait, asked
        self.attempts = self.corrupt = 0  # in a row without progress, and with wrong bytes
        self.nodes = 0  # that answered with another ETag
        self.pace: Pace | None = None  # of its transfer, while it has one
        self.held = False  # waits for bandwidth; the worker thread writes this
        self.rival: Job | None = None  # brings the same; one of the two goes on
        self.to_win = 0  # landings until it is this one
        self.hedges = 0  # for its range until now
        # Whom its next attempt asks, or its last one asked (ways.py).
        self.version: Version | None = None
        self.site: SiteCaches | None = None
        self.cache: Cache | None = None
        self.tried: set[Cache] = set()  # caches that failed since the source was asked
        self.vain = 0  # of those, the ones that did not have the bytes
        self.waited: set[Cache] = set()  # caches that sent nothing once, and waited for the source
        self.passed: AxonError | None = None  # the last failure of one
        self.takes_whole = False  # of a cache too, where none sends ranges

    def begin_anew(self) -> None:
        """Pass over no cache any more: the source was asked, or none is left."""
        self.tried.clear()
        self.vain = 0
        self.waited.clear()

    def remaining(self) -> bool:
        """Whether a chunk of the job is still absent; moves `next` over those that are there."""
        missing = self.download.local.missing(self.next, self.chunks.stop)
        self.next = missing[0].start if missing else self.chunks.stop
        return bool(missing)

    @property
    def bytes_left(self) -> int:
        """How many bytes the job still brings."""
        return self.bytes_before(self.chunks.stop)

    def bytes_before(self, chunk: int) -> int:
        """How many bytes the job still brings before it comes to `chunk`."""
        self.remaining()
        return max(chunk - self.next, 0) * self.download.object.chunk_size


class _Wait:
    """A task that waits for chunks on their way.

    Args:
        passed: gets the bytes of those that the disk does not take.
        urgent: whether it must learn at once that they landed.
    """

    def __init__(self, chunks: int, passed: dict[int, bytes], *, urgent: bool) -> None:
        self.urgent = urgent
        self.over = trio.Event()
        self.error: AxonError | None = None
        self._left = chunks
        self._passed = passed

    def settle(self, chunk: int, data: bytes | None, error: AxonError | None) -> None:
        """`chunk` landed, or `data` has its bytes, or its job ended, maybe with `error`."""
        self._left -= 1
        self.error = self.error or error
        if data is not None:
            self._passed[chunk] = data
        if error or not self._left:
            self.over.set()


class Download:
    """An object that is in use, or that a job still fills.

    Args:
        stored: held; it is released when the last user left and the last job ended.
        deadline: seconds without progress after which the object stalls.
        unused: called then.
    """

    def __init__(
        self,
        entry: FileEntry,
        stored: StoredObject,
        lookups: Lookups,
        overflow: Overflow,
        deadline: float,
        unused: Callable[[Download], None],
    ) -> None:
        self.entry = entry
        self.object = stored
        self.local = Local(stored)
        self.answers = Answers(stored)
        whole = entry.chunks is None and not (entry.packed or entry.unverified)
        self.hashing = Hashing(stored, entry.git) if whole else None
        self.stall = Stall(deadline)  # of this object, where its origin does well
        self.versions: list[Version] = []  # that say where the bytes are
        self.own_table: ChunkTable | None = None  # the object's, known if it was needed
        self.blob: Blob | None = None  # the same bytes in a file that is no part of the cache
        self.unranged = False  # the source ignores Range: one pass over the whole object
        self.users = 0  # open feeds, and punches
        self.jobs: set[Job] = set()  # each of them in a lane
        self._table: ChunkTable | None = None
        self._lookups = lookups
        self._overflow = overflow
        self._unused = unused
        self._blob_sought = not lookups.searches_here
        self._flying: dict[int, Job] = {}
        self._waits: dict[int, tuple[_Wait, ...]] = {}

    def enter(self, version: Version | None = None) -> None:
        """Count one more user, whose version also says where the bytes are."""
        self.users += 1
        known = [(one.base, one.source) for one in self.versions]
        if version and version.source and (version.base, version.source) not in known:
            self.versions.append(version)

    def leave(self) -> None:
        """Count one user less."""
        self.users -= 1
        self._let_go()

    def _let_go(self) -> None:
        if self.users == 0 and not self.jobs:
            if self.hashing:
                self.hashing.end()
            self.object.release()
            self._overflow.forget(self)
            self._unused(self)

    @property
    def tied(self) -> bool:
        """Whether nothing but ETags ties answers for the object together."""
        return self.entry.chunks is None and not self.object.proven

    @property
    def table(self) -> ChunkTable | None:
        """What chunks are compared with: the object's own table, else that of the manifest, or of
        a copy on this machine."""
        return self.own_table or self._table

    @property
    def lacks_table(self) -> bool:
        """Whether there is a table to find. The object's own is the one that cannot lie."""
        if self.object.proven:
            return self.own_table is None
        return self.table is None and self.entry.chunks is not None

    async def find_table(self, version: Version | None = None) -> None:
        """Have `table` known if there is one.

        Args:
            version: says which source to ask; else the first that is known.

        Raises:
            AxonError: the table cannot be had.
        """
        if self.object.proven and self.own_table is None:
            self.own_table = await self._lookups.own_table(self.object)
        if self.lacks_table:
            version = version or next(iter(self.versions), None)
            self._table = await self._lookups.table(self.entry, version)

    async def seek_table(self, version: Version) -> None:
        """The same beside the bytes, whose transfer asks again, and tells its reader of errors."""
        with suppress(AxonError, OSError), shortages():
            await self.find_table(version)

    @property
    def may_have_blob(self) -> bool:
        """Whether a copy is on this machine outside the cache, or was not looked for yet."""
        return self.blob is not None or not self._blob_sought

    async def find_blob(self, cancelled: Callable[[], bool]) -> None:
        """Look once for a copy on this machine."""
        if self._blob_sought:
            return
        blob = await self._lookups.blob(self.entry, self.object.chunk_size, cancelled)
        if not self._blob_sought:
            self._blob_sought, self.blob = True, blob
            if blob and blob.table:
                self._table = blob.table

    def refuse_blob(self) -> None:
        """Take nothing more from the copy: it failed, or differs from what was compared."""
        self.blob = None

    def begin(self, chunks: Range, priority: Priority) -> Job:
        """A new job, to be run; its chunks are on their way from here on."""
        self.jobs.add(job := Job(self, chunks, priority))
        self._flying.update(dict.fromkeys(range(*chunks), job))
        return job

    def cut(self, job: Job, chunk: int) -> Job:
        """A new job for the chunks of a waiting one from `chunk` on, which loses them."""
        tail = Range(chunk, job.chunks.stop)
        job.chunks = Range(job.chunks.start, chunk)
        return self.begin(tail, job.priority)

    def started(self, job: Job) -> None:
        """`job` is under way from here on."""
        job.running = True
        self.object.presence.watcher.coming(job.chunks)

    @property
    def coming(self) -> list[Range]:
        """The chunks of the jobs under way."""
        return [job.chunks for job in self.jobs if job.running]

    def hedge(self, job: Job) -> Job:
        """A new job for what a running one has yet to bring, from another connection."""
        job.remaining()
        hedge = self.begin(Range(job.next, job.chunks.stop), job.priority)
        hedge.hedges = job.hedges = job.hedges + 1
        hedge.rival, job.rival = job, hedge
        hedge.tried = set(job.tried)
        # The slow one may be about to land something, and is no faster for it.
        hedge.to_win, job.to_win = 1, 2
        return hedge

    def settle(self, winner: Job) -> Job:
        """`winner` goes on with all that it shares with its rival, which is returned."""
        loser = winner.rival
        assert loser is not None
        winner.rival = loser.rival = None
        for chunk in range(*winner.chunks):
            if self._flying.get(chunk) is loser:
                self._flying[chunk] = winner
        return loser

    def flying(self, chunk: int) -> Job | None:
        """The job that brings `chunk`, if one does."""
        return self._flying.get(chunk)

    def absent(self, chunk: int) -> bool:
        """Whether `chunk` is neither local nor on its way."""
        return (
            chunk not in self._flying
            and not self.local.usable(chunk, chunk + 1)
            and self._overflow.get(self, chunk) is None
        )

    def missing(self, chunks: Range, passed: dict[int, bytes]) -> list[Range]:
        """The runs that are not here; `passed` gets what is in memory, and is not looked for."""
        absent = []
        for chunk in (chunk for run in self.local.missing(*chunks) for chunk in range(*run)):
            if chunk in passed:
                continue
            data = self._overflow.get(self, chunk)
            if data is None:
                absent.append(chunk)
            else:
                passed[chunk] = data
        return runs(absent)

    async def landed(
        self,
        absent: Sequence[Range],
        passed: dict[int, bytes],
        catch_up: Callable[[], None],
        *,
        urgent: bool,
    ) -> None:
        """Wait for chunks on their way; those that the disk does not take go to `passed`.

        Args:
            catch_up: has `arrived` called for what landed until now.
            urgent: whether to return as soon as they landed, and not a moment later.

        Raises:
            AxonError: a job that was to bring one of them failed.
        """
        # Others landed, or their job failed: the caller looks again.
        chunks = [chunk for run in absent for chunk in range(*run) if chunk in self._flying]
        wait = _Wait(len(chunks), passed, urgent=urgent)
        for chunk in chunks:
            self._waits[chunk] = (*self._waits.get(chunk, ()), wait)
        catch_up()
        if chunks:
            await wait.over.wait()
        if wait.error is not None:
            raise wait.error

    def awaited(self, job: Job) -> bool:
        """Whether a reader waits for a chunk of `job`."""
        return job.priority is Priority.DEMAND or any(
            chunk in self._waits for chunk in range(*job.chunks)
        )

    def awaits(self, chunk: int) -> bool:
        """Whether a reader waits for `chunk`, which is on its way."""
        return chunk in self._waits

    def urgent(self, chunks: Range) -> bool:
        """Whether someone must learn at once that the chunks landed; any thread may ask."""
        waits = self._waits
        return any(wait.urgent for chunk in range(*chunks) for wait in waits.get(chunk, ()))

    def may_start(self, job: Job) -> bool:
        """Whether `job` may run now: an object without ranges has one job at a time."""
        return not self.unranged or all(other is job or not other.running for other in self.jobs)

    def without_ranges(self, job: Job) -> None:
        """The source answered `job` with the whole object: that one pass serves all readers."""
        if self.unranged:
            return
        self.unranged = True
        for other in self.jobs - {job}:
            other.superfluous = other.running

    def arrived(self, chunks: Range, data: bytes | None = None) -> None:
        """The chunks are in the store, or `data` has their bytes: wake their readers."""
        unit = self.object.chunk_size
        for chunk in range(*chunks):
            piece = None if data is None else data[(chunk - chunks.start) * unit :][:unit]
            if piece is not None:
                self._overflow.put(self, chunk, piece)
            self._flying.pop(chunk, None)
            self._settle(chunk, piece, None)

    def ended(self, job: Job, error: AxonError | None) -> None:
        """`job` is over: settle every reader that it leaves."""
        self._leave(job, error)
        self.jobs.remove(job)
        self._let_go()

    @contextmanager
    def giving_up(self, chunks: Range) -> Iterator[None]:
        """A block that takes chunks of an object in use away: who wants one asks for it afterwards.

        No lane has what is on its way out, and no request waits for it.
        """
        out = Job(self, chunks, Priority.DEMAND)
        self._flying.update(dict.fromkeys(range(*chunks), out))
        try:
            yield
        finally:
            self._leave(out, None)

    def _leave(self, job: Job, error: AxonError | None) -> None:
        left = [chunk for chunk in range(*job.chunks) if self._flying.get(chunk) is job]
        for chunk in left:
            del self._flying[chunk]
            self._settle(chunk, None, error)
        for run in runs(left):
            self.object.presence.watcher.given_up(run)

    def _settle(self, chunk: int, data: bytes | None, error: AxonError | None) -> None:
        for wait in self._waits.pop(chunk, ()):
            wait.settle(chunk, data, error)
