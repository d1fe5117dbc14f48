"""The limit on bytes per second that come from all sources together, and who may receive next.

Below network. A worker thread asks for a share before it receives, so bytes that are held back stay
in the socket, and TCP slows the source down. The most urgent job has the next share, jobs of one
priority take turns. Without a limit no lock is taken.

Any thread may call every method.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from axonfs.steps import Cause, Step
from axonfs.units import size

# A share is what the limit allows in this many seconds, within these bytes. Shares are small, so
# that a reader waits for few of them; below 64 KiB a receive costs more than its bytes.
SHARE_SECONDS, SMALLEST, LARGEST = 0.05, 16 << 10, 1 << 20
# What was not used may be made up for: this many seconds of it after a time in which no thread
# waited, and more if threads waited and woke up late, as on a busy machine.
UNUSED_SECONDS, LATE_SECONDS = 0.1, 0.5
# After this many seconds a share is due out of turn, whatever else waits: servers close connections
# that stand still, and the pin that uses such a connection would fail. So that readers keep most of
# a low limit, one of so many shares goes out of turn.
STARVED_SECONDS, STARVED_PART = 10.0, 4
# Seconds between two looks at whether the reader was cancelled.
TICK = 0.2


class _Waiter:
    """A thread that waits for a share."""

    def __init__(self, priority: Callable[[], int], lock: threading.Lock) -> None:
        self.priority = priority
        self._since = time.monotonic()
        self.turn = threading.Condition(lock)

    def starved(self, now: float) -> bool:
        return now - self._since >= STARVED_SECONDS


class Bandwidth:
    """A limit of `rate` bytes per second; 0 is none."""

    def __init__(self, rate: int = 0) -> None:
        self._rate = rate
        self.hint: str | None = None  # what to do about the limit, if that is not the usual
        self._lock = threading.Lock()
        self._waiters: list[_Waiter] = []  # in the order in which they came
        self._due = 0.0  # when the next share may be taken
        self._in_turn = STARVED_PART  # shares since the last one that went out of turn

    @property
    def rate(self) -> int:
        """The limit; a new one counts at once, also for threads that wait."""
        return self._rate

    @rate.setter
    def rate(self, rate: int) -> None:
        with self._lock:
            self._rate = rate
            self._due = min(self._due, time.monotonic())
            for waiter in self._waiters:
                waiter.turn.notify()

    def share(
        self, most: int, priority: Callable[[], int], cancelled: Callable[[], bool] = bool
    ) -> int:
        """How many of the next `most` bytes may be received now; blocks until it is at least one.

        Args:
            priority: asked again and again, since a reader may come; a lower number goes first.
            cancelled: once it returns true, `share` returns within a moment.
        """
        if not self._rate:
            return most
        with self._lock:
            if not self._waiters:
                self._due = max(self._due, time.monotonic() - UNUSED_SECONDS)
            waiter = _Waiter(priority, self._lock)
            self._waiters.append(waiter)
            try:
                text = f"held by the mount's bandwidth of {size(self._rate)}/s"
                with Step(Cause.BANDWIDTH, text, hint=self.hint):
                    while not cancelled():
                        if (pause := self._pause(waiter)) <= 0:
                            return self._take(waiter, most)
                        waiter.turn.wait(min(pause, TICK))
                return most  # which it does not receive, so nobody waits for that
            finally:
                self._waiters.remove(waiter)
                if self._waiters:
                    self._first(time.monotonic()).turn.notify()

    def _pause(self, waiter: _Waiter) -> float:
        """Seconds until the turn of `waiter` may come, 0 if it has come. The caller holds the
        lock."""
        now = time.monotonic()
        if not self._rate:
            return 0.0
        if self._first(now) is not waiter:
            return TICK
        return self._due - now

    def _first(self, now: float) -> _Waiter:
        starved = (waiter for waiter in self._waiters if waiter.starved(now))
        late = next(starved, None) if self._in_turn >= STARVED_PART - 1 else None
        return late or min(self._waiters, key=lambda waiter: waiter.priority())

    def _take(self, waiter: _Waiter, most: int) -> int:
        """Take a share for `waiter`. The caller holds the lock."""
        if not self._rate:
            return most
        in_turn = waiter.priority() <= min(other.priority() for other in self._waiters)
        self._in_turn = self._in_turn + 1 if in_turn else 0
        usual = int(self._rate * SHARE_SECONDS)
        share = min(most, max(min(usual, LARGEST), SMALLEST))
        begins = max(self._due, time.monotonic() - LATE_SECONDS)
        self._due = begins + share / self._rate
        return share
