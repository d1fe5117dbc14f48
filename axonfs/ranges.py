"""Half-open ranges and the bitmap of an object's chunks.

Pure. Every range in the program is `[start, stop)`; HTTP's inclusive form occurs only where
requests are written. Any thread may read a `Bitmap` without a lock, since each read is one
bytearray operation. Writers need a lock, since `set` and `clear` update `count` as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Range(NamedTuple):
    """`[start, stop)`, of bytes or of chunk numbers."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def chunk_span(offset: int, size: int, chunk_size: int) -> Range:
    """The chunks that hold bytes `[offset, offset + size)`; empty where `size` is 0."""
    first = offset // chunk_size
    if size <= 0:
        return Range(first, first)
    return Range(first, (offset + size - 1) // chunk_size + 1)


def chunk_range(chunk: int, chunk_size: int, object_size: int) -> Range:
    """The bytes of one chunk; the last chunk of an object may be short."""
    start = chunk * chunk_size
    return Range(min(start, object_size), min(start + chunk_size, object_size))


def runs(numbers: Iterable[int]) -> list[Range]:
    """The maximal runs of consecutive values among `numbers`, ascending; repeats count once."""
    found: list[Range] = []
    start = stop = None
    for number in sorted(numbers):
        if stop is not None and start is not None and number <= stop:
            stop = max(stop, number + 1)
            continue
        if start is not None and stop is not None:
            found.append(Range(start, stop))
        start, stop = number, number + 1
    if start is not None and stop is not None:
        found.append(Range(start, stop))
    return found


def aligned(whole: Range, unit: int) -> Iterator[Range]:
    """Split `whole` at the multiples of `unit`; the pieces come in order."""
    start = whole.start
    while start < whole.stop:
        stop = min(start - start % unit + unit, whole.stop)
        yield Range(start, stop)
        start = stop


def split(whole: Range, limit: int) -> list[Range]:
    """Split `whole` into pieces of at most `limit`, in order."""
    return [
        Range(start, min(start + limit, whole.stop))
        for start in range(whole.start, whole.stop, limit)
    ]


class Bitmap:
    """One flag per chunk.

    Each flag takes a byte rather than a bit, so that a search is one `bytearray.find`: it scans
    100,000 chunks (100 GiB) in microseconds, and 100 kB is little memory for such an object.
    """

    __slots__ = ("_bits", "_count")

    def __init__(self, size: int) -> None:
        self._bits = bytearray(size)
        self._count = 0

    def __len__(self) -> int:
        return len(self._bits)

    @property
    def count(self) -> int:
        """The number of flags that are set."""
        return self._count

    def set(self, number: int) -> None:
        if not self._bits[number]:
            self._bits[number] = 1
            self._count += 1

    def clear(self, number: int) -> None:
        if self._bits[number]:
            self._bits[number] = 0
            self._count -= 1

    def load(self, flags: bytes) -> None:
        """Replace all flags; `flags` has a byte of 0 or 1 for each."""
        if len(flags) != len(self._bits):
            raise ValueError(f"{len(flags)} flags for a bitmap of {len(self._bits)}")
        self._bits[:] = flags
        self._count = flags.count(1)

    def test(self, number: int) -> bool:
        return self._bits[number] != 0

    def all_set(self, start: int, stop: int) -> bool:
        """Whether all flags in `[start, stop)` are set; true for an empty range."""
        return self._bits.find(0, start, stop) < 0

    def next_clear(self, start: int, stop: int) -> int:
        """The first clear number in `[start, stop)`, or `stop` if all are set."""
        found = self._bits.find(0, start, stop)
        return stop if found < 0 else found

    def next_set(self, start: int, stop: int) -> int:
        """The first set number in `[start, stop)`, or `stop` if all are clear."""
        found = self._bits.find(1, start, stop)
        return stop if found < 0 else found

    def missing(self, start: int, stop: int) -> list[Range]:
        """The maximal clear runs in `[start, stop)`."""
        found = []
        while (begin := self.next_clear(start, stop)) < stop:
            start = self.next_set(begin, stop)
            found.append(Range(begin, start))
        return found

    def extents(self, start: int, stop: int) -> list[Range]:
        """The maximal set runs in `[start, stop)`."""
        found = []
        while (begin := self.next_set(start, stop)) < stop:
            start = self.next_clear(begin, stop)
            found.append(Range(begin, start))
        return found
