"""One origin's share: its streams, its queue, and whether it stalls.

Between schedule and network, which has the lanes of all origins. Each origin (scheme, host, port)
has a lane, so jobs that wait for one that is silent take no stream from another. Trio thread only.
"""

from __future__ import annotations

from collections import deque

import trio

from axonfs.fetch.concurrency import Streams
from axonfs.fetch.download import Job
from axonfs.fetch.pace import SAMPLE_BYTES, SAMPLES, Pace, Sample
from axonfs.fetch.schedule import RESERVED_STREAMS, Schedule
from axonfs.http_client import Origin, Pauses, Stall

# What may come twice because of hedges: this part of what came, and these bytes at first.
EXTRA, FREE_EXTRA = 0.02, 8 << 20
MOST_EXTRA = 64 << 20
# Seconds at least without hedges after an answer that the origin is overloaded.
OVERLOADED_SECONDS = 10.0
# A source brings twice as many bytes per request if a job of so many bytes came at the first rate,
# in bytes per second, and so on: they take no longer than elsewhere, and each request costs as much
# processor time as 1 MiB.
FAST_SAMPLE, FAST_RATES = 8 << 20, (128 << 20, 256 << 20)


class Group:
    """Lanes that share the streams for bulk work: those of the site caches of one source.

    All of them bring the bytes of its one line while they are cold: with streams for each, much
    would be on its way at once, and what a reader waits for would come with the last of it.
    """

    def __init__(self, streams: int) -> None:
        self.lanes: list[Lane] = []
        self._streams = Streams(streams - RESERVED_STREAMS)

    def enter(self, lane: Lane) -> None:
        """Let a lane share them."""
        lane.group = self
        self.lanes.append(lane)
        lane.schedule.share(self._streams, lambda: sum(map(_working, self.lanes)))

    def take(self) -> Job | None:
        """The job to start now: of all lanes the most urgent one that waits longest."""
        waiting = [lane.schedule for lane in self.lanes if lane.schedule.waiting]
        taken = (one.take() for one in sorted(waiting, key=lambda one: one.turn))
        return next(filter(None, taken), None)


class Lane:
    """The jobs that ask one origin; `origin` is None for jobs that ask none.

    Args:
        streams: ranged GETs at a time.
        deadline: seconds without progress after which the origin stalls.
        pauses: those that origins have asked this process for.
    """

    def __init__(
        self, origin: Origin | None, streams: int, deadline: float, pauses: Pauses
    ) -> None:
        self.origin = origin
        self.group: Group | None = None
        self._pauses = pauses
        self.schedule = Schedule(streams)
        self.stall = Stall(deadline)
        self.passes = trio.CapacityLimiter(streams)  # threads that read packages
        self.ended: deque[Sample] = deque(maxlen=SAMPLES)  # the paces of the last jobs
        self.speed = 1  # how many times the usual bytes one request brings
        self._extra = float(FREE_EXTRA)
        self._hedges_from = 0.0

    def landed(self, size: int, now: float) -> None:
        """Note that `size` bytes of this origin landed."""
        self.stall.progressed(now)
        schedule = self.schedule
        schedule.streams.landed(size, now, short=schedule.short_of_streams())
        self._extra = min(self._extra + size * EXTRA, MOST_EXTRA)

    def note(self, pace: Pace, now: float) -> None:
        """Note how a job did that has ended well."""
        sample = pace.sample(now)
        if sample and pace.size >= SAMPLE_BYTES:
            self.ended.append(sample)
        if sample and pace.size >= FAST_SAMPLE:
            self.speed = 1 << sum(sample.rate >= rate for rate in FAST_RATES)

    def overloaded(self, now: float, retry_after: float | None, *, itself: bool = True) -> None:
        """Note that the origin asked for fewer requests.

        Args:
            itself: false where a site cache passes on what its source says.
        """
        self.schedule.streams.refused(now)
        if itself and retry_after and self.origin:
            self._pauses.asked(self.origin, retry_after)
        pause = max(retry_after or 0.0, OVERLOADED_SECONDS)
        self._hedges_from = max(self._hedges_from, now + pause)

    def take(self) -> Job | None:
        """The job to start now, here or in a lane with which it shares its streams."""
        return self.group.take() if self.group else self.schedule.take()

    @property
    def name(self) -> str:
        """Whom its jobs ask, for messages."""
        return self.origin.authority if self.origin else "this machine"

    @property
    def pause(self) -> float:
        """Seconds for which the origin is not to be asked."""
        return self._pauses.left(self.origin) if self.origin else 0.0

    @property
    def willing(self) -> bool:
        """Whether it may be asked now, and does not stall."""
        return not (self.stall.open or self.pause)

    def takes_hedges(self, now: float) -> bool:
        """Whether a request that may prove needless is no harm to the origin."""
        return now >= self._hedges_from and not self.stall.open

    def may_hedge(self, size: int) -> bool:
        """Whether `size` bytes may come twice; if so, they are counted."""
        if size > self._extra:
            return False
        self._extra -= size
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits here."""
        busy = self.schedule.running or self.schedule.waiting or self.passes.borrowed_tokens
        return not busy


def _working(lane: Lane) -> int:
    """How many jobs run there; not those of a cache that is set aside, whose bytes others bring."""
    jobs = lane.schedule.jobs
    return sum(not (job.cache is not None and job.cache.set_aside) for job in jobs)
