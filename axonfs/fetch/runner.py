"""Run jobs: in the lane of the origin that is asked, attempt by attempt, until one settles it.

Below fetcher.py, which knows feeds and tables. A job has a stream only while it asks: between two
attempts, and while it waits for a package, another one has its turn. An origin that made no
progress for a deadline gets little patience from then on (http_client/stalls.py), and so does an
object.

Threading: as in fetcher.py. The bytes of an attempt move in a worker thread (`transfer.py`).
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from axonfs.errors import (
    AxonError,
    CorruptError,
    DeadlineError,
    EtagError,
    ShortageError,
    UnavailableError,
    VanishedError,
)
from axonfs.fetch.job import Job, Priority
from axonfs.fetch.lane import Lane, Lanes
from axonfs.fetch.transfer import ElsewhereError, Transfer
from axonfs.http_client import LEAST, Bodies, Limits, Location, Origin, Stall

if TYPE_CHECKING:
    from axonfs.catalog.tree import Version
    from axonfs.fetch.feed import Feed
    from axonfs.fetch.fetcher import Fetcher

log = logging.getLogger(__name__)

MAX_CORRUPT = 3
# How often a job looks for the node of a source whose answers its object began with.
MAX_NODES = 8
# The kernel asks for a page once for each of its readers, one after another. What is asked within
# this many seconds after a failed attempt waits as briefly as possible.
A_MOMENT = 1.0


class Runner:
    """The lanes of all origins, and the jobs in them.

    Args:
        streams: ranged GETs at a time of one origin.
    """

    def __init__(
        self, fetcher: Fetcher, bodies: Bodies, nursery: trio.Nursery, limits: Limits, streams: int
    ) -> None:
        self.lanes = Lanes(streams, limits.deadline)
        self._fetcher = fetcher
        self._bodies = bodies
        self._nursery = nursery
        self._limits = limits
        self._threads = trio.CapacityLimiter(math.inf)  # the lanes bound them

    # -- no checkpoint in any of these ------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a job; the most urgent of its lane goes first."""
        job.queued, job.running = trio.current_time(), False
        lane = job.lane if job.lane and job.redirected else self._lane_of(job)
        lane.enter(job)
        lane.schedule.add(job)
        self._dispatch(lane)

    def promote(self, job: Job, priority: Priority) -> None:
        """Make a job more urgent than it was."""
        assert job.lane is not None  # it was submitted
        job.lane.schedule.promote(job, priority)
        self._dispatch(job.lane)

    def withdraw(self, feed: Feed) -> None:
        """End the prefetches of `feed`; a task that still waits for one of them asks again."""
        for job in [job for job in feed.jobs if job.priority is Priority.PREFETCH]:
            if job.lane is not None and job.lane.schedule.withdraw(job):
                self._over(job, None)
            else:
                job.superfluous = True

    def progressed(self, job: Job, size: int) -> None:
        """Bytes of a job arrived, of which some may be on their way after it is over."""
        job.progress = now = trio.current_time()
        job.feed.stall.progressed(now)
        if job.lane is not None:
            job.lane.stall.progressed(now)
            schedule = job.lane.schedule
            schedule.streams.landed(size, now, short=schedule.short_of_streams())

    def lane_at(self, location: Location) -> Lane:
        """The lane of the origin that is asked first for `location`."""
        return self.lanes.of(self._bodies.first_asked(location))

    def redirected(self, job: Job, origin: Origin) -> bool:
        """Whether a job may go on at `origin`, where an answer sent it; else it waits there.

        Called in the trio thread by the job's transfer.
        """
        lane, before = self.lanes.of(origin), job.lane
        assert before is not None  # it runs
        if lane is before or job.redirected:
            return True
        if lane.stall.open or not lane.schedule.free(job.priority):
            return False
        lane.enter(job)
        lane.schedule.resume(job)
        job.redirected = True
        self._dispatch(before)
        return True

    def _lane_of(self, job: Job) -> Lane:
        """Where a job waits: with the origin that it asks first, if it asks any."""
        feed, version = job.feed, self._origin(job)
        if self._fetcher.may_have_blob(feed) or self._packed(job, version):
            return self.lanes.of(None)
        return self._lane_for(job, version)

    def _lane_for(self, job: Job, version: Version) -> Lane:
        try:
            return self.lane_at(_location(job, version))
        except AxonError:
            return self.lanes.of(None)  # nothing can be asked there; the attempt says so

    def _origin(self, job: Job) -> Version:
        """The version whose source is asked next: in turn, but rather one that does not stall."""
        origins = job.feed.origins
        turn = job.attempts % len(origins)
        ordered = origins[turn:] + origins[:turn]
        well = (one for one in ordered if not self._lane_for(job, one).stall.open)
        return ordered[0] if len(ordered) == 1 else next(well, ordered[0])

    def _packed(self, job: Job, version: Version) -> bool:
        entry = job.feed.entry
        return entry.named or self._fetcher.packages.needed(version, entry)

    def _dispatch(self, lane: Lane) -> None:
        """Start queued jobs while streams are free."""
        while job := lane.schedule.take():
            job.running = True
            self._nursery.start_soon(self._run, job)

    def _over(self, job: Job, error: AxonError | None) -> None:
        """End a job that is queued or was running."""
        if error and not job.feed.awaited(job):
            log.info("%s; nobody waits for it", error)
        lane = job.lane
        assert lane is not None  # it was submitted
        lane.leave(job)
        job.running = False
        job.feed.ended(job, error)
        self._dispatch(lane)

    # -- one job ----------------------------------------------------------------------------

    async def _run(self, job: Job) -> None:
        """One attempt. If it is to be followed by another the job queues again after a pause."""
        now, error = trio.current_time(), None
        # A job does not lose patience while it waits for a stream.
        job.progress = now if job.attempts == 0 else job.progress + now - job.queued
        again = False
        try:
            again = await self._turn(job)
        except AxonError as exc:
            error = exc
        except OSError as exc:  # the disk, not the network: Bodies maps all of its own
            error = AxonError(f"the cache's disk failed: {exc}", hint="see axonfs status")
        finally:
            if not again:
                self._over(job, error)
        if again:
            self.submit(job)

    async def _turn(self, job: Job) -> bool:
        """One attempt of a job; whether it needs another."""
        if not job.remaining():
            return False
        version, before = self._origin(job), job.progress
        stall = self._stall(job)
        job.asked = trio.current_time()
        patience = stall.patience(job.asked)
        recently = job.asked - job.feed.stall.vain < A_MOMENT
        if patience is not None and patience < math.inf and recently:
            patience = LEAST
        try:
            return await self._attempt(job, version, patience)
        except AxonError as exc:
            job.attempts = 1 if job.progress > before else job.attempts + 1
            if isinstance(exc, EtagError) and (job.feed.answers.mix(exc) or job.nodes < MAX_NODES):
                job.nodes += 1
                self._rest(job)
                return True
            job.corrupt += isinstance(exc, CorruptError)
            self._judge(job, exc, stall, patience)
            job.redirected = False
            self._rest(job)
            await trio.sleep(self._pause(job, exc))
            return True

    def _stall(self, job: Job) -> Stall:
        """What says how long an attempt waits: the origin's stall, else the object's own."""
        assert job.lane is not None  # it runs
        return job.lane.stall if job.lane.stall.open else job.feed.stall

    def _rest(self, job: Job) -> None:
        """The job leaves its stream to the next one."""
        assert job.lane is not None  # it runs
        job.lane.schedule.rest(job)
        self._dispatch(job.lane)

    def _pause(self, job: Job, exc: AxonError) -> float:
        """Until the next attempt, the last of which begins when the deadline ends.

        That may be sooner than the source asked for: its answer decides what readers get.
        """
        left = job.progress + self._limits.deadline - trio.current_time()
        return min(self._limits.pause(job.attempts, exc.retry_after), max(left, 0.0))

    async def _attempt(self, job: Job, version: Version, patience: float | None) -> bool:
        """Fetch the bytes; True if the job has to go on in another lane."""
        feed, entry = job.feed, job.feed.entry
        if self._fetcher.may_have_blob(feed):
            await self._fetcher.seek_blob(feed)
            if feed.blob is None and not self._packed(job, version):
                self._rest(job)
                return True
        if feed.blob is None and self._packed(job, version):
            await self._unpack(job, version, patience)
            return False
        try:
            return await self._transfer(job, version, patience)
        except VanishedError:
            if not self._fetcher.packages.need(version, entry):
                raise
            await self._unpack(job, version, patience)
            return False

    async def _unpack(self, job: Job, version: Version, patience: float | None) -> None:
        """Wait for the package without a stream: the pass has one for all files."""
        self._rest(job)
        await self._fetcher.packages.unpack(version, patience)

    async def _transfer(self, job: Job, version: Version, patience: float | None) -> bool:
        if job.priority is not Priority.DEMAND:
            await self._fetcher.ensure_table(job.feed, version)
        elif job.feed.table is None:  # beside the bytes, to spare the reader a round trip
            self._nursery.start_soon(self._fetcher.fetch_table, job.feed, version)
        assert job.lane is not None  # it runs
        if job.feed.blob is None:
            self._fetcher.asked()
        piece = job.lane.schedule.streams.piece(trio.current_time())
        transfer = Transfer(job, version, _location(job, version), self._fetcher, piece, patience)
        try:
            await trio.to_thread.run_sync(transfer.run, self._bodies, limiter=self._threads)
        except ElsewhereError as exc:
            self._rest(job)
            self.lanes.of(exc.origin).enter(job)
            job.redirected = True
            return True
        except AxonError:
            job.feed.blob = None  # whatever is wrong with it, the next attempt asks the source
            raise
        return False

    # -- giving up: no checkpoint in any of these ---------------------------------------------

    def _judge(self, job: Job, exc: AxonError, stall: Stall, patience: float | None) -> None:
        """Raise what the readers get, or say that it is tried again."""
        lane, now = job.lane, trio.current_time()
        assert lane is not None  # it runs
        if exc.overloaded:
            lane.schedule.streams.refused(now)
        if answered := exc.status is not None or isinstance(exc, CorruptError):
            lane.stall.progressed(now)  # an answer, though not the right one
        again = exc.transient or (isinstance(exc, CorruptError) and job.corrupt < MAX_CORRUPT)
        another = job.attempts < len(job.feed.origins) and job.corrupt < MAX_CORRUPT
        if job.feed.object.quarantined or not (again or another):
            raise exc
        if patience is None or patience > LEAST:
            job.feed.stall.vain = now
        if patience is not None and stall.error is not None:
            stall.failed(now, stall.error, patience, asked=job.asked)
            raise self._stalled(job, lane, stall, stall.error, exc)
        waited = now - job.progress
        blamed = lane.origin is not None and not isinstance(exc, ShortageError)
        silent = not answered and blamed and lane.stall.overdue(now)
        if silent or waited >= self._limits.deadline:
            error = _deadline(exc, max(waited, self._limits.deadline))
            chosen = lane.stall if silent else job.feed.stall
            chosen.failed(now, error, asked=job.asked)
            raise self._stalled(job, lane, chosen, error, exc)
        if not job.feed.awaited(job):
            raise exc  # readahead does not insist; a reader that comes will ask again
        log.info("%s; trying again (%d)", exc, job.attempts)

    def _stalled(
        self, job: Job, lane: Lane, stall: Stall, error: AxonError, exc: AxonError
    ) -> AxonError:
        """What readers get of an attempt that failed within a stall.

        Jobs that have waited since before that attempt would fail as it did.
        """
        error = error.located()
        error.source = exc.source or error.source
        if stall is lane.stall:
            for other in lane.schedule.drop(job.asked):
                if self._lane_of(other) is lane:
                    self._over(other, error)
                else:  # another origin has it
                    self.submit(other)
        return error


def _location(job: Job, version: Version) -> Location:
    assert version.source is not None  # Feed.opened keeps only origins that have one
    return version.source.locate(version.base, version.holding(job.feed.entry))


def _deadline(exc: AxonError, waited: float) -> AxonError:
    """What a reader gets after the deadline: ETIMEDOUT for silence, EIO for refusals."""
    silent = isinstance(exc, DeadlineError) or isinstance(exc.__cause__, TimeoutError)
    kind = DeadlineError if silent else UnavailableError
    what = f"no progress for {waited:.0f} s; last: {exc.what}"
    error = kind(what, source=exc.source, hint="is the registry up? axonfs doctor asks it")
    error.__cause__ = exc
    return error
