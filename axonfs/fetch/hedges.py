"""Asks for the rest of a slow job anew, on another connection, where a reader waits or soon will.

Between runner, which runs the jobs, and lane. While jobs run, each is compared with the others of
its origin (pace.py). A job that falls far behind gets a *hedge*, a second job for what it has not
landed yet. Once the hedge has landed something it brings the rest, and the slow job ends; if that
one lands two pieces before, the hedge ends (runner.py). What comes twice is the part of a piece
that the slow job had received. So the hedges of an origin may cost a small part of what it sent,
and an origin that stalls, or lately said that it is overloaded, gets none.

Trio thread only; a method that is not async has no checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio

from axonfs.errors import DeadlineError
from axonfs.fetch import blame
from axonfs.fetch.arrivals import Arrivals
from axonfs.fetch.download import Job, Priority
from axonfs.fetch.lane import Lane
from axonfs.fetch.network import Network
from axonfs.fetch.pace import Pace, Sample, compared
from axonfs.fetch.ways import Ways

log = logging.getLogger(__name__)

# Seconds between two looks at the running jobs.
LOOK = 0.2
# A look that comes so late says that this process stood still, and no connection.
LATE = 0.5
# Hedges at a time of one origin, and in a row for one range: more would double its load.
AT_ONCE = 2
IN_A_ROW = 2
# Seconds after which a job that a site cache sends nothing is a straggler, whatever the others do.
SILENCE = 5.0

Samples = Mapping[Job, Sample | None]


class Hedges:
    """Watches all jobs that run.

    Args:
        ways: say whom a new job would ask first, which may redirect it.
        submit: starts a job.
        arrivals: what landed and is not known yet.
    """

    def __init__(
        self,
        network: Network,
        nursery: trio.Nursery,
        ways: Ways,
        submit: Callable[[Job], None],
        arrivals: Arrivals,
    ) -> None:
        self._network = network
        self._nursery = nursery
        self._ways = ways
        self._submit = submit
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
            if not job.pace or not _may_have(job):
                continue
            left_alone = job.cache is not None and job.cache.set_aside and job.pace.silent(now)
            if not left_alone:
                if hedged >= AT_ONCE or not lane.takes_hedges(now):
                    continue
                if not self._straggles(job, job.pace, lane, samples, now):
                    continue
            alike = Job(job.download, job.chunks, job.priority)  # asks where a hedge would
            alike.tried = job.elsewhere()
            self._ways.choose(alike)
            if not self._ways.lane(alike).takes_hedges(now):
                continue
            twice = job.bytes_left if job.cache else job.pace.unit
            if not left_alone and not lane.may_hedge(twice):
                return
            log.info("%s: a connection is far slower than the others", job.download.entry.path)
            hedged += 1
            self._network.hedged += 1
            self._submit(job.download.hedge(job))

    def _straggles(self, job: Job, pace: Pace, lane: Lane, samples: Samples, now: float) -> bool:
        """Whether a job is far behind the others of its origin, or those at other caches."""
        if job.cache and pace.silent(now, SILENCE):
            return True
        peers = [one for one in lane.schedule.jobs if one is not job]
        ended = list(lane.ended)
        if job.cache and job.site:
            origins = {cache.url.origin for cache in job.site} - {lane.origin}
            lanes = [one for one in self._network.lanes() if one.origin in origins]
            peers = [one for each in lanes for one in each.schedule.jobs if one.site is job.site]
            ended = sorted(one for each in lanes for one in each.ended)
        usual = compared([found for one in peers if (found := samples.get(one))], ended, now)
        return bool(usual) and pace.behind(now, usual)

    def lost(self, job: Job, now: float) -> bool:
        """Note that the hedge of a job brought something first; whether the job's cache was set
        aside because it sends nothing."""
        cache, pace = job.cache, job.pace
        if cache is None or cache.set_aside or pace is None or not pace.silent(now):
            return False
        blame.set_aside(cache, DeadlineError("it sends nothing, and another one does"))
        return True


def _may_have(job: Job) -> bool:
    """Whether a hedge is of use: a reader needs the job's bytes, and they come in ranges."""
    wanted = job.priority is not Priority.BACKGROUND or job.cache is not None
    needed = wanted and not job.superfluous and not job.held
    whole = job.download.unranged or job.download.answers.one
    return needed and not whole and job.rival is None and job.hedges < IN_A_ROW and job.remaining()


def _held_up(lane: Lane, seconds: float) -> None:
    for job in lane.schedule.jobs:
        if job.pace is not None:
            job.pace.held_up(seconds)
