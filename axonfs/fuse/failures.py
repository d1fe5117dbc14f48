"""Recent errors: one log line for each, and the list that `status` shows.

A reader that dies of SIGBUS does not say why; the cause can be found here. Trio thread only.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import deque
from typing import Any

from axonfs.errors import AxonError, NoRegistryError, fault_of

log = logging.getLogger(__name__)

KEPT = 50
# The same message is logged once in this many seconds: a reader's retries must not fill the log.
REPEAT_AFTER = 10.0


class Failures:
    """The last errors that readers of the mount got."""

    def __init__(self) -> None:
        self._recent: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._logged: dict[str, float] = {}

    def note(self, error: AxonError) -> None:
        """Log `error` and keep it for `status`. Skip names that do not exist, unless the reason is
        that no registry is configured."""
        if error.errno == errno.ENOENT and not isinstance(error, NoRegistryError):
            return
        text, now = str(error), time.monotonic()
        if now - self._logged.get(text, -REPEAT_AFTER) < REPEAT_AFTER:
            return
        self._logged = {key: at for key, at in self._logged.items() if now - at < REPEAT_AFTER}
        self._logged[text] = now
        about = {"spec": error.spec, "path": error.path, "source": error.source}
        self._recent.append(
            {
                "time": time.time(),
                "errno": error.errno,
                "message": text,
                "cause": error.what,
                **about,
            }
        )
        log.error("%s [%s]", error, errno.errorcode.get(error.errno, str(error.errno)))

    def errno_of(self, exc: Exception, what: str, path: str) -> int:
        """The error for the reader of `path`, after `exc` was noted; a bug in `what` is EIO."""
        if isinstance(exc, AxonError):
            self.note(exc)
            return exc.errno
        if isinstance(exc, OSError):
            hint = "look at the disk of the cache: axonfs status, df, dmesg"
            failure = AxonError(f"{what} failed: {exc.strerror or exc}", path=path, hint=hint)
            failure.errno = exc.errno or errno.EIO
            self.note(failure)
            return failure.errno
        if (fault := fault_of(exc)) is not None:
            self.note(fault)
            return fault.errno
        log.error("a bug in %s; please report it", what, exc_info=exc)
        return errno.EIO

    def recent(self) -> list[dict[str, Any]]:
        """The errors that are kept, oldest first."""
        return list(self._recent)
