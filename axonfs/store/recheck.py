"""Checks local chunks of one object for the scrub.

Beside store, above objects. It reads at most a given number of bytes, and leaves the page cache as
it was: it removes the chunks that it brought in, which would displace bytes that readers use. For
worker threads; the caller holds the object.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from axonfs.formats.chunktable import ChunkTable, single_table
from axonfs.ranges import Range, runs
from axonfs.store import backing
from axonfs.store.health import DISK_FAULTS
from axonfs.store.objects import StoredObject


@dataclass(frozen=True, slots=True)
class Recheck:
    """The bytes read, the bad chunks, and the chunk where to continue (None at the end)."""

    read: int
    wrong: tuple[int, ...]
    next: int | None


def recheck(stored: StoredObject, table: ChunkTable | None, start: int, budget: int) -> Recheck:
    """Compare local chunks from `start` on, until `budget` bytes are read.

    Args:
        table: without it, chunks that need the table to be checked are skipped.
    """
    buffer = memoryview(bytearray(min(stored.chunk_size, stored.size)))
    read, wrong = 0, list[int]()
    if stored.present_bytes:  # else it was dropped meanwhile, and opening would create its file
        with suppress(*DISK_FAULTS):  # reported to the store's health
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
    """Whether the page cache has the byte; True if the file system cannot tell."""
    try:
        os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def hollow(stored: StoredObject) -> list[Range]:
    """The runs of local chunks that lie in a hole of the file. The caller holds it; blocks.

    Raises:
        NoSpaceError, OSError: the file cannot be opened.
    """
    extents = backing.data_extents(stored.opened()) if stored.present_bytes else []
    solid = set(backing.whole_chunks(extents, stored.chunk_size, stored.size))
    local = (chunk for run in stored.local() for chunk in range(*run))
    return runs(chunk for chunk in local if chunk not in solid)
