"""Rates of counters, from the moments at which they were read. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

SPAN = 5.0  # seconds over which a rate is the average
HISTORY = 60  # moments that `Trend` keeps
_BLOCKS = "▁▂▃▄▅▆▇█"


class _Counter:
    """The last moments of one counter, and when it last grew."""

    def __init__(self, now: float, value: float) -> None:
        self.moments = deque([(now, value)])
        self.grew = now

    def note(self, now: float, value: float) -> None:
        if value > self.value:
            self.grew = now
        self.moments.append((now, value))
        while len(self.moments) > 2 and now - self.moments[1][0] >= SPAN:
            self.moments.popleft()

    @property
    def value(self) -> float:
        return self.moments[-1][1]

    @property
    def rate(self) -> float | None:
        (began, first), (now, last) = self.moments[0], self.moments[-1]
        return (last - first) / (now - began) if now > began else None


class Rates:
    """The rates of many counters, by any key; those that are no longer noted are forgotten."""

    def __init__(self) -> None:
        self._counters: dict[Hashable, _Counter] = {}
        self._noted: set[Hashable] = set()
        self._now = 0.0

    def begin(self, now: float) -> None:
        """Begin with the counters of another moment, in seconds."""
        self._counters = {key: self._counters[key] for key in self._noted}
        self._noted = set()
        self._now = now

    def note(self, key: Hashable, value: float) -> float | None:
        """The rate of a counter with this value now; None before its second moment."""
        known = self._counters.get(key)
        if known is None or value < known.value:  # it is new, or begins again
            self._counters[key] = _Counter(self._now, value)
        else:
            known.note(self._now, value)
        self._noted.add(key)
        return self._counters[key].rate

    def idle(self, key: Hashable) -> float:
        """Seconds since the counter last grew, or since it was first noted."""
        return self._now - self._counters[key].grew


class Trend:
    """The last values of one figure, as a row of blocks."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=HISTORY)

    def note(self, value: float) -> None:
        """Add the value of this moment."""
        self._values.append(value)

    def blocks(self, length: int) -> str:
        """The last `length` values, the newest at the right; empty if all are 0."""
        last = list(self._values)[-length:]
        most = max(last, default=0)
        if most <= 0:
            return ""
        return "".join(_BLOCKS[round(value / most * (len(_BLOCKS) - 1))] for value in last)
