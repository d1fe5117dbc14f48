"""Verified chunks that the cache's disk did not take, for the readers that wait for them.

Below download. The newest are kept, up to a budget: readahead's chunks until their reader comes. A
reader that waits when a chunk arrives has it from its landing, however little fits in here.
Trio thread only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

BUDGET = 64 << 20


class Overflow:
    """A pool of chunks of all downloads, at most `budget` bytes and always the newest one."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._chunks: OrderedDict[tuple[Hashable, int], bytes] = OrderedDict()
        self._size = 0
        self._passed = 0

    def put(self, download: Hashable, chunk: int, data: bytes) -> None:
        """Keep a chunk, at the cost of the oldest ones."""
        self._passed += len(data)
        self._take(download, chunk)
        self._chunks[download, chunk] = data
        self._size += len(data)
        while self._size > self._budget and len(self._chunks) > 1:
            self._take(*next(iter(self._chunks)))

    def get(self, download: Hashable, chunk: int) -> bytes | None:
        """The chunk, if it is still here."""
        return self._chunks.get((download, chunk))

    def forget(self, download: Hashable) -> None:
        """Drop what is here of a download that is over."""
        for key in [key for key in self._chunks if key[0] is download]:
            self._take(*key)

    def statistics(self) -> dict[str, Any]:
        """Bytes in here now, and bytes that went past the disk since the mount."""
        return {"bytes": self._size, "passed": self._passed}

    def _take(self, download: Hashable, chunk: int) -> None:
        self._size -= len(self._chunks.pop((download, chunk), b""))
