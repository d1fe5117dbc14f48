"""Reused buffers for replies, so that a read costs no allocation and no zeroing.

A reply is written to the kernel by the same task right after the handler returned, before any
other task of the trio thread runs. So a buffer may go back to the pool when the handler returns:
nobody can take it before the kernel has its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from axonfs import memory

BUFFER_SIZE = 1 << 20
KEPT = 32


class ReplyBuffers:
    """A pool of `BUFFER_SIZE` buffers. Trio thread only."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    @contextmanager
    def borrowed(self, size: int) -> Iterator[memoryview]:
        """A writable view of `size` bytes, with any content.

        If the block is left while a thread still writes to it, by cancellation, the buffer is
        not used again.
        """
        whole = self._take(size)
        yield whole[:size]
        if len(whole) == BUFFER_SIZE and len(self._free) < KEPT:
            self._free.append(whole)

    def _take(self, size: int) -> memoryview:
        if size > BUFFER_SIZE:
            return memoryview(bytearray(size))
        if not self._free:
            two = memory.buffer(2 * BUFFER_SIZE)  # a large page
            self._free += [two[:BUFFER_SIZE], two[BUFFER_SIZE:]]
        return self._free.pop()
