"""Which job runs next: the most urgent first, and always a stream left for a reader.

Pure but for the jobs it holds: no I/O, no clock. Below runner.py, which runs what `take` gives;
concurrency.py says how many streams bulk work (readahead and prefetch) may have. Trio thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from axonfs import memory
from axonfs.fetch.concurrency import Streams
from axonfs.fetch.download import Job, Priority

# Streams that readahead and prefetch leave to demand, so a page fault never queues behind them.
RESERVED_STREAMS = 2
# What bulk jobs have asked for and not got yet is at most this, and one job, in bytes: streams of
# large chunks take memory, and what is under way to a reader who leaves is lost.
IN_FLIGHT_BYTES = max(256 << 20, 4 * memory.for_streams())


class Schedule:
    """Jobs that wait, in order within each priority, and jobs that run.

    Args:
        most: streams at a time, at the most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.streams = Streams(most - RESERVED_STREAMS)
        self._together: Callable[[], int] = lambda: self.running
        self._running: set[Job] = set()
        # A dict is a queue from whose middle a job can be taken at no cost.
        self._waiting: dict[Priority, dict[Job, None]] = {priority: {} for priority in Priority}

    def share(self, streams: Streams, together: Callable[[], int]) -> None:
        """Share the streams of bulk jobs with other schedules.

        Args:
            together: how many jobs run in all of them.
        """
        self.streams, self._together = streams, together

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def turn(self) -> tuple[Priority, float]:
        """What says when its first waiting job has its turn among those of others: the least goes
        first."""
        queue = next(filter(None, self._waiting.values()))
        job = next(iter(queue))
        return job.priority, job.queued

    @property
    def jobs(self) -> list[Job]:
        """The jobs that run."""
        return list(self._running)

    @property
    def in_flight_bytes(self) -> int:
        """What running jobs have asked for and not got yet."""
        return sum(job.bytes_left for job in self._running)

    def before(self, job: Job) -> int:
        """How many jobs have their turn before one that waits."""
        queues = (queue for priority, queue in self._waiting.items() if priority <= job.priority)
        waiting = [one for queue in queues for one in queue]
        return waiting.index(job) if job in waiting else len(waiting)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, job: Job) -> None:
        """Queue a job behind the others of its priority."""
        self._waiting[job.priority][job] = None

    def promote(self, job: Job, priority: Priority) -> None:
        """Make a job more urgent, whether it waits or runs."""
        waited = job in self._waiting[job.priority]
        self._waiting[job.priority].pop(job, None)
        job.priority = priority
        if waited:
            self.add(job)

    def withdraw(self, job: Job) -> bool:
        """Take a job out of the queue; False if it does not wait."""
        waited = job in self._waiting[job.priority]
        self._waiting[job.priority].pop(job, None)
        return waited

    def take(self) -> Job | None:
        """The job to start now, counted as running from here on; None if no job may start."""
        for priority, queue in self._waiting.items():
            if queue and not self.free(priority):
                return None
            for job in queue:
                if job.download.may_start(job):
                    del queue[job]
                    self.resume(job)
                    return job
        return None

    def drop(self, before: float) -> list[Job]:
        """Take out the jobs that wait since `before` or longer."""
        waiting = [job for queue in self._waiting.values() for job in queue]
        dropped = [job for job in waiting if job.queued <= before]
        for job in dropped:
            del self._waiting[job.priority][job]
        return dropped

    def resume(self, job: Job) -> None:
        """The job has a stream, again if it rested."""
        self._running.add(job)

    def rest(self, job: Job) -> None:
        """The job has no stream: it is over, or sleeps before its next attempt."""
        self._running.discard(job)

    def short_of_streams(self) -> bool:
        """Whether bulk jobs wait though there are as many as `streams` allows."""
        bulk = len(self._waiting[Priority.READAHEAD]) + len(self._waiting[Priority.BACKGROUND])
        return bulk > 0 and self._together() >= self.streams.limit

    def free(self, priority: Priority) -> bool:
        """Whether there is a stream for a job of `priority`."""
        if priority is Priority.DEMAND:
            return len(self._running) < min(self.streams.limit + RESERVED_STREAMS, self._most)
        if self._together() >= self.streams.limit:
            return False
        bulk = (job.bytes_left for job in self._running if job.priority > Priority.DEMAND)
        return sum(bulk) < IN_FLIGHT_BYTES
