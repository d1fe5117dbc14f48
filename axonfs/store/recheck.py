"""Reading local chunks again that nobody asked for: the scrub's way through one object.

Beside store, above objects. It reads at most what it is told and leaves the page cache as it was:
chunks that were not in it go from it again, or the bytes that readers use would make room for them.
For worker threads; the object is held.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from axonfs.formats.chunktable import ChunkTable, single_table
from axonfs.ranges import Range
from axonfs.store.health import DISK_FAULTS
from axonfs.store.objects import StoredObject


@dataclass(frozen=True, slots=True)
class Recheck:
    """What was read, in bytes, the chunks that were wrong, and where to go on (None: its end)."""

    read: int
    wrong: tuple[int, ...]
    next: int | None


def recheck(stored: StoredObject, table: ChunkTable | None, start: int, budget: int) -> Recheck:
    """Compare local chunks from `start` on, until `budget` bytes are read.

    Args:
        table: without it chunks that only the table can judge are left alone.
    """
    buffer = memoryview(bytearray(min(stored.chunk_size, stored.size)))
    read, wrong = 0, list[int]()
    if stored.present_bytes:  # else it was dropped meanwhile, and its file would be made anew
        with suppress(*DISK_FAULTS):  # the store's health has them
            stored.opened()
    if not stored.readable:
        return Recheck(0, (), None)
    for chunk in (chunk for run in stored.local(start) for chunk in range(*run)):
        if read >= budget:
            return Recheck(read, tuple(wrong), chunk)
        if stored.adopted(chunk, chunk + 1) and not (table or stored.single):
            continue
        bounds = stored.bytes_of(Range(chunk, chunk + 1))
        if _check(stored, chunk, bounds, buffer, table) is False:
            wrong.append(chunk)
        read += bounds.size
    return Recheck(read, tuple(wrong), None)


def _check(
    stored: StoredObject, chunk: int, bounds: Range, buffer: memoryview, table: ChunkTable | None
) -> bool | None:
    descriptor = stored.opened()
    cached = _is_cached(descriptor, bounds.stop - 1)
    if table is None and stored.single:
        table = single_table(stored.digest, stored.size, stored.chunk_size)
    try:
        return stored.check(chunk, buffer, table.right if table else None)
    finally:
        if not cached:
            os.posix_fadvise(descriptor, bounds.start, bounds.size, os.POSIX_FADV_DONTNEED)


def _is_cached(fd: int, offset: int) -> bool:
    """Whether the page cache has the byte; True where the file system cannot tell."""
    try:
        os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
