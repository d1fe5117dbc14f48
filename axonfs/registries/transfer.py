"""Jobs that read objects in a few threads, and how far they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from axonfs.errors import StoppedError
from axonfs.futures import until_one_fails

THREADS = 4
Progress = Callable[[int, int], object]  # called with the bytes that are done, and those of all


class Transfer:
    """Reads `total` bytes in all; `progress` is called in one thread at a time.

    Once `stopped`, jobs read no more.
    """

    def __init__(self, total: int = 0, progress: Progress = lambda done, total: None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self.stopped = False
        self._lock = threading.Lock()

    def moved(self, count: int) -> None:
        """Count the bytes of a piece.

        Raises:
            StoppedError: another job failed, or the user interrupted the command.
        """
        if self.stopped:
            raise StoppedError("stopped")
        with self._lock:
            self._done += count
            self._progress(self._done, self._total)

    def run(self, jobs: Sequence[Callable[[], object]]) -> None:
        """Run the jobs. The first exception is raised; the other jobs end within a moment."""
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="object")
        try:
            futures = [pool.submit(job) for job in jobs]
            until_one_fails(futures)
            failed = [one for one in futures if one.done() and one.exception()]
            for one in failed or futures:
                one.result()
        except BaseException as exc:
            self.stopped = True
            # After Ctrl-C a job may wait for a document, until the reader that it asks is closed.
            pool.shutdown(wait=isinstance(exc, Exception), cancel_futures=True)
            raise
        pool.shutdown()
