"""Measures how late the event loop is, and lets other threads see that it stands still.

A task in the trio thread beats twice a second. `silent` may be called in any thread.
"""

from __future__ import annotations

import time

import trio

from axonfs.observe.family import Distribution

BEAT = 0.5
# Seconds; a beat that is later counts in the last bucket.
BOUNDS = (0.001, 0.004, 0.016, 0.064, 0.256, 1.0, 4.0, 16.0)


class Pulse:
    """How late each beat was."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._count = 0
        self._seconds = 0.0
        self._buckets = dict.fromkeys(BOUNDS, 0)

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            due = trio.current_time() + BEAT
            self._last = time.monotonic()
            await trio.sleep_until(due)
            self._beat(trio.current_time() - due)

    def _beat(self, late: float) -> None:
        self._count += 1
        self._seconds += late
        bound = next((bound for bound in BOUNDS if late <= bound), None)
        if bound is not None:
            self._buckets[bound] += 1

    def silent(self) -> float:
        """Seconds for which the event loop has been late by now; 0 while it is on time."""
        return max(time.monotonic() - self._last - 2 * BEAT, 0.0)

    @property
    def lag(self) -> Distribution:
        """How late its beats were."""
        return Distribution(self._count, self._seconds, dict(self._buckets))
