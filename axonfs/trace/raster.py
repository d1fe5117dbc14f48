"""Makes few rectangles of many: what a small picture cannot tell apart is drawn once.

Pure. All coordinates are parts of a panel, from 0 to 1; `y` grows downwards.
"""

from __future__ import annotations

from typing import NamedTuple

from axonfs.trace.timeline import Interval, union

# Nothing is drawn narrower than this part of the width, and narrower gaps are closed.
NARROWEST = 1 / 1200


class Rect(NamedTuple):
    """From `left` to `right`, and from `top` to `bottom`."""

    left: float
    top: float
    right: float
    bottom: float


class Raster:
    """Rectangles in `rows` rows; each keeps its sides, while tops and bottoms are rounded to rows.

    Args:
        narrowest: how wide each is at least.
    """

    def __init__(self, rows: int, narrowest: float = 0.0) -> None:
        self._narrowest = max(narrowest, NARROWEST)
        self._rows: list[list[Interval]] = [[] for _ in range(rows)]

    def add(self, left: float, right: float, top: float, bottom: float) -> None:
        """Draw from `left` to `right` in each row between `top` and `bottom`, in one at least."""
        count = len(self._rows)
        first = min(max(int(top * count), 0), count - 1)
        stop = min(max(round(bottom * count), first + 1), count)
        wide = left, max(right, left + self._narrowest)
        for row in range(first, stop):
            self._rows[row].append(wide)

    def rects(self) -> list[Rect]:
        """Few rectangles that cover what was drawn, one on top of another where rows are equal."""
        count, found = len(self._rows), []
        open_since: dict[Interval, int] = {}
        for row in range(count + 1):
            here = set(_cleaned(self._rows[row])) if row < count else set()
            for interval in [one for one in open_since if one not in here]:
                top = open_since.pop(interval)
                found.append(Rect(interval[0], top / count, interval[1], row / count))
            for interval in here - open_since.keys():
                open_since[interval] = row
        return sorted(found)


def _cleaned(intervals: list[Interval]) -> list[Interval]:
    """The union, with sides rounded, so that neighbouring rows can be joined."""
    joined = union(intervals, NARROWEST / 2)
    return [(round(left, 4), round(right, 4)) for left, right in joined]
