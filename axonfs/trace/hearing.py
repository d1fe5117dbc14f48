"""The opens and reads that a mount answered, as records: reads in a row become one.

Between fuse, which tells of each operation, and recording.py. Trio thread only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from axonfs.fuse.operations import COLD, PASSED_THROUGH, Finished
from axonfs.trace.events import Events
from axonfs.vfs.files import Files
from axonfs.vfs.paths import CONTROL

# Reads of one program are in a row if each begins at most NEAR bytes beside the earlier ones, since
# the kernel has several under way, and if all of them took at most ROW_SECONDS.
NEAR, ROW_SECONDS = 4 << 20, 0.05


@dataclass(slots=True)
class _Row:
    """Reads in a row. Times are in unix seconds."""

    key: tuple[int, int]  # file and program
    cold: bool
    began: float
    ended: float
    start: int
    stop: int
    size: int
    count: int
    waited: float = 0.0

    def add(self, read: Finished) -> bool:
        """Whether a read continues the row, which then has it. A thousand of them come with a GiB
        that is local, so each microsecond counts."""
        ended, _, _, offset, size, seconds = read[:6]
        began = ended - seconds
        first = self.began if self.began < began else began
        near = self.start - NEAR <= offset <= self.stop + NEAR
        if not near or ended - first > ROW_SECONDS:
            return False
        self.began = first
        if ended > self.ended:
            self.ended = ended
        if offset < self.start:
            self.start = offset
        if offset + size > self.stop:
            self.stop = offset + size
        self.size += size
        self.count += 1
        if self.cold:
            self.waited += seconds
        return True


class Hearing:
    """Puts what is heard into `events`.

    Args:
        files: the open files.
    """

    def __init__(self, events: Events, files: Files) -> None:
        self._events = events
        self._files = files
        self._ahead = 0.0  # unix seconds less those of the trio clock
        self._rows: dict[tuple[str, int, str], _Row] = {}  # by path, program and kind

    def hear(self, finished: Iterable[Finished], left_out: int) -> None:
        """Note operations in the order of their end, and how many were missed."""
        self._ahead = time.time() - trio.current_time()  # it changes if the clock is set
        for one in finished:
            if one.operation == "read" and not one.errno:
                row = self._rows.get((one.path, one.pid, one.kind))
                if row is None or not row.add(one):
                    self._begin(one)
            elif one.operation in ("open", "read"):
                self._other(one)
        for row in self._rows.values():
            self._put(row)
        self._rows.clear()
        self._events.lost(left_out)

    def _begin(self, read: Finished) -> None:
        """A row of which this read is the first."""
        if (key := self._key(read)) is None:
            return
        place = read.path, read.pid, read.kind
        if (before := self._rows.get(place)) is not None:
            self._put(before)
        began, stop = read.time - read.seconds, read.offset + read.size
        cold = read.kind == COLD
        row = _Row(key, cold, began, read.time, read.offset, stop, read.size, 1)
        row.waited = read.seconds if cold else 0.0
        self._rows[place] = row

    def _other(self, one: Finished) -> None:
        """An open, or a read that failed."""
        if (key := self._key(one)) is None:
            return
        when = self._when(one.time - one.seconds)
        if one.operation == "open":
            passed = one.kind == PASSED_THROUGH
            self._events.put(["open", when, round(one.seconds, 4), *key, passed, one.errno])
        else:
            self._events.put(["fail", when, round(one.seconds, 4), *key, one.offset, one.errno])

    def _when(self, unix: float) -> float:
        """A time as seconds since the trace began."""
        return self._events.since(unix - self._ahead)

    def _key(self, one: Finished) -> tuple[int, int] | None:
        """The numbers of file and program; None for what is no file of a model."""
        if one.path.startswith(CONTROL):
            return None
        file = self._events.file(one.path, self._files.download)
        return file, self._events.program(one.pid, one.program)

    def _put(self, row: _Row) -> None:
        took = round(row.ended - row.began, 4)
        totals = row.start, row.stop, row.size, row.count, round(row.waited, 4)
        self._events.put(["read", self._when(row.began), took, *row.key, *totals])
