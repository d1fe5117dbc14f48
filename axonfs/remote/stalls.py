"""How long to wait for a source that lately made no progress for a whole deadline.

Pure: times in, seconds out. One `Stall` per origin, for documents and for bodies, and one per
object. While it is open each request still goes out, so that the first one that is answered ends
the stall and no reader sees an error that is out of date; it only waits for a short time. Failing
without a request was rejected for that reason: it would refuse readers of an origin that is back.

Between full waits the patience of a request grows with the time since the last one that waited
for `brief` seconds in vain: a burst of requests costs a tenth of a second each, and one of them
every few seconds is patient enough for an origin that is far away. Once in `again` seconds one
request waits as long as it would without a stall, for an origin that answers, but slowly.
"""

from __future__ import annotations

from axonfs.errors import AxonError

# Seconds that a request waits for a stalled source: at least, and at the most.
FLOOR, BRIEF = 0.1, 2.0
# The most is also this part of the deadline, so that little is paid on top of it.
BRIEF_PART = 8
# One request in so many seconds (or once in a deadline, if that is longer) has full patience.
AGAIN = 30.0


class Stall:
    """Whether a source stalls, and how much patience it still gets.

    Args:
        deadline: seconds without progress after which it stalls.
    """

    def __init__(self, deadline: float) -> None:
        self.error: AxonError | None = None  # what opened it; None while the source does well
        self._deadline = deadline
        self._brief = max(min(BRIEF, deadline / BRIEF_PART), FLOOR)
        self._since = float("-inf")  # of the last progress, or of the first request after a pause
        self._waited = self._full_at = 0.0
        self._asked = 0

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
        """How long a request that goes out now waits for each answer; None for as long as ever."""
        if self.error is None:
            return None
        if now >= self._full_at:
            self._full_at = now + max(AGAIN, self._deadline)
            return None
        return min(max(now - self._waited, FLOOR), self._brief)

    def failed(self, now: float, error: AxonError, patience: float | None = None) -> None:
        """A request made no progress: one with full patience opens the stall.

        Args:
            patience: what the request had.
        """
        if patience is None:
            self.error = error
            self._full_at = now + max(AGAIN, self._deadline)
        if patience is None or patience >= self._brief:
            self._waited = now
