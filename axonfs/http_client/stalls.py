"""How long to wait for a source that made no progress for a whole deadline.

Pure: takes times, returns seconds. Each origin has one `Stall` for documents and one for bodies,
and each object has one. While a stall is open, requests are still sent, but they wait only for a
short time. So the first answer ends the stall, and no reader gets a stale error. Failing requests
without sending them was rejected, because readers would get errors after the origin is back.

The patience of a request grows with the time since a request last waited BRIEF seconds without an
answer. In a burst each request waits one second, enough for a healthy origin that is far away. One
request every few seconds waits longer, enough for a slow origin. Once in AGAIN seconds one request
waits as long as it would without a stall.

A source that fails at once (it refuses connections, or its name has no address) costs no waiting,
so patience has no limit there: the next answer ends the stall, however slow it is.
"""

from __future__ import annotations

import math

from axonfs.errors import AxonError

# The minimum and maximum seconds that a request waits for a stalled source.
FLOOR, BRIEF = 1.0, 5.0
# Both are also limited to a fraction of the deadline, because the kernel retries a failed page
# fault several times.
FLOOR_PART, BRIEF_PART, LEAST = 60, 8, 0.1
# One request in this many seconds (or once in a deadline, if that is longer) has full patience.
AGAIN = 30.0
# A request that fails within this many seconds would also have failed with more patience.
AT_ONCE = 0.5


class Stall:
    """Whether a source stalls, and how long requests to it wait.

    Args:
        deadline: seconds without progress after which it stalls.
    """

    def __init__(self, deadline: float) -> None:
        self.error: AxonError | None = None  # opened the stall; None if the source does not stall
        self._deadline = deadline
        self._floor = max(min(FLOOR, deadline / FLOOR_PART), LEAST)
        self._brief = max(min(BRIEF, deadline / BRIEF_PART), LEAST)
        self._since = float("-inf")  # time of the last progress, or of the first request since idle
        self._waited = self._full_at = 0.0
        self._asked = 0
        self._at_once = False  # whether the last request failed at once
        self.vain = -math.inf  # when a request with more than the minimum patience last failed

    @property
    def open(self) -> bool:
        """Whether the source made no progress for a deadline, and has made none since then."""
        return self.error is not None

    def began(self, now: float) -> None:
        """Note that a request starts; `ended` must follow."""
        if not self._asked:
            self._since = max(self._since, now)
        self._asked += 1

    def ended(self) -> None:
        """Note that a request ended, with or without success."""
        self._asked -= 1

    def progressed(self, now: float) -> None:
        """Note progress of the source, which ends the stall."""
        self._since = now
        self.error = None

    def overdue(self, now: float) -> bool:
        """Whether requests were in flight for a deadline without progress."""
        return now - self._since >= self._deadline

    def silent(self, since: float) -> bool:
        """Whether the source made no progress since the time `since`."""
        return self._since <= since

    def patience(self, now: float) -> float | None:
        """How long a request that starts now waits for each byte, in seconds.

        None without a stall, and for the one request with full patience that tests whether the
        source is back. Infinity for full patience without retries.
        """
        if self.error is None:
            return None
        if self._at_once:
            return math.inf
        if now >= self._full_at:
            self._full_at = now + max(AGAIN, self._deadline)
            return None
        return min(max(now - self._waited, self._floor), self._brief)

    def failed(
        self,
        now: float,
        error: AxonError,
        patience: float | None = None,
        *,
        asked: float = -math.inf,
    ) -> None:
        """Note that a request failed without progress. One with full patience opens the stall.

        Args:
            patience: the patience of the request.
            asked: when its last attempt started.
        """
        self._at_once = now - asked < min(AT_ONCE, math.inf if patience is None else patience)
        if patience is None:
            self.error = error
            self._full_at = now + max(AGAIN, self._deadline)
        if patience is None or patience >= self._brief:
            self._waited = now
