"""What to fetch before it is asked for, from the pattern of one object's reads.

Pure: offsets in, byte ranges out; no I/O, no clock. One `Readahead` per object serves all its
readers, since the mount sees offsets and not who asks: each place where reads follow one another
is a cursor. A read that follows no cursor fetches nothing ahead, so a random page fault costs
its own chunk; the second read in a row starts a window that grows with each refill. The window
slides: it is filled again whenever a part of it was read, so that requests go out in a steady flow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from axonfs.ranges import Range

FIRST_WINDOW = 1 << 20
# Each refill of a new window waits for the reader, and the reader for a round trip. Fourfold growth
# takes two round trips less than doubling until a fast line with a long round trip is full.
GROWTH = 4
# Twice what a dozen streams have under way, so that they never wait for the reader to move on.
# The readers of one object share it, but for what each needs so that a refill is worth a request.
LARGEST_WINDOW = 256 << 20
SMALLEST_SHARE = 16 << 20
# What one refill asks for, as a part of the window.
REFILL = 4
# The kernel's own readahead delivers requests of one stream slightly out of order.
SLACK = 2 << 20
MAX_CURSORS = 64
# A cursor that none of this many reads followed has lost its reader.
RECENT_READS = 1024


@dataclass(slots=True)
class Cursor:
    """One stream of reads, in bytes: how far it read, how far was asked for ahead of it."""

    position: int
    issued: int
    window: int = 0
    used: int = 0


@dataclass(frozen=True, slots=True)
class Ahead:
    """What came of readahead, in bytes: asked for, come to by a reader, and never come to.

    Of an object that is whole at its end all was of use: later reads of it were not seen.
    """

    asked: int = 0
    used: int = 0
    wasted: int = 0

    def with_open(self, one: Readahead) -> Ahead:
        """With what came of an object that is in use; its reader may yet come to the rest."""
        return Ahead(self.asked + one.asked, self.used + one.used, self.wasted)

    def with_closed(self, one: Readahead, *, whole: bool) -> Ahead:
        """With what came of an object that is no longer in use."""
        added, rest = self.with_open(one), max(one.asked - one.used, 0)
        if whole:
            return replace(added, used=added.used + rest)
        return replace(added, wasted=added.wasted + rest)


class Readahead:
    """The cursors of one object of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._clock = 0
        self.read = 0  # bytes; what several readers or one again reads counts each time
        self.asked = self.used = 0  # bytes asked for ahead, and those that a reader came to
        self.cursors: list[Cursor] = []

    def near(self, unit: int, behind: int) -> set[int]:
        """The pieces of `unit` bytes that a reader is at, has asked for ahead, or left less than
        `behind` bytes ago."""
        return {
            piece
            for cursor in self.cursors
            for piece in range(
                max(0, cursor.position - behind) // unit,
                max(cursor.issued, cursor.position) // unit + 1,
            )
        }

    def on_read(
        self, offset: int, length: int, *, reads: int = 1, absent: bool = False
    ) -> Range | None:
        """The byte range to fetch ahead after a read of `[offset, offset + length)`.

        Args:
            reads: how many reads in a row it was; two already are a stream.
            absent: the read's own bytes are neither local nor on their way, so what was asked
                for ahead of them has been evicted and is asked for again.
        """
        self._clock += 1
        end = min(offset + length, self._size)
        cursor = self._follow(offset)
        if cursor is None:
            cursor = self._start(end if reads == 1 else offset)
        cursor.used = self._clock
        if end <= cursor.position:
            return None  # several readers of one place are no stream
        start = max(cursor.position, offset)
        self.read += end - start
        self.used += max(min(end, cursor.issued) - start, 0)
        cursor.position = end
        if absent or cursor.issued < end:
            cursor.issued = end
        return self._advance(cursor)

    @property
    def scattered(self) -> bool:
        """Whether readers stream the object at more than one place, so that they leave holes."""
        return sum(cursor.window > 0 for cursor in self.cursors) > 1

    def due(self, offset: int) -> int:
        """How far a reader at `offset` has to come for `on_read` to ask for more, in bytes."""
        cursor = self._follow(offset)
        if cursor is None or cursor.window == 0:
            return 0
        if cursor.issued >= self._size:
            return self._size + 1
        return cursor.issued - cursor.window + cursor.window // REFILL

    def _follow(self, offset: int) -> Cursor | None:
        near = [
            cursor
            for cursor in self.cursors
            if cursor.position - SLACK <= offset <= max(cursor.issued, cursor.position) + SLACK
        ]
        return min(near, key=lambda cursor: abs(offset - cursor.position), default=None)

    def _start(self, position: int) -> Cursor:
        if len(self.cursors) >= MAX_CURSORS:
            self.cursors.remove(min(self.cursors, key=lambda cursor: cursor.used))
        self.cursors.append(Cursor(position, position, used=self._clock))
        return self.cursors[-1]

    def _advance(self, cursor: Cursor) -> Range | None:
        cursor.window = min(cursor.window or self._first_window(), self._share())
        if cursor.issued - cursor.position > cursor.window - cursor.window // REFILL:
            return None
        start, stop = cursor.issued, min(cursor.position + cursor.window, self._size)
        if start >= stop:
            return None
        self.asked += stop - start
        cursor.issued = stop
        cursor.window = min(cursor.window * GROWTH, self._share())
        return Range(start, stop)

    def _first_window(self) -> int:
        """The first window of a stream; a larger one where another stream has grown.

        Such a reader streams the tensors of the object in an order of its own, and would pay the
        round trips of a new window for each jump.
        """
        grown = any(cursor.window >= SMALLEST_SHARE for cursor in self.cursors)
        return SMALLEST_SHARE if grown else FIRST_WINDOW

    def _share(self) -> int:
        """The largest window of each cursor that is a stream."""
        since = self._clock - RECENT_READS
        opened = sum(cursor.window > 0 and cursor.used > since for cursor in self.cursors)
        return max(LARGEST_WINDOW // max(opened, 1), SMALLEST_SHARE)
