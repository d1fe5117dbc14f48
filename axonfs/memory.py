"""Buffers for bytes that the kernel copies, in huge pages where the machine has them.

The kernel looks up every page of a buffer that it copies from or to. A cold read of 2 GiB took 5 %
less time and 6 % less CPU time than with pages of 4 KiB (nine rounds, interleaved).
"""

from __future__ import annotations

import mmap
from contextlib import suppress

LARGE_PAGE = 2 << 20
# malloc keeps what a thread gives back for that thread: with 64 readers that was 60 MiB.
LARGE_BLOCK = 64 << 10


def buffer(size: int) -> memoryview:
    """`size` writable bytes, in huge pages if the size is at least one of them."""
    if size < LARGE_BLOCK:
        return memoryview(bytearray(size))
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    if size >= LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # the kernel may be built without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)
