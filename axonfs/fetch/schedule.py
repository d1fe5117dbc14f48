"""Which job runs next: the most urgent first, and always a stream left for a reader.

Pure but for the jobs it holds: no I/O, no clock. Below fetcher.py, which runs what `take` gives.
Trio thread only.
"""

from __future__ import annotations

from axonfs.fetch.job import Job, Priority

# Streams that readahead and prefetch leave to demand, so a page fault never queues behind them.
RESERVED_STREAMS = 2


class Schedule:
    """Jobs that wait, in order within each priority, and jobs that run.

    Args:
        streams: the most that run at a time.
    """

    def __init__(self, streams: int) -> None:
        self._streams = streams
        self._running: set[Job] = set()
        # A dict is a queue from whose middle a job can be taken at no cost.
        self._waiting: dict[Priority, dict[Job, None]] = {priority: {} for priority in Priority}

    @property
    def running(self) -> int:
        return len(self._running)

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

    def take(self) -> Job | None:
        """The job to start now, counted as running from here on; None if there is none."""
        for priority, queue in self._waiting.items():
            if len(self._running) >= self._most(priority):
                return None
            for job in queue:
                if job.feed.may_start(job):
                    del queue[job]
                    self.resume(job)
                    return job
        return None

    def resume(self, job: Job) -> None:
        """The job has a stream, again if it rested."""
        self._running.add(job)

    def rest(self, job: Job) -> None:
        """The job has no stream: it is over, or sleeps before its next attempt."""
        self._running.discard(job)

    def _most(self, priority: Priority) -> int:
        spare = 0 if priority is Priority.DEMAND else RESERVED_STREAMS
        return max(self._streams - spare, 1)
