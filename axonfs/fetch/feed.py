"""One object in use: which chunks are on their way, and who waits for them.

The state below fetcher.py, which has the policy. Trio thread only; every method that is not
async is plain code without a checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import trio

from axonfs.errors import AxonError, CorruptError, OfflineError, UnverifiedError
from axonfs.fetch.answers import Answers
from axonfs.fetch.job import Job, Landing, Priority
from axonfs.fetch.judge import Judge
from axonfs.fetch.local import Local
from axonfs.fetch.readahead import Readahead
from axonfs.fetch.verify import judge_passed
from axonfs.formats.manifest import FileEntry
from axonfs.http_client import Stall
from axonfs.ranges import Range, chunk_span, runs, split
from axonfs.store import StoredObject

if TYPE_CHECKING:
    from axonfs.catalog.tree import Version
    from axonfs.fetch import Fetcher
    from axonfs.formats.chunktable import ChunkTable
    from axonfs.sources import Blob

log = logging.getLogger(__name__)

# One ranged GET. Larger spares round trips, smaller lets demand in sooner and spreads streams.
JOB_BYTES = 16 << 20
# A reader whose chunk a running job will bring only after so many bytes has it asked for apart:
# less than that is mostly there sooner than an answer to another request.
FAR_BYTES = 8 << 20
# Readers step back a little (safetensors reads a header twice), so that much is not punched.
KEEP_BEHIND = 8 << 20
# Fetched ahead of one reader while the disk takes nothing.
AHEAD_OF_A_BAD_DISK = 4 << 20


class Feed:
    """An object that somebody has open, or that a job still fills.

    Args:
        stored: held; the feed releases it.
    """

    def __init__(self, entry: FileEntry, stored: StoredObject, fetcher: Fetcher) -> None:
        self.entry = entry
        self.object = stored
        self.local = Local(stored)
        self.table: ChunkTable | None = None
        self.origins: list[Version] = []
        self.answers = Answers(stored)
        self.judge = Judge(self, fetcher)
        self.readahead = Readahead(entry.size)
        self.stall = Stall(fetcher.limits.deadline)  # of this object, where its origin does well
        self.blob: Blob | None = None  # the same bytes in a file that is no part of the cache
        self.blob_sought = False
        self.unranged = False  # the source ignores Range: one pass over the whole object
        self._fetcher = fetcher
        self._handles = 0
        self.jobs: set[Job] = set()
        self._flying: dict[int, Job] = {}
        self._landings: dict[int, Landing] = {}
        stored.touch()

    @property
    def handles(self) -> int:
        """How many times the feed is open."""
        return self._handles

    def opened(self, version: Version) -> None:
        """Count one more user, whose version also says where the bytes are."""
        self._handles += 1
        known = any(
            origin.base == version.base and origin.source is version.source
            for origin in self.origins
        )
        if version.source is not None and not known:
            self.origins.append(version)

    def close(self) -> None:
        """Count one user less; the last one lets the object go once no job needs it."""
        self._handles -= 1
        self._let_go()

    def _let_go(self) -> None:
        if self._handles == 0 and not self.jobs:
            self.object.release()
            self._fetcher.forget(self)

    async def prepare(self) -> None:
        """Have the object fit to be served: called when a file is opened, sends nothing.

        Raises:
            CorruptError: its bytes are known to be wrong.
        """
        self.raise_if_quarantined()
        if self.judge.due:  # a kill came between the last landing and the digest
            await self.judge.whole()

    def present(self, start: int, stop: int) -> bool:
        """Whether the chunks may be served now.

        Without a chunk table the chunks of an object are served as they land, but from the last
        landing on none is until the sha256 of the whole was seen to match.
        """
        return self.local.usable(start, stop) and self._judged()

    @property
    def allowed(self) -> bool:
        """Whether the object may be read: its digest will tell, or its registry may do without."""
        return not self.entry.unverified or any(
            origin.source is not None and origin.source.allows_unverified(origin.base)
            for origin in self.origins
        )

    def _judged(self) -> bool:
        """Whether what is local may be served as far as the digest of the whole goes.

        The bytes of an object that comes `entire` wait for the verdict.
        """
        if self.entry.unverified:
            return self.allowed and self.local.complete
        return self.judge.compared or (not self.entire and not self.local.complete)

    @property
    def entire(self) -> bool:
        """Whether the object is fetched to its end at the first read: one with a git blob id,
        which is small, one that comes in a package, or one that comes from several answers."""
        return self.entry.git is not None or self.packed or self.answers.differ is not None

    @property
    def packed(self) -> bool:
        """Whether the object is nowhere but in a package."""
        if self.entry.named:
            return True
        return any(self._fetcher.packages.needed(origin, self.entry) for origin in self.origins)

    def freeze(self) -> bool:
        """Freeze the object if there is nothing left of it to fetch or check; whether it did.

        One that nothing vouches for is not: its registry may be allowed no more while it is open.
        """
        if not self.entry.size or self.entry.unverified or not self.object.freeze():
            return False
        if self.object.quarantined is None and self.present(0, self.object.count):
            return True
        self.object.thaw()
        return False

    # -- asking ----------------------------------------------------------------------------

    async def need(
        self, chunks: Range, priority: Priority = Priority.DEMAND
    ) -> Mapping[int, bytes]:
        """Return when the chunks `[start, stop)` are local and verified.

        Returns:
            Those of them that the disk did not take, by number: nearly always none.

        Raises:
            AxonError: they cannot be had; the message says why. Cancelling it stops no job.
        """
        passed: dict[int, bytes] = {}
        await self.local.tried_again()
        while not await self._may_serve(chunks, passed):
            if self.entire:
                chunks = Range(0, self.object.count)  # there is a verdict on all of it, or none
            self.raise_if_refused()
            if self.judge.due:
                await self.judge.whole()
            await self.judge.settle(chunks)
            absent = self._absent(chunks, passed)
            if absent and self._fetcher.offline:
                raise self._offline()
            for run in absent:
                self._request(run, priority)
            await self._landed(absent, passed)
            if passed and self.answers.differ:
                raise self.answers.undecided(self.object.health.fault)
        return passed

    async def _may_serve(self, chunks: Range, passed: dict[int, bytes]) -> bool:
        """Whether chunks are there and right, in memory too where the disk did not take them."""
        if self.served(chunks, passed) and self.entry.git and passed:
            await trio.to_thread.run_sync(judge_passed, self.object, passed, self.entry.git)
        return self.served(chunks, passed)

    def served(self, chunks: Range, passed: Mapping[int, bytes]) -> bool:
        """Whether each chunk is either on the disk or in `passed`."""
        if not passed:
            return self.present(*chunks)
        return (self.entry.git is not None or self._judged()) and all(
            chunk in passed or self.local.usable(chunk, chunk + 1) for chunk in range(*chunks)
        )

    def _absent(self, chunks: Range, passed: dict[int, bytes]) -> list[Range]:
        """The runs to wait for; `passed` gets what is in memory."""
        absent = []
        for chunk in (chunk for run in self.local.missing(*chunks) for chunk in range(*run)):
            if chunk in passed:
                continue
            data = self._fetcher.overflow.get(self, chunk)
            if data is None:
                absent.append(chunk)
            else:
                passed[chunk] = data
        return runs(absent)

    def _offline(self) -> AxonError:
        if fault := self.object.health.fault:
            return OfflineError(f"the cache's disk failed ({fault}), and nothing is sent offline")
        return OfflineError("not in the cache, and nothing is sent with --offline")

    async def _landed(self, absent: Sequence[Range], passed: dict[int, bytes]) -> None:
        """Wait for chunks on their way; those that the disk does not take go to `passed`."""
        awaited = {
            chunk: self._landings.setdefault(chunk, Landing())
            for run in absent
            for chunk in range(*run)
            if chunk in self._flying  # else it landed, or its job failed: `need` looks again
        }
        for chunk, landing in awaited.items():
            await landing.event.wait()
            if landing.error is not None:
                raise landing.error
            if landing.data is not None:
                passed[chunk] = landing.data

    def raise_if_refused(self) -> None:
        """Raise if the object's bytes are known to be wrong, or may not be read."""
        if not self.allowed:
            base = self.origins[0].base if self.origins else None
            raise UnverifiedError(
                "cannot be verified: neither the file nor its package has a sha256",
                source=base,
                hint=f"axonfs registry add {(base or 'URL').rstrip('/')} --allow-unverified"
                " has it read all the same",
            )
        self.raise_if_quarantined()

    def raise_if_quarantined(self) -> None:
        """Raise if the object's bytes are known to be wrong."""
        if cause := self.object.quarantined:
            raise CorruptError(cause, hint="axonfs verify --repair fetches it again")

    async def check(self, chunks: Range) -> list[int]:
        """Read local chunks again and compare; the wrong ones are dropped and returned."""
        return await self.judge.check(chunks)

    def want(self, chunks: Range, priority: Priority = Priority.READAHEAD) -> None:
        """Have the chunks fetched; nobody waits, so errors stay in the log."""
        refused = self.object.quarantined or not self.allowed
        if self._fetcher.offline or refused or not self.origins:
            return  # `need` says why
        if priority is not Priority.DEMAND and self.object.health.fault:
            # Memory is short, and what is fetched too early goes from it unread.
            ahead = max(1, AHEAD_OF_A_BAD_DISK // self.object.chunk_size)
            chunks = Range(chunks.start, min(chunks.stop, chunks.start + ahead))
        for run in self._absent(chunks, {}):
            self._request(run, priority)

    def absent(self, chunk: int) -> bool:
        """Whether `chunk` is neither local nor on its way."""
        return (
            chunk not in self._flying
            and not self.local.usable(chunk, chunk + 1)
            and self._fetcher.overflow.get(self, chunk) is None
        )

    def stray(self, offset: int, size: int) -> bool:
        """Whether a read follows no other, and would have more fetched than its middle's chunk."""
        unit = self.object.chunk_size
        around = set(range(*chunk_span(offset, size, unit))) - {(offset + size // 2) // unit}
        return not self.readahead.follows(offset) and any(map(self.absent, around))

    def _request(self, run: Range, priority: Priority) -> None:
        if not self.origins:
            raise AxonError("no source is known to have this object", hint="check the registry")
        fresh = [chunk for chunk in range(*run) if not self._brought(chunk, run.start, priority)]
        per_job = max(1, JOB_BYTES // self.object.chunk_size)
        if self.answers.one:
            per_job = self.object.count
        for part in (part for piece in runs(fresh) for part in split(piece, per_job)):
            self._fetcher.jobs.submit(self._begun(Job(self, part, priority)))

    def _brought(self, chunk: int, first: int, priority: Priority) -> bool:
        """Whether a job brings `chunk`, of a request that begins at `first`, soon enough.

        A job that is less urgent is hurried. If it waits, it is cut before the chunk, so that
        its request begins there. One that runs cannot be told to skip: a reader that would wait
        long for it has its chunk asked for apart, and that one comes twice.
        """
        job = self._flying.get(chunk)
        if job is None:
            return False
        if priority is Priority.DEMAND and job.running and job.bytes_before(first) >= FAR_BYTES:
            return False
        if job.priority > priority:
            if not job.running and chunk > job.chunks.start:
                job = self._begun(job.cut(chunk))
                self._fetcher.jobs.submit(job)
            self._fetcher.jobs.promote(job, priority)
        return True

    def _begun(self, job: Job) -> Job:
        self.jobs.add(job)
        self._flying.update(dict.fromkeys(range(*job.chunks), job))
        return job

    # -- giving up chunks --------------------------------------------------------------------

    async def punch(self, goal: int) -> int:
        """Give up about `goal` bytes behind the readers; returns what went.

        A chunk on its way out counts as on its way in: a reader that wants it meanwhile waits,
        and asks for it again when it is gone. What comes in a package is not given up: any chunk
        of it costs the whole package. Nor is what a digest has yet to decide about.
        """
        freed = 0
        if self.packed or self.answers.differ:
            return freed
        self._handles += 1  # the last reader may leave between two runs
        try:
            for run in self._behind_readers(goal):
                self.answers.punched |= not self.judge.compared
                job = self._begun(Job(self, run, Priority.DEMAND))
                job.running = True
                try:
                    freed += await trio.to_thread.run_sync(self.object.punch, *run)
                finally:
                    self.ended(job, None)
        finally:
            self.close()
        return freed

    def _behind_readers(self, goal: int) -> list[Range]:
        """Runs of local chunks that no reader is at or will come to soon, first ones first."""
        size, chosen = self.object.chunk_size, list[int]()
        near = self.readahead.near(size, KEEP_BEHIND)
        for chunk in range(self.object.count):
            if len(chosen) * size >= goal:
                break
            idle = chunk not in near and chunk not in self._flying
            if idle and not self.object.missing(chunk, chunk + 1):
                chosen.append(chunk)
        return runs(chosen)

    # -- what the fetcher reports ------------------------------------------------------------

    def may_start(self, job: Job) -> bool:
        """Whether `job` may run now: an object without ranges has one job at a time."""
        return not self.unranged or all(other is job or not other.running for other in self.jobs)

    def without_ranges(self, job: Job) -> None:
        """The source answered `job` with the whole object: that one pass serves everybody."""
        if self.unranged:
            return
        self.unranged = True
        for other in self.jobs - {job}:
            other.superfluous = other.running

    def awaited(self, job: Job) -> bool:
        """Whether a reader waits for a chunk of `job`."""
        return job.priority is Priority.DEMAND or any(
            chunk in self._landings for chunk in range(*job.chunks)
        )

    def arrived(self, chunk: int, data: bytes | None = None) -> None:
        """`chunk` is in the store, or `data` are its bytes: wake its readers."""
        self._flying.pop(chunk, None)
        if landing := self._landings.pop(chunk, None):
            landing.data = data
            landing.event.set()

    def unpacked(self) -> None:
        """The object is complete and right: wake its readers."""
        for chunk in range(self.object.count):
            self.arrived(chunk)

    def ended(self, job: Job, error: AxonError | None) -> None:
        """`job` is over: settle every reader it leaves."""
        for chunk in range(*job.chunks):
            if self._flying.get(chunk) is job:
                del self._flying[chunk]
                self._settle_waiters(chunk, error)
        self.jobs.remove(job)
        self._let_go()

    def _settle_waiters(self, chunk: int, error: AxonError | None) -> None:
        if landing := self._landings.pop(chunk, None):
            landing.error = error
            landing.event.set()
