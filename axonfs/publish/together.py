"""Runs one step of a publish for every file, in a few threads, and counts what was done.

Below the publishers. Blocking.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from axonfs.errors import AxonError
from axonfs.futures import until_one_fails
from axonfs.publish.scan import SourceFile

T = TypeVar("T")

# A copy is limited by its digests; more than four copies compete for the disk.
MAX_THREADS = 4


@dataclass(frozen=True, slots=True)
class PublishProgress:
    """How far a publish has come; `path` is the file of the last piece."""

    bytes_done: int
    bytes: int
    path: str


@contextlib.contextmanager
def pool(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that have ended at the end of the block. After an exception in it queued jobs never
    start. After an interrupt nobody waits for running ones: they may wait for a server."""
    made = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield made
    except BaseException as exc:
        made.shutdown(wait=isinstance(exc, Exception), cancel_futures=True)
        raise
    made.shutdown()


class Together:
    """One step for each of `files`.

    Args:
        progress: called for each piece, in one thread at a time. An exception from it ends the
            publish.
    """

    def __init__(
        self, files: Sequence[SourceFile], progress: Callable[[PublishProgress], None] | None
    ) -> None:
        self._files = files
        self._size = sum(file.size for file in files)
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = False
        self._bytes_done = 0

    def run(self, step: Callable[[SourceFile], T]) -> list[T]:
        """The results of `step`, in the order of the files. The largest files come first, so that
        the threads end together."""
        order = sorted(range(len(self._files)), key=lambda at: self._files[at].size, reverse=True)
        threads = min(MAX_THREADS, os.cpu_count() or 1, len(order))
        try:
            with pool(threads, "publish") as workers:
                jobs = {at: workers.submit(step, self._files[at]) for at in order}
                until_one_fails(jobs.values())
                failed = [job for job in jobs.values() if job.done() and job.exception()]
                for job in failed:
                    self._stopped = True
                    job.result()
                return [jobs[at].result() for at in range(len(self._files))]
        except BaseException:
            self._stopped = True
            raise

    def moved(self, path: str, count: int) -> None:
        """Count bytes of a file as done.

        Raises:
            AxonError: another step has failed.
        """
        if self._stopped:
            raise AxonError("stopped")
        with self._lock:
            self._bytes_done += count
            if self._progress:
                self._progress(PublishProgress(self._bytes_done, self._size, path))
