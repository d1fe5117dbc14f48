"""One thread at a time writes to a backing file, and who reads it for a digest learns of it.

Below objects. Threading: any thread.
"""

from __future__ import annotations

import threading
from types import TracebackType


class Writing:
    """A lock around each write to one file; the fields are read while it is held.

    The kernel lets only one thread write to a file at a time, while the others spin.
    """

    __slots__ = ("_lock", "_read_to", "count", "overwrites")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_to = 0  # chunks before this one were read for a digest, or are about to be
        self.count = 0  # of writes
        self.overwrites = 0  # those of chunks before it

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def begin(self, chunk: int) -> None:
        """Chunks from `chunk` on are written; the lock is held."""
        self.count += 1
        self.overwrites += chunk < self._read_to

    def reads(self, chunk: int) -> int:
        """`chunk` is about to be read for a digest; returns `overwrites`. The lock is held."""
        self._read_to = max(self._read_to, chunk + 1)
        return self.overwrites
