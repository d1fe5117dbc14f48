"""The opens and reads that a mount answered, as records: reads in a row become one.

Between fuse, which tells of each operation, and recording.py. Trio thread only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from axonfs.fuse.operations import COLD, PASSED_THROUGH, Finished
from axonfs.trace.events import Events
from axonfs.vfs.files import Files
from axonfs.vfs.paths import CONTROL

# Reads of one program are in a row if each begins at most so many bytes beside the earlier ones,
# since the kernel has several under way, and if all of them took so many seconds at most.
NEAR, ROW_SECONDS = 4 << 20, 0.05


@dataclass(slots=True)
class _Row:
    """Reads in a row. Times are in unix seconds."""

    began: float
    ended: float
    start: int
    stop: int
    size: int
    count: int
    waited: float

    def takes(self, read: Finished, began: float) -> bool:
        """Whether a read continues the row."""
        near = self.start - NEAR <= read.offset <= self.stop + NEAR
        cold = (self.waited > 0) == (read.kind == COLD)
        return near and cold and read.time - min(self.began, began) <= ROW_SECONDS

    def add(self, read: Finished, began: float) -> None:
        self.began = min(self.began, began)
        self.ended = max(self.ended, read.time)
        self.start = min(self.start, read.offset)
        self.stop = max(self.stop, read.offset + read.size)
        self.size += read.size
        self.count += 1
        self.waited += read.seconds if read.kind == COLD else 0.0


class Hearing:
    """Puts what is heard into `events`.

    Args:
        files: the open files.
        ahead: unix seconds at which the trace began.
    """

    def __init__(self, events: Events, files: Files, since: float) -> None:
        self._events = events
        self._files = files
        self._since = since
        self._rows: dict[tuple[int, int], _Row] = {}  # by file and program

    def hear(self, finished: Iterable[Finished], left_out: int) -> None:
        """Note operations in the order of their end, and how many were missed."""
        for one in finished:
            if one.operation == "read" and not one.errno:
                self._read(one)
            elif one.operation in ("open", "read"):
                self._other(one)
        for key in list(self._rows):
            self._end(key)
        self._events.lost(left_out)

    def _read(self, read: Finished) -> None:
        if (key := self._key(read)) is None:
            return
        began = read.time - read.seconds
        row = self._rows.get(key)
        if row is not None and not row.takes(read, began):
            self._end(key)
            row = None
        if row is None:
            row = self._rows[key] = _Row(began, began, read.offset, read.offset, 0, 0, 0.0)
        row.add(read, began)

    def _other(self, one: Finished) -> None:
        """An open, or a read that failed."""
        if (key := self._key(one)) is None:
            return
        when = round(one.time - one.seconds - self._since, 4)
        if one.operation == "open":
            passed = one.kind == PASSED_THROUGH
            self._events.put(["open", when, round(one.seconds, 4), *key, passed, one.errno])
        else:
            self._events.put(["fail", when, round(one.seconds, 4), *key, one.offset, one.errno])

    def _key(self, one: Finished) -> tuple[int, int] | None:
        """The numbers of file and program; None for what is no file of a model."""
        if one.path.startswith(CONTROL):
            return None
        file = self._events.file(one.path, self._files.download)
        return file, self._events.program(one.pid, one.program)

    def _end(self, key: tuple[int, int]) -> None:
        row = self._rows.pop(key)
        took = round(row.ended - row.began, 4)
        totals = row.start, row.stop, row.size, row.count, round(row.waited, 4)
        self._events.put(["read", round(row.began - self._since, 4), took, *key, *totals])
