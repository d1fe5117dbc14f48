"""Who is told what becomes of each job: a recording, while there is one.

Between download and network. A `Network` has one watcher, `UNWATCHED` by default.
"""

from __future__ import annotations

from typing import Protocol

from axonfs.errors import AxonError
from axonfs.fetch.download import Job
from axonfs.ranges import Range


class Watcher(Protocol):
    """Is told in the trio thread; must not block, and must not raise."""

    def queued(self, job: Job) -> None:
        """A job waits for a stream: a new one, or one that is to be tried again."""

    def asked(self, job: Job) -> None:
        """A request for the bytes of a job goes out: `job.cache` or `job.version` says to whom."""

    def landed(self, job: Job, chunks: Range) -> None:
        """Chunks of a job, which may be over, have landed."""

    def ended(self, job: Job, error: AxonError | None) -> None:
        """A job is over, or was given up because of `error`."""


class _Unwatched:
    def queued(self, job: Job) -> None:
        pass

    def asked(self, job: Job) -> None:
        pass

    def landed(self, job: Job, chunks: Range) -> None:
        pass

    def ended(self, job: Job, error: AxonError | None) -> None:
        pass


UNWATCHED: Watcher = _Unwatched()
