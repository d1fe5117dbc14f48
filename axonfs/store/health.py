"""Tracks whether the cache's disk works: logs a warning when it fails and a line when it recovers.

Beside backing and index, which do not use it: their callers report the disk's errors here. Any
thread.
"""

from __future__ import annotations

import logging
import threading
import time

from axonfs import descriptors
from axonfs.errors import NoSpaceError, ShortageError

log = logging.getLogger(__name__)

# The exceptions of a disk that is full or fails.
DISK_FAULTS = (OSError, NoSpaceError)
# Seconds without an error until the disk counts as working: a nearly full disk accepts one chunk
# and refuses the next, which should not log a line each time.
SETTLED_SECONDS = 5.0
REPEAT_SECONDS = 300.0


class Health:
    """The disk's current fault and its start; `fault` is None while the disk works.

    `full` is set when a write found no space, until an eviction has made some.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self.since = 0.0
        self.full = False
        self._last = self._warned = float("-inf")
        self._lock = threading.Lock()

    def failed(self, exc: Exception) -> None:
        """Report an error of the disk. A shortage of this process does not count."""
        if isinstance(exc, ShortageError):
            return
        if descriptors.is_shortage(exc):
            descriptors.complain(exc)
            return
        with self._lock:
            now = self._last = time.monotonic()
            self.full = self.full or isinstance(exc, NoSpaceError)
            if self.fault is None:
                self.since = time.time()
                again = now - self._warned < REPEAT_SECONDS
                level = logging.INFO if again else logging.WARNING
                self._warned = now
                log.log(level, "%s; chunks that cannot be cached are fetched for each read", exc)
            self.fault = exc.what if isinstance(exc, NoSpaceError) else str(exc)

    def worked(self) -> None:
        """Report a successful write; the fault ends once there was no error for a while."""
        if self.fault is not None and time.monotonic() - self._last >= SETTLED_SECONDS:
            self.recovered()

    def recovered(self) -> None:
        """End the fault."""
        with self._lock:
            failed, self.fault, self.full = self.fault, None, False
        if failed:
            log.info("the cache's disk works again")
