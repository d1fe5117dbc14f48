"""Whether the cache's disk does what it should: one warning when it begins to fail, one line when
it works again.

Beside backing and index, which do not know it: whoever meets the disk's errors tells it.
Any thread.
"""

from __future__ import annotations

import logging
import threading
import time

from axonfs import descriptors
from axonfs.errors import NoSpaceError

log = logging.getLogger(__name__)

# What the disk raises: a full one, or any other fault.
DISK_FAULTS = (OSError, NoSpaceError)
# A disk that is nearly full takes one chunk and refuses the next: not worth a line each time.
SETTLED_SECONDS = 5.0
REPEAT_SECONDS = 300.0


class Health:
    """What the disk refuses at the moment, and since when; `fault` is None while all is well.

    `full` says that something found no room, until somebody has made some.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self.since = 0.0
        self.full = False
        self._last = self._warned = float("-inf")
        self._lock = threading.Lock()

    def failed(self, exc: Exception) -> None:
        """The disk raised `exc`. A shortage of descriptors or memory is no fault of the disk."""
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
                log.log(level, "%s; what it does not take is read from the source each time", exc)
            self.fault = exc.what if isinstance(exc, NoSpaceError) else str(exc)

    def worked(self) -> None:
        """The disk took something; believed once it has refused nothing for a while."""
        if self.fault is not None and time.monotonic() - self._last >= SETTLED_SECONDS:
            self.recovered()

    def recovered(self) -> None:
        """The disk takes what it should."""
        with self._lock:
            failed, self.fault, self.full = self.fault, None, False
        if failed:
            log.info("the cache's disk works again")
