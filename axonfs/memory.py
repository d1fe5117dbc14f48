"""Memory for bytes that the kernel copies: in large pages, where a machine has them.

The kernel looks up every page of a buffer that it copies from or to. A cold read of 2 GiB took 5 %
less time, and 6 % less of the processor, than with pages of 4 KiB (nine rounds, interleaved).
"""

from __future__ import annotations

import mmap
from contextlib import suppress

LARGE_PAGE = 2 << 20


def buffer(size: int) -> memoryview:
    """`size` writable bytes, in large pages if that is at least one."""
    if size < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return memoryview(bytearray(size))
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    with suppress(OSError):  # a kernel may be built without
        pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)
