"""The digest of a whole object, made from its first chunk on while the others still come.

Below verify and download. The last chunks of an object without a chunk table are served only once
its digest was seen to match. If all of it were hashed then, a reader would wait a second for each
GiB or two.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from trio.lowlevel import RunVar

from axonfs.errors import ShortageError, shortages
from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.ranges import Range
from axonfs.store import DISK_FAULTS, StoredObject, read_all

# A smaller object is hashed when it is complete: that takes less than a turn of another thread.
SMALLEST = 16 << 20
# How often the hashing of an object begins while it comes, after what was hashed had changed.
BEGINNINGS = 3
_limiter = RunVar[trio.CapacityLimiter]("hashers")


def git_blob(size: int) -> Any:
    """The hash of a git blob of so many bytes, before the first of them."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _hashers() -> trio.CapacityLimiter:
    """Limits the threads that hash beside the transfers to half as many as processors."""
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(trio.CapacityLimiter(max(len(os.sched_getaffinity(0)) // 2, 1)))
        return _limiter.get()


class Hashing:
    """The digest of a held object, of which each chunk is hashed after the one before it.

    If a chunk that was hashed lands again, after it was given up or not, the hashing begins again.
    `follow` and `end` are called in the trio thread.

    Args:
        git: its git blob id, if the object is compared with that and not with its sha256.
    """

    def __init__(self, stored: StoredObject, git: str | None) -> None:
        self._stored = stored
        self._git = git
        self._scope: trio.CancelScope | None = None  # while it follows
        self._ended = False
        self._turn = threading.Lock()  # of what follows
        self._whole: Any = None
        self._digests = bytearray()  # of the chunks
        self._overwrites = -1  # of the object, when it began
        self._next = self._beginnings = 0

    def follow(self, nursery: trio.Nursery) -> None:
        """Have the chunks that are local hashed in a thread, up to the first one that is not.

        The caller holds the object.
        """
        if self._scope is None and self._due:
            self._scope = trio.CancelScope()
            self._stored.hold()
            nursery.start_soon(self._follow, self._scope)

    def end(self) -> None:
        """Follow no more: nobody will ask for the digest."""
        self._ended = True
        if self._scope is not None:
            self._scope.cancel()

    @property
    def _due(self) -> bool:
        stored, chunk = self._stored, self._next
        wanted = stored.size >= SMALLEST and not (stored.verified or self._ended)
        if not wanted or self._beginnings > BEGINNINGS:
            return False
        # What was hashed and given up comes again, if it does, and is hashed again.
        return chunk < stored.count and stored.present(0, chunk + 1)

    async def _follow(self, scope: trio.CancelScope) -> None:
        advance = partial(self._advance, trio.from_thread.check_cancelled)
        try:
            # `finish` meets them again.
            with scope, suppress(ShortageError, *DISK_FAULTS), shortages():
                await trio.to_thread.run_sync(advance, limiter=_hashers())
        finally:
            self._stored.release()
            self._scope = None

    def _advance(self, proceed: Callable[[], object]) -> None:
        buffer = memoryview(bytearray(self._stored.chunk_size))
        with self._turn:
            while self._due:
                proceed()
                if self._changed():
                    self._begin()
                else:
                    self._hash(buffer)

    def finish(self, proceed: Callable[[], object] = bool) -> tuple[str, ChunkTable]:
        """The digest of the whole, in hex, and the table of its chunks. Blocks.

        They are those of the bytes at the start of the call unless `StoredObject.generation` has
        changed since.

        Args:
            proceed: called before each chunk; what it raises ends the call.

        Raises:
            OSError: the disk failed, or the file is shorter.
        """
        stored, buffer = self._stored, memoryview(bytearray(self._stored.chunk_size))
        with self._turn:
            if self._changed():
                self._begin()
            while self._next < stored.count:
                proceed()
                stored.reading(self._next)
                self._hash(buffer)
            table = ChunkTable(stored.size, stored.chunk_size, bytes(self._digests))
            return self._whole.hexdigest(), table

    def _changed(self) -> bool:
        """Whether chunks that were hashed may have changed. Says that the next one is read."""
        return self._stored.reading(self._next) != self._overwrites

    def _begin(self) -> None:
        self._whole = hashlib.sha256() if self._git is None else git_blob(self._stored.size)
        self._digests.clear()
        self._next = 0
        self._beginnings += 1
        self._overwrites = self._stored.reading(0)

    def _hash(self, buffer: memoryview) -> None:
        """Hash the next chunk; other threads run meanwhile."""
        stored = self._stored
        start, stop = stored.bytes_of(Range(self._next, self._next + 1))
        view = buffer[: stop - start]
        read_all(stored.opened(), view, start)
        self._whole.update(view)
        self._digests += chunk_digest(view)
        self._next += 1
