"""Asks for the rest of a slow job anew, on another connection, where a reader waits or soon will.

Between runner, which runs the jobs, and lane. While jobs run, each is compared with the others of
its origin (pace.py). A job that falls far behind gets a *hedge*, a second job for what it has not
landed yet. Once the hedge has landed something it brings the rest, and the slow job ends; if that
one lands two pieces before, the hedge ends (runner.py). What comes twice is the part of a piece
that the slow job had received. So the hedges of an origin may cost a small part of what it sent,
and an origin that stalls, or lately said that it is overloaded, gets none.

A job at a site cache may wait because the cache waits for its source, and another cache would only
ask the source once more. So its hedge asks the same cache. A cache that sends nothing, or far less
than the others, is asked for something that it has (trials.py). If that does not come either, it is
set aside, and all that waits for it has a hedge, which asks the next one.

Trio thread only; a method that is not async has no checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from statistics import median

import trio

from axonfs.fetch.arrivals import Arrivals
from axonfs.fetch.download import Job, Priority
from axonfs.fetch.lane import Lane
from axonfs.fetch.network import Network
from axonfs.fetch.pace import FACTOR, Pace, Sample, compared
from axonfs.fetch.trials import Trials
from axonfs.fetch.ways import Ways

log = logging.getLogger(__name__)

# Seconds between two looks at the running jobs.
LOOK = 0.2
# A look that comes so late says that this process stood still, and no connection.
LATE = 0.5
# Hedges at a time of one origin, and in a row for one range: more would double its load.
AT_ONCE = 2
IN_A_ROW = 2
# A site cache that sends nothing to a job for so many seconds is asked for something that it has,
# and has so many seconds to answer.
QUIET, ANSWERED = 2.0, 3.0
# One that seems slow is asked for so many bytes, and has so many seconds at least.
SLOW_BYTES, SLOW_SECONDS = 1 << 20, 2.0

Samples = Mapping[Job, Sample | None]


class Hedges:
    """Watches all jobs that run.

    Args:
        ways: say whom a new job would ask first, which may redirect it.
        trials: ask site caches for what they have.
        submit: starts a job.
        settle: ends the rival of a job.
        arrivals: what landed and is not known yet.
    """

    def __init__(
        self,
        network: Network,
        nursery: trio.Nursery,
        ways: Ways,
        trials: Trials,
        submit: Callable[[Job], None],
        settle: Callable[[Job], None],
        arrivals: Arrivals,
    ) -> None:
        self._network = network
        self._nursery = nursery
        self._ways = ways
        self._trials = trials
        self._submit = submit
        self._settle = settle
        self._arrivals = arrivals
        self._watching = False

    def watch(self) -> None:
        """Watch until no job runs; called when one starts."""
        if not self._watching:
            self._watching = True
            self._nursery.start_soon(self._watch)

    async def _watch(self) -> None:
        while self._network.running:
            before = trio.current_time()
            await trio.sleep(LOOK)
            self._arrivals.take()
            now = trio.current_time()
            lanes = self._network.lanes()
            for lane in lanes:
                if now - before > LOOK + LATE:
                    _held_up(lane, now - before)
            jobs = [job for lane in lanes for job in lane.schedule.jobs]
            samples = {job: job.pace.sample(now) for job in jobs if job.pace is not None}
            for lane in lanes:
                self._look(lane, samples, now)
        self._watching = False

    def _look(self, lane: Lane, samples: Samples, now: float) -> None:
        """Begin hedges for the stragglers of one origin."""
        own = [job for job in lane.schedule.jobs if job in samples]
        hedged = sum(job.rival is not None for job in own)
        for job in own:
            if job.pace is None or not job.remaining():
                continue
            self._doubt(job, job.pace, samples, now)
            if _forsaken(job, now):
                self._move(job)
                continue
            peers = [one for one in lane.schedule.jobs if one is not job]
            usual = compared(_known(samples, peers), lane.ended, now)
            if not usual or not _may_have(job) or not job.pace.behind(now, usual):
                continue
            if hedged >= AT_ONCE or not lane.takes_hedges(now) or not self._is_taken(job, now):
                continue
            if not lane.may_hedge(job.pace.unit):
                return
            hedged += 1
            self._hedge(job)

    def _hedge(self, job: Job) -> None:
        log.info("%s: a connection is far slower than the others", job.download.entry.path)
        self._network.hedged += 1
        self._submit(job.download.hedge(job))

    def _is_taken(self, job: Job, now: float) -> bool:
        """Whether those who would be asked by a hedge of `job` take one."""
        alike = Job(job.download, job.chunks, job.priority)
        alike.tried = job.tried
        self._ways.choose(alike)
        return self._ways.lane(alike).takes_hedges(now)

    def _doubt(self, job: Job, pace: Pace, samples: Samples, now: float) -> None:
        """Have a site cache asked for what it has, if it sends nothing, or less than others."""
        if job.cache is None or job.site is None or job.cache.set_aside:
            return
        silent = pace.silent(now, QUIET)
        origins = {cache.url.origin for cache in job.site} - {job.cache.url.origin}
        lanes = [lane for lane in self._network.lanes() if lane.origin in origins]
        peers = [one for lane in lanes for one in lane.schedule.jobs if one.site is job.site]
        ended = sorted(sample for lane in lanes for sample in lane.ended)
        usual = compared(_known(samples, peers), ended, now)
        if usual and pace.behind(now, usual):
            rate = median(sample.rate for sample in usual)
            least = ANSWERED if silent else SLOW_SECONDS
            seconds = max(FACTOR * SLOW_BYTES / max(rate, 1), least)
            self._trials.doubt(job.cache, job.site, SLOW_BYTES, seconds)
        elif silent:
            self._trials.doubt(job.cache, job.site, 1, ANSWERED)

    def _move(self, job: Job) -> None:
        """Have the bytes of a job asked of another cache; its own is set aside."""
        if job.rival is not None and job.rival.cache is job.cache:
            self._settle(job)
        if job.rival is None and not job.superfluous:
            self._hedge(job)


def _forsaken(job: Job, now: float) -> bool:
    """Whether a job gets nothing of a site cache that was set aside."""
    aside = job.cache is not None and job.cache.set_aside
    return aside and job.pace is not None and job.pace.silent(now)


def _known(samples: Samples, jobs: Iterable[Job]) -> list[Sample]:
    return [found for job in jobs if (found := samples.get(job))]


def _may_have(job: Job) -> bool:
    """Whether a hedge is of use: a reader needs the job's bytes, and they come in ranges."""
    needed = job.priority is not Priority.BACKGROUND and not job.superfluous and not job.held
    whole = job.download.unranged or job.download.answers.one
    return needed and not whole and job.rival is None and job.hedges < IN_A_ROW and job.remaining()


def _held_up(lane: Lane, seconds: float) -> None:
    for job in lane.schedule.jobs:
        if job.pace is not None:
            job.pace.held_up(seconds)
