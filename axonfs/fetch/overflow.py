"""Verified chunks that the cache's disk did not take, for the readers that wait for them.

Beside job, below feed. The newest are kept, up to a budget: readahead's chunks until their reader
comes. Whoever waits when a chunk arrives has it from its landing, however little fits in here.
Trio thread only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from axonfs.fetch.feed import Feed

BUDGET = 64 << 20


class Overflow:
    """A pool of chunks of all feeds, at most `budget` bytes and always the newest one."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._chunks: OrderedDict[tuple[Feed, int], bytes] = OrderedDict()
        self._size = 0
        self._passed = 0

    def put(self, feed: Feed, chunk: int, data: bytes) -> None:
        """Keep a chunk, at the cost of the oldest ones."""
        self._passed += len(data)
        self._take(feed, chunk)
        self._chunks[feed, chunk] = data
        self._size += len(data)
        while self._size > self._budget and len(self._chunks) > 1:
            self._take(*next(iter(self._chunks)))

    def get(self, feed: Feed, chunk: int) -> bytes | None:
        """The chunk, if it is still here."""
        return self._chunks.get((feed, chunk))

    def forget(self, feed: Feed) -> None:
        """Drop what is here of a feed that nobody has open any more."""
        for key in [key for key in self._chunks if key[0] is feed]:
            self._take(*key)

    def statistics(self) -> dict[str, Any]:
        """Bytes in here now, and bytes that went past the disk since the mount."""
        return {"bytes": self._size, "passed": self._passed}

    def _take(self, feed: Feed, chunk: int) -> None:
        self._size -= len(self._chunks.pop((feed, chunk), b""))
