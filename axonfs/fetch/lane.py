"""The jobs of one origin: its streams, its queue, and whether it stalls.

Between schedule and fetcher. Each origin (scheme, host, port) has a lane, so jobs that wait for one
that is silent take no stream from another. A job that is redirected to another origin changes its
lane: the share belongs to who is asked. Trio thread only; no method has a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from axonfs.fetch.job import Job
from axonfs.fetch.schedule import Schedule
from axonfs.http_client import Origin, Stall

# Lanes that are remembered; those without jobs are forgotten beyond that.
MOST = 256


class Lane:
    """One origin's share; `origin` is None for what no origin is asked for.

    Args:
        streams: ranged GETs at a time.
        deadline: seconds without progress after which the origin stalls.
    """

    def __init__(self, origin: Origin | None, streams: int, deadline: float) -> None:
        self.origin = origin
        self.schedule = Schedule(streams)
        self.stall = Stall(deadline)
        self.passes = trio.CapacityLimiter(streams)  # threads that read packages

    def enter(self, job: Job) -> None:
        """A job asks this origin from now on, and no other."""
        if job.lane is not self:
            if job.lane is not None:
                job.lane.leave(job)
            job.lane = self
            self.stall.began(trio.current_time())

    def leave(self, job: Job) -> None:
        """A job is over, or goes to another origin."""
        self.schedule.rest(job)
        self.stall.ended()
        job.lane = None

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits here."""
        busy = self.schedule.running or self.schedule.waiting or self.passes.borrowed_tokens
        return not busy


class Lanes:
    """The lanes of all origins that were asked."""

    def __init__(self, streams: int, deadline: float) -> None:
        self._streams = streams
        self._deadline = deadline
        self._lanes: dict[Origin | None, Lane] = {None: Lane(None, streams, deadline)}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def of(self, origin: Origin | None) -> Lane:
        """The lane of `origin`."""
        lane = self._lanes.get(origin)
        if lane is None:
            self._forget_idle()
            lane = self._lanes[origin] = Lane(origin, self._streams, self._deadline)
        return lane

    def _forget_idle(self) -> None:
        """A source may redirect to ever other hosts."""
        if len(self._lanes) >= MOST:
            idle = [lane for lane in self if lane.idle and lane.origin is not None]
            for lane in idle[: len(idle) // 2]:
                del self._lanes[lane.origin]
