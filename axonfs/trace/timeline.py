"""The times at which something happened, and where each is on an axis that leaves out the others.

Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

Interval = tuple[float, float]

# Pauses of at most TOGETHER seconds stay on the axis, and those of at most this part of all the
# time in which something happened.
TOGETHER, PART_TOGETHER = 2.0, 0.05
# A pause takes this part of the axis, but all of them together no more than MOST_PAUSES.
PAUSE, MOST_PAUSES = 0.015, 0.25
_STEPS = (1, 2, 5)


def union(intervals: Iterable[Interval], gap: float = 0.0) -> list[Interval]:
    """The maximal intervals, in order; those that are at most `gap` apart become one."""
    found: list[Interval] = []
    for start, stop in sorted(intervals):
        if found and start <= found[-1][1] + gap:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


def periods(happened: Iterable[Interval]) -> list[Interval]:
    """The times in which something happened; short pauses are a part of them."""
    found = union(happened, TOGETHER)
    return union(found, PART_TOGETHER * length(found))


def length(intervals: Iterable[Interval]) -> float:
    """The seconds of disjoint intervals."""
    return sum(stop - start for start, stop in intervals)


class Axis:
    """Maps times to [0, 1]; a pause in which nothing happened has a small part of it.

    Args:
        periods: disjoint intervals in order, in which something happened.
    """

    def __init__(self, periods: Sequence[Interval]) -> None:
        self.periods = [*periods] or [(0.0, 1.0)]
        pauses = len(self.periods) - 1
        pause = min(PAUSE, MOST_PAUSES / pauses) if pauses else 0.0
        self._scale = (1.0 - pauses * pause) / max(length(self.periods), 1e-3)
        self.pieces: list[tuple[float, float, float, float]] = []  # from, to, seconds from, to
        at = 0.0
        for start, stop in self.periods:
            end = at + max(stop - start, 1e-3 / len(self.periods)) * self._scale
            self.pieces.append((at, min(end, 1.0), start, stop))
            at = end + pause
        self._starts = [start for start, _ in self.periods]

    def at(self, time: float) -> float:
        """Where a time is; one in a pause is at the end of what was before."""
        piece = self.pieces[max(bisect_right(self._starts, time) - 1, 0)]
        left, right, start, stop = piece
        part = (time - start) / (stop - start) if stop > start else 0.0
        return left + (right - left) * min(max(part, 0.0), 1.0)

    def seconds_of(self, part: float) -> float:
        """How many seconds a part of the axis has, pauses apart."""
        return part / self._scale

    @property
    def pauses(self) -> list[tuple[float, float, float]]:
        """Where each pause is, and how many seconds it left out."""
        pairs = zip(self.pieces, self.pieces[1:], strict=False)
        return [(one[1], two[0], two[2] - one[3]) for one, two in pairs]

    def ticks(self, begins: float = 0.0, most: int = 8) -> list[tuple[float, float]]:
        """Times that are round if counted from `begins`, and where they are."""
        seconds = length(self.periods)
        step = _round_step(seconds / most)
        found: list[tuple[float, float]] = []
        for left, right, start, stop in self.pieces:
            count = math.ceil((start - begins) / step - 1e-6)
            while (time := begins + count * step) <= stop and len(found) < 10 * most:
                at = left + (right - left) * (time - start) / max(stop - start, 1e-9)
                if not found or at - found[-1][1] > 0.5 / most:
                    found.append((time, at))
                count += 1
        return found


def _round_step(least: float) -> float:
    """The least of 1, 2, 5, 10 … (also of tenths and so on) that is not less."""
    power = 1e-3
    while True:
        for factor in _STEPS:
            if factor * power >= least:
                return factor * power
        power *= 10
