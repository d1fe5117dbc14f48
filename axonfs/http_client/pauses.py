"""Which origins have asked this host for a pause, by Retry-After; until then nobody asks them.

All requests of a process to an origin wait, not only the one that was refused: a hub counts the
requests of an address, and one that comes too early may prolong the pause. The end of a pause
differs from host to host, so that a fleet that was refused together does not come back together.
Any thread.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from axonfs.http_client.urls import Origin

MOST = 256  # origins that are remembered; beyond that all are forgotten
# The end of a pause is later by up to this part of it, and by up to so many seconds.
LATER, LATER_SECONDS = 0.5, 10.0


class Pauses:
    """Those of one process.

    Args:
        draw: a number from 0 to 1, each time another one.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._until: dict[Origin, float] = {}
        self._lock = threading.Lock()

    def asked(self, origin: Origin, seconds: float) -> None:
        """Note that `origin` asked for a pause of so many seconds."""
        later = min(seconds * LATER, LATER_SECONDS) * self._draw()
        until = time.monotonic() + seconds + later
        with self._lock:
            if len(self._until) >= MOST:
                self._until.clear()
            self._until[origin] = max(until, self._until.get(origin, 0.0))

    def left(self, origin: Origin) -> float:
        """Seconds until `origin` may be asked again; 0 if it may now."""
        with self._lock:
            until = self._until.get(origin)
            left = 0.0 if until is None else until - time.monotonic()
            if until is not None and left <= 0:
                del self._until[origin]
            return max(left, 0.0)
