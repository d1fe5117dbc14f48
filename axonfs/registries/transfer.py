"""Jobs that read objects in a few threads, and how far they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from axonfs.errors import StoppedError

THREADS = 4
Progress = Callable[[int, int], object]  # called with the bytes that are done, and those of all


class Transfer:
    """Reads `total` bytes in all; `progress` is called in one thread at a time."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._stopped = False
        self._lock = threading.Lock()

    def moved(self, count: int) -> None:
        """Count the bytes of a piece.

        Raises:
            StoppedError: another job failed, or the user interrupted the command.
        """
        if self._stopped:
            raise StoppedError("stopped")
        with self._lock:
            self._done += count
            self._progress(self._done, self._total)

    def run(self, jobs: Sequence[Callable[[], object]]) -> None:
        """Run the jobs. The first exception is raised; the others end at their next piece."""
        with ThreadPoolExecutor(THREADS, thread_name_prefix="object") as pool:
            futures = [pool.submit(job) for job in jobs]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                failed = [one for one in futures if one.done() and one.exception()]
                for one in failed or futures:
                    one.result()
            except BaseException:
                self._stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise
