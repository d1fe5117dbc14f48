"""One object in use: what its readers ask for, and what may be served to them.

Above judge and runner, below fetcher, which has the feeds of all objects. What was asked for is on
its way in download.py. Trio thread only; a method that is not async has no checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, BusyError, CorruptError, OfflineError, UnverifiedError
from axonfs.fetch.download import Download, Priority
from axonfs.fetch.judge import Judge
from axonfs.fetch.package import Packages
from axonfs.fetch.punching import behind_readers
from axonfs.fetch.readahead import Readahead
from axonfs.fetch.runner import Runner
from axonfs.fetch.verify import judge_passed
from axonfs.ranges import Range, chunk_span, runs, split
from axonfs.steps import Cause, Step

# A chunk that a running job brings only after more bytes than this is requested on its own:
# less than that is mostly there sooner than an answer to another request.
FAR_BYTES = 8 << 20
# Fetched ahead of one reader while the disk takes nothing.
AHEAD_OF_A_BAD_DISK = 4 << 20


class Feed:
    """An object that is open; `close` it once for each `opened`."""

    def __init__(
        self, download: Download, judge: Judge, runner: Runner, packages: Packages, *, offline: bool
    ) -> None:
        self.download = download
        self.entry = download.entry
        self.object = download.object
        self.readahead = Readahead(download.entry.size)
        self._local = download.local
        self._answers = download.answers
        self._judge = judge
        self._runner = runner
        self._packages = packages
        self._offline = offline
        self.object.touch()

    def opened(self, version: Version) -> None:
        """Count one more user, whose version also says where the bytes are."""
        self.download.enter(version)

    def close(self) -> None:
        """Count one user less; the last one lets the object go once no job needs it."""
        self.object.touch()  # it may have been open for long
        self.download.leave()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A block that keeps the object, though all its users may leave meanwhile."""
        self.download.enter()
        try:
            yield
        finally:
            self.download.leave()

    async def prepare(self) -> None:
        """Have the object fit to be served: called when a file is opened, sends nothing.

        Raises:
            CorruptError: its bytes are known to be wrong.
        """
        self._raise_if_quarantined()
        if self._judge.due:  # a kill came between the last landing and the digest
            await self._judge.whole()

    @property
    def versions(self) -> list[Version]:
        """The versions that say where the bytes are."""
        return self.download.versions

    @property
    def complete(self) -> bool:
        """Whether nothing of the object has to be fetched; some may not have been compared yet."""
        return self._local.complete

    @property
    def whole(self) -> bool:
        """Whether all of the object may be served now."""
        return self.present(0, self.object.count)

    @property
    def local_bytes(self) -> int:
        """How many bytes of the object are local."""
        return self.object.present_bytes

    @property
    def unread(self) -> int:
        """About how many bytes are local that no reader has read since the object is in use."""
        return max(self.local_bytes - self.readahead.read, 0)

    @property
    def copied(self) -> bool:
        """Whether its bytes come from a copy on this machine."""
        return self.download.blob is not None

    @property
    def compared(self) -> bool:
        """Whether what is served was compared with a digest before."""
        return self._judge.compared

    @property
    def uncompared(self) -> bool:
        """Whether a digest can tell whether the whole is right, and was not compared with it."""
        return self._judge.uncompared

    @property
    def due(self) -> bool:
        """Whether all of it is here, and a digest has yet to be compared; any thread may ask."""
        return self._judge.due

    @property
    def restarts(self) -> int:
        """How often bytes that readers may have had proved wrong, and were fetched again."""
        return self._answers.restarts

    def present(self, start: int, stop: int) -> bool:
        """Whether the chunks may be served now.

        Without a chunk table the chunks of an object are served as they land, but from the last
        landing on none is until the sha256 of the whole was seen to match.
        """
        return self._local.usable(start, stop) and self._judged()

    @property
    def direct(self) -> bool:
        """Whether the bits of its chunks alone decide what may be served, for now.

        With a chunk table that is so for good. Without one it ends as soon as a chunk is dropped,
        or as the last one lands: then the digest of the whole decides.
        """
        return not self.entry.unverified and self._judged()

    @property
    def tabled(self) -> bool:
        """Whether each chunk is compared on its own."""
        return self.entry.chunks is not None

    @property
    def allowed(self) -> bool:
        """Whether the object may be read: its digest will tell, or its registry may do without."""
        return not self.entry.unverified or any(
            version.source is not None and version.source.allows_unverified(version.base)
            for version in self.versions
        )

    def _judged(self) -> bool:
        """Whether what is local may be served as far as the digest of the whole goes.

        The bytes of an object that comes `entire` wait for the verdict.
        """
        if self.entry.unverified:
            return self.allowed and self.complete
        return self._judge.compared or (not self._entire and not self._local.complete)

    @property
    def _entire(self) -> bool:
        """Whether the object is fetched to its end at the first read, and was not compared yet: one
        with a git blob id, which is small, one in a package, or one of several answers."""
        if self._judge.compared:
            return False
        return self.entry.git is not None or self._packed or self._answers.differ is not None

    @property
    def _packed(self) -> bool:
        """Whether the object is nowhere but in a package."""
        if self.entry.named:
            return True
        return any(self._packages.needed(version, self.entry) for version in self.versions)

    def freeze(self) -> bool:
        """Freeze the object if nothing of it is left to fetch or check; whether it did.

        One that no digest vouches for is not: its registry may lose its permission meanwhile.
        """
        if not self.entry.size or self.entry.unverified or not self.object.freeze():
            return False
        if self.object.quarantined is None and self.whole:
            return True
        self.object.thaw()
        return False

    def thaw(self) -> None:
        """Undo one `freeze` that was granted."""
        self.object.thaw()

    def parts(self, size: int | None = None) -> list[Range]:
        """All chunks, in runs of at most `size` bytes: by default what one request brings."""
        whole = Range(0, self.object.count)
        return self._jobs(whole) if size is None else split(whole, self._chunks_in(size))

    def absent_parts(self) -> list[Range]:
        """The chunks that are not local, in runs that one request brings."""
        return [
            part for run in self.object.missing(0, self.object.count) for part in self._jobs(run)
        ]

    def _jobs(self, run: Range) -> list[Range]:
        return self._runner.ways.requests(self.download, run)

    def _chunks_in(self, size: int) -> int:
        return max(1, size // max(self.object.chunk_size, 1))

    async def need(
        self,
        chunks: Range,
        priority: Priority = Priority.DEMAND,
        *,
        ahead: Range | None = None,
        urgent: bool = True,
    ) -> Mapping[int, bytes]:
        """Return when the chunks `[start, stop)` are local and verified.

        Args:
            ahead: the chunks to fetch behind these, which are not waited for.
            urgent: whether a moment more would keep a reader waiting.

        Returns:
            Those of them that the disk did not take, by number: nearly always none.

        Raises:
            AxonError: they cannot be had; the message says why. Cancelling it stops no job.
        """
        if not self.object.owned:  # no chunk ever counts as served where its state is not kept
            raise BusyError(
                "another process owns the cache, so nothing is fetched into it",
                hint="mount the models, or use another cache",
            )
        passed: dict[int, bytes] = {}
        await self._local.tried_again()
        while not await self._may_serve(chunks, passed):
            if self._entire:
                chunks = Range(0, self.object.count)  # the verdict is about all of it
            self._raise_if_refused()
            if self._judge.due:
                await self._judge.whole()
            await self._judge.settle(chunks)
            absent = self.download.missing(chunks, passed)
            if absent and self._offline:
                raise self._offline_error()
            for run in absent:
                self._request(run, priority)
            if ahead is not None:
                self.want(ahead)
                ahead = None
            with Step(Cause.OTHER, "waiting", on=partial(self.step_towards, absent)):
                await self.download.landed(
                    absent, passed, self._runner.arrivals.take, urgent=urgent
                )
            if passed and self._answers.differ:
                raise self._answers.undecided(self.object.health.fault)
        if ahead is not None:
            self.want(ahead)
        return passed

    def step_towards(self, absent: Sequence[Range]) -> Step | None:
        """What brings the first of these chunks that is on its way."""
        return self._runner.step_towards(self.download, absent)

    def awaited(self, start: int, stop: int) -> Range:
        """The chunks that keep a read of these bytes waiting, in one run; maybe none."""
        chunks = chunk_span(start, stop - start, self.object.chunk_size)
        if self._entire:
            chunks = Range(0, self.object.count)
        missing = self._local.missing(*chunks)
        return Range(missing[0].start, missing[-1].stop) if missing else Range(0, 0)

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
            chunk in passed or self._local.usable(chunk, chunk + 1) for chunk in range(*chunks)
        )

    def distrust(self, chunks: Range, exc: Exception) -> None:
        """The disk failed to give the chunks back: readers get them past it from here on."""
        self._local.distrust(chunks, exc)

    def _offline_error(self) -> AxonError:
        if fault := self.object.health.fault:
            return OfflineError(f"the cache's disk failed ({fault}), and nothing is sent offline")
        return OfflineError("not in the cache, and nothing is sent with --offline")

    def _raise_if_refused(self) -> None:
        """Raise if the object's bytes are known to be wrong, or may not be read."""
        if not self.allowed:
            base = self.versions[0].base if self.versions else None
            raise UnverifiedError(
                "cannot be verified: neither the file nor its package has a sha256",
                source=base,
                hint=f"axonfs registry add {(base or 'URL').rstrip('/')} --allow-unverified"
                " has it read all the same",
            )
        self._raise_if_quarantined()

    def _raise_if_quarantined(self) -> None:
        if cause := self.object.quarantined:
            raise CorruptError(cause, hint="axonfs verify --repair fetches it again")

    async def check(self, chunks: Range) -> list[int]:
        """Read local chunks again and compare; the wrong ones are dropped and returned."""
        return await self._judge.check(chunks)

    async def find_copy(self) -> None:
        """Look for a copy on this machine, if that was not done yet. The jobs report errors."""
        if self.download.may_have_blob:
            with suppress(AxonError, OSError):
                await self._runner.find_copy(self.download)

    def want(self, chunks: Range, priority: Priority = Priority.READAHEAD) -> None:
        """Have chunks fetched that no reader waits for yet; errors stay in the log."""
        refused = self.object.quarantined or not self.allowed or not self.object.owned
        if self._offline or refused or not self.versions:
            return
        if priority is not Priority.DEMAND and self.object.health.fault:
            # Memory is short, and what is fetched too early goes from it unread.
            ahead = self._chunks_in(AHEAD_OF_A_BAD_DISK)
            chunks = Range(chunks.start, min(chunks.stop, chunks.start + ahead))
        for run in self.download.missing(chunks, {}):
            self._request(run, priority)

    def withdraw(self) -> None:
        """Stop what was prefetched; a task that still waits for some of it asks again."""
        self._runner.withdraw(self.download)

    def absent(self, chunk: int) -> bool:
        """Whether `chunk` is neither local nor on its way."""
        return self.download.absent(chunk)

    def _request(self, run: Range, priority: Priority) -> None:
        if not self.versions:
            raise AxonError("no source is known to have this object", hint="check the registry")
        fresh = [chunk for chunk in range(*run) if not self._brought(chunk, run.start, priority)]
        if not fresh:
            return
        for part in (part for piece in runs(fresh) for part in self._jobs(piece)):
            self._runner.submit(self.download.begin(part, priority))

    def _brought(self, chunk: int, first: int, priority: Priority) -> bool:
        """Whether a job brings `chunk`, of a request that begins at `first`, soon enough.

        A job that is less urgent is hurried. If it waits, it is cut before the chunk, so that
        its request begins there. One that runs cannot be told to skip: a reader that would wait
        long for it has its chunk asked for apart, and that one comes twice. Where the chunk before
        it is awaited too, a reader has many reads in flight and needs all of the job.
        """
        job = self.download.flying(chunk)
        if job is None:
            return False
        far = job.running and job.bytes_before(first) >= FAR_BYTES
        if priority is Priority.DEMAND and far and not self.download.awaits(first - 1):
            return False
        if job.priority > priority:
            if not job.running and chunk > job.chunks.start:
                job = self.download.cut(job, chunk)
                self._runner.submit(job)
            self._runner.promote(job, priority)
        return True

    async def punch(self, goal: int) -> int:
        """Give up about `goal` bytes behind the readers; returns what went.

        A chunk on its way out counts as on its way in: a reader that wants it meanwhile waits,
        and asks for it again when it is gone. What comes in a package is not given up: any chunk
        of it costs the whole package. Nor is what a digest has yet to decide about.
        """
        freed = 0
        if self._packed or self._answers.differ:
            return freed
        with self.in_use():  # the last reader may leave between two runs
            for run in behind_readers(self.download, self.readahead, goal):
                self._answers.punched |= not self.compared
                with self.download.giving_up(run):
                    freed += await trio.to_thread.run_sync(self.object.punch, *run)
        return freed
