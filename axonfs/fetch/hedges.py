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
from collections.abc import Callable

import trio

from axonfs.fetch.arrivals import Arrivals
from axonfs.fetch.download import Job, Priority
from axonfs.fetch.lane import Lane
from axonfs.fetch.network import Network
from axonfs.fetch.pace import compared

log = logging.getLogger(__name__)

# Seconds between two looks at the running jobs.
LOOK = 0.2
# A look that comes so late says that this process stood still, and no connection.
LATE = 0.5
# Hedges at a time of one origin, and in a row for one range: more would double its load.
AT_ONCE = 2
IN_A_ROW = 2


class Hedges:
    """Watches all jobs that run.

    Args:
        first_lane: returns where a new job would ask first, which may redirect it.
        submit: starts a job.
        arrivals: what landed and is not known yet.
    """

    def __init__(
        self,
        network: Network,
        nursery: trio.Nursery,
        first_lane: Callable[[Job], Lane],
        submit: Callable[[Job], None],
        arrivals: Arrivals,
    ) -> None:
        self._network = network
        self._nursery = nursery
        self._first_lane = first_lane
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
            for lane in self._network.lanes():
                if now - before > LOOK + LATE:
                    _held_up(lane, now - before)
                self._look(lane, now)
        self._watching = False

    def _look(self, lane: Lane, now: float) -> None:
        """Begin hedges for the stragglers of one origin."""
        samples = {job: job.pace.sample(now) for job in lane.schedule.jobs if job.pace is not None}
        hedged = sum(job.rival is not None for job in samples)
        for job in samples:
            if hedged >= AT_ONCE or not lane.takes_hedges(now):
                return
            others = [found for other, found in samples.items() if found and other is not job]
            usual = compared(others, lane.ended, now)
            if not usual or not job.pace or not _may_have(job) or not job.pace.behind(now, usual):
                continue
            alike = Job(job.download, job.chunks, job.priority)  # asks where a hedge would
            if not self._first_lane(alike).takes_hedges(now):
                continue
            if not lane.may_hedge(job.pace.unit):
                return
            log.info("%s: a connection is far slower than the others", job.download.entry.path)
            hedged += 1
            self._network.hedged += 1
            self._submit(job.download.hedge(job))


def _may_have(job: Job) -> bool:
    """Whether a hedge is of use: a reader needs the job's bytes, and they come in ranges."""
    needed = job.priority is not Priority.BACKGROUND and not job.superfluous and not job.held
    whole = job.download.unranged or job.download.answers.one
    return needed and not whole and job.rival is None and job.hedges < IN_A_ROW and job.remaining()


def _held_up(lane: Lane, seconds: float) -> None:
    for job in lane.schedule.jobs:
        if job.pace is not None:
            job.pace.held_up(seconds)
