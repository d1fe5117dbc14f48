"""Landings on their way from the threads that receive to the trio thread, several at a time.

Between transfer, which reports them, and runner, which takes them. A turn of the trio thread costs
as much as receiving some hundred KiB. So a landing wakes it at once only if someone waits for its
chunks and is not told otherwise. The others are taken with the next ones after a moment, when their
job ends, and when a task is about to wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import trio

from axonfs.fetch.download import Job
from axonfs.ranges import Range

# Seconds after which a landing brings all that wait here along.
MOMENT = 0.02

Take = Callable[[Job, Range, int, bytes | None], None]


class Arrivals:
    """The landings that the trio thread does not know yet; made in that thread.

    Args:
        take: called in the trio thread with each: the job, the chunks that landed, their size, and
            their bytes where the disk did not take them.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._token = trio.lowlevel.current_trio_token()
        self._landings = deque[tuple[Job, Range, int, bytes | None]]()
        self._taken = time.monotonic()

    def put(self, job: Job, chunks: Range, size: int, data: bytes | None) -> None:
        """Hand over a landing; any thread."""
        self._landings.append((job, chunks, size, data))
        # After the append: a task that begins to wait looks here afterwards.
        late = time.monotonic() - self._taken > MOMENT
        if late or data is not None or job.download.urgent(chunks):
            self._token.run_sync_soon(self.take, idempotent=True)

    def take(self) -> None:
        """Take what has landed until now; trio thread, no checkpoint."""
        self._taken = time.monotonic()
        while self._landings:
            self._take(*self._landings.popleft())
