"""Reading a file of the cache in the thread of its reader, past the session's thread.

A file that is whole and verified needs no trio. Where this process owns the cache it is frozen
while it is open, so its bytes stay as they are. Beside another owner nothing can keep them, so each
chunk is compared with its sum in the index when it is read. Any thread; blocks.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Protocol

from axonfs.ranges import chunk_range, chunk_span
from axonfs.store import Descriptor, StoredObject, read_all


class Direct(Protocol):
    """A file that is read in the caller's thread."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset` on.

        Raises:
            OSError: the disk failed, or the bytes were dropped.
        """


class FrozenFile:
    """The backing file of an object that is frozen until the file is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = Descriptor(os.dup(descriptor))  # closed with the last reference to it

    def read_into(self, offset: int, view: memoryview) -> None:
        """As `Direct`."""
        read_all(self._descriptor, view, offset)


class OwnersFile:
    """An object that is whole in the cache of another process; it is held until `release`.

    Args:
        compared: whether the owner has compared the bytes that are local now.
    """

    def __init__(self, stored: StoredObject, compared: Callable[[], bool]) -> None:
        self._stored = stored
        self._compared = compared
        self._lock = threading.Lock()  # guards the chunk that was checked last
        self._chunk = -1
        self._buffer = memoryview(bytearray(min(stored.chunk_size, stored.size)))

    def read_into(self, offset: int, view: memoryview) -> None:
        """As `Direct`."""
        stop, unit = offset + len(view), self._stored.chunk_size
        with self._lock:
            for chunk in range(*chunk_span(offset, len(view), unit)):
                bounds, data = chunk_range(chunk, unit, self._stored.size), self._checked(chunk)
                first, last = max(offset, bounds.start), min(stop, bounds.stop)
                part = data[first - bounds.start : last - bounds.start]
                view[first - offset : last - offset] = part

    def _checked(self, chunk: int) -> memoryview:
        if chunk != self._chunk:
            self._chunk = -1
            if not (self._stored.check(chunk, self._buffer) and self._compared()):
                raise OSError(errno.EIO, "the cache's owner has dropped a chunk")
            self._chunk = chunk
        return self._buffer
