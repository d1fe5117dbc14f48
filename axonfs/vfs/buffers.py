"""Reused buffers for replies, so that a read costs no allocation and no zeroing.

The task that handles a read writes the reply to the kernel right after the handler returns, before
any other task of the trio thread runs. So the handler may return its buffer to the pool: no other
task can take it before the kernel has the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from axonfs import memory

BUFFER_SIZE = 1 << 20
KEPT = 16


class ReplyBuffers:
    """A pool of `BUFFER_SIZE` buffers. Trio thread only."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    @contextmanager
    def borrowed(self, size: int) -> Iterator[memoryview]:
        """A writable view of `size` bytes, with any content.

        A block that is cancelled does not return its buffer to the pool, since a thread may still
        write to it.
        """
        whole = self._take(size)
        yield whole[:size]
        if len(whole) == BUFFER_SIZE and len(self._free) < KEPT:
            self._free.append(whole)

    def _take(self, size: int) -> memoryview:
        if size > BUFFER_SIZE:
            return memoryview(bytearray(size))
        if not self._free:
            two = memory.buffer(2 * BUFFER_SIZE)  # one huge page
            self._free += [two[:BUFFER_SIZE], two[BUFFER_SIZE:]]
        return self._free.pop()
