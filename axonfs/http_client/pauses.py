"""Which origins have asked this host for a pause, by Retry-After; until then nobody asks them.

All requests of a process to an origin wait, not only the one that was refused: a hub counts the
requests of an address, and one that comes too early may prolong the pause. The end of a pause
differs from host to host, so that a fleet that was refused together does not come back together.
Only the archive layers of OCI models (sources/near.py) are asked for at once.
Trio thread only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import trio

from axonfs.http_client.urls import Origin

MOST = 256  # origins that are remembered; beyond that all are forgotten
# The end of a pause is later by up to this part of it, and by up to so many seconds.
LATER, LATER_SECONDS = 0.5, 10.0


class Pauses:
    """The pauses that origins have asked one process for.

    Args:
        draw: a number from 0 to 1, each time another one.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._until: dict[Origin, float] = {}

    def asked(self, origin: Origin, seconds: float) -> None:
        """Note that `origin` asked for a pause of so many seconds."""
        later = min(seconds * LATER, LATER_SECONDS) * self._draw()
        until = trio.current_time() + seconds + later
        if len(self._until) >= MOST:
            self._until.clear()
        self._until[origin] = max(until, self._until.get(origin, -math.inf))

    def left(self, origin: Origin) -> float:
        """Seconds until `origin` may be asked again; 0 if it may now."""
        until = self._until.get(origin, -math.inf)
        left = until - trio.current_time()
        if left <= 0:
            self._until.pop(origin, None)
        return max(left, 0.0)
