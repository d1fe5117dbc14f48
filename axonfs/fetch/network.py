"""What all objects share of the network: the lanes of the origins, the limits, and the figures.

Between lane and {package, runner}, which ask sources. A job that is redirected to another origin
changes its lane: the share belongs to the origin that is asked. Trio thread only, but for
`closing` and `bandwidth`, which worker threads use; no method has a checkpoint.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError
from axonfs.fetch.bandwidth import Bandwidth
from axonfs.fetch.download import Job
from axonfs.fetch.lane import Group, Lane
from axonfs.fetch.tallies import Tallies, Tally
from axonfs.fetch.watcher import UNWATCHED, Watcher
from axonfs.http_client import Bodies, Cache, Limits, Location, Origin, SiteCaches
from axonfs.ranges import Range

# Lanes that are remembered; beyond that those without jobs are forgotten.
MOST = 256


class Network:
    """The lanes of all origins that were asked.

    Args:
        streams: ranged GETs at a time of one origin.
        bandwidth: the limit for all of them together.
    """

    def __init__(self, bodies: Bodies, limits: Limits, streams: int, bandwidth: Bandwidth) -> None:
        self.bodies = bodies
        self.bandwidth = bandwidth
        self.limits = limits
        self.closing = False  # once it is true, worker threads end within a moment
        self._streams = streams
        self._lanes: dict[Origin | None, Lane] = {None: self._new_lane(None)}
        self._groups: dict[str, Group] = {}  # of site caches, by the URL of their source
        self._lane_of: dict[Job, Lane] = {}
        self.watcher: Watcher = UNWATCHED
        self.hedged = 0  # jobs that were slow and are asked for anew elsewhere
        self._copied = 0
        self._landed = Counter[str]()  # bytes from sources, by what they were fetched for
        self._tallies = Tallies()

    def lane(self, origin: Origin | None) -> Lane:
        """The lane of `origin`."""
        lane = self._lanes.get(origin)
        if lane is None:
            self._forget_idle()
            lane = self._lanes[origin] = self._new_lane(origin)
        return lane

    def cache_lane(self, site: SiteCaches, cache: Cache) -> Lane:
        """The lane of a site cache, which shares streams with the other caches of its source."""
        lane = self.lane(cache.url.origin)
        if lane.group is None:
            self._groups.setdefault(site.source, Group(self._streams)).enter(lane)
        return lane

    def _new_lane(self, origin: Origin | None) -> Lane:
        return Lane(origin, self._streams, self.limits.deadline, self.bodies.pauses)

    def _forget_idle(self) -> None:
        """A source may redirect to ever other hosts."""
        if len(self._lanes) >= MOST:
            used = {self._lanes[None], *self._lane_of.values()}  # also by jobs that rest
            idle = [lane for lane in self._lanes.values() if lane.idle and lane not in used]
            for lane in idle[: len(idle) // 2]:
                del self._lanes[lane.origin]
                if lane.group:
                    lane.group.lanes.remove(lane)

    def lane_at(self, location: Location) -> Lane:
        """The lane of the origin that is asked first for `location`."""
        return self.lane(self.bodies.first_origin(location))

    def site_of(self, version: Version) -> SiteCaches | None:
        """The site caches of the source of a version."""
        caches = self.bodies.caches
        return caches.of(version.source.url) if caches.sites and version.source else None

    def lane_of(self, job: Job) -> Lane:
        """The lane that `job` waits or runs in; it was submitted and is not over."""
        return self._lane_of[job]

    def __contains__(self, job: Job) -> bool:
        """Whether `job` is in a lane."""
        return job in self._lane_of

    def enter(self, job: Job, lane: Lane) -> None:
        """A job asks the origin of `lane` from now on, and no other."""
        if self._lane_of.get(job) is not lane:
            self.leave(job)
            self._lane_of[job] = lane
            lane.stall.began(trio.current_time())

    def leave(self, job: Job) -> None:
        """A job is over, or goes to another origin."""
        if lane := self._lane_of.pop(job, None):
            lane.schedule.rest(job)
            lane.stall.ended()

    def lanes(self) -> list[Lane]:
        """All lanes."""
        return list(self._lanes.values())

    @property
    def running(self) -> int:
        """How many jobs are under way."""
        return sum(lane.schedule.running for lane in self._lanes.values())

    def tally(self, version: Version | None, cache: Cache | None) -> Tally:
        """What counts for the source of a version, or for the cache that stands in for it."""
        return self._tallies.of(version.source.url if version and version.source else "", cache)

    def asked(self, job: Job) -> None:
        """A request for the bytes of a job goes out; count it if a source gets it."""
        if job.download.blob is None:
            self.tally(job.version, job.cache).asked()
        self.watcher.asked(job)

    def failed(self, job: Job, exc: AxonError) -> None:
        """Note a request that failed, and why."""
        job.failure = exc
        self.tally(job.version, job.cache).failed(exc)

    def late(self, job: Job, exc: AxonError, since: float) -> None:
        """Note that a job ends without what it has waited for since then."""
        self.tally(job.version, job.cache).late(exc, since)

    def landed(self, job: Job, chunks: Range, size: int) -> None:
        """Count the `size` bytes of chunks that a job brought."""
        self.watcher.landed(job, chunks)
        if job.download.blob:
            self._copied += size
        else:
            self.received(self.tally(job.version, job.cache), size, job.priority.name.lower())

    def received(self, tally: Tally, size: int, purpose: str) -> None:
        """Count bytes that came from a source, and what they were fetched for."""
        tally.received(size, trio.current_time())
        self._landed[purpose] += size

    @property
    def busy(self) -> bool:
        """Whether jobs are under way or wait."""
        return any(lane.schedule.running or lane.schedule.waiting for lane in self._lanes.values())

    def statistics(self) -> dict[str, Any]:
        """Figures for `status`: bytes, requests, hedges since the mount, bytes copied from a place
        on this machine, jobs under way and waiting, what these jobs have yet to bring, streams for
        bulk work of the origin that has the most, bytes per second of late, and the limit on them
        (0 is none); the same by source, and the bytes by what they were fetched for.
        """
        schedules, now = [lane.schedule for lane in self._lanes.values()], trio.current_time()
        return {
            "bytes": self._landed.total(),
            "copied": self._copied,
            "requests": self._tallies.requests,
            "hedged": self.hedged,
            "in_flight": sum(schedule.running for schedule in schedules),
            "queued": sum(schedule.waiting for schedule in schedules),
            "in_flight_bytes": sum(schedule.in_flight_bytes for schedule in schedules),
            "streams": max(schedule.streams.limit for schedule in schedules),
            "rate": round(sum(one.current_rate(now) for one in {s.streams for s in schedules})),
            "bandwidth": self.bandwidth.rate,
            "landed": dict(self._landed),
            "sources": self._tallies.statistics(now),
        }
