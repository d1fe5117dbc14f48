"""How many streams to use: more while that brings more, fewer when a source finds it too many.

Pure: bytes and times in, numbers out. The fetcher tells what landed and what was refused, and
starts no more bulk jobs than `limit`.

It climbs: while jobs wait for a stream, the rate of a period is compared with that of the period
before the last step. A step that did not pay is taken back, and the next try waits twice as long.
On 429 or 503 the number is halved, and from there it grows by one at a time.
"""

from __future__ import annotations

# Four fill a gigabit at 80 ms, and one processor.
FIRST = 4
# Seconds over which a rate is measured; a new connection takes some round trips to its full speed.
PERIOD = 0.5
# A period may be so short if so many bytes came in it: a fast host is done with a model in seconds.
SHORT_PERIOD, PERIOD_BYTES = 0.1, 256 << 20
# A step pays if it brings at least so much of what the new streams would bring if all were alike.
GAIN = 0.35
# Seconds until a step that did not pay is tried again, and the doubling's end.
PATIENCE, PATIENCE_MAX = 4.0, 64.0
# Refusals within this many seconds are answers to the same streams: they count once.
BURST = 1.0


class Streams:
    """The number of streams for bulk work, between 1 and `most`."""

    def __init__(self, most: int) -> None:
        self.limit = max(min(FIRST, most), 1)
        self.rate = 0.0  # bytes per second, in the last whole period
        self._most = max(most, 1)
        self._began = 0.0
        self._bytes = 0
        self._short = False  # a job waited for a stream in this period
        self._settling = False
        self._before: tuple[int, float] | None = None  # limit and rate before the last step
        self._patience = PATIENCE
        self._not_before = 0.0
        self._refused = float("-inf")
        self._step = FIRST

    def current_rate(self, now: float) -> float:
        """Bytes per second of late, 0 if nothing lands any more."""
        return self.rate if now - self._began < 4 * PERIOD else 0.0

    def landed(self, count: int, now: float, *, short: bool) -> None:
        """`count` bytes arrived; `short` says whether a bulk job waits for want of a stream."""
        if now - self._began >= 4 * PERIOD:  # idle in between: no rate to compare
            self._begin(now)
            self._before = None
        self._bytes += count
        self._short = self._short or short
        if self._is_over(now):
            self.rate = self._bytes / (now - self._began)
            short_of_streams = self._short
            self._begin(now)
            self._judge(now, short=short_of_streams)

    def refused(self, now: float) -> None:
        """A source answered 429 or 503."""
        if now - self._refused < BURST:
            return
        self._refused = now
        self.limit = max(self.limit // 2, 1)
        self._step = 1
        self._before = None
        self._wait(now)

    def _is_over(self, now: float) -> bool:
        """Whether the period was long enough for a rate."""
        return now - self._began >= (SHORT_PERIOD if self._bytes >= PERIOD_BYTES else PERIOD)

    def _begin(self, now: float) -> None:
        self._began, self._bytes, self._short = now, 0, False

    def _judge(self, now: float, *, short: bool) -> None:
        if self._settling:
            self._settling = False
            return
        if self._before is not None:
            limit, rate = self._before
            self._before = None
            if self.rate < rate * (1 + GAIN * (self.limit / limit - 1)):
                self.limit = limit
                self._wait(now)
                return
            self._patience = PATIENCE
        if short and now >= self._not_before and self.limit < self._most:
            self._before = self.limit, self.rate
            self.limit = min(self.limit + self._step, self._most)
            self._settling = True

    def _wait(self, now: float) -> None:
        self._not_before = now + self._patience
        self._patience = min(self._patience * 2, PATIENCE_MAX)
