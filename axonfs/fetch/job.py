"""One ranged GET: which chunks it brings, how urgent it is, how far it is.

Below feed and schedule, which own jobs. Trio thread only, but for `superfluous`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import trio

from axonfs.errors import AxonError
from axonfs.ranges import Range

if TYPE_CHECKING:
    from axonfs.fetch.feed import Feed
    from axonfs.fetch.lane import Lane


class Priority(IntEnum):
    """Who goes first; a lower number is more urgent."""

    DEMAND = 0  # a reader waits
    READAHEAD = 1  # a reader will come here if it goes on as it does
    PREFETCH = 2  # asked for as a whole: `pin`, or a load that was foreseen


class Job:
    """One ranged GET for the chunks of a feed; `next` is the first that is not local."""

    def __init__(self, feed: Feed, chunks: Range, priority: Priority) -> None:
        self.feed = feed
        self.chunks = chunks
        self.next = chunks.start
        self.priority = priority
        self.running = False
        self.superfluous = False  # nobody waits for the rest of it; read by the worker thread
        self.progress = 0.0
        self.lane: Lane | None = None  # where it waits or runs
        self.redirected = False  # into that lane, by an answer
        self.queued = self.asked = 0.0  # when it began to wait last, and its last request
        self.attempts = self.corrupt = 0  # in a row without progress, and with wrong bytes
        self.nodes = 0  # that answered with another ETag

    def remaining(self) -> bool:
        """Whether a chunk of the job is still absent; moves `next` over those that are there."""
        missing = self.feed.local.missing(self.next, self.chunks.stop)
        self.next = missing[0].start if missing else self.chunks.stop
        return bool(missing)

    @property
    def bytes_left(self) -> int:
        """How many bytes the job still brings."""
        return self.bytes_before(self.chunks.stop)

    def bytes_before(self, chunk: int) -> int:
        """How many bytes the job still brings before it comes to `chunk`."""
        self.remaining()
        return max(chunk - self.next, 0) * self.feed.object.chunk_size

    def cut(self, chunk: int) -> Job:
        """Leave the chunks from `chunk` on to a new job, which is returned; not while it runs."""
        tail = Job(self.feed, Range(chunk, self.chunks.stop), self.priority)
        self.chunks = Range(self.chunks.start, chunk)
        return tail


class Landing:
    """What waiters of one chunk wait for; `data` has its bytes where the disk did not take them."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.error: AxonError | None = None
        self.data: bytes | None = None
