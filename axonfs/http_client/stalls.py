"""How long to wait for a source that lately made no progress for a whole deadline.

Pure: times in, seconds out. One `Stall` per origin, for documents and for bodies, and one per
object. While it is open each request still goes out, so that the first one that is answered ends
the stall and no reader sees an error that is out of date; it only waits for a short time. Failing
without a request was rejected for that reason: it would refuse readers of an origin that is back.

Between full waits the patience of a request grows with the time since the last one that waited
for BRIEF seconds in vain: a burst of requests costs a second each, which is enough for an origin
that is far away and does well, and one of them every few seconds is patient enough for one that
does not. Once in AGAIN seconds one request waits as long as it would without a stall.

A source that fails at once, since it refuses connections or has no address, is not waited for, so
patience has no limit there: what answers the next request, however slowly, ends the stall.
"""

from __future__ import annotations

import math

from axonfs.errors import AxonError

# Seconds that a request waits for a stalled source: at least, and at the most.
FLOOR, BRIEF = 1.0, 5.0
# Both are also a part of the deadline: little is paid on top of it, and the kernel tries a page
# fault that failed several times more.
FLOOR_PART, BRIEF_PART, LEAST = 60, 8, 0.1
# One request in this many seconds (or once in a deadline, if that is longer) has full patience.
AGAIN = 30.0
# A request that failed within this many seconds would have failed with more patience as well.
AT_ONCE = 0.5


class Stall:
    """Whether a source stalls, and how much patience it still gets.

    Args:
        deadline: seconds without progress after which it stalls.
    """

    def __init__(self, deadline: float) -> None:
        self.error: AxonError | None = None  # what opened it; None while the source does well
        self._deadline = deadline
        self._floor = max(min(FLOOR, deadline / FLOOR_PART), LEAST)
        self._brief = max(min(BRIEF, deadline / BRIEF_PART), LEAST)
        self._since = float("-inf")  # of the last progress, or of the first request after a pause
        self._waited = self._full_at = 0.0
        self._asked = 0
        self._at_once = False  # the last request failed at once
        self.vain = -math.inf  # when one last failed that had more than the least patience

    @property
    def open(self) -> bool:
        """Whether the source made no progress for a deadline, and none since."""
        return self.error is not None

    def began(self, now: float) -> None:
        """A request goes out; `ended` has to follow."""
        if not self._asked:
            self._since = max(self._since, now)
        self._asked += 1

    def ended(self) -> None:
        """A request is over, however."""
        self._asked -= 1

    def progressed(self, now: float) -> None:
        """The source did something useful: the stall is over."""
        self._since = now
        self.error = None

    def overdue(self, now: float) -> bool:
        """Whether requests were under way for a deadline, and none made progress."""
        return now - self._since >= self._deadline

    def silent(self, since: float) -> bool:
        """Whether a request that was under way since then saw no progress of the source."""
        return self._since <= since

    def patience(self, now: float) -> float | None:
        """How long a request that goes out now waits for each answer.

        None where there is no stall, and for a request that finds out whether there still is;
        infinity where it is as patient as these, but is not to be tried again.
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
        """A request made no progress: one with full patience opens the stall.

        Args:
            patience: what the request had.
            asked: when its last attempt went out.
        """
        self._at_once = now - asked < min(AT_ONCE, math.inf if patience is None else patience)
        if patience is None:
            self.error = error
            self._full_at = now + max(AGAIN, self._deadline)
        if patience is None or patience >= self._brief:
            self._waited = now
