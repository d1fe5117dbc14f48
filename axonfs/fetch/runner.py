"""Run jobs: in the lane of the origin that is asked, attempt by attempt, until one settles it.

Below feed, which begins jobs. A job has a stream only while it asks: between two attempts, and
while it waits for a package, another one has its turn. An origin that made no progress for a
deadline gets little patience from then on (http_client/stalls.py), and so does an object.

Trio thread only. The bytes of an attempt move in a worker thread (transfer.py), which reports each
landed chunk through `run_sync_soon`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import (
    AxonError,
    CorruptError,
    EtagError,
    ShortageError,
    VanishedError,
    shortages,
)
from axonfs.fetch import stages
from axonfs.fetch.arrivals import Arrivals
from axonfs.fetch.download import Download, Job, Priority
from axonfs.fetch.hedges import Hedges
from axonfs.fetch.lane import Lane
from axonfs.fetch.network import Network
from axonfs.fetch.overdue import overdue
from axonfs.fetch.pace import Pace
from axonfs.fetch.package import Packages
from axonfs.fetch.transfer import ElsewhereError, Transfer
from axonfs.fetch.trials import Trials
from axonfs.fetch.ways import Ways
from axonfs.http_client import LEAST, Origin, Stall, pausing, retrying
from axonfs.http_client.blame import ENOUGH
from axonfs.ranges import Range
from axonfs.steps import Step

log = logging.getLogger(__name__)

MAX_CORRUPT = 3
# How often a job looks for the node of a source whose answers its object began with.
MAX_NODES = 8
# The kernel asks for a page once for each of its readers, one after another. What is asked within
# this many seconds after a failed attempt waits as briefly as possible.
A_MOMENT = 1.0


class Runner:
    """Runs the jobs of all downloads; a method that is not async has no checkpoint.

    Args:
        landed: called after each landing.
    """

    def __init__(
        self,
        network: Network,
        packages: Packages,
        nursery: trio.Nursery,
        landed: Callable[[], None],
    ) -> None:
        self._network = network
        self._packages = packages
        self._nursery = nursery
        self._landed = landed
        self._limits = network.limits
        self.arrivals = Arrivals(self._arrived)
        trials = Trials(network, nursery)
        self.ways = Ways(network, packages, trials)
        jobs = self.submit, self._settle
        self._hedges = Hedges(network, nursery, self.ways, trials, *jobs, self.arrivals)
        self._threads = trio.CapacityLimiter(math.inf)  # the lanes bound them

    def submit(self, job: Job) -> None:
        """Queue a job; the most urgent of its lane goes first."""
        job.queued, job.running = trio.current_time(), False
        self._network.watcher.queued(job)
        if job.redirected and job in self._network:
            lane = self._network.lane_of(job)
        else:
            self.ways.choose(job)
            lane = self.ways.lane(job)
        self._network.enter(job, lane)
        lane.schedule.add(job)
        self._dispatch(lane)

    def promote(self, job: Job, priority: Priority) -> None:
        """Make a job more urgent than it was."""
        lane = self._network.lane_of(job)
        lane.schedule.promote(job, priority)
        self._dispatch(lane)

    def withdraw(self, download: Download) -> None:
        """End the prefetches of `download`; a task that still waits for one of them asks again."""
        for job in [job for job in download.jobs if job.priority is Priority.BACKGROUND]:
            if job in self._network and self._network.lane_of(job).schedule.withdraw(job):
                self._over(job, None)
            else:
                job.superfluous = True

    async def find_copy(self, download: Download) -> None:
        """Look once for a copy of an object on this machine."""
        await download.find_blob(lambda: self._network.closing)

    def _arrived(self, job: Job, chunks: Range, size: int, data: bytes | None) -> None:
        """Chunks of `job`, which may be over, are in the store, or `data` has their bytes."""
        self._network.landed(job, chunks, size)
        job.progress = now = trio.current_time()
        job.download.stall.progressed(now)
        if job in self._network:
            self._network.lane_of(job).landed(size, now)
        if job.pace is not None:
            job.pace.landed(size, now)
        job.to_win -= 1
        if job.rival is not None and job.to_win <= 0:
            self._settle(job)
        job.download.arrived(chunks, data)
        if hashing := job.download.hashing:
            hashing.follow(self._nursery)
        self._landed()

    def held_back(self, job: Job, seconds: float) -> None:
        """The mount's bandwidth kept `job` waiting, and not its source; called by its transfer."""
        now = trio.current_time()
        job.progress = min(job.progress + seconds, now)
        if job.pace is not None:
            job.pace.held_up(seconds)
        job.download.stall.progressed(now)
        if job in self._network:
            self._network.lane_of(job).stall.progressed(now)

    def redirected(self, job: Job, origin: Origin) -> bool:
        """Whether a job may go on at `origin`, where an answer sent it; else it waits there.

        Called in the trio thread by the job's transfer.
        """
        lane, before = self._network.lane(origin), self._network.lane_of(job)
        if lane is before or job.redirected:
            return True
        if lane.stall.open or not lane.schedule.free(job.priority):
            return False
        self._network.enter(job, lane)
        lane.schedule.resume(job)
        job.redirected = True
        self._dispatch(before)
        return True

    def _dispatch(self, lane: Lane) -> None:
        """Start queued jobs while streams are free."""
        while job := lane.take():
            job.download.started(job)
            self._nursery.start_soon(self._run, job)
            self._hedges.watch()

    def _over(self, job: Job, error: AxonError | None) -> None:
        """End a job that is queued or was running."""
        if job.rival is not None:
            self._settle(job.rival if job.remaining() else job)
            error = None  # nobody notices: the rival brings the same
        if error and not job.download.awaited(job):
            log.info("%s; no reader waits for it", error)
        self._network.watcher.ended(job, error)
        lane = self._network.lane_of(job)
        self._network.leave(job)
        job.running = False
        job.download.ended(job, error)
        # Without ranges the others of its object waited for it, some maybe in other lanes.
        others = job.download.jobs if job.download.unranged else ()
        for waiting in {lane, *map(self._network.lane_of, others)}:
            self._dispatch(waiting)

    def _settle(self, winner: Job) -> None:
        """Have `winner` bring what its rival was to bring too, and end the rival."""
        loser = winner.download.settle(winner)
        if loser.priority < winner.priority:
            self.promote(winner, loser.priority)
        if self._network.lane_of(loser).schedule.withdraw(loser):
            self._over(loser, None)
        else:
            loser.superfluous = True

    async def _run(self, job: Job) -> None:
        """One attempt. If it is to be followed by another the job queues again after a pause."""
        now, error, again = trio.current_time(), None, False
        job.task = trio.lowlevel.current_task()
        # A job does not lose patience while it waits for a stream.
        fresh = job.attempts == 0 and job.passed is None
        job.progress = now if fresh else job.progress + now - job.queued
        try:
            with stages.attempt(job):
                again = await self._turn(job)
        except AxonError as exc:
            error = exc
        except OSError as exc:  # the disk, not the network: Bodies maps all of its own
            error = AxonError(f"the cache's disk failed: {exc}", hint="see axonfs status")
        finally:
            job.task = None
            if not again:
                self._over(job, error)
        if again:
            self.submit(job)

    async def _turn(self, job: Job) -> bool:
        """One attempt of a job; whether it needs another."""
        if not job.remaining():
            return False
        version, before = job.version, job.progress
        assert version is not None  # it was submitted
        if job.cache is not None and job.cache.set_aside:  # since it was chosen
            self._rest(job)
            return True
        if (pause := self._held(job)) > 0:
            job.attempts = job.attempts or 1  # whose deadline goes on, and whose turn ends
            self._rest(job)
            with stages.tried(job), pausing(self._network.lane_of(job).name, pause):
                await trio.sleep(pause)
            return True
        stall = self._network.lane_of(job).stall
        stall = stall if stall.open else job.download.stall
        job.asked = trio.current_time()
        patience = stall.patience(job.asked)
        recently = job.asked - job.download.stall.vain < A_MOMENT
        if patience is not None and patience < math.inf and recently:
            patience = LEAST
        try:
            with shortages(), stages.tried(job):
                return await self._attempt(job, version, patience)
        except AxonError as exc:
            self._network.failed(job, exc)
            mixed = isinstance(exc, EtagError) and job.download.answers.mix(exc)
            if job.rival is not None:  # which goes on
                self._overloaded(job, exc)
                return False
            if job.passed is exc:  # by the next cache, or the source
                if trio.current_time() - job.progress >= self._limits.deadline:
                    job.vain = ENOUGH
                self._rest(job)
                return True
            job.attempts = 1 if job.progress > before else job.attempts + 1
            job.begin_anew()
            if isinstance(exc, EtagError) and (mixed or job.nodes < MAX_NODES):
                job.nodes += 1
                self._rest(job)
                return True
            job.corrupt += isinstance(exc, CorruptError)
            self._judge(job, exc, stall, patience)
            job.redirected = False
            self._rest(job)
            pause, caches = self._pause(job, exc), self.ways.waits_for_caches(job)
            with retrying(exc, f"attempt {job.attempts + 1}", pause, caches=caches):
                await trio.sleep(pause)
            return True

    def _held(self, job: Job) -> float:
        """Seconds until the pause of its origin ends, or it is time for the job's last attempt."""
        left = job.progress + self._limits.deadline - trio.current_time()
        return min(self._network.lane_of(job).pause, left)

    def _overloaded(self, job: Job, exc: AxonError) -> None:
        if exc.overloaded:
            lane, itself = self._network.lane_of(job), job.cache is None
            lane.overloaded(trio.current_time(), exc.retry_after, itself=itself)

    def step_towards(self, download: Download, absent: Sequence[Range]) -> Step | None:
        """What brings the first of these chunks that is on its way."""
        return stages.bringing(self._network, download, absent)

    def _rest(self, job: Job) -> None:
        """The job leaves its stream to the next one."""
        lane = self._network.lane_of(job)
        lane.schedule.rest(job)
        self._dispatch(lane)

    def _pause(self, job: Job, exc: AxonError) -> float:
        """Until the next attempt. The last one begins when the deadline ends, though the source
        may have asked for more: its answer decides what readers get."""
        left = job.progress + self._limits.deadline - trio.current_time()
        most = A_MOMENT if self.ways.waits_for_caches(job) else math.inf
        return min(self._limits.pause(job.attempts, exc.retry_after), max(left, 0.0), most)

    async def _attempt(self, job: Job, version: Version, patience: float | None) -> bool:
        """Fetch the bytes; True if the job has to go on in another lane."""
        download = job.download
        if download.may_have_blob:
            await self.find_copy(download)
            if download.blob is None and not self.ways.packed(job, version):
                self._rest(job)
                return True
        if download.blob is None and self.ways.packed(job, version):
            await self._unpack(job, version, patience)
            return False
        try:
            return await self._transfer(job, version, patience)
        except VanishedError as exc:
            if job.passed is exc or not self._packages.need(version, download.entry):
                raise
            await self._unpack(job, version, patience)
            return False

    async def _unpack(self, job: Job, version: Version, patience: float | None) -> None:
        """Wait for the package without a stream: the pass has one for all files."""
        self._rest(job)
        with stages.packed(job):
            await self._packages.unpack(version.part(job.download.entry) or version, patience)

    async def _transfer(self, job: Job, version: Version, patience: float | None) -> bool:
        download = job.download
        if job.priority is not Priority.DEMAND:
            await download.find_table(version)
        elif download.lacks_table:  # beside the bytes, to spare the reader a round trip
            self._nursery.start_soon(download.seek_table, version)
        if self.ways.waits_for_caches(job):
            self._rest(job)
            if await self.ways.one_is_back(job, patience):
                return True
        location = self.ways.location(download, version, job)
        self._network.asked(job)
        reports = self.arrivals, self.redirected, self.held_back
        transfer = Transfer(job, version, location, self._network, patience, *reports)
        pace = job.pace = Pace(transfer.unit, trio.current_time()) if not download.blob else None
        try:
            with stages.asking(location):
                await trio.to_thread.run_sync(transfer.run, limiter=self._threads)
        except ElsewhereError as exc:
            self._rest(job)
            self._network.enter(job, self._network.lane(exc.origin))
            job.redirected = True
            return True
        except AxonError as exc:
            self.arrivals.take()  # which counts what the copy has given
            download.refuse_blob()  # the next attempt asks the source
            if not transfer.lacked_table:
                self._pass_over(job, exc, hasty=patience is not None and patience < math.inf)
            raise
        finally:
            self.arrivals.take()
            job.pace = None
        if pace is not None and not job.superfluous:
            self._network.lane_of(job).note(pace, trio.current_time())
            self.ways.went_well(job)
        return False

    def _pass_over(self, job: Job, exc: AxonError, *, hasty: bool) -> None:
        """Have a job go on without the cache that failed, and all that waited for it."""
        lane = self._network.lane_of(job)
        if self.ways.pass_over(job, exc, hasty=hasty):
            for other in lane.schedule.drop(trio.current_time()):
                self.submit(other)

    def _judge(self, job: Job, exc: AxonError, stall: Stall, patience: float | None) -> None:
        """Raise what the readers get, or say that it is tried again."""
        lane, now = self._network.lane_of(job), trio.current_time()
        self._overloaded(job, exc)
        if answered := exc.status is not None or isinstance(exc, CorruptError):
            lane.stall.progressed(now)  # an answer, though not the right one
        again = exc.transient or (isinstance(exc, CorruptError) and job.corrupt < MAX_CORRUPT)
        another = job.attempts < len(job.download.versions) and job.corrupt < MAX_CORRUPT
        if job.download.object.quarantined or not (again or another):
            raise exc
        if patience is None or patience > LEAST:
            job.download.stall.vain = now
        if patience is not None and stall.error is not None:
            stall.failed(now, stall.error, patience, asked=job.asked)
            raise self._stalled(job, lane, stall, stall.error, exc)
        waited = now - job.progress
        blamed = lane.origin is not None and not isinstance(exc, ShortageError)
        silent = not answered and blamed and lane.stall.overdue(now)
        if silent or waited >= self._limits.deadline:
            error = overdue(exc, max(waited, self._limits.deadline))
            chosen = lane.stall if silent else job.download.stall
            self._network.late(job, exc, now - self._limits.deadline)
            chosen.failed(now, error, asked=job.asked)
            raise self._stalled(job, lane, chosen, error, exc)
        if not job.download.awaited(job):
            raise exc  # readahead does not insist; a reader that comes will ask again
        log.info("%s; trying again (%d)", exc, job.attempts)

    def _stalled(
        self, job: Job, lane: Lane, stall: Stall, error: AxonError, exc: AxonError
    ) -> AxonError:
        """What readers get of an attempt that failed within a stall, as do the jobs that have
        waited since before it."""
        error = error.located()
        error.source = exc.source or error.source
        if stall is lane.stall:
            for other in lane.schedule.drop(job.asked):
                self.ways.choose(other)
                if self.ways.lane(other) is lane:
                    self._over(other, error)
                else:  # another origin has it
                    self.submit(other)
        return error
