"""How fast an attempt of a job lands its bytes, and whether that is far less than what is usual.

Pure: times and bytes in, numbers out. A *straggler* is a job that falls far behind the other jobs
of its origin: the path of its connection stalls, or loses packets. Rates are of late, not of the
whole attempt, since a connection may stall in the middle of an answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# A straggler brings less than one part in so many of what is usual.
FACTOR = 4
# Seconds over which it does so at least. A lost packet, or a busy processor, costs up to 0.5 s.
WINDOW = 0.75
# The same until the first bytes land, which takes the round trips of a new connection, and may take
# so many times what is usual: the usual answer comes on a connection that was there.
FIRST_WINDOW, FIRST_FACTOR = 1.0, 8
# A rate is of so many landings at least; several are often reported together.
LANDINGS = 4
# More than land within a window; an answer without ranges may be of a million chunks.
REMEMBERED = 4096
# Jobs that bring less say more of the latency than of the rate.
SAMPLE_BYTES = 256 << 10
# What is usual is the median of so many other jobs at least; some may have ended seconds ago.
SAMPLES, SAMPLE_SECONDS = 3, 10.0


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """Bytes per second of a job of late, and the seconds until its first bytes landed."""

    time: float
    rate: float
    first: float


class Pace:
    """The landings of one attempt.

    Args:
        unit: bytes that land at a time.
        now: when the request is sent.
    """

    def __init__(self, unit: int, now: float) -> None:
        self.unit = unit
        self._asked = now
        self._first: float | None = None
        self._landings = deque[tuple[float, int]](maxlen=REMEMBERED)
        self.size = 0  # the bytes that landed

    def landed(self, size: int, now: float) -> None:
        """Note that `size` bytes landed."""
        if self._first is None:
            self._first = now - self._asked
        self._landings.append((now, size))
        self.size += size

    def held_up(self, seconds: float) -> None:
        """Take no account of the last `seconds`, in which this process did not receive."""
        self._asked += seconds
        later = [(time + seconds, size) for time, size in self._landings]
        self._landings = deque(later, maxlen=REMEMBERED)

    def sample(self, now: float) -> Sample | None:
        """What this job says of its origin; None while it says nothing."""
        before = self._landings[-LANDINGS - 1][0] if len(self._landings) > LANDINGS else self._asked
        since = max(min(before, now - WINDOW), self._asked)
        size = self._landed_after(since)
        if size < SAMPLE_BYTES and now - since < WINDOW:
            return None
        first = now - self._asked if self._first is None else self._first
        return Sample(now, size / max(now - since, 1e-3), first)

    def behind(self, now: float, others: Sequence[Sample]) -> bool:
        """Whether the job is a straggler among `others`."""
        usual = median(other.rate for other in others)
        window, since = max(WINDOW, FACTOR * self.unit / max(usual, 1)), self._asked
        if self._first is None:
            first = median(other.first for other in others)
            window = max(window, FIRST_WINDOW, FIRST_FACTOR * first)
        else:
            since += self._first
        return now - since >= window and self._landed_after(now - window) * FACTOR < usual * window

    def silent(self, now: float, seconds: float = WINDOW) -> bool:
        """Whether nothing landed for so long."""
        last = self._landings[-1][0] if self._landings else self._asked
        return now - last >= seconds

    def _landed_after(self, then: float) -> int:
        return sum(size for time, size in self._landings if time > then)


def compared(running: Sequence[Sample], ended: Sequence[Sample], now: float) -> list[Sample]:
    """What a job is compared with: the other jobs that run, and the last ones that ended if those
    are few. Empty if both are too few."""
    late = [sample for sample in reversed(ended) if now - sample.time < SAMPLE_SECONDS]
    found = [*running, *late[: max(SAMPLES - len(running), 0)]]
    return found if len(found) >= SAMPLES else []
